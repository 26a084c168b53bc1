# Drift: what an agent did lately against its scope, its causes and its confidence.
#
# input: {"agent": {"name", "scope": [glob]},
#         "actions": {"total", "orphans", "names": [what they changed], "unlisted", "foreign": [Goal],
#                     "repeats": {"name", "target", "in_row", "in_window", "window_seconds",
#                                 "step", "steps_in_row"}},
#         "confidence": {"recent", "baseline"}, "models": {"used": [name], "allowed": [name]},
#         "spans": {"targets": {name: id}, "models", "foreign", "orphan": id, "repeated": id}}
#
# What is not known is absent. A message that names a span is linked to it.
package clearance.drift

import rego.v1

default min_actions := 20

min_actions := data.clearance.thresholds.drift_min_actions

default orphan_rate_max := 0.2

orphan_rate_max := data.clearance.thresholds.drift_orphan_rate_max

default confidence_min := 0.4

confidence_min := data.clearance.thresholds.drift_confidence_min

default confidence_drop_max := 0.3

confidence_drop_max := data.clearance.thresholds.drift_confidence_drop_max

default repeats_max := 25

repeats_max := data.clearance.thresholds.drift_repeats_max

default changes_a_minute_max := 60

changes_a_minute_max := data.clearance.thresholds.drift_changes_a_minute_max

default steps_max := 100

steps_max := data.clearance.thresholds.drift_steps_max

enough_actions if input.actions.total >= min_actions

in_scope(action) if {
	some pattern in input.agent.scope
	glob.match(pattern, ["."], action)
}

is_allowed(model) if {
	some name in input.models.allowed
	name == model
}

# " (span 00f067aa0ba902b7)", or nothing where no span is known.
shown(kind, name) := sprintf(" (span %s)", [input.spans[kind][name]]) if {
	input.spans[kind][name]
} else := ""

shown_by(kind) := sprintf(" (span %s)", [input.spans[kind]]) if {
	input.spans[kind]
} else := ""

deny contains msg if {
	input.agent.scope
	some action in input.actions.names
	not in_scope(action)
	msg := sprintf("agent %q did %q, which is outside its scope%s", [input.agent.name, action, shown("targets", action)])
}

deny contains msg if {
	input.agent.scope
	input.actions.unlisted > 0
	msg := sprintf("agent %q changed more things than can be held against its scope", [input.agent.name])
}

deny contains msg if {
	some goal in input.actions.foreign
	msg := sprintf("agent %q acted on what another Goal (%s) observed%s", [input.agent.name, goal, shown("foreign", goal)])
}

deny contains msg if {
	count(input.models.allowed) > 0
	some model in input.models.used
	not is_allowed(model)
	msg := sprintf("agent %q used model %q, which its task does not allow%s", [input.agent.name, model, shown("models", model)])
}

deny contains msg if {
	repeats := input.actions.repeats
	repeats.in_row > repeats_max
	msg := sprintf("agent %q changed %q %v times in a row upon one observation: a loop%s", [input.agent.name, repeats.target, repeats.in_row, shown_by("repeated")])
}

deny contains msg if {
	repeats := input.actions.repeats
	repeats.in_row <= repeats_max
	repeats.in_window > changes_a_minute_max
	msg := sprintf("agent %q changed %q %v times in %v s: a loop%s", [input.agent.name, repeats.target, repeats.in_window, repeats.window_seconds, shown_by("repeated")])
}

warn contains msg if {
	not input.agent.scope
	count(input.actions.names) > 0
	msg := sprintf("agent %q declares no scope, so nothing it does can be called outside", [input.agent.name])
}

warn contains msg if {
	enough_actions
	rate := input.actions.orphans / input.actions.total
	rate > orphan_rate_max
	msg := sprintf("agent %q: %v of %v actions name no observation%s", [input.agent.name, input.actions.orphans, input.actions.total, shown_by("orphan")])
}

warn contains msg if {
	repeats := input.actions.repeats
	repeats.steps_in_row > steps_max
	msg := sprintf("agent %q did %q %v times in a row upon one observation", [input.agent.name, repeats.step, repeats.steps_in_row])
}

require_approval contains msg if {
	enough_actions
	input.confidence.recent < confidence_min
	input.confidence.baseline - input.confidence.recent > confidence_drop_max
	msg := sprintf("agent %q: confidence fell from %v to %v: a human must look%s", [input.agent.name, input.confidence.baseline, input.confidence.recent, shown_by("newest")])
}

# Drift: what an agent did lately against its scope, its causes and its confidence.
#
# input: {"agent": {"name", "scope": [glob]}, "actions": {"total", "orphans", "names": [..]},
#         "confidence": {"recent", "baseline"}}
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

enough_actions if input.actions.total >= min_actions

in_scope(action) if {
	some pattern in input.agent.scope
	glob.match(pattern, ["."], action)
}

deny contains msg if {
	input.agent.scope
	some action in input.actions.names
	not in_scope(action)
	msg := sprintf("agent %q did %q, which is outside its scope", [input.agent.name, action])
}

warn contains msg if {
	not input.agent.scope
	msg := sprintf("agent %q declares no scope, so nothing it does can be called outside", [input.agent.name])
}

warn contains msg if {
	enough_actions
	rate := input.actions.orphans / input.actions.total
	rate > orphan_rate_max
	msg := sprintf("agent %q: %v of %v actions name no observation", [input.agent.name, input.actions.orphans, input.actions.total])
}

require_approval contains msg if {
	enough_actions
	input.confidence.recent < confidence_min
	input.confidence.baseline - input.confidence.recent > confidence_drop_max
	msg := sprintf("agent %q: confidence fell from %v to %v: a human must look", [input.agent.name, input.confidence.baseline, input.confidence.recent])
}

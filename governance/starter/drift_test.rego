package clearance.drift_test

import rego.v1

import data.clearance.drift

calm := {
	"agent": {"name": "a", "scope": ["tune.*", "read"]},
	"actions": {"total": 100, "orphans": 1, "names": ["tune.model", "read"]},
	"confidence": {"recent": 0.8, "baseline": 0.85},
}

test_calm_agent_passes if {
	count(drift.deny) == 0 with input as calm
	count(drift.warn) == 0 with input as calm
	count(drift.require_approval) == 0 with input as calm
}

test_outside_scope_is_denied if {
	some msg in drift.deny with input as object.union(calm, {"actions": {"names": ["delete.index"]}})
	contains(msg, "outside its scope")
}

test_missing_scope_warns if {
	some msg in drift.warn with input as {"agent": {"name": "a"}, "actions": {"total": 1, "orphans": 0, "names": ["x"]}}
	contains(msg, "declares no scope")
}

test_orphans_warn if {
	some msg in drift.warn with input as object.union(calm, {"actions": {"orphans": 30}})
	contains(msg, "30 of 100")
}

test_few_actions_do_not_warn if {
	count(drift.warn) == 0 with input as object.union(calm, {"actions": {"total": 5, "orphans": 5}})
}

test_collapse_needs_a_human if {
	count(drift.require_approval) == 1 with input as object.union(calm, {"confidence": {"recent": 0.3}})
}

test_low_but_steady_does_not if {
	count(drift.require_approval) == 0 with input as object.union(calm, {"confidence": {"recent": 0.3, "baseline": 0.4}})
}

busy := {
	"agent": {"name": "a", "scope": ["orders-*", "checkout/canary"]},
	"actions": {
		"total": 30, "orphans": 0, "names": ["orders-db", "checkout/canary"], "unlisted": 0,
		"foreign": [], "kinds": ["tune"],
		"repeats": {"name": "tune", "target": "orders-db", "in_row": 25, "in_window": 60, "window_seconds": 60},
	},
	"confidence": {"samples": 20, "recent": 0.8, "baseline_samples": 40, "baseline": 0.9},
	"models": {"used": ["small"], "allowed": ["large", "small"]},
	"spans": {
		"targets": {"users-db": "00f067aa0ba902b7"}, "models": {"huge": "00f067aa0ba902b8"},
		"foreign": {}, "repeated": "00f067aa0ba902b9", "newest": "00f067aa0ba902ba",
		"orphan": "00f067aa0ba902bb",
	},
}

test_busy_within_all_limits_passes if {
	count(drift.deny) == 0 with input as busy
	count(drift.warn) == 0 with input as busy
	count(drift.require_approval) == 0 with input as busy
}

test_outside_scope_names_the_span if {
	some msg in drift.deny with input as object.union(busy, {"actions": {"names": ["users-db"]}})
	contains(msg, "(span 00f067aa0ba902b7)")
}

test_without_scope_nothing_is_outside if {
	bare := object.union(object.remove(busy, ["agent"]), {"agent": {"name": "a"}})
	count(drift.deny) == 0 with input as bare
	count(drift.warn) == 1 with input as bare
}

test_without_scope_and_changes_nothing_is_said if {
	quiet := object.union(object.remove(busy, ["agent"]), {"agent": {"name": "a"}, "actions": {"names": []}})
	count(drift.warn) == 0 with input as quiet
}

test_more_than_is_listed_is_denied if {
	some msg in drift.deny with input as object.union(busy, {"actions": {"unlisted": 1}})
	contains(msg, "more things than")
}

test_another_goals_observation_is_denied if {
	some msg in drift.deny with input as object.union(busy, {"actions": {"foreign": ["6f1c"]}})
	contains(msg, "another Goal (6f1c)")
}

test_model_that_is_not_allowed_is_denied if {
	some msg in drift.deny with input as object.union(busy, {"models": {"used": ["huge", "small"]}})
	contains(msg, "\"huge\"")
	contains(msg, "(span 00f067aa0ba902b8)")
}

test_any_model_where_none_is_named if {
	any := object.union(object.remove(busy, ["models"]), {"models": {"used": ["huge"]}})
	count(drift.deny) == 0 with input as any
	none := object.union(busy, {"models": {"used": ["huge"], "allowed": []}})
	count(drift.deny) == 0 with input as none
}

test_a_loop_is_denied_once if {
	looping := object.union(busy, {"actions": {"repeats": {"in_row": 26, "in_window": 61}}})
	count(drift.deny) == 1 with input as looping
	some msg in drift.deny with input as looping
	contains(msg, "26 times in a row")
	contains(msg, "(span 00f067aa0ba902b9)")
}

test_changing_one_thing_all_the_time_is_denied if {
	some msg in drift.deny with input as object.union(busy, {"actions": {"repeats": {"in_window": 61}}})
	contains(msg, "61 times in 60 s")
}

test_the_same_step_over_and_over_warns if {
	some msg in drift.warn with input as object.union(busy, {"actions": {"repeats": {"step": "guess", "steps_in_row": 101}}})
	contains(msg, "\"guess\" 101 times")
	count(drift.deny) == 0 with input as object.union(busy, {"actions": {"repeats": {"step": "guess", "steps_in_row": 101}}})
}

test_unknown_confidence_says_nothing if {
	unknown := object.union(object.remove(busy, ["confidence"]), {"confidence": {"samples": 0}})
	count(drift.require_approval) == 0 with input as unknown
	first := object.union(object.remove(busy, ["confidence"]), {"confidence": {"recent": 0.1}})
	count(drift.require_approval) == 0 with input as first
}

test_thresholds_are_data if {
	count(drift.deny) == 1 with input as busy with data.clearance.thresholds.drift_repeats_max as 3
}

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

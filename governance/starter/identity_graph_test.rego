package clearance.graph_identity_test

import rego.v1

import data.clearance.graph

task(agent) := {"tasks": [{"name": "t", "agent": agent, "gpus": 0, "depends_on": []}]}

test_named_agent_with_account_passes if {
	count(graph.deny) == 0 with input as task({"name": "a", "service_account": "a"})
}

test_no_agent_is_denied if {
	some msg in graph.deny with input as {"tasks": [{"name": "t"}]}
	contains(msg, "names no agent")
}

test_no_account_is_denied if {
	some msg in graph.deny with input as task({"name": "a"})
	contains(msg, "no service account")
}

test_default_account_is_denied if {
	some msg in graph.deny with input as task({"name": "a", "service_account": "default"})
	contains(msg, "no service account")
}

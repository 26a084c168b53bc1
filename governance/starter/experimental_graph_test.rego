package clearance.experimental_graph_test

import rego.v1

import data.clearance.graph

graph_of(role, gpus) := {
	"tasks": [{"name": "t", "agent": {"name": "a", "service_account": "a", "role": role}, "gpus": gpus, "depends_on": []}],
	"cluster": {"gpus_total": 100, "gpus_in_use": 0},
}

test_two_pass if {
	count(graph.deny) == 0 with input as graph_of("experimental", 2)
}

test_three_are_denied if {
	some msg in graph.deny with input as graph_of("experimental", 3)
	contains(msg, "limited to 2 GPUs")
}

test_other_roles_pass if {
	count(graph.deny) == 0 with input as graph_of("standard", 3)
}

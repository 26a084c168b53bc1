package clearance.approval_test

import rego.v1

import data.clearance.approval
import data.clearance.graph

graph_of(gpus, asked) := {
	"goal": {"name": "g", "require_approval": asked},
	"tasks": [{"name": "t", "agent": {"name": "a", "service_account": "a", "role": "revenue-critical"}, "gpus": gpus, "depends_on": []}],
	"cluster": {"gpus_total": 100, "gpus_in_use": 0},
}

test_small_graph_needs_none if {
	count(approval.require_approval) == 0 with input as graph_of(8, false)
}

test_large_graph_needs_one if {
	some msg in approval.require_approval with input as graph_of(9, false)
	contains(msg, "asks for 9 GPUs")
}

test_author_may_ask if {
	some msg in approval.require_approval with input as graph_of(0, true)
	contains(msg, "asks for it")
}

test_graph_point_says_so_too if {
	count(graph.require_approval) == 1 with input as graph_of(0, true)
}

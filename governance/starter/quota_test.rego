package clearance.quota_test

import rego.v1

import data.clearance.graph

graph_of(role, gpus, in_use) := {
	"tasks": [{"name": "t", "agent": {"name": "a", "service_account": "a", "role": role}, "gpus": gpus, "depends_on": []}],
	"cluster": {"gpus_total": 10, "gpus_in_use": in_use},
}

test_eight_of_ten_pass if {
	count(graph.deny) == 0 with input as graph_of("standard", 8, 0)
}

test_ninth_is_kept if {
	some msg in graph.deny with input as graph_of("standard", 9, 0)
	contains(msg, "ask for 8 or less")
}

test_gpus_in_use_count if {
	some msg in graph.deny with input as graph_of("standard", 3, 6)
	contains(msg, "ask for 2 or less")
}

test_revenue_critical_may_take_all if {
	count(graph.deny) == 0 with input as graph_of("revenue-critical", 10, 0)
}

test_tasks_that_start_together_are_summed if {
	one := graph_of("standard", 5, 0).tasks[0]
	together := {"tasks": [one, object.union(one, {"name": "u"})], "cluster": {"gpus_total": 10, "gpus_in_use": 0}}
	some msg in graph.deny with input as together
	contains(msg, "need 10 GPUs")
}

test_tasks_in_sequence_are_not_summed if {
	one := graph_of("standard", 5, 0).tasks[0]
	later := object.union(one, {"name": "u", "depends_on": ["t"]})
	count(graph.deny) == 0 with input as {"tasks": [one, later], "cluster": {"gpus_total": 10, "gpus_in_use": 0}}
}

test_share_is_data if {
	some msg in graph.deny with input as graph_of("standard", 8, 0)
		with data.clearance.thresholds.reserved_gpu_share_percent as 50
	contains(msg, "ask for 5 or less")
}

test_unknown_cluster_is_denied if {
	some msg in graph.deny with input as {"tasks": graph_of("standard", 1, 0).tasks}
	contains(msg, "unknown")
}

test_no_gpu_needs_no_cluster if {
	count(graph.deny) == 0 with input as {"tasks": graph_of("standard", 0, 0).tasks}
}

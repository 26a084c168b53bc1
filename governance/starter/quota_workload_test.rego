package clearance.quota_workload_test

import data.clearance.workload
import rego.v1

pod(gpus, labels, request) := {
	"kind": "Pod",
	"metadata": {"name": "p", "labels": object.union({"agent_id": "a"}, labels)},
	"spec": {
		"serviceAccountName": "a",
		"containers": [{"name": "c", "image": "a/b:1", "resources": {"limits": {"gpu": gpus}}}],
	},
	"request": request,
}

admitted := {
	"operation": "CREATE",
	"resource": {"resource": "pods"},
	"cleared": false,
	"cluster": {"gpus_total": 10, "gpus_in_use": 6},
}

test_the_open_share_may_be_used_up if {
	count(workload.deny) == 0 with input as pod(2, {}, admitted)
}

test_the_reserved_share_is_kept if {
	some msg in workload.deny with input as pod(3, {}, admitted)
	contains(msg, "8 of 10 are open")
}

test_it_is_kept_for_revenue_critical_agents if {
	count(workload.deny) == 0 with input as pod(4, {"agent_role": "revenue-critical"}, admitted)
}

test_an_attempt_was_counted_with_its_graph if {
	count(workload.deny) == 0 with input as pod(3, {}, object.union(admitted, {"cleared": true}))
}

test_an_update_takes_no_more if {
	count(workload.deny) == 0 with input as pod(3, {}, object.union(admitted, {"operation": "UPDATE"}))
}

test_without_the_cluster_nothing_is_said if {
	count(workload.deny) == 0 with input as pod(3, {}, {"operation": "CREATE", "resource": {"resource": "pods"}})
}

test_the_share_is_a_parameter if {
	count(workload.deny) == 1 with input as pod(1, {}, admitted)
		with data.clearance.thresholds.reserved_gpu_share_percent as 40
}

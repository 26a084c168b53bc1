package clearance.experimental_workload_test

import rego.v1

import data.clearance.workload

pod(role, gpus) := {
	"kind": "Pod",
	"metadata": {"name": "p", "labels": {"agent_id": "a", "agent_role": role}},
	"spec": {"serviceAccountName": "a", "containers": [{"name": "c", "image": "app:v1", "resources": {"limits": {"gpu": gpus}}}]},
}

test_two_pass if {
	count(workload.deny) == 0 with input as pod("experimental", 2)
}

test_three_are_denied if {
	some msg in workload.deny with input as pod("experimental", 3)
	contains(msg, "limited to 2 GPUs")
}

test_other_roles_pass if {
	count(workload.deny) == 0 with input as pod("standard", 3)
}

test_containers_are_summed if {
	one := pod("experimental", 2)
	both := array.concat(one.spec.containers, [{"name": "d", "image": "app:v1", "resources": {"limits": {"gpu": 1}}}])
	some msg in workload.deny with input as object.union(one, {"spec": {"containers": both}})
	contains(msg, "asks for 3")
}

test_no_gpu_passes if {
	bare := {
		"kind": "Pod",
		"metadata": {"name": "p", "labels": {"agent_id": "a", "agent_role": "experimental"}},
		"spec": {"serviceAccountName": "a", "containers": [{"name": "c", "image": "app:v1"}]},
	}
	count(workload.deny) == 0 with input as bare
}

package clearance.workload_identity_test

import rego.v1

import data.clearance.workload

pod := {
	"kind": "Pod",
	"metadata": {"name": "p", "labels": {"agent_id": "optimizer"}},
	"spec": {"serviceAccountName": "optimizer", "containers": []},
}

with_labels(labels) := object.union(pod, {"metadata": {"name": "p", "labels": labels}})

test_own_account_and_label_pass if {
	count(workload.deny) == 0 with input as pod
}

test_default_account_is_denied if {
	some msg in workload.deny with input as object.union(pod, {"spec": {"serviceAccountName": "default"}})
	contains(msg, "default service account")
}

test_missing_account_is_denied if {
	some msg in workload.deny with input as {"kind": "Pod", "metadata": {"name": "p"}, "spec": {"containers": []}}
	contains(msg, "default service account")
}

test_missing_label_is_denied if {
	bare := {"kind": "Pod", "metadata": {"name": "p"}, "spec": {"serviceAccountName": "a", "containers": []}}
	some msg in workload.deny with input as bare
	contains(msg, "set the label agent_id to \"a\"")
}

test_foreign_label_is_denied if {
	some msg in workload.deny with input as with_labels({"agent_id": "profiler"})
	contains(msg, "make them equal")
}

test_other_kinds_pass if {
	count(workload.deny) == 0 with input as {"kind": "ConfigMap", "metadata": {"name": "c"}}
}

test_a_long_name_is_shortened if {
	account := "a-service-account-whose-name-has-rather-more-than-sixty-three-letters"
	short := "a-service-account-whos_0123456789abcdef0123456789abcdef01234567"
	count(workload.deny) == 0 with input as long_pod(account, short)
	count(workload.deny) == 1 with input as long_pod(account, replace(short, "whos_", "whom_"))
}

long_pod(account, label) := {
	"kind": "Pod",
	"metadata": {"name": "p", "labels": {"agent_id": label}},
	"spec": {"serviceAccountName": account, "containers": [{"name": "c", "image": "a/b:1"}]},
}

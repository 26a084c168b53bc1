package clearance.image_tag_test

import rego.v1

import data.clearance.workload

digest := "sha256:aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"

pod(field, image) := {
	"kind": "Pod",
	"metadata": {"name": "p", "labels": {"agent_id": "a"}},
	"spec": {"serviceAccountName": "a", field: [{"name": "c", "image": image}]},
}

test_tag_passes if {
	count(workload.deny) == 0 with input as pod("containers", "registry.local:5000/team/app:v1.2")
}

test_digest_passes if {
	count(workload.deny) == 0 with input as pod("containers", concat("@", ["team/app", digest]))
}

test_local_digest_passes if {
	count(workload.deny) == 0 with input as pod("containers", digest)
}

test_latest_with_digest_passes if {
	count(workload.deny) == 0 with input as pod("containers", concat("@", ["team/app:latest", digest]))
}

test_latest_is_denied if {
	some msg in workload.deny with input as pod("containers", "team/app:latest")
	contains(msg, "uses the tag latest")
}

test_no_tag_is_denied if {
	some msg in workload.deny with input as pod("containers", "registry.local:5000/team/app")
	contains(msg, "neither tag nor digest")
}

test_no_image_is_denied if {
	some msg in workload.deny with input as pod("containers", "")
	contains(msg, "names no image")
}

test_init_container_is_seen if {
	some msg in workload.deny with input as pod("initContainers", "team/app:latest")
	contains(msg, "latest")
}

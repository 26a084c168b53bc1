package clearance.release_evidence_test

import rego.v1

import data.clearance.release

release_of(size, evidence) := {
	"environment": "production",
	"artifact": {"digest": "sha256:b", "kind": "model", "name": "m", "size_bytes": size, "signed": true, "recalled": false},
	"evidence": evidence,
}

about(digests) := [{"predicate_type": "https://example.test/ab-test/v1", "about": digests, "signed": true}]

test_exactly_500_mb_passes if {
	count(release.deny) == 0 with input as release_of(500000000, [])
}

test_one_byte_more_is_denied if {
	some msg in release.deny with input as release_of(500000001, [])
	contains(msg, "run an A/B test")
}

test_evidence_lets_it_pass if {
	count(release.deny) == 0 with input as release_of(900000000, about(["sha256:a", "sha256:b"]))
}

test_evidence_about_another_digest_does_not if {
	count(release.deny) == 1 with input as release_of(900000000, about(["sha256:a"]))
}

test_unsigned_evidence_does_not if {
	unsigned := [object.union(about(["sha256:b"])[0], {"signed": false})]
	count(release.deny) == 1 with input as release_of(900000000, unsigned)
}

test_other_predicates_do_not if {
	other := [object.union(about(["sha256:b"])[0], {"predicate_type": "slsa-provenance"})]
	count(release.deny) == 1 with input as release_of(900000000, other)
}

test_staging_passes if {
	count(release.deny) == 0 with input as object.union(release_of(900000000, []), {"environment": "staging"})
}

test_dataset_passes if {
	count(release.deny) == 0 with input as object.union(release_of(900000000, []), {"artifact": {"kind": "dataset"}})
}

test_unknown_size_is_denied if {
	unknown := {"environment": "production", "artifact": {"digest": "sha256:b", "kind": "model", "signed": true}, "evidence": []}
	some msg in release.deny with input as unknown
	contains(msg, "is unknown")
}

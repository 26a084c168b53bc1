package clearance.release_trust_test

import rego.v1

import data.clearance.release

artifact(fields) := {
	"environment": "staging",
	"artifact": object.union({"digest": "sha256:b", "kind": "model", "signed": true, "recalled": false}, fields),
	"evidence": [],
}

test_signed_passes if {
	count(release.deny) == 0 with input as artifact({})
}

test_unsigned_is_denied if {
	some msg in release.deny with input as artifact({"signed": false})
	contains(msg, "not signed")
}

test_unknown_signature_is_denied if {
	count(release.deny) > 0 with input as {"environment": "staging", "evidence": []}
}

test_recalled_is_denied if {
	some msg in release.deny with input as artifact({"recalled": true})
	contains(msg, "recalled")
}

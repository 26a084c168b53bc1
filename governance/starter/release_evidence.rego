# No model over 500 MB in production without signed A/B evidence about exactly that digest.
package clearance.release

import rego.v1

default unproven_model_max_bytes := 500000000

unproven_model_max_bytes := data.clearance.thresholds.unproven_model_max_bytes

deny contains msg if {
	input.environment == "production"
	input.artifact.kind == "model"
	input.artifact.size_bytes > unproven_model_max_bytes
	not has_ab_evidence
	msg := sprintf(
		"model %s has %v MB, over %v MB, and no signed A/B evidence: run an A/B test of this digest first",
		[input.artifact.digest, round(input.artifact.size_bytes / 1000000), unproven_model_max_bytes / 1000000],
	)
}

deny contains msg if {
	input.environment == "production"
	input.artifact.kind == "model"
	not is_size_known
	not has_ab_evidence
	msg := sprintf("the size of model %s is unknown, so A/B evidence is needed", [object.get(input.artifact, "digest", "")])
}

is_size_known if input.artifact.size_bytes >= 0

has_ab_evidence if {
	some entry in input.evidence
	contains(entry.predicate_type, "ab-test")
	entry.signed == true
	input.artifact.digest in entry.about
}

# Only signed artifacts that nobody recalled are released, forward or back.
package clearance.release

import rego.v1

is_signed if input.artifact.signed == true

deny contains msg if {
	not is_signed
	msg := sprintf("artifact %s is not signed: push it again through the registry, which signs it", [object.get(input, ["artifact", "digest"], "without a digest")])
}

deny contains msg if {
	input.artifact.recalled == true
	msg := sprintf("artifact %s was recalled: release another digest", [input.artifact.digest])
}

# Experimental agents get at most two GPUs.
package clearance.workload

import rego.v1

default experimental_max_gpus := 2

experimental_max_gpus := data.clearance.thresholds.experimental_max_gpus

deny contains msg if {
	input.kind == "Pod"
	input.metadata.labels.agent_role == "experimental"
	gpus := sum([container.resources.limits.gpu | some container in input.spec.containers])
	gpus > experimental_max_gpus
	msg := sprintf("experimental agents limited to %v GPUs: this pod asks for %v", [experimental_max_gpus, gpus])
}

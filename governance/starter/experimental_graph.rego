# Experimental agents get at most two GPUs: said when the graph is built, before a pod exists.
package clearance.graph

import rego.v1

default experimental_max_gpus := 2

experimental_max_gpus := data.clearance.thresholds.experimental_max_gpus

deny contains msg if {
	some task in input.tasks
	task.agent.role == "experimental"
	task.gpus > experimental_max_gpus
	msg := sprintf("task %q: experimental agents limited to %v GPUs, it asks for %v", [task.name, experimental_max_gpus, task.gpus])
}

# Who must sign: a graph that its author, or its appetite for GPUs, puts before a human.
package clearance.approval

import rego.v1

default gpus_without_approval := 8

gpus_without_approval := data.clearance.thresholds.graph_gpus_without_approval

graph_gpus := sum([object.get(task, "gpus", 0) | some task in object.get(input, "tasks", [])])

require_approval contains msg if {
	graph_gpus > gpus_without_approval
	msg := sprintf("an approver must sign: the graph asks for %v GPUs, more than %v", [graph_gpus, gpus_without_approval])
}

require_approval contains msg if {
	input.goal.require_approval == true
	msg := sprintf("an approver must sign: goal %q asks for it", [object.get(input.goal, "name", "")])
}

# Quota enforced: the share kept for revenue-critical agents is kept from pods of no Goal, too.
package clearance.workload

import rego.v1

default reserved_percent := 20

reserved_percent := data.clearance.thresholds.reserved_gpu_share_percent

# Only admission knows the cluster; a pod of an attempt was counted with its graph.
deny contains msg if {
	input.kind == "Pod"
	input.request.resource.resource == "pods"
	input.request.operation == "CREATE"
	not input.request.cleared
	object.get(input.metadata, ["labels", "agent_role"], "") != "revenue-critical"
	cluster := input.request.cluster
	asked := sum([object.get(container, ["resources", "limits", "gpu"], 0) | some container in input.spec.containers])
	asked > 0
	open := floor((cluster.gpus_total * (100 - reserved_percent)) / 100)
	asked + cluster.gpus_in_use > open
	msg := sprintf(
		"this pod asks for %v GPUs with %v in use, but %v of %v are open to agents that are not revenue-critical (%v%% is kept)",
		[asked, cluster.gpus_in_use, open, cluster.gpus_total, reserved_percent],
	)
}

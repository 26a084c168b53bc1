# Quota enforced: a share of the GPUs is kept for revenue-critical agents.
package clearance.graph

import rego.v1

default reserved_percent := 20

reserved_percent := data.clearance.thresholds.reserved_gpu_share_percent

open_gpus := floor((input.cluster.gpus_total * (100 - reserved_percent)) / 100)

gpus_in_use := object.get(input, ["cluster", "gpus_in_use"], 0)

# Tasks that wait for the same tasks start together, so their GPUs are needed together.
gpus_by_start[key] contains [index, task.gpus] if {
	some index, task in input.tasks
	object.get(task, "gpus", 0) > 0
	object.get(task, ["agent", "role"], "") != "revenue-critical"
	key := concat(", ", sort(object.get(task, "depends_on", [])))
}

deny contains msg if {
	some key, wanted in gpus_by_start
	needed := sum([gpus | some [_, gpus] in wanted])
	needed + gpus_in_use > open_gpus
	msg := sprintf(
		"tasks that start %s need %v GPUs with %v in use, but %v of %v are open to agents that are not revenue-critical (%v%% is kept): ask for %v or less",
		[moment(key), needed, gpus_in_use, open_gpus, input.cluster.gpus_total, reserved_percent, max([0, open_gpus - gpus_in_use])],
	)
}

deny contains msg if {
	count(gpus_by_start) > 0
	not is_cluster_known
	msg := "the graph asks for GPUs but the cluster's number of GPUs is unknown"
}

is_cluster_known if input.cluster.gpus_total >= 0

moment("") := "at once"

moment(key) := sprintf("after %s", [key]) if key != ""

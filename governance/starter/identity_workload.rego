# Identity required: a pod runs under a service account of its own, and says so in its label.
package clearance.workload

import rego.v1

account := object.get(input.spec, "serviceAccountName", "") if input.kind == "Pod"

deny contains msg if {
	account in {"", "default"}
	msg := sprintf("pod %q runs as the default service account: set spec.serviceAccountName to the agent's own", [pod_name])
}

deny contains msg if {
	not account in {"", "default"}
	not input.metadata.labels.agent_id
	msg := sprintf("pod %q names no agent: set the label agent_id to %q", [pod_name, account])
}

deny contains msg if {
	not account in {"", "default"}
	label := input.metadata.labels.agent_id
	label != account
	msg := sprintf("pod %q: label agent_id is %q, its service account is %q: make them equal", [pod_name, label, account])
}

pod_name := object.get(object.get(input, "metadata", {}), "name", "")

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
	not names(label, account)
	msg := sprintf("pod %q: label agent_id is %q, its service account is %q: make them equal", [pod_name, label, account])
}

names(label, account) if label == account

# A label's value has 63 characters at most: of a longer name it is the first 22, `_`, and a digest
# that admission checks.
names(label, account) if {
	count(account) > 63
	count(label) == 63
	startswith(label, sprintf("%s_", [substring(account, 0, 22)]))
}

pod_name := object.get(object.get(input, "metadata", {}), "name", "")

# Identity required: every task of a graph names an agent that has a service account of its own.
package clearance.graph

import rego.v1

deny contains msg if {
	some task in input.tasks
	object.get(task, ["agent", "name"], "") == ""
	msg := sprintf("task %q names no agent: set agent.name", [task.name])
}

deny contains msg if {
	some task in input.tasks
	object.get(task, ["agent", "name"], "") != ""
	object.get(task, ["agent", "service_account"], "") in {"", "default", null}
	msg := sprintf("task %q: agent %q has no service account of its own: register one", [task.name, task.agent.name])
}

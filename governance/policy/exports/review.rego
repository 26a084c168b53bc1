# What Gatekeeper asks, in the shape the bundle's rules are written for: the object at the root, the
# pod that a workload would make beside it, `request` and `review`, and quantities as numbers.
package lib.clearance_review

# Where each kind keeps the pod it will make.
templates := {
	"CronJob": ["spec", "jobTemplate", "spec", "template"],
	"DaemonSet": ["spec", "template"],
	"Deployment": ["spec", "template"],
	"Job": ["spec", "template"],
	"PodTemplate": ["template"],
	"ReplicaSet": ["spec", "template"],
	"ReplicationController": ["spec", "template"],
	"StatefulSet": ["spec", "template"],
}

container_lists := ["containers", "initContainers", "ephemeralContainers"]

gpu_resource := `^(gpu|(nvidia|amd)\.com/gpu(\.shared)?|nvidia\.com/mig-[a-z0-9.]+|gpu\.intel\.com/(i915|xe)|habana\.ai/gaudi)$`

object_asked := object.get(input.review, "object", {})

subjects contains object_asked

subjects contains pod if {
	template := object.get(object_asked, templates[object_asked.kind], null)
	is_object(template)
	inherited := {key: object_asked.metadata[key] | some key in ["name", "namespace"]}
	pod := {
		"apiVersion": "v1",
		"kind": "Pod",
		"metadata": object.union(inherited, object.get(template, "metadata", {})),
		"spec": object.get(template, "spec", {}),
	}
}

documents contains document if {
	some subject in subjects
	counted := with_numbers(subject)
	document := object.union(counted, {
		"parameters": object.get(input, ["parameters", "parameters"], {}),
		"request": object.union(input.review, {"object": counted}),
		"review": object.union(input.review, {"object": counted}),
	})
}

spec_path(subject) := array.concat(object.get(templates, subject.kind, []), ["spec"])

with_numbers(subject) := subject if not is_object(object.get(subject, spec_path(subject), null))

with_numbers(subject) := json.patch(subject, [{
	"op": "replace",
	"path": concat("/", array.concat([""], spec_path(subject))),
	"value": object.union(spec, counted),
}]) if {
	spec := object.get(subject, spec_path(subject), null)
	is_object(spec)
	counted := {name: containers |
		some name in container_lists
		containers := [container_with_numbers(container) | some container in object.get(spec, name, [])]
		count(containers) > 0
	}
}

container_with_numbers(container) := object.union(container, {"resources": resources}) if {
	some name in ["limits", "requests"]
	object.get(container, ["resources", name], null) != null
	resources := object.union(
		side(container, "limits", gpus(container)),
		side(container, "requests", gpus(container)),
	)
} else := container

side(container, name, total) := {name: object.union(raw, counted), sprintf("%s_normalised", [name]): object.union(amounts, gpu)} if {
	raw := object.get(container, ["resources", name], {})
	amounts := numbers(raw)
	is_said := count(raw) > 0
	is_limit := name == "limits"
	is_counted(is_said, is_limit, total)
	named := {key: amounts[key] | some key, _ in amounts; regex.match(gpu_resource, key)}
	gpu := {"gpu": total | is_gpu_said(total, named)}
	counted := object.union(named, gpu)
} else := {}

is_counted(true, _, _)

is_counted(false, true, total) if total > 0

is_gpu_said(total, _) if total > 0

is_gpu_said(0, named) if count(named) > 0

# Limits and requests of a GPU ought to be alike; where they differ the larger is judged.
gpus(container) := max([gpu_sum(object.get(container, ["resources", name], {})) | some name in ["limits", "requests"]])

gpu_sum(raw) := max([sum([amount | some key, amount in amounts; key != "gpu"; regex.match(gpu_resource, key)]), object.get(amounts, "gpu", 0)]) if {
	amounts := numbers(raw)
}

numbers(raw) := {key: number(amount) | some key, amount in raw}

number(amount) := amount if is_number(amount)

number(amount) := ((to_number(parts[1]) * scale[parts[2]]) / object.get(fractions, parts[2], 1)) if {
	is_string(amount)
	[parts] := regex.find_all_string_submatch_n(`^([+-]?[0-9.]+(?:[eE][+-]?[0-9]+)?)([KMGTPE]i|[numkMGTPE]?)$`, amount, 1)
}

fractions := {"n": 1000000000, "u": 1000000, "m": 1000}

scale := {
	"": 1, "n": 1, "u": 1, "m": 1, "k": 1000, "M": 1000000,
	"G": 1000000000, "T": 1000000000000, "P": 1000000000000000, "E": 1000000000000000000,
	"Ki": 1024, "Mi": 1048576, "Gi": 1073741824, "Ti": 1099511627776,
	"Pi": 1125899906842624, "Ei": 1152921504606846976,
}

# No `latest`: an image is pinned by digest or at least by a tag that means one version.
package clearance.workload

import rego.v1

images contains {"container": container.name, "image": object.get(container, "image", "")} if {
	input.kind == "Pod"
	some field in ["containers", "initContainers", "ephemeralContainers"]
	some container in object.get(input.spec, field, [])
}

deny contains msg if {
	some item in images
	item.image == ""
	msg := sprintf("container %q names no image", [item.container])
}

deny contains msg if {
	some item in images
	item.image != ""
	not pinned(item.image)
	not tagged(item.image)
	msg := sprintf("container %q: image %q has neither tag nor digest, which means latest: pin it by digest", [item.container, item.image])
}

deny contains msg if {
	some item in images
	endswith(item.image, ":latest")
	msg := sprintf("container %q: image %q uses the tag latest: pin it by digest", [item.container, item.image])
}

pinned(image) if startswith(image, "sha256:")

pinned(image) if contains(image, "@sha256:")

# The part after the last slash, so that a registry's port is not taken for a tag.
tagged(image) if {
	segments := split(image, "/")
	contains(segments[count(segments) - 1], ":")
}

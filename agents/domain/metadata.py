"""The head every manifest has: apiVersion, kind, and `metadata` as in Kubernetes."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from agents.domain.fields import Check, Fields
from agents.domain.naming import check_label, check_label_key, check_label_value, check_no_nul

API_VERSION: Final = "orchestration.ai/v1"
DEFAULT_NAMESPACE: Final = "default"
LABELS_MAX: Final = 64
ANNOTATION_MAX: Final = 64 << 10  # characters; Kubernetes allows 256 KiB over all of them

# Written by an API server into what it hands out, so found in files saved from one.
_SERVER_FIELDS = (
    "uid",
    "resourceVersion",
    "generation",
    "creationTimestamp",
    "deletionTimestamp",
    "deletionGracePeriodSeconds",
    "managedFields",
    "finalizers",
    "ownerReferences",
    "selfLink",
)


@dataclass(frozen=True, slots=True)
class Metadata:
    """What names a resource."""

    name: str
    namespace: str = DEFAULT_NAMESPACE
    labels: Mapping[str, str] = field(default_factory=dict)
    annotations: Mapping[str, str] = field(default_factory=dict)

    def document(self) -> dict[str, Any]:
        """The `metadata` of a manifest; empty fields are left out."""
        document: dict[str, Any] = {"name": self.name, "namespace": self.namespace}
        if self.labels:
            document["labels"] = dict(self.labels)
        if self.annotations:
            document["annotations"] = dict(self.annotations)
        return document


def read_metadata(document: Fields, *, kind: str, check_name: Check) -> Metadata:
    """Read apiVersion, kind and metadata of `document`; problems are noted there."""
    for name, expected in (("apiVersion", API_VERSION), ("kind", kind)):
        found = document.text(name, is_required=True)
        if found and found != expected:
            document.refuse(name, f"must be {expected}")
    fields = document.fields("metadata", is_required=True)
    metadata = Metadata(
        name=fields.text("name", is_required=True, check=check_name),
        namespace=fields.text("namespace", default=DEFAULT_NAMESPACE, check=check_label),
        labels=fields.text_map(
            "labels",
            check_key=check_label_key,
            check_value=check_label_value,
            max_items=LABELS_MAX,
        ),
        annotations=fields.text_map(
            "annotations",
            check_key=check_label_key,
            check_value=check_no_nul,
            max_items=LABELS_MAX,
            max_length=ANNOTATION_MAX,
        ),
    )
    fields.ignore(*_SERVER_FIELDS)
    fields.close()
    return metadata

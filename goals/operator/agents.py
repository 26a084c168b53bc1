"""Agents from the cluster: each resource is a registration, once it is valid."""

from typing import Final

from agents.cluster.kubernetes.api import object_path
from agents.domain.manifest import parse_agent
from agents.domain.metadata import API_VERSION
from agents.domain.problems import ManifestError
from agents.services.registry import register_agent
from goals.operator.mirror import OPERATOR, STATUS_MANAGER, Key, Object, Resources
from goals.operator.resources import FOREIGN, condition, status_of

AGENTS: Final = "apis/orchestration.ai/v1/agents"


class AgentMirror(Resources):
    """Registers what is declared. A deleted resource leaves the registration: it is history."""

    def sync(self, key: Key) -> float | None:
        """Register one agent; seconds after which to look again, None when all is said."""
        found = self._get(key)
        if found is None or found["metadata"].get("deletionTimestamp"):
            return None
        try:
            registered = register_agent(parse_agent(_document(found)), actor=OPERATOR.actor)
        except ManifestError as error:
            self._tell(found, condition("Accepted", False, "Invalid", str(error)))
            return self._pace.refused
        accepted = condition("Accepted", True, "Registered", "")
        self._tell(found, accepted, uid=str(registered.agent.uid))
        return None

    def _tell(self, found: Object, said: dict[str, str], **more: str) -> None:
        status = {**status_of(None, found, [said]), **more}
        if (found.get("status") or {}) == status:
            return
        known = ("name", "namespace", "uid", "resourceVersion")
        metadata = {key: found["metadata"][key] for key in known}
        body = {
            "apiVersion": API_VERSION, "kind": "Agent", "metadata": metadata, "status": status,
        }  # fmt: skip
        path = object_path(AGENTS, metadata["namespace"], metadata["name"])
        self._put(self._api.apply(f"{path}/status", body, manager=STATUS_MANAGER))


def _document(found: Object) -> Object:
    """The manifest; `spec.name` is what Goals call it where that is no name for an object."""
    metadata, spec = found["metadata"], dict(found.get("spec") or {})
    annotations = metadata.get("annotations") or {}
    return {
        "apiVersion": API_VERSION,
        "kind": "Agent",
        "metadata": {
            "name": spec.pop("name", None) or metadata["name"],
            "namespace": metadata["namespace"],
            "labels": metadata.get("labels") or {},
            "annotations": {k: v for k, v in annotations.items() if not k.startswith(FOREIGN)},
        },
        "spec": spec,
    }

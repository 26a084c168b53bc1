"""How an agent's task becomes a workload: its name, its pod manifest, its environment."""

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from agents.domain.naming import GPU_RESOURCE, MODEL_ANNOTATION

LABEL_MAX = 63  # RFC 1123; also the limit of a Kubernetes label value
NAME_HASH_LENGTH = 10


def workload_name(
    *, goal: str, task: str, goal_uid: str, graph_digest: str, iteration: int, number: int
) -> str:
    """A DNS-1123 label derived from what asked for it, so that asking twice is asking once."""
    identity = f"{goal_uid}/{graph_digest}/{iteration}/{task}/{number}"
    suffix = hashlib.sha256(identity.encode()).hexdigest()[:NAME_HASH_LENGTH]
    tail = f"{iteration}-{number}-{suffix}"
    stem = re.sub(r"[^a-z0-9]+", "-", f"{goal}-{task}".lower()).strip("-")
    return f"{stem[: LABEL_MAX - len(tail) - 1].rstrip('-')}-{tail}"


@dataclass(frozen=True, slots=True)
class PodTemplate:
    """What decides how a task's pod looks; everything policy may want to judge."""

    namespace: str
    goal: str
    goal_uid: str
    task: str
    agent: str
    role: str
    service_account: str
    image: str
    command: tuple[str, ...]
    gpus: int
    memory_bytes: int | None
    labels: Mapping[str, str]
    models: tuple[str, ...] = ()  # it may use, the preferred first; none named, none limited
    # Of the pod and of its container; None where attempts are no pods.
    security: tuple[Mapping[str, Any], Mapping[str, Any]] | None = None

    def document(self) -> dict[str, Any]:
        """The Kubernetes Pod of the task, as admission would see it."""
        limits: dict[str, Any] = {}
        if self.gpus:
            limits[GPU_RESOURCE] = self.gpus
        if self.memory_bytes:
            limits["memory"] = str(self.memory_bytes)
        labels = {
            **self.labels,
            "agent_id": self.service_account,
            "agent_role": self.role,
            "orchestration.ai/goal": self.goal,
            "orchestration.ai/task": self.task,
            "orchestration.ai/agent": self.agent,
        }
        annotations = {"orchestration.ai/goal-uid": self.goal_uid}
        if self.models:
            annotations[MODEL_ANNOTATION] = self.models[0]
        container: dict[str, Any] = {
            "name": "agent",
            "image": self.image,
            "command": list(self.command),
            "resources": {"limits": limits, "requests": dict(limits)},
        }
        spec: dict[str, Any] = {
            "serviceAccountName": self.service_account,
            "restartPolicy": "Never",
            "containers": [container],
        }
        if self.security is not None:
            pod_security, container_security = self.security
            spec["securityContext"] = dict(pod_security)
            container["securityContext"] = dict(container_security)
        return {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {
                "name": re.sub(r"[^a-z0-9-]+", "-", f"{self.goal}-{self.task}".lower()),
                "namespace": self.namespace,
                "labels": labels,
                "annotations": annotations,
            },
            "spec": spec,
        }

"""The Job and the Secret that an attempt becomes."""

import math
from dataclasses import dataclass
from typing import Any, Final

from agents.cluster.base import WorkloadSpec
from agents.cluster.kubernetes.credentials import token_mounts, token_volumes
from agents.cluster.kubernetes.kueue import QUEUE
from agents.cluster.kubernetes.record import GOAL_UID, METER, RECORD, WORKLOAD, Record
from agents.cluster.security import security_contexts
from agents.domain.naming import GPU_RESOURCE, MODEL_ANNOTATION, MODEL_VARIABLE

Object = dict[str, Any]

TERMINATION_SECONDS: Final = 5
# An ended Job is kept at least so long, whatever people ask for: whoever reads it into the database
# may have been down, and an attempt whose Job is gone before that is lost.
KEEP_LEAST_SECONDS: Final = 3600
# A pod may wait so long for a node and its image before the backstop counts against it.
PENDING_SECONDS: Final = 900
# Attempts are looked at every 2 s: so long after its allowance a pod is still suspended by us, and
# can be resumed after a grant; what the backstop ends has failed.
LATE_SECONDS: Final = 3


def labels(spec: WorkloadSpec) -> dict[str, str]:
    """Labels of everything that belongs to the attempt."""
    return {
        **spec.labels,
        "app.kubernetes.io/managed-by": "clearance",
        WORKLOAD: spec.name,
        "agent_id": spec.service_account,
        "orchestration.ai/agent": spec.agent,
        "orchestration.ai/task": spec.task,
        "orchestration.ai/attempt": spec.attempt_uid,
        GOAL_UID: spec.goal_uid,
    }


def secret(spec: WorkloadSpec, *, digest: str) -> Object:
    """The attempt's environment: it may hold secrets, and a Job is read by more people."""
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {
            "name": spec.name,
            "labels": labels(spec),
            "annotations": {"orchestration.ai/spec": digest},
        },
        "type": "Opaque",
        "immutable": True,
        "stringData": dict(spec.environment),
    }


@dataclass(frozen=True, slots=True)
class Terms:
    """What whoever runs the cluster says of all attempts in it; no author of an agent can."""

    # Ended Jobs are kept so long for people to look at.
    keep_seconds: int = 24 * 3600
    # Where images may run as root, with the capabilities that the container runtime gives.
    root_namespaces: frozenset[str] = frozenset()

    @property
    def kept_seconds(self) -> int:
        """After how long the cluster removes an ended Job."""
        return max(self.keep_seconds, KEEP_LEAST_SECONDS)


USUAL_TERMS: Final = Terms()


def job(
    spec: WorkloadSpec, record: Record, *, queue: str = "", terms: Terms = USUAL_TERMS
) -> Object:
    """One pod that is never tried again by the cluster: attempts are ours to count.

    With a queue it starts suspended: Kueue says when it runs.
    """
    queued = {QUEUE: queue} if queue else {}
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {
            "name": spec.name,
            "labels": {**labels(spec), **queued},
            "annotations": {RECORD: record.annotation()},
        },
        "spec": {
            "suspend": bool(queue) or spec.gpu_allowance_ms == 0,
            "backoffLimit": 0,
            "completions": 1,
            "parallelism": 1,
            "podReplacementPolicy": "Failed",  # never two at once
            "ttlSecondsAfterFinished": terms.kept_seconds,
            "activeDeadlineSeconds": backstop_seconds(record, waited_seconds=PENDING_SECONDS),
            "template": _template(spec, is_root=spec.namespace in terms.root_namespaces),
        },
    }


def backstop_seconds(record: Record, *, waited_seconds: float = 0.0) -> int | None:
    """After how long the cluster ends the Job without us; counted from its (re)start.

    The allowance and the deadline in running seconds that are left, and what the pod waited
    before it ran. None when the attempt has neither. At least one second: zero ends it unseen.
    """
    left = []
    if record.allowance_ms is not None and record.gpus:
        left.append(record.allowance_ms / record.gpus / 1000 + LATE_SECONDS)
    if record.deadline_seconds is not None:
        left.append(record.deadline_seconds)
    if not left:
        return None
    return max(1, math.ceil(min(left) - record.stopped_total_ms / 1000 + waited_seconds))


def _template(spec: WorkloadSpec, *, is_root: bool) -> Object:
    pod_security, container_security = security_contexts(is_root=is_root)
    limits: Object = {}
    priority = {"priorityClassName": spec.priority_class} if spec.priority_class else {}
    if spec.gpus:
        limits[GPU_RESOURCE] = str(spec.gpus)
    if spec.memory_bytes:
        limits["memory"] = str(spec.memory_bytes)
    model = spec.environment.get(MODEL_VARIABLE)
    noted = {"annotations": {MODEL_ANNOTATION: model}} if model else {}
    return {
        "metadata": {"labels": labels(spec), "finalizers": [METER], **noted},
        "spec": {
            "serviceAccountName": spec.service_account,
            "automountServiceAccountToken": False,
            "restartPolicy": "Never",
            "terminationGracePeriodSeconds": TERMINATION_SECONDS,
            "securityContext": pod_security,
            **priority,
            "volumes": token_volumes(spec),
            "containers": [
                {
                    "name": "agent",
                    "image": spec.image,
                    "command": list(spec.command),
                    "envFrom": [{"secretRef": {"name": spec.name}}],
                    "volumeMounts": token_mounts(spec),
                    "resources": {"limits": limits, "requests": dict(limits)},
                    "securityContext": container_security,
                }
            ],
        },
    }

"""From objects of the API server to facts; anything may be missing from them."""

import re
from collections.abc import Mapping, Sequence
from typing import Any, Final
from uuid import UUID

from agents.cluster.kubernetes.reading import instant, is_over
from agents.cluster.kubernetes.record import GOAL_UID, METER, WORKLOAD
from agents.domain.naming import GPU_RESOURCE
from agents.survey.domain import SYSTEM_NAMESPACES, Holder, Kind, NodeFact, PodFact, PodState

Object = Mapping[str, Any]

PRODUCT_LABEL: Final = "nvidia.com/gpu.product"  # GPU feature discovery
HASH_LABEL: Final = "pod-template-hash"  # of a Deployment's pods; its ReplicaSet's name ends so
MIG_PREFIX: Final = "nvidia.com/mig-"
SHARED: Final = "nvidia.com/gpu.shared"
PRODUCT: Final = "clearance"
PRODUCT_LABELS: Final = ("app.kubernetes.io/part-of", "app.kubernetes.io/name")
# The labels under which NVIDIA's chart and operator run dcgm-exporter.
EXPORTERS: Final = {
    "app.kubernetes.io/name": "dcgm-exporter",
    "app": "nvidia-dcgm-exporter",
}
EXPORTER_PORT: Final = 9400
# A CronJob names a Job after itself and the minute it was due, counted since 1970.
CRON_NAME: Final = re.compile(r"(.+)-\d{8}")
CRASHING: Final = "CrashLoopBackOff"
IMAGES_KEPT: Final = 8
TEXT_MAX: Final = 200
VARIABLES_KEPT: Final = 200


def read_node(found: Object) -> NodeFact:
    """A node and the GPUs it offers."""
    metadata, status = found["metadata"], found.get("status") or {}
    conditions = status.get("conditions") or []
    return NodeFact(
        name=metadata["name"],
        gpus=gpu_resources(status.get("allocatable") or {}),
        product=str((metadata.get("labels") or {}).get(PRODUCT_LABEL, "")),
        is_ready=any(one.get("type") == "Ready" and one.get("status") == "True"
                     for one in conditions),
    )  # fmt: skip


def gpu_resources(amounts: Mapping[str, Any]) -> dict[str, int]:
    """GPU resources of a list of amounts, those of which there are any."""
    found = {}
    for name, amount in amounts.items():
        if name in (GPU_RESOURCE, SHARED) or name.startswith(MIG_PREFIX):
            text = str(amount)
            if text.isascii() and text.isdigit() and int(text):
                found[name] = int(text)
    return found


def read_pod(found: Object) -> PodFact:
    """A pod, under the workload that it is known by."""
    metadata, spec, status = found["metadata"], found.get("spec") or {}, found.get("status") or {}
    labels = metadata.get("labels") or {}
    state = _state(status)
    holder = holder_of(metadata)
    containers = spec.get("containers") or []
    return PodFact(
        uid=metadata["uid"],
        namespace=metadata["namespace"],
        name=metadata["name"],
        holder=holder,
        workload=str(labels.get(WORKLOAD, "")),
        is_system=is_system(metadata),
        node=spec.get("nodeName") or "",
        state=state,
        reason=_reason(status) if state != PodState.RUNNING else "",
        gpus=_requested(spec),
        service_account=spec.get("serviceAccountName") or "default",
        images=tuple(str(one.get("image", ""))[:TEXT_MAX] for one in containers[:IMAGES_KEPT]),
        variables=variable_names(containers) if holder.kind == Kind.POD else (),
        started_at=instant(status.get("startTime")),
        exporter=_exporter(labels, spec, status),
        unmetered=_unmetered(found),
    )


def _unmetered(found: Object) -> str:
    """The Goal that waits for this pod to be metered, "" when none does."""
    metadata = found["metadata"]
    text = str((metadata.get("labels") or {}).get(GOAL_UID, ""))
    if METER not in (metadata.get("finalizers") or []) or not is_over(found):
        return ""
    try:
        return str(UUID(text))
    except ValueError:
        return ""  # somebody else's, under our label


def is_system(metadata: Object) -> bool:
    """Whether it belongs to the cluster itself, or to this product."""
    labels = metadata.get("labels") or {}
    return metadata.get("namespace") in SYSTEM_NAMESPACES or any(
        labels.get(name) == PRODUCT for name in PRODUCT_LABELS
    )


def holder_of(metadata: Object) -> Holder:
    """The workload whose pod this is, seen through ReplicaSets and the Jobs of CronJobs."""
    namespace = metadata["namespace"]
    owner = next(
        (one for one in metadata.get("ownerReferences") or [] if one.get("controller")), None
    )
    if owner is None:
        return Holder(Kind.POD, namespace, metadata["name"])
    kind, name = str(owner.get("kind", "")), str(owner.get("name", ""))
    suffix = str((metadata.get("labels") or {}).get(HASH_LABEL, ""))
    if kind == "ReplicaSet" and suffix and name.endswith(f"-{suffix}"):
        return Holder(Kind.DEPLOYMENT, namespace, name.removesuffix(f"-{suffix}"))
    if kind == Kind.JOB and (due := CRON_NAME.fullmatch(name)):
        return Holder(Kind.CRON_JOB, namespace, due[1])
    return Holder(kind, namespace, name)


def _state(status: Object) -> PodState:
    match status.get("phase"):
        case "Succeeded":
            return PodState.SUCCEEDED
        case "Failed":
            return PodState.FAILED
        case "Running":
            # It starts over and over; its GPUs stay its own meanwhile.
            return PodState.PENDING if _reason(status) == CRASHING else PodState.RUNNING
    return PodState.PENDING


def _reason(status: Object) -> str:
    """What keeps it from running, in the cluster's own word."""
    if status.get("reason"):
        return str(status["reason"])[:TEXT_MAX]
    for container in status.get("containerStatuses") or []:
        state = container.get("state") or {}
        for one in (state.get("waiting"), state.get("terminated")):
            if one and one.get("reason"):
                return str(one["reason"])[:TEXT_MAX]
    for condition in status.get("conditions") or []:
        if condition.get("type") == "PodScheduled" and condition.get("status") == "False":
            return str(condition.get("reason", ""))[:TEXT_MAX]
    return ""


def _requested(spec: Object) -> dict[str, int]:
    """GPUs of a pod: of its containers together, or of the greediest that runs before them."""
    containers = spec.get("containers") or []
    total: dict[str, int] = {}
    for one in containers:
        for name, count in _limits(one).items():
            total[name] = total.get(name, 0) + count
    for one in spec.get("initContainers") or []:
        for name, count in _limits(one).items():
            total[name] = max(total.get(name, 0), count)
    return total


def _limits(container: Object) -> dict[str, int]:
    return gpu_resources((container.get("resources") or {}).get("limits") or {})


def variable_names(containers: Sequence[Object]) -> tuple[str, ...]:
    """Names of the variables that containers are given; values are never looked at."""
    names = {
        str(one.get("name", ""))[:TEXT_MAX]
        for container in containers
        for one in container.get("env") or []
    }
    return tuple(sorted(names))[:VARIABLES_KEPT]


def _exporter(labels: Object, spec: Object, status: Object) -> str:
    if not any(labels.get(name) == value for name, value in EXPORTERS.items()):
        return ""
    ports: Sequence[Object] = [
        port for one in spec.get("containers") or [] for port in one.get("ports") or []
    ]
    named = [port for port in ports if port.get("name") == "metrics"] or list(ports)
    port = named[0].get("containerPort", EXPORTER_PORT) if named else EXPORTER_PORT
    return f"{status.get('podIP') or ''}:{port}"

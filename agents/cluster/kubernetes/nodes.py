"""The GPUs of a cluster's nodes, from what they offer and what pods ask for."""

from typing import Any, Final

from agents.cluster.base import Gpu
from agents.cluster.kubernetes.api import KubernetesApi
from agents.cluster.kubernetes.reading import is_over
from agents.cluster.kubernetes.record import WORKLOAD
from agents.domain.naming import GPU_RESOURCE

Object = dict[str, Any]

PODS: Final = "api/v1/pods"


def gpu_count(api: KubernetesApi) -> int:
    """How many GPUs all nodes offer together."""
    return sum(_offered(node) for node in api.items("/api/v1/nodes"))


def gpu_slots(api: KubernetesApi) -> list[Gpu]:
    """Every GPU that nodes offer and the workload, or foreign pod, that has it."""
    held: dict[str, list[tuple[str, str]]] = {}
    busy = "status.phase!=Succeeded,status.phase!=Failed"
    for pod in api.items(f"/{PODS}", fieldSelector=busy):
        node = (pod.get("spec") or {}).get("nodeName")
        if node and not is_over(pod):
            owner = (pod["metadata"].get("labels") or {}).get(WORKLOAD) or (
                f"{pod['metadata']['namespace']}/{pod['metadata']['name']}"
            )
            for index in range(_requested(pod)):
                slot = slot_id(node, pod["metadata"]["uid"], index)
                held.setdefault(node, []).append((slot, owner))
    found = []
    for node in api.items("/api/v1/nodes"):
        name = node["metadata"]["name"]
        offered = _offered(node)
        kind = (node["metadata"].get("labels") or {}).get("nvidia.com/gpu.product", "GPU")
        taken = held.get(name, [])
        for index in range(max(offered, len(taken))):
            slot, owner = taken[index] if index < len(taken) else (f"{name}/free-{index}", "")
            found.append(Gpu(slot, name, kind, is_measured=False, held_by=owner))
    return found


def slot_id(node: str, pod_uid: str, index: int) -> str:
    """Names a GPU by who has it: which card it is, the API does not tell."""
    return f"{node}/{pod_uid[:8]}-{index}"


def _offered(node: Object) -> int:
    return int(((node.get("status") or {}).get("allocatable") or {}).get(GPU_RESOURCE, 0))


def _requested(pod: Object) -> int:
    containers = (pod.get("spec") or {}).get("containers") or []
    limits = [(one.get("resources") or {}).get("limits") or {} for one in containers]
    return sum(int(one.get(GPU_RESOURCE, 0)) for one in limits)

"""The pods of a Job: ended when it is suspended, let go when they are metered."""

import contextlib
from collections.abc import Iterable
from typing import Any, Final

from agents.cluster.kubernetes.api import (
    KubernetesApi,
    ObjectAbsent,
    ObjectConflict,
    ObjectRefused,
    object_path,
)
from agents.cluster.kubernetes.nodes import PODS
from agents.cluster.kubernetes.reading import is_ending, is_over
from agents.cluster.kubernetes.record import METER

Object = dict[str, Any]

# Finalizer of the Job controller: it counts pods that end with it (Kubernetes, "Job").
TRACKING: Final = "batch.kubernetes.io/job-tracking"


def stop_pods(api: KubernetesApi, pods: Iterable[Object]) -> None:
    """End the pods of a Job that was just suspended, as its controller is about to.

    That one has 20 requests a second for all Jobs (kube-api-qps): when many limits are reached at
    once, pods would run on for seconds. What fails here, or is cut off, it does.
    """
    for pod in pods:
        if is_over(pod) or is_ending(pod):
            continue
        metadata = pod["metadata"]
        path = object_path(PODS, metadata["namespace"], metadata["name"])
        try:
            # First, as the controller does: a pod that it tracks would count as failed.
            _drop_finalizer(api, pod, TRACKING)
            api.delete(path, preconditions={"uid": metadata["uid"]})
        except (ObjectConflict, ObjectAbsent, ObjectRefused):
            continue


def release_pod(api: KubernetesApi, pod: Object) -> None:
    """Let a metered pod go."""
    with contextlib.suppress(ObjectAbsent, ObjectConflict):  # gone, or seen by the next look
        _drop_finalizer(api, pod, METER)


def _drop_finalizer(api: KubernetesApi, pod: Object, finalizer: str) -> None:
    """Only if the pod is as it was seen. Raises ObjectAbsent, ObjectConflict."""
    metadata = pod["metadata"]
    finalizers = metadata.get("finalizers") or []
    if finalizer not in finalizers:
        return
    change = {
        "metadata": {
            "resourceVersion": metadata["resourceVersion"],
            "finalizers": [one for one in finalizers if one != finalizer],
        }
    }
    api.merge(object_path(PODS, metadata["namespace"], metadata["name"]), change)

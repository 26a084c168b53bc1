"""AdmissionReviews as the API server sends them."""

import itertools
from typing import Any

OWN = "system:serviceaccount:clearance:worker"
JOB_CONTROLLER = "system:serviceaccount:kube-system:job-controller"
GROUPS = {"Pod": "", "Job": "batch", "CronJob": "batch", "Goal": "orchestration.ai"}
IMAGE = "registry.example/agents/optimizer:1.0"
numbers = itertools.count(1)


def pod(**changes: Any) -> dict[str, Any]:
    """A pod that the starter bundle lets in; `labels`, `gpus`, `image`, `account` change it."""
    labels = {"agent_id": "optimizer", **changes.pop("labels", {})}
    limits = {"nvidia.com/gpu": str(changes.pop("gpus"))} if "gpus" in changes else {}
    container = {
        "name": "agent", "image": changes.pop("image", IMAGE), "resources": {"limits": limits},
    }  # fmt: skip
    spec = {"serviceAccountName": changes.pop("account", "optimizer"), "containers": [container]}
    metadata = {"name": "agent", "namespace": "shop", "labels": labels}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": {**spec, **changes}}


def job(template: dict[str, Any], *, labels: dict[str, str] | None = None) -> dict[str, Any]:
    """A Job that makes such pods."""
    inner = {"metadata": {"labels": template["metadata"]["labels"]}, "spec": template["spec"]}
    metadata = {"name": "tune-1", "namespace": "shop", "labels": labels or {}}
    return {
        "apiVersion": "batch/v1", "kind": "Job", "metadata": metadata, "spec": {"template": inner},
    }  # fmt: skip


def review(found: dict[str, Any], **changes: Any) -> dict[str, Any]:
    """A review of that object: `before` makes it an UPDATE; `user`, `dryRun`, `manager`, `uid`."""
    before = changes.pop("before", None)
    kind = found["kind"]
    group, resource = GROUPS.get(kind, "apps"), kind.lower() + "s"
    request = {
        "uid": changes.pop("uid", f"review-{next(numbers)}"),
        "kind": {"group": group, "version": "v1", "kind": kind},
        "resource": {"group": group, "version": "v1", "resource": resource},
        "name": found["metadata"]["name"],
        "namespace": found["metadata"]["namespace"],
        "operation": "UPDATE" if before else "CREATE",
        "userInfo": {"username": changes.pop("user", "alice"), "extra": {"token": ["secret"]}},
        "object": found,
        "oldObject": before,
        "dryRun": False,
        "options": {"fieldManager": changes.pop("manager", "kubectl")},
        **changes,
    }
    return {"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "request": request}

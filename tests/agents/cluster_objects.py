"""Objects as an API server lists them, and lists of them that a scan can read."""

from collections.abc import Iterator
from typing import Any
from uuid import NAMESPACE_DNS, uuid5

from agents.cluster.kubernetes.api import ObjectRefused
from agents.survey.domain import PodFact
from agents.survey.reading import read_pod

Object = dict[str, Any]
RBAC = "/apis/rbac.authorization.k8s.io/v1"
PATHS = {
    "Deployment": "/apis/apps/v1/deployments",
    "StatefulSet": "/apis/apps/v1/statefulsets",
    "DaemonSet": "/apis/apps/v1/daemonsets",
    "Job": "/apis/batch/v1/jobs",
    "CronJob": "/apis/batch/v1/cronjobs",
    "ServiceAccount": "/api/v1/serviceaccounts",
    "Role": f"{RBAC}/roles",
    "ClusterRole": f"{RBAC}/clusterroles",
    "RoleBinding": f"{RBAC}/rolebindings",
    "ClusterRoleBinding": f"{RBAC}/clusterrolebindings",
}


class Listed:
    """Objects by kind; a path in `refused` may not be listed."""

    def __init__(self, *objects: Object) -> None:
        self.objects = list(objects)
        self.refused: set[str] = set()

    def pages_at(self, path: str) -> Iterator[tuple[list[Object], str]]:
        if path in self.refused:
            raise ObjectRefused(f"may not list {path}")
        found = [one for one in self.objects if PATHS[one["kind"]] == path]
        for start in range(0, max(len(found), 1), 2):
            yield found[start : start + 2], "7"


def meta(name: str, *, namespace: str = "team-b", **more: Any) -> Object:
    uid = str(uuid5(NAMESPACE_DNS, f"{namespace}/{name}"))
    return {"name": name, "namespace": namespace, "uid": uid, **more}


def template(
    *,
    image: str = "registry.example/web:1",
    env: tuple[str, ...] = (),
    gpus: int = 0,
    account: str = "",
    command: tuple[str, ...] = (),
) -> Object:
    """A pod's template; every variable has a value that must never be seen."""
    container: Object = {"name": "main", "image": image}
    if env:
        container["env"] = [{"name": name, "value": "sk-never-to-be-seen"} for name in env]
    if gpus:
        container["resources"] = {"limits": {"nvidia.com/gpu": str(gpus), "memory": "2Gi"}}
    if command:
        container["command"] = list(command)
    spec: Object = {"containers": [container]}
    if account:
        spec["serviceAccountName"] = account
    return {"spec": spec}


def workload(
    kind: str, name: str, *, namespace: str = "team-b", labels: Any = None, **more: Any
) -> Object:
    """A Deployment, StatefulSet, DaemonSet or Job."""
    metadata = meta(name, namespace=namespace, labels=labels or {})
    return {"kind": kind, "metadata": metadata, "spec": {"template": template(**more)}}


def cron(name: str, schedule: str, *, namespace: str = "team-b", **more: Any) -> Object:
    """A CronJob."""
    spec = {"schedule": schedule, "jobTemplate": {"spec": {"template": template(**more)}}}
    return {"kind": "CronJob", "metadata": meta(name, namespace=namespace), "spec": spec}


def account(name: str, *, namespace: str = "team-b") -> Object:
    return {"kind": "ServiceAccount", "metadata": meta(name, namespace=namespace)}


def role(name: str, *rules: Object, namespace: str = "team-b") -> Object:
    return {"kind": "Role", "metadata": meta(name, namespace=namespace), "rules": list(rules)}


def bound(
    name: str, *, to: str, namespace: str = "team-b", kind: str = "Role", everywhere: bool = False
) -> Object:
    """A binding of the role `name` to a service account."""
    subject = {"kind": "ServiceAccount", "name": to, "namespace": namespace}
    return {
        "kind": "ClusterRoleBinding" if everywhere else "RoleBinding",
        "metadata": meta(name, namespace=namespace),
        "roleRef": {"kind": kind, "name": name},
        "subjects": [subject],
    }


def pod(
    name: str, *, namespace: str = "team-b", owner: tuple[str, str] | None = None, node: str = "",
    phase: str = "Running", gpus: int = 0, labels: Any = None, resource: str = "nvidia.com/gpu",
    **status: Any,
) -> Object:  # fmt: skip
    """A pod; `owner` is the kind and name of its controller."""
    metadata = meta(name, namespace=namespace, labels=labels or {})
    if owner:
        metadata["ownerReferences"] = [{"kind": owner[0], "name": owner[1], "controller": True}]
    container: Object = {"name": "main", "image": "registry.example/web:1"}
    if gpus:
        container["resources"] = {"limits": {resource: str(gpus)}}
    spec = {"containers": [container], "nodeName": node, "serviceAccountName": "runner"}
    return {"metadata": metadata, "spec": spec, "status": {"phase": phase, **status}}


def pods(*objects: Object) -> list[PodFact]:
    return [read_pod(one) for one in objects]

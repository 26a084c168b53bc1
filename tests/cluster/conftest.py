"""One control plane for all tests of this folder, and a clean namespace for each."""

import itertools
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from agents.cluster.base import Cluster, WorkloadPhase, WorkloadSpec, WorkloadStatus
from agents.cluster.kubernetes.api import KubernetesApi
from agents.cluster.kubernetes.cluster import KubernetesCluster
from agents.cluster.security import security_contexts
from tests.cluster.control_plane import (
    CONTEXT,
    ControlPlane,
    MissingControlPlane,
    Refusal,
    control_plane,
)
from tests.towers import Tower

PATIENCE_SECONDS = 180.0  # the collector of pods alone takes up to 80 to miss a node
MERGE = "application/merge-patch+json"
APPLY = "application/apply-patch+yaml"
ROOT = Path(__file__).resolve().parents[2]
numbers = itertools.count(1)


@pytest.fixture(scope="session")
def plane(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ControlPlane]:
    """A control plane with two nodes of two GPUs."""
    try:
        with control_plane(tmp_path_factory.mktemp("control-plane")) as running:
            for name in ("node-a", "node-b"):
                running.add_node(name, gpus=2)
                until_takes_pods(running, name)
            yield running
    except MissingControlPlane as missing:
        pytest.skip(str(missing))


def until_takes_pods(plane: ControlPlane, node: str) -> None:
    """Until the node is ready and the controllers have taken their taint off it."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while True:
        found = plane.request("GET", f"/api/v1/nodes/{node}")
        conditions = found.get("status", {}).get("conditions") or []
        is_ready = any(one["type"] == "Ready" and one["status"] == "True" for one in conditions)
        if is_ready and not found["spec"].get("taints"):
            return
        assert time.monotonic() < deadline, f"{node} stayed {found}"
        time.sleep(0.1)


def install_resources(plane: ControlPlane) -> None:
    """Apply the custom resources by server-side apply, and wait until they are served."""
    for path in sorted((ROOT / "deploy" / "crds").glob("*.yaml")):
        document = yaml.safe_load(path.read_text())
        name = document["metadata"]["name"]
        url = f"/apis/apiextensions.k8s.io/v1/customresourcedefinitions/{name}"
        query = "?fieldManager=tests&force=true&fieldValidation=Strict"
        plane.request("PATCH", url + query, document, content_type=APPLY)
        deadline = time.monotonic() + PATIENCE_SECONDS
        while not _is_established(plane.request("GET", url)):
            assert time.monotonic() < deadline
            time.sleep(0.1)


def _is_established(definition: dict[str, Any]) -> bool:
    conditions = (definition.get("status") or {}).get("conditions") or []
    return any(one["type"] == "Established" and one["status"] == "True" for one in conditions)


@pytest.fixture
def api(plane: ControlPlane) -> Iterator[KubernetesApi]:
    """The product's own client, as the administrator."""
    client = KubernetesApi(CONTEXT, config_file=str(plane.kubeconfig))
    yield client
    client.close()


@pytest.fixture
def tower(people: dict[str, Any], twins: Any) -> Tower:
    """The services as the entry points use them, with the starter bundle in force."""
    from governance.services.bundles import ensure_starter_bundle

    ensure_starter_bundle(identity="https://clearance.test/bootstrap")
    return Tower(people, twins)


def confined(spec: dict[str, Any]) -> dict[str, Any]:
    """The spec of a pod as a namespace takes it that enforces Pod Security's "restricted"."""
    pod, container = security_contexts(is_root=False)
    containers = [{**one, "securityContext": container} for one in spec["containers"]]
    return {**spec, "securityContext": pod, "containers": containers}


class Stand:
    """The adapter on a namespace of its own, and levers on the simulated kubelets."""

    def __init__(self, plane: ControlPlane, namespace: str) -> None:
        self.plane = plane
        self.namespace = namespace
        self.api = KubernetesApi(CONTEXT, config_file=str(plane.kubeconfig))
        self.cluster = KubernetesCluster(self.api)

    def spec(self, name: str = "tune-1", **changes: object) -> WorkloadSpec:
        """A request for a workload in this namespace; names are unique over all tests."""
        fields: dict[str, Any] = {
            "name": f"{self.namespace}-{name}",
            "namespace": self.namespace,
            "goal_uid": "g",
            "task": "tune",
            "attempt_uid": f"attempt-{name}",
            "agent": "optimizer",
            "service_account": "optimizer",
            "image": "registry.example/agents/optimizer@sha256:" + "0" * 64,
            "command": ("optimizer", "--once"),
            "environment": {"CLEARANCE_JOIN_TOKEN": "a-secret"},
        }
        return WorkloadSpec(**{**fields, **changes})

    def until(self, name: str, holds: Callable[[WorkloadStatus], bool]) -> WorkloadStatus:
        """The first status for which it holds."""
        deadline = time.monotonic() + PATIENCE_SECONDS
        while True:
            status = self.cluster.get(f"{self.namespace}-{name}")
            if status is not None and holds(status):
                return status
            assert time.monotonic() < deadline, f"{name} stayed {status}"
            time.sleep(0.1)

    def until_phase(self, name: str, phase: WorkloadPhase) -> WorkloadStatus:
        return self.until(name, lambda status: status.phase == phase)

    def pods(self) -> list[dict[str, Any]]:
        found = self.plane.request("GET", f"/api/v1/namespaces/{self.namespace}/pods")
        return list(found["items"])

    def end(self, name: str, code: int) -> None:
        """The simulated program ends."""
        annotations = {"clearance.test/exit-code": str(code)}
        for pod in self.pods():
            if pod["metadata"]["labels"]["orchestration.ai/workload"].endswith(name):
                self.plane.request(
                    "PATCH",
                    f"/api/v1/namespaces/{self.namespace}/pods/{pod['metadata']['name']}",
                    {"metadata": {"annotations": annotations}},
                    content_type=MERGE,
                )

    def job(self, name: str) -> dict[str, Any]:
        path = f"/apis/batch/v1/namespaces/{self.namespace}/jobs/{self.namespace}-{name}"
        return dict(self.plane.request("GET", path))

    def until_gone(self, name: str) -> None:
        """Until the Job's own deletion has ended."""
        deadline = time.monotonic() + PATIENCE_SECONDS
        while True:
            try:
                self.job(name)
            except Refusal as refusal:
                if refusal.status != 404:
                    raise
                return
            assert time.monotonic() < deadline, f"{name} is still there"
            time.sleep(0.1)

    def close(self) -> None:
        clear_namespace(self.cluster, self.namespace)
        self.api.close()


def clear_namespace(cluster: Cluster, namespace: str) -> None:
    """End and forget every attempt of a namespace."""

    def attempts() -> list[WorkloadStatus]:
        return [status for status in cluster.list() if status.namespace == namespace]

    for status in attempts():
        cluster.delete(status.name, grace_seconds=0)
    deadline = time.monotonic() + PATIENCE_SECONDS
    while any(not status.is_finished for status in attempts()):
        assert time.monotonic() < deadline
        time.sleep(0.1)
    for status in attempts():
        cluster.forget(status.name)


def enforce_level(plane: ControlPlane, namespace: str, level: str) -> None:
    """What the API server asks of pods there from now on: a level of Pod Security."""
    change = {"metadata": {"labels": {"pod-security.kubernetes.io/enforce": level}}}
    plane.request("PATCH", f"/api/v1/namespaces/{namespace}", change, content_type=MERGE)


@pytest.fixture
def stand(plane: ControlPlane) -> Iterator[Stand]:
    """In a namespace of its own, where pods must meet the strictest level of Pod Security."""
    namespace = f"shop{next(numbers)}"
    plane.add_namespace(namespace, "optimizer")
    enforce_level(plane, namespace, "restricted")
    standing = Stand(plane, namespace)
    yield standing
    standing.close()

"""What is installed into a cluster: the chart rendered by helm, and applied as kubectl would."""

import json
import os
import shutil
import subprocess
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Final

import pytest
import yaml

from tests.cluster.conftest import APPLY, ROOT
from tests.cluster.control_plane import BUILT, ControlPlane

Object = dict[str, Any]

CHART: Final = ROOT / "deploy" / "helm" / "clearance"
MANIFESTS: Final = ROOT / "deploy" / "manifests"
SYSTEM: Final = "clearance-system"
TOOLS: Final = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "clearance/bin"
# Of the kinds that the chart has; the others live in namespaces.
CLUSTER_WIDE: Final = {
    "Namespace": "namespaces",
    "CustomResourceDefinition": "customresourcedefinitions",
    "ClusterRole": "clusterroles",
    "ClusterRoleBinding": "clusterrolebindings",
    "ValidatingAdmissionPolicy": "validatingadmissionpolicies",
    "ValidatingAdmissionPolicyBinding": "validatingadmissionpolicybindings",
    "MutatingWebhookConfiguration": "mutatingwebhookconfigurations",
    "ValidatingWebhookConfiguration": "validatingwebhookconfigurations",
}
PLURALS: Final = {
    **CLUSTER_WIDE,
    "ServiceAccount": "serviceaccounts", "Secret": "secrets", "Service": "services",
    "PersistentVolumeClaim": "persistentvolumeclaims", "Deployment": "deployments",
    "DaemonSet": "daemonsets", "StatefulSet": "statefulsets", "Job": "jobs",
    "Role": "roles", "RoleBinding": "rolebindings",
    "NetworkPolicy": "networkpolicies", "PodDisruptionBudget": "poddisruptionbudgets",
    "Ingress": "ingresses", "Goal": "goals", "Agent": "agents",
}  # fmt: skip

WORKLOADS: Final = ("Deployment", "StatefulSet", "DaemonSet", "Job")


def find_helm() -> str:
    """Helm's path; skips the test by name where there is none."""
    found = shutil.which("helm", path=f"{TOOLS}{os.pathsep}{os.environ.get('PATH', '')}")
    if found is None:
        pytest.skip("needs helm: bash .ci/control-plane builds it")
    return found


def helm(*words: str, values: Object | None = None) -> "subprocess.CompletedProcess[str]":
    """One call; `values` are given as a file."""
    given = ["--values", "-"] if values is not None else []
    return subprocess.run(
        [find_helm(), *words, *given], input=json.dumps(values or {}), capture_output=True,
        text=True, timeout=60, check=False,
    )  # fmt: skip


def render(values: Object | None = None) -> list[Object]:
    """The objects of the chart with these values."""
    done = helm("template", "clearance", str(CHART), "-n", SYSTEM, values=values or {})
    assert done.returncode == 0, done.stderr
    return read_objects(done.stdout)


def read_objects(text: str) -> list[Object]:
    """Every object of a stream of YAML documents."""
    return [one for one in yaml.safe_load_all(text) if one]


def collection(document: Object, namespace: str = "default") -> str:
    """The path of the collection that an object belongs to."""
    version, kind = document["apiVersion"], document["kind"]
    base = f"/apis/{version}" if "/" in version else f"/api/{version}"
    if kind in CLUSTER_WIDE:
        return f"{base}/{PLURALS[kind]}"
    where = document["metadata"].get("namespace", namespace)
    return f"{base}/namespaces/{where}/{PLURALS[kind]}"


def apply(plane: ControlPlane, documents: Iterable[Object], *, is_trial: bool = False) -> None:
    """Server-side apply with strict validation, as `kubectl apply --server-side` asks."""
    query = "?fieldManager=kubectl&force=true&fieldValidation=Strict"
    for document in documents:
        path = f"{collection(document)}/{document['metadata']['name']}{query}"
        plane.request(
            "PATCH", path + ("&dryRun=All" if is_trial else ""), document, content_type=APPLY
        )


def pod_templates(documents: Sequence[Object]) -> dict[str, Object]:
    """The pods that workloads make, by the name of the workload."""
    return {
        one["metadata"]["name"]: one["spec"]["template"]
        for one in documents
        if one["kind"] in WORKLOADS
    }


def kubectl(
    plane: ControlPlane, *words: str, given: str = ""
) -> "subprocess.CompletedProcess[str]":
    """One call of the real kubectl as the administrator; skips the test where there is none."""
    places = f"{BUILT}{os.pathsep}{os.environ.get('PATH', '')}"
    program = shutil.which("kubectl", path=places)
    if program is None:
        pytest.skip("needs kubectl: bash .ci/control-plane builds it")
    return subprocess.run(
        [program, f"--kubeconfig={plane.kubeconfig}", *words], input=given, capture_output=True,
        text=True, timeout=60, check=False,
    )  # fmt: skip

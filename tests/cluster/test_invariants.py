"""What the API server itself holds up while Clearance is down."""

import time
from collections.abc import Iterator
from typing import Any

import pytest
import yaml

from tests.cluster.conftest import APPLY, MERGE, PATIENCE_SECONDS, ROOT, numbers
from tests.cluster.control_plane import ControlPlane, Refusal

pytestmark = [pytest.mark.slow, pytest.mark.contract]

GROUP = "/apis/admissionregistration.k8s.io/v1"
PLURALS = {
    "ValidatingAdmissionPolicy": "validatingadmissionpolicies",
    "ValidatingAdmissionPolicyBinding": "validatingadmissionpolicybindings",
}


def pod(name: str = "agent", **changes: Any) -> dict[str, Any]:
    gpus = changes.pop("gpus", [])
    spec = {
        "serviceAccountName": "optimizer",
        "containers": [
            {"name": f"c{n}", "image": "a/b:1", "resources": {"limits": {"nvidia.com/gpu": count}}}
            for n, count in enumerate(gpus or [0])
        ],
    }
    labels = {"agent_id": "optimizer", **changes.pop("labels", {})}
    metadata = {"name": name, "labels": {key: one for key, one in labels.items() if one}}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": {**spec, **changes}}


@pytest.fixture(scope="module")
def invariants(plane: ControlPlane) -> Iterator[None]:
    documents = list(
        yaml.safe_load_all((ROOT / "deploy" / "admission" / "invariants.yaml").read_text())
    )
    paths = [f"{GROUP}/{PLURALS[one['kind']]}/{one['metadata']['name']}" for one in documents]
    query = "?fieldManager=tests&force=true&fieldValidation=Strict"
    for path, document in zip(paths, documents, strict=True):
        plane.request("PATCH", path + query, document, content_type=APPLY)
    yield
    for path in paths:
        plane.request("DELETE", path)


@pytest.fixture
def free(plane: ControlPlane) -> Iterator[str]:
    """A namespace; its pods are gone afterwards, and give their GPUs back."""
    name = f"free-{next(numbers)}"
    plane.add_namespace(name, "optimizer")
    yield name
    pods = f"/api/v1/namespaces/{name}/pods"
    plane.request("DELETE", f"{pods}?gracePeriodSeconds=0")
    deadline = time.monotonic() + PATIENCE_SECONDS
    while plane.request("GET", pods)["items"]:
        assert time.monotonic() < deadline
        time.sleep(0.1)


@pytest.fixture
def governed(plane: ControlPlane, invariants: None, free: str) -> str:
    name = free
    labels = {"metadata": {"labels": {"orchestration.ai/governed": "true"}}}
    plane.request("PATCH", f"/api/v1/namespaces/{name}", labels, content_type=MERGE)
    path = f"/api/v1/namespaces/{name}/pods?dryRun=All"
    deadline = time.monotonic() + PATIENCE_SECONDS
    while True:  # until the API server has compiled the policy, and the controller made `default`
        try:
            plane.request("GET", f"/api/v1/namespaces/{name}/serviceaccounts/default")
            plane.request("POST", path, pod(labels={"agent_id": ""}))
        except Refusal as refusal:
            if "agent_id" in str(refusal):
                return name
        assert time.monotonic() < deadline
        time.sleep(0.2)


def test_an_agent_under_its_own_name_is_let_in(plane: ControlPlane, governed: str) -> None:
    path = f"/api/v1/namespaces/{governed}/pods"
    plane.request("POST", path, pod(gpus=[1, 1], labels={"agent_role": "experimental"}))
    plane.request("POST", path, pod("big", gpus=[4]))


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"labels": {"agent_id": "profiler"}}, "must be the service account optimizer, not"),
        ({"labels": {"agent_id": ""}}, "must be the service account optimizer"),
        ({"serviceAccountName": "default", "labels": {"agent_id": "default"}}, "of its own"),
        (
            {"gpus": [2, 1], "labels": {"agent_role": "experimental"}},
            "experimental agents limited to 2 GPUs, not 3",
        ),
    ],
)
def test_what_breaks_an_invariant_is_refused_with_its_field(
    plane: ControlPlane, governed: str, changes: dict[str, Any], said: str
) -> None:
    with pytest.raises(Refusal) as caught:
        plane.request("POST", f"/api/v1/namespaces/{governed}/pods", pod(**changes))
    assert caught.value.status == 403
    assert said in str(caught.value)


def test_a_name_is_not_changed_afterwards(plane: ControlPlane, governed: str) -> None:
    path = f"/api/v1/namespaces/{governed}/pods"
    plane.request("POST", path, pod())
    change = {"metadata": {"labels": {"agent_id": "profiler"}}}
    with pytest.raises(Refusal, match="must be the service account"):
        plane.request("PATCH", f"{path}/agent", change, content_type=MERGE)


def test_other_namespaces_are_left_alone(plane: ControlPlane, invariants: None, free: str) -> None:
    path = f"/api/v1/namespaces/{free}/pods"
    plane.request("POST", path, pod(labels={"agent_id": "whoever"}, gpus=[8]))

"""The custom resources on a real API server: what it takes, refuses, and shows."""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.cluster.conftest import MERGE, install_resources, numbers
from tests.cluster.control_plane import ControlPlane, Refusal

pytestmark = [pytest.mark.slow, pytest.mark.contract]

ROOT = Path(__file__).resolve().parents[2]
SEED_GOAL = ROOT / "examples" / "checkout" / "goal.yaml"


@pytest.fixture
def namespace(plane: ControlPlane) -> str:
    install_resources(plane)
    name = f"crd-{next(numbers)}"
    plane.add_namespace(name)
    return name


def seed_goal(**spec: Any) -> dict[str, Any]:
    document = yaml.safe_load(SEED_GOAL.read_text())
    document["spec"] |= spec
    return dict(document)


def create(plane: ControlPlane, namespace: str, document: dict[str, Any]) -> dict[str, Any]:
    path = f"/apis/orchestration.ai/v1/namespaces/{namespace}/{document['kind'].lower()}s"
    return dict(plane.request("POST", f"{path}?fieldValidation=Strict", document))


def refused(plane: ControlPlane, namespace: str, document: dict[str, Any]) -> str:
    with pytest.raises(Refusal) as caught:
        create(plane, namespace, document)
    return str(json.loads(str(caught.value))["message"])


def test_the_manifests_of_the_example_are_taken_as_they_are(
    plane: ControlPlane, namespace: str
) -> None:
    made = create(plane, namespace, seed_goal())
    assert made["spec"]["maxIterations"] == 3
    assert made["spec"]["throttle"] == {"gpusOnPause": "Release", "softLimitPercent": 80}
    for file in ("agents.yaml", "rogue-agents.yaml", "rogue-fine-tune.yaml"):
        for document in yaml.safe_load_all((SEED_GOAL.parent / file).read_text()):
            document["metadata"].pop("namespace", None)
            if "_" in (name := document["metadata"]["name"]):  # no name for an object
                document["metadata"]["name"] = name.replace("_", "-")
                document["spec"]["name"] = name
            create(plane, namespace, document)


@pytest.mark.parametrize(
    ("spec", "said"),
    [
        ({"agents": []}, "spec.agents"),
        ({"agents": ["Big Name"]}, "spec.agents[0]"),
        ({"budget": ""}, "spec.budget"),
        ({"objective": "x" * 501}, "spec.objective"),
        ({"maxIterations": 0}, "spec.maxIterations"),
        ({"throttle": {"gpusOnPause": "Keep"}}, "spec.throttle.gpusOnPause"),
        ({"parent": "reduce-p99-latency"}, "must be another Goal"),
        ({"colour": "red"}, 'unknown field "spec.colour"'),
    ],
)
def test_a_wrong_goal_is_refused_at_its_field(
    plane: ControlPlane, namespace: str, spec: dict[str, Any], said: str
) -> None:
    assert said in refused(plane, namespace, seed_goal(**spec))


def test_the_parent_cannot_be_changed(plane: ControlPlane, namespace: str) -> None:
    made = create(plane, namespace, seed_goal(parent="saving"))
    path = f"/apis/orchestration.ai/v1/namespaces/{namespace}/goals/{made['metadata']['name']}"
    with pytest.raises(Refusal) as caught:
        plane.request("PATCH", path, {"spec": {"parent": "other"}}, content_type=MERGE)
    assert "make another Goal" in str(caught.value)


def test_status_is_its_own_and_fills_the_columns(plane: ControlPlane, namespace: str) -> None:
    made = create(plane, namespace, {**seed_goal(), "status": {"phase": "Satisfied"}})
    assert "status" not in made
    path = f"/apis/orchestration.ai/v1/namespaces/{namespace}/goals"
    status = {
        "phase": "Running",
        "satisfied": False,
        "spent": "3 GPU-minutes",
        "limit": "50 GPU-minutes",
    }
    plane.request(
        "PATCH", f"{path}/{made['metadata']['name']}/status", {"status": status}, content_type=MERGE
    )
    table = plane.request("GET", path, accept="application/json;as=Table;v=v1;g=meta.k8s.io")
    shown = [column["name"] for column in table["columnDefinitions"] if not column["priority"]]
    assert shown == ["Name", "Phase", "Satisfied", "Spent", "Limit", "Age"]
    (row,) = table["rows"]
    assert row["cells"][1:5] == ["Running", False, "3 GPU-minutes", "50 GPU-minutes"]

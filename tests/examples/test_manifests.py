"""The manifests: the Goal as the article printed it, and agents that fit together."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from agents.domain.manifest import parse_agent
from goals.domain.manifest import parse_goal

CHECKOUT = Path(__file__).resolve().parents[2] / "examples" / "checkout"


def documents(name: str) -> list[dict[str, Any]]:
    """The documents of a manifest file."""
    return list(yaml.safe_load_all((CHECKOUT / name).read_text()))


def test_the_goal_is_the_one_of_the_article() -> None:
    assert documents("goal.yaml") == [
        {
            "apiVersion": "orchestration.ai/v1",
            "kind": "Goal",
            "metadata": {"name": "reduce-p99-latency"},
            "spec": {
                "objective": "p99 latency < 120 ms for /checkout",
                "budget": "50 GPU-minutes",
                "agents": ["profiler", "optimizer", "canary_deployer"],
            },
            "status": {"phase": "Running", "satisfied": False},
        }
    ]


def test_every_agent_of_a_goal_is_declared_and_finds_what_it_consumes() -> None:
    for goal_file, agents_file in (
        ("goal.yaml", "agents.yaml"),
        ("rogue-fine-tune.yaml", "rogue-agents.yaml"),
    ):
        agents = {a["metadata"]["name"]: a["spec"] for a in documents(agents_file)}
        assert list(agents) == documents(goal_file)[0]["spec"]["agents"]
        produced: set[str] = set()
        for spec in agents.values():
            assert set(spec["consumes"]) <= produced
            produced |= set(spec["produces"])
            assert not spec["image"].endswith(":latest")
            program = Path(__file__).resolve().parents[2] / spec["command"][1]
            text = program.read_text()
            for name in [*spec["produces"], *spec["consumes"]]:
                # the one that never ends never gets as far as producing
                assert f'"{name}"' in text or agents_file == "rogue-agents.yaml"


@pytest.mark.parametrize("name", ["agents.yaml", "rogue-agents.yaml"])
def test_the_product_accepts_every_agent(name: str) -> None:
    for document in documents(name):
        agent = parse_agent(document)
        assert agent.role in ("revenue-critical", "experimental")
        assert agent.estimate.seconds is not None


@pytest.mark.parametrize("name", ["goal.yaml", "rogue-fine-tune.yaml"])
def test_the_product_accepts_every_goal(name: str) -> None:
    goal = parse_goal(documents(name)[0])
    assert goal.name == documents(name)[0]["metadata"]["name"]

"""Goal manifests: the seed's file, every refusal with its path, canonical forms."""

from collections.abc import Mapping
from typing import Any

import pytest
import rfc8785
from hypothesis import given
from hypothesis import strategies as st

from agents.domain.documents import load_documents
from agents.domain.problems import ManifestError
from goals.domain.budget import parse_budget
from goals.domain.manifest import (
    FLAT_NOTE,
    STATUS_NOTE,
    GoalManifest,
    GoalSpec,
    GpusOnPause,
    Throttle,
    parse_goal,
)
from goals.domain.objective import parse_objective

SEED = """\
# Goal CRD (simplified)
apiVersion: orchestration.ai/v1
kind: Goal
metadata:
  name: reduce-p99-latency
spec:
  objective: "p99 latency < 120 ms for /checkout"
  budget: 50 GPU-minutes
  agents: ["profiler", "optimizer", "canary_deployer"]
status:
  phase: Running
  satisfied: false
"""


def document(text: str = SEED) -> Mapping[str, Any]:
    (only,) = load_documents(text)
    return only


def changed(**spec: Any) -> dict[str, Any]:
    base = document()
    return {**base, "spec": {**base["spec"], **spec}}


def problems(value: Mapping[str, Any]) -> dict[str, str]:
    with pytest.raises(ManifestError) as caught:
        parse_goal(value)
    assert caught.value.problems
    return {problem.path: problem.message for problem in caught.value.problems}


def test_the_seed_manifest_unmodified() -> None:
    goal = parse_goal(document())
    assert goal == GoalManifest(
        name="reduce-p99-latency",
        namespace="default",
        labels={},
        annotations={},
        spec=GoalSpec(
            objective=parse_objective("p99 latency < 120 ms for /checkout"),
            budget=parse_budget("50 GPU-minutes"),
            agents=("profiler", "optimizer", "canary_deployer"),
        ),
    )
    assert goal.notes == (STATUS_NOTE,)
    assert (goal.spec.max_iterations, goal.spec.retries) == (3, 2)
    assert goal.spec.throttle == Throttle(80, GpusOnPause.RELEASE)
    status = {"phase": "Planned", "satisfied": False}
    assert goal.to_document(status) == {
        **document(),
        "metadata": {"name": "reduce-p99-latency", "namespace": "default"},
        "status": status,
    }


def test_a_copy_that_lost_its_indentation_is_read_and_said() -> None:
    flat = "\n".join(line.strip() for line in SEED.splitlines())
    goal = parse_goal(document(flat))
    assert goal == parse_goal(document())
    assert goal.notes == (FLAT_NOTE, STATUS_NOTE)


@pytest.mark.parametrize(
    ("spec", "path", "message"),
    [
        ({"objective": None}, "spec.objective", "is required"),
        ({"objective": ""}, "spec.objective", "must not be empty"),
        ({"objective": "  "}, "spec.objective", "expected a metric"),
        ({"objective": "latency < fast"}, "spec.objective", "at character 11, found"),
        ({"objective": "x" * 501}, "spec.objective", "at most 500"),
        ({"budget": 50}, "spec.budget", "put it in quotes"),
        ({"budget": "50 GPUs"}, "spec.budget", "expected a unit"),
        ({"budget": "-5 USD"}, "spec.budget", "a positive number"),
        ({"agents": []}, "spec.agents", "must not be empty"),
        ({"agents": "profiler"}, "spec.agents", "must be a list"),
        ({"agents": ["a", "b", "a"]}, "spec.agents[2]", "listed twice (first at [0])"),
        ({"agents": ["a", "B"]}, "spec.agents[1]", "lower-case"),
        ({"agents": ["a", None]}, "spec.agents[1]", "must be text, not nothing"),
        ({"agents": [f"a{n}" for n in range(10_001)]}, "spec.agents", "at most 10000"),
        ({"deadlineSeconds": 0}, "spec.deadlineSeconds", "from 1"),
        ({"maxIterations": 1e300}, "spec.maxIterations", "whole number"),
        ({"maxIterations": True}, "spec.maxIterations", "whole number"),
        ({"retries": -1}, "spec.retries", "from 0"),
        ({"retries": float("nan")}, "spec.retries", "whole number"),
        ({"requireApproval": "yes"}, "spec.requireApproval", "true or false"),
        ({"priority": "high"}, "spec.priority", "whole number"),
        ({"throttle": {"softLimitPercent": 101}}, "spec.throttle.softLimitPercent", "1 to 100"),
        ({"throttle": {"gpusOnPause": "Keep"}}, "spec.throttle.gpusOnPause", "Release, Hold"),
        ({"throttle": 80}, "spec.throttle", "must be a mapping"),
        ({"sponsor": "a\nb"}, "spec.sponsor", "control characters"),
        ({"parent": "reduce-p99-latency"}, "spec.parent", "another Goal"),
        ({"requireaproval": True}, "spec.requireaproval", "did you mean requireApproval?"),
    ],
)
def test_each_problem_names_its_field(spec: dict[str, Any], path: str, message: str) -> None:
    assert message in problems(changed(**spec))[path]


@pytest.mark.parametrize(
    ("document", "paths"),
    [
        ({}, {"apiVersion", "kind", "metadata", "metadata.name", "spec"}),
        ({"spec": {}}, {"spec.objective", "spec.budget", "spec.agents"}),
        ({"spec": []}, {"spec", "spec.objective"}),
        (
            {"metadata": {"name": "A_b", "namespace": "x/y"}},
            {"metadata.name", "metadata.namespace"},
        ),
        ({"bogus": 1}, {"bogus"}),
    ],
)
def test_all_problems_at_once(document: dict[str, Any], paths: set[str]) -> None:
    assert paths <= set(problems(document))


def test_unknown_fields_are_named_up_to_a_limit() -> None:
    found = problems({**document(), **{f"field{n}": n for n in range(10_000)}})
    assert len(found) == 21
    assert found[""] == "has 9980 more fields that are not known"


def test_spelling_is_not_a_change_and_meaning_is() -> None:
    same = changed(objective="P99  latency<0120ms for /checkout", budget="50 gpu minutes")
    same["spec"]["maxIterations"] = 3
    assert parse_goal(same).spec_document() == parse_goal(document()).spec_document()
    assert parse_goal(same).spec == parse_goal(document()).spec
    assert parse_goal(same).to_document()["spec"]["budget"] == "50 gpu minutes"
    for other in ({"agents": ["optimizer", "profiler"]}, {"retries": 0}, {"priority": 1}):
        assert (
            parse_goal(changed(**other)).spec_document() != parse_goal(document()).spec_document()
        )


@given(
    st.fixed_dictionaries(
        {},
        optional={
            "sponsor": st.sampled_from(["ada", "Grace H."]),
            "parent": st.just("bigger-goal"),
            "deadlineSeconds": st.integers(1, 10**7),
            "maxIterations": st.integers(1, 1000),
            "retries": st.integers(0, 100),
            "requireApproval": st.booleans(),
            "priority": st.integers(-1000, 1000),
            "throttle": st.fixed_dictionaries(
                {},
                optional={
                    "softLimitPercent": st.integers(1, 100),
                    "gpusOnPause": st.sampled_from(["Release", "Hold"]),
                },
            ),
        },
    )
)
def test_document_and_back_loses_nothing(spec: dict[str, Any]) -> None:
    goal = parse_goal(changed(**spec))
    assert parse_goal(goal.to_document()) == goal
    canonical = goal.spec_document()
    again = parse_goal({**document(), "spec": canonical})
    assert rfc8785.dumps(again.spec_document()) == rfc8785.dumps(canonical)

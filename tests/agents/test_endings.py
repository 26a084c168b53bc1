"""Pods that ended are rung for at once, again while nobody meters them, and not for ever."""

from typing import Any
from uuid import UUID

import pytest

from agents.cluster.kubernetes.record import GOAL_UID, METER, WORKLOAD
from agents.survey.domain import PodFact
from agents.survey.endings import AGAIN_SECONDS, RINGS, Endings
from agents.survey.reading import read_pod

GOAL = str(UUID(int=7))


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def pod(*, phase: str = "Failed", goal: str = GOAL, finalizers: tuple[str, ...] = (METER,)) -> Any:
    metadata = {
        "uid": "pod-1", "namespace": "shop", "name": "tune-1-abc",
        "labels": {WORKLOAD: "tune-1", GOAL_UID: goal}, "finalizers": list(finalizers),
    }  # fmt: skip
    return {"metadata": metadata, "spec": {}, "status": {"phase": phase}}


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def endings(clock: Clock) -> Endings:
    return Endings(lambda _goal: None, clock=clock)


def fact(**changes: Any) -> PodFact:
    return read_pod(pod(**changes))


def test_an_ended_pod_is_rung_for_until_it_is_metered(endings: Endings, clock: Clock) -> None:
    endings.see(fact(phase="Running"), True)
    assert endings.due() == []
    for _ in range(2):  # the watch tells of it twice
        endings.see(fact(), True)
    assert endings.due() == [GOAL]
    assert endings.due() == []
    clock.now += AGAIN_SECONDS
    assert endings.due() == [GOAL]
    endings.see(fact(finalizers=()), True)
    clock.now += AGAIN_SECONDS
    assert endings.due() == []


def test_what_nobody_meters_is_not_rung_for_for_ever(endings: Endings, clock: Clock) -> None:
    endings.see(fact(), True)
    rung = []
    for _ in range(2 * RINGS):
        rung += endings.due()
        clock.now += AGAIN_SECONDS
    assert rung == [GOAL] * RINGS


def test_a_pod_that_is_gone_is_not_rung_for(endings: Endings) -> None:
    endings.see(fact(), True)
    endings.see(fact(), False)  # the API server tells of it as it last was
    assert endings.due() == []


@pytest.mark.parametrize(
    "changes", [{"goal": "no uid"}, {"finalizers": ("foreign/finalizer",)}, {"phase": "Pending"}]
)
def test_others_are_not_rung_for(endings: Endings, changes: dict[str, Any]) -> None:
    endings.see(fact(**changes), True)
    assert endings.due() == []

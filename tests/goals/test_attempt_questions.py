"""A cluster is asked nothing about an attempt that is as it should be."""

from typing import Any

import pytest

from agents.cluster.base import WorkloadPhase, WorkloadStatus
from agents.cluster.memory import MemoryCluster
from agents.domain.states import DesiredState
from agents.models import Attempt
from agents.services.attempts import RECONCILER, enforce_attempt, set_desired

pytestmark = pytest.mark.django_db


class Asked(MemoryCluster):
    """Writes down what it is asked."""

    keeps_paused = False

    def __init__(self) -> None:
        super().__init__(gpus=4)
        self.asked: list[str] = []

    def get(self, name: str) -> WorkloadStatus | None:
        self.asked.append("get")
        return super().get(name)

    def resume(self, name: str) -> None:
        self.asked.append("resume")
        super().resume(name)

    def pause(self, name: str) -> None:
        self.asked.append("pause")
        super().pause(name)

    def set_gpu_allowance(self, name: str, gpu_ms: int) -> None:
        self.asked.append("allow")
        super().set_gpu_allowance(name, gpu_ms)

    def told(self, attempt: Attempt) -> tuple[list[str], WorkloadPhase]:
        """What one look asks, and how the attempt stands then."""
        self.asked.clear()
        status = enforce_attempt(attempt, cluster=self)
        assert status is not None
        return list(self.asked), status.phase


@pytest.fixture
def attempt(tower: Any) -> Attempt:
    tower.register("profiler", gpus=1)
    goal = tower.reconcile(tower.apply().goal)
    (found,) = tower.attempts(goal)
    Attempt.objects.filter(pk=found.pk).update(started_at=None)  # no cluster knows it yet
    return Attempt.objects.get(pk=found.pk)


def test_what_is_as_desired_is_only_looked_at(attempt: Attempt) -> None:
    cluster = Asked()
    assert cluster.told(attempt) == (["get", "get"], WorkloadPhase.RUNNING)  # and made between
    assert cluster.told(attempt) == (["get"], WorkloadPhase.RUNNING)
    set_desired(attempt, DesiredState.PAUSED, actor=RECONCILER)
    assert cluster.told(attempt) == (["get", "allow", "pause", "get"], WorkloadPhase.PAUSED)
    assert cluster.told(attempt) == (["get"], WorkloadPhase.PAUSED)
    set_desired(attempt, DesiredState.RUNNING, actor=RECONCILER)
    assert cluster.told(attempt) == (["get", "allow", "resume", "get"], WorkloadPhase.RUNNING)
    Attempt.objects.filter(pk=attempt.pk).update(gpu_allowance_ms=10 * attempt.gpu_allowance_ms)
    attempt.refresh_from_db()
    assert cluster.told(attempt)[0] == ["get", "allow", "resume", "get"]
    assert cluster.told(attempt)[0] == ["get"]


def test_where_another_process_tells_the_status_the_word_is_said_again(attempt: Attempt) -> None:
    cluster = Asked()
    cluster.keeps_paused = True
    cluster.told(attempt)
    assert cluster.told(attempt)[0] == ["get", "allow", "resume", "get"]

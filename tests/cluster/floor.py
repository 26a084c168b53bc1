"""Goals of the console whose attempts are Jobs of a real cluster, for tests."""

import contextlib
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from kubernetes.config import kube_config

from agents.cluster import get_cluster
from agents.domain.states import AttemptState
from agents.models import Attempt
from goals.models import Goal
from goals.services.conditions import condition_of
from tests.cluster.conftest import PATIENCE_SECONDS, clear_namespace
from tests.cluster.control_plane import CONTEXT, ControlPlane, Refusal
from tests.towers import Tower


class Floor:
    """The console's Goals of namespace `default`, reconciled by hand."""

    def __init__(self, plane: ControlPlane, tower: Tower) -> None:
        self.plane, self.tower = plane, tower

    def start(self, name: str, **asked: str) -> Goal:
        goal: Goal = self.tower.apply(name, **asked).goal
        return goal

    def until(self, goal: Goal, holds: Callable[[Goal], bool]) -> Goal:
        """Reconcile until it holds."""
        deadline = time.monotonic() + PATIENCE_SECONDS
        while True:
            self.tower.reconcile(goal)
            if holds(goal):
                return goal
            assert time.monotonic() < deadline, goal.conditions
            time.sleep(0.1)

    def until_running(self, goal: Goal) -> Attempt:
        self.until(goal, lambda _: self._running(goal) is not None)
        attempt = self._running(goal)
        assert attempt is not None
        return attempt

    def _running(self, goal: Goal) -> Attempt | None:
        rows = Attempt.objects.filter(goal_uid=goal.uid, state=AttemptState.RUNNING)
        return rows.order_by("-number").first()

    def until_said(self, goal: Goal, kind: str, status: str) -> dict[str, Any]:
        self.until(goal, lambda _: (condition_of(goal, kind) or {}).get("status") == status)
        said = condition_of(goal, kind)
        assert said is not None
        return said


@contextlib.contextmanager
def standing_floor(
    plane: ControlPlane, tower: Tower, settings: Any, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Floor]:
    """One agent, `profiler`, that takes two GPUs; what it left is cleared away."""
    # The client reads KUBECONFIG once, as it is loaded.
    monkeypatch.setattr(kube_config, "KUBE_CONFIG_DEFAULT_LOCATION", str(plane.kubeconfig))
    settings.CLUSTER_URL = f"kubernetes:{CONTEXT}"
    with contextlib.suppress(Refusal):
        account = {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "profiler"}}
        plane.request("POST", "/api/v1/namespaces/default/serviceaccounts", account)
    tower.register("profiler", gpus=2, role="revenue-critical")  # may take the last GPU
    yield Floor(plane, tower)
    clear_namespace(get_cluster(), "default")

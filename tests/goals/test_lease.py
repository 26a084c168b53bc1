"""Lease and fence (I3): one worker acts, a stale one writes nothing, a slow one loses nothing."""

import datetime as dt
import threading
from collections.abc import Callable
from typing import Any

import pytest
from django.db import connection
from django.utils import timezone

from agents.models import Attempt
from goals.domain.states import Phase
from goals.models import Goal, LedgerEntry
from goals.services.apply import cancel_goal, pause_goal
from goals.services.conditions import GoalMoved, condition_of, set_phase
from goals.services.landing import start_landing
from goals.services.lease import (
    LeaseLost,
    acquire_lease,
    fenced,
    kept_alive,
    release_lease,
)
from goals.services.reconcile import claim_due_goals, reconcile_goal
from governance.models import Decision, JournalRecord
from lineage.models import Edge
from tests.agents.identities import shared_database

__all__ = ["shared_database"]

pytestmark = pytest.mark.django_db


def rows() -> dict[str, int]:
    tables = (Attempt, LedgerEntry, Decision, Edge, JournalRecord)
    return {model.__name__: model.objects.count() for model in tables}


def lapse(goal: Goal) -> None:
    """Three lease terms go by."""
    past = timezone.now() - dt.timedelta(seconds=60)
    Goal.objects.filter(pk=goal.pk).update(lease_expires_at=past)


def at_call(cluster: Any, name: str, act: Callable[[], Any]) -> None:
    """Do something once, in the middle of a worker's next call of the cluster."""
    original = getattr(cluster, name)

    def interrupted(*args: Any, **kwargs: Any) -> Any:
        setattr(cluster, name, original)
        act()
        return original(*args, **kwargs)

    setattr(cluster, name, interrupted)


def test_a_lease_is_given_once_and_again_when_it_ran_out(tower: Any) -> None:
    tower.register("profiler")
    goal = tower.apply().goal
    first = acquire_lease(goal.uid, owner="first")
    assert first is not None
    assert acquire_lease(goal.uid, owner="second") is None
    lapse(goal)
    second = acquire_lease(goal.uid, owner="second")
    assert second is not None
    assert second.epoch == first.epoch + 1
    release_lease(first)  # somebody else's is left alone
    assert acquire_lease(goal.uid, owner="third") is None


def test_a_stale_worker_commits_nothing(tower: Any) -> None:
    tower.register("profiler")
    goal = tower.apply().goal
    stale = acquire_lease(goal.uid, owner="stale")
    lapse(goal)
    acquire_lease(goal.uid, owner="fresh")
    assert stale is not None
    before = rows()
    with pytest.raises(LeaseLost), fenced(stale):
        raise AssertionError("a stale worker got in")
    assert rows() == before


def test_a_worker_stopped_in_a_cluster_call_writes_nothing_after_it(tower: Any) -> None:
    """SIGSTOP for three terms, SIGCONT: another worker has brought the Goal on meanwhile."""
    tower.register("tuner", gpus=1)
    goal = tower.reconcile(tower.apply(agents="tuner").goal)
    tower.twins.cluster.advance(4_000)
    seen: dict[str, int] = {}

    def others_go_on() -> None:
        lapse(goal)
        tower.twins.cluster.advance(2_000)
        reconcile_goal(goal.uid)
        seen.update(rows())

    at_call(tower.twins.cluster, "get", others_go_on)
    assert reconcile_goal(goal.uid) is False
    assert rows() == seen
    (attempt,) = tower.attempts(goal)
    assert attempt.gpu_settled_ms == 6_000


def test_a_worker_stopped_while_policy_judges_records_no_decision(tower: Any) -> None:
    tower.register("profiler")
    goal = tower.apply().goal

    def others_go_on() -> None:
        lapse(goal)
        reconcile_goal(goal.uid)

    at_call(tower.twins.cluster, "gpus", others_go_on)
    reconcile_goal(goal.uid)
    assert Decision.objects.filter(goal_uid=goal.uid).count() == 2
    assert len(tower.attempts(goal)) == 1


def test_a_goal_changed_while_it_is_planned_runs_the_new_plan_alone(
    tower: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    tower.register("profiler")
    goal = tower.apply().goal
    at_call(tower.twins.cluster, "gpus", lambda: tower.apply(budget="40 GPU-minutes"))
    tower.reconcile(goal)
    tower.reconcile(goal)  # the ring of the change
    assert (goal.phase, goal.generation, goal.observed_generation) == (Phase.RUNNING, 2, 2)
    (graph,) = goal.graphs.filter(digest=goal.graph_digest)
    assert graph.generation == 2
    assert all(a.graph_digest == goal.graph_digest for a in tower.attempts(goal))


def test_a_goal_changed_while_it_is_measured_is_not_landed_by_the_old_measurement(
    tower: Any,
) -> None:
    tower.register("profiler")
    goal = tower.reconcile(tower.apply().goal)
    (attempt,) = tower.attempts(goal)
    tower.observe(goal, attempt, 80.0)
    tower.twins.cluster.finish(attempt.workload)
    original = tower.twins.telemetry.observations

    def changed_meanwhile(*args: Any, **kwargs: Any) -> Any:
        tower.twins.telemetry.observations = original
        found = original(*args, **kwargs)
        tower.apply(budget="40 GPU-minutes")
        return found

    tower.twins.telemetry.observations = changed_meanwhile
    tower.reconcile(goal)
    tower.reconcile(goal)  # the ring of the change
    assert (goal.generation, goal.phase, goal.landing) == (2, Phase.RUNNING, "")
    assert [a.state for a in tower.attempts(goal)] == ["succeeded", "running"]


@pytest.mark.parametrize("steer", [pause_goal, cancel_goal])
def test_steering_ends_what_a_worker_was_about_to_write(tower: Any, steer: Any) -> None:
    tower.register("profiler")
    goal = tower.reconcile(tower.apply().goal)
    lease = acquire_lease(goal.uid, owner="worker")
    assert lease is not None
    steer(goal, principal=tower.operator)
    with pytest.raises(LeaseLost), fenced(lease):
        pass


def test_a_phase_moves_only_from_where_it_was_read(tower: Any) -> None:
    tower.register("profiler")
    goal = tower.apply().goal
    Goal.objects.filter(pk=goal.pk).update(phase=Phase.PLANNED)
    with pytest.raises(GoalMoved):
        set_phase(goal, Phase.PLANNED, reason="GraphBuilt")
    Goal.objects.filter(pk=goal.pk).update(phase=Phase.DRAFT, generation=2)
    assert start_landing(goal, Phase.FAILED, reason="Late") is False


def test_a_landed_goal_is_not_landed_again(tower: Any) -> None:
    tower.register("greedy", gpus=3, role="experimental")
    goal = tower.reconcile(tower.apply(agents="greedy").goal)
    assert goal.phase == Phase.DENIED
    Goal.objects.filter(pk=goal.pk).update(landing="")
    assert start_landing(goal, Phase.FAILED, reason="Late") is False


@pytest.mark.parametrize("error", [ValueError("secret-in-the-text"), KeyError("x"), OSError("y")])
def test_any_error_is_said_without_its_text_and_tried_again_later(
    tower: Any, error: Exception
) -> None:
    tower.register("profiler")
    goal = tower.reconcile(tower.apply().goal)

    def fail() -> None:
        raise error

    at_call(tower.twins.cluster, "get", fail)
    assert reconcile_goal(goal.uid) is False
    goal.refresh_from_db()
    condition = condition_of(goal, "Reconciled")
    assert condition is not None
    assert (condition["status"], condition["reason"]) == ("False", type(error).__name__)
    assert "secret" not in condition["message"]
    assert goal.lease_owner == ""
    reconcile_goal(goal.uid)
    goal.refresh_from_db()
    assert condition_of(goal, "Reconciled")["status"] == "True"  # type: ignore[index]


def test_a_goal_that_keeps_failing_is_looked_at_less_and_less(tower: Any) -> None:
    from agents.cluster.base import ClusterUnavailable

    tower.register("profiler")
    goal = tower.reconcile(tower.apply().goal)
    delays = []
    for seconds in (0, 10, 30, 3000):
        goal.refresh_from_db()
        if (condition := condition_of(goal, "Reconciled")) is not None:
            since = timezone.now() - dt.timedelta(seconds=seconds)
            condition["lastTransitionTime"] = since.isoformat()
            Goal.objects.filter(pk=goal.pk).update(conditions=goal.conditions)
        tower.twins.cluster.fail_next(ClusterUnavailable("gone"))
        reconcile_goal(goal.uid)
        goal.refresh_from_db()
        delays.append(round((goal.reconcile_after - timezone.now()).total_seconds()))
    assert delays == [1, 10, 30, 60]


def test_resync_rings_a_goal_once_until_the_ring_dies(tower: Any) -> None:
    tower.register("profiler")
    goal = tower.apply().goal
    assert claim_due_goals() == [goal.uid]
    assert claim_due_goals() == []
    later = timezone.now() - dt.timedelta(seconds=1)
    Goal.objects.filter(pk=goal.pk).update(reconcile_after=later)
    assert claim_due_goals() == [goal.uid]


def test_a_long_step_keeps_its_lease(shared_database: None) -> None:
    goal = Goal.objects.create(
        namespace="default", name="slow", spec={}, objective="x", requested_by="ada"
    )
    lease = acquire_lease(goal.uid, owner="slow")
    assert lease is not None
    lapse(goal)
    renewed = threading.Event()
    with kept_alive(lease, every_seconds=0.05):
        for _ in range(200):
            goal.refresh_from_db()
            if goal.lease_expires_at and goal.lease_expires_at > timezone.now():
                renewed.set()
                break
            renewed.wait(0.05)
    assert renewed.is_set()
    assert acquire_lease(goal.uid, owner="other") is None
    assert not [t for t in threading.enumerate() if t.name == "lease"]


def test_the_renewal_of_a_lost_lease_ends_by_itself(shared_database: None) -> None:
    goal = Goal.objects.create(
        namespace="default", name="lost", spec={}, objective="x", requested_by="ada"
    )
    lease = acquire_lease(goal.uid, owner="stale")
    assert lease is not None
    lapse(goal)
    fresh = acquire_lease(goal.uid, owner="fresh")
    assert fresh is not None
    with kept_alive(lease, every_seconds=0.01):
        for thread in threading.enumerate():
            if thread.name == "lease":
                thread.join(10)
                assert not thread.is_alive()
    with fenced(fresh):
        pass
    connection.close()

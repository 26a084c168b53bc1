"""Steering Goals: parents and children, deletion, deadlines, changed agents, big graphs."""

import datetime as dt
import time
from typing import Any

import pytest
from django.utils import timezone

from agents.domain.problems import ManifestError
from agents.models import Agent, Attempt
from agents.services.attempts import stop_orphans
from goals.domain.states import Phase
from goals.models import Goal, Task
from goals.services.apply import GoalConflict, cancel_goal, delete_goal, pause_goal
from goals.services.ledger import is_balanced
from governance.models import Approval, Decision, JournalRecord
from governance.services.approvals import decide_approval

pytestmark = pytest.mark.django_db


def gpu(goal: Goal) -> tuple[int, int, int]:
    account = goal.accounts.get(unit="gpu_ms")
    assert is_balanced(account)
    return account.limit, account.reserved, account.settled


def family(tower: Any, *, budget: str = "60 GPU-seconds") -> tuple[Goal, Goal]:
    tower.register("tuner", gpus=1)
    tower.register("scout")
    parent = tower.apply("parent", agents="scout", budget="100 GPU-seconds").goal
    child = tower.apply("child", agents="tuner", budget=budget, more="parent: parent").goal
    return parent, child


def test_children_never_exceed_their_parent(tower: Any) -> None:
    parent, _ = family(tower)
    assert gpu(parent) == (100_000, 60_000, 0)
    with pytest.raises(ManifestError, match="cannot cover"):
        tower.apply("second", agents="tuner", budget="50 GPU-seconds", more="parent: parent")
    with pytest.raises(ManifestError, match="wider than"):
        tower.apply("child", agents="tuner", budget="101 GPU-seconds", more="parent: parent")
    tower.apply("child", agents="tuner", budget="90 GPU-seconds", more="parent: parent")
    assert gpu(parent) == (100_000, 90_000, 0)
    tower.apply("child", agents="tuner", budget="20 GPU-seconds", more="parent: parent")
    assert gpu(parent) == (100_000, 20_000, 0)


def test_a_childs_grant_is_the_parents_and_its_landing_gives_the_rest_back(tower: Any) -> None:
    parent, child = family(tower, budget="12 GPU-seconds")
    tower.reconcile(parent)
    for _ in range(5):
        tower.reconcile(child)
        tower.twins.cluster.advance(4_000)
    tower.reconcile(child)
    approval = Approval.objects.get(goal_uid=child.uid, state="pending")
    decide_approval(
        approval,
        principal=tower.approver,
        approve=True,
        reason="Fine.",
        request_digest=approval.request_digest,
    )
    assert gpu(parent) == (100_000, 24_000, 0)
    tower.reconcile(child)
    cancel_goal(child, principal=tower.operator)
    tower.reconcile(child)
    assert gpu(parent) == (100_000, 0, 12_000)
    assert gpu(child) == (12_000, 0, 12_000)


def test_a_parent_that_lands_takes_its_children_along(tower: Any) -> None:
    parent, child = family(tower)
    tower.reconcile(parent)
    tower.reconcile(child)
    cancel_goal(parent, principal=tower.operator)
    tower.reconcile(parent)
    assert parent.phase == Phase.RUNNING  # it waits for what draws on it
    tower.reconcile(child)
    assert (child.phase, child.landing_reason) == (Phase.CANCELLED, "ParentLanded")
    tower.reconcile(parent)
    assert (parent.phase, gpu(parent)) == (Phase.CANCELLED, (0, 0, 0))


def test_a_parent_is_for_good_and_must_be_under_way(tower: Any) -> None:
    family(tower)
    with pytest.raises(ManifestError, match="cannot be changed"):
        tower.apply("child", agents="tuner", budget="60 GPU-seconds")
    with pytest.raises(ManifestError, match="under way"):
        tower.apply("orphan", agents="tuner", more="parent: nobody")


def phases(tower: Any) -> dict[str, Goal]:
    tower.register("profiler")
    draft = tower.apply("draft").goal
    awaiting = tower.reconcile(tower.apply("awaiting", more="requireApproval: true").goal)
    running = tower.reconcile(tower.apply("running").goal)
    paused = tower.reconcile(tower.apply("paused").goal)
    pause_goal(paused, principal=tower.operator)
    return {g.name: tower.reconcile(g) if g.name == "paused" else g
            for g in (draft, awaiting, running, paused)}  # fmt: skip


@pytest.mark.parametrize("end", [cancel_goal, delete_goal])
def test_every_phase_can_be_ended_and_ends_once(tower: Any, end: Any) -> None:
    goals = phases(tower)
    assert [g.phase for g in goals.values()] == ["Draft", "AwaitingApproval", "Running", "Paused"]
    for goal in goals.values():
        end(goal, principal=tower.operator)
        tower.reconcile(goal)
        tower.reconcile(goal)
        assert goal.phase == Phase.CANCELLED
        assert (goal.deleted_at is None) == (end is cancel_goal)
        ended = JournalRecord.objects.filter(goal_uid=goal.uid, action="goal.phase")
        assert sum('"to":"Cancelled"' in r.canonical for r in ended) == 1
        assert gpu(goal)[:2] == (0, 0)
    assert not Approval.objects.filter(state="pending").exists()
    assert not Attempt.objects.filter(state="running").exists()


def test_what_cannot_be_paused_says_so(tower: Any) -> None:
    goals = phases(tower)
    for name in ("draft", "awaiting"):
        with pytest.raises(GoalConflict, match="cannot pause now"):
            pause_goal(goals[name], principal=tower.operator)


def test_the_deadline_runs_from_when_this_generation_was_asked_for(tower: Any) -> None:
    tower.register("profiler")
    goal = tower.apply(more="deadlineSeconds: 60").goal
    late = timezone.now() - dt.timedelta(seconds=61)
    Goal.objects.filter(pk=goal.pk).update(asked_at=late, created_at=late)
    tower.reconcile(goal)
    assert (goal.phase, goal.landing_reason) == (Phase.FAILED, "DeadlineExceeded")
    tower.apply(more="deadlineSeconds: 59")
    tower.reconcile(goal)
    assert goal.phase == Phase.RUNNING


def test_a_graph_that_is_denied_by_a_person_ends_as_denied(tower: Any) -> None:
    tower.register("profiler")
    goal = tower.reconcile(tower.apply(more="requireApproval: true").goal)
    approval = Approval.objects.get(goal_uid=goal.uid)
    decide_approval(
        approval,
        principal=tower.approver,
        approve=False,
        reason="Not today.",
        request_digest=approval.request_digest,
    )
    tower.reconcile(goal)
    assert (goal.phase, goal.landing_reason) == (Phase.DENIED, "ApprovalDenied")
    assert goal.landed_at is not None
    assert gpu(goal) == (0, 0, 0)


def test_an_agent_changed_after_approval_runs_as_it_was_approved(tower: Any) -> None:
    tower.register("profiler")
    goal = tower.reconcile(tower.apply(more="requireApproval: true").goal)
    Agent.objects.update(service_account="root", role="admin")
    approval = Approval.objects.get(goal_uid=goal.uid)
    decide_approval(
        approval,
        principal=tower.approver,
        approve=True,
        reason="Fine.",
        request_digest=approval.request_digest,
    )
    tower.reconcile(goal)
    (attempt,) = tower.attempts(goal)
    assert (attempt.service_account, attempt.agent_role) == ("profiler", "worker")
    assert "/sa/profiler/" in attempt.spiffe_id


def test_a_missing_producer_is_named(tower: Any) -> None:
    tower.register("optimizer", consumes="latency-profile")
    tower.register("profiler", produces="latency-profile")
    with pytest.raises(ManifestError, match="profiler"):
        tower.apply(agents="optimizer")


def test_a_workload_that_outlived_its_attempt_is_ended(tower: Any) -> None:
    tower.register("profiler")
    goal = tower.reconcile(tower.apply().goal)
    (attempt,) = tower.attempts(goal)
    assert stop_orphans() == 0
    Attempt.objects.filter(pk=attempt.pk).update(state="stopped")
    assert stop_orphans() == 1
    status = tower.twins.cluster.get(attempt.workload)
    assert status is not None
    assert status.is_finished


def test_a_thousand_tasks_are_planned_judged_and_recorded_in_bulk(tower: Any) -> None:
    names = [f"agent-{number:04d}" for number in range(1_000)]
    tower.register(names[0])
    first = Agent.objects.get(name=names[0])
    Agent.objects.bulk_create(
        Agent(
            namespace="default",
            name=name,
            role=first.role,
            image=first.image,
            service_account=first.service_account,
            manifest={**first.manifest, "metadata": {**first.manifest["metadata"], "name": name}},
            registered_by="ada",
        )
        for name in names[1:]
    )
    began = time.monotonic()
    goal = tower.apply("big", agents=", ".join(names)).goal
    tower.reconcile(goal)
    seconds = time.monotonic() - began
    assert Task.objects.filter(goal=goal).count() == 1_000
    assert Decision.objects.filter(goal_uid=goal.uid).count() == 1_001
    assert tower.attempts(goal)
    assert seconds < 60

"""What the answers do to a Goal: a grant with an end, going on with less, what the wait risks."""

import datetime as dt
from typing import Any

import pytest
from django.utils import timezone

from goals.domain.states import EntryKind, Phase, Unit
from goals.models import Goal, LedgerEntry
from goals.services.conditions import condition_of
from goals.services.lapse import lapse_grants
from goals.services.ledger import is_balanced
from goals.services.prices import set_price
from goals.services.stakes import stakes_of
from governance.domain import ApprovalInvalid
from governance.models import Approval, JournalRecord
from tests.agents.identities import shared_database
from tests.goals.test_ledger import race
from tests.goals.test_throttle import account, answer, pending, run_out

__all__ = ["shared_database"]

pytestmark = pytest.mark.django_db


def in_an_hour() -> str:
    return (timezone.now() + dt.timedelta(hours=1)).isoformat()


def end_grants() -> int:
    Approval.objects.filter(lapses_at__isnull=False).update(
        lapses_at=timezone.now() - dt.timedelta(seconds=1)
    )
    return lapse_grants()


# --- approve until ------------------------------------------------------------------------------


def test_a_grant_with_an_end_goes_back_and_the_goal_asks_again(tower: Any) -> None:
    goal = run_out(tower)
    answer(tower, pending(goal), until=in_an_hour())
    tower.reconcile(goal)
    assert goal.phase == Phase.RUNNING
    tower.twins.cluster.advance(1_000)
    tower.reconcile(goal)
    before = account(goal, Unit.GPU_MS)
    unused = before.available
    assert unused > 0
    assert (end_grants(), end_grants()) == (1, 0)
    after = account(goal, Unit.GPU_MS)
    assert (after.available, after.limit) == (0, before.limit - unused)
    entry = LedgerEntry.objects.get(kind=EntryKind.RETURN)
    assert (entry.amount, entry.note) == (unused, "not used when its time was over")
    tower.reconcile(goal)
    assert goal.phase == Phase.PAUSED
    assert "ended at" in pending(goal).facts[0]["value"]
    assert JournalRecord.objects.filter(action="approval.lapsed").count() == 1
    answer(tower, pending(goal))
    tower.reconcile(goal)
    assert goal.phase == Phase.RUNNING


def test_a_grant_does_not_end_before_its_time(tower: Any) -> None:
    goal = run_out(tower)
    answer(tower, pending(goal), until=in_an_hour())
    assert lapse_grants() == 0


def test_racing_clocks_end_a_grant_once(shared_database: None, tower: Any) -> None:
    goal = run_out(tower)
    answer(tower, pending(goal), until=in_an_hour())
    Approval.objects.update(lapses_at=timezone.now() - dt.timedelta(seconds=1))
    ended = race(8, lambda _: lapse_grants())
    assert sum(ended) == 1
    assert LedgerEntry.objects.filter(kind=EntryKind.RETURN).count() == 1
    assert is_balanced(goal.accounts.get(unit=Unit.GPU_MS))


def test_a_landed_goal_gives_nothing_back_twice(tower: Any) -> None:
    from goals.services.apply import cancel_goal

    goal = run_out(tower)
    answer(tower, pending(goal), until=in_an_hour())
    cancel_goal(goal, principal=tower.operator)
    tower.reconcile(goal)
    returned = LedgerEntry.objects.filter(kind=EntryKind.RETURN).count()
    assert end_grants() == 1
    assert LedgerEntry.objects.filter(kind=EntryKind.RETURN).count() == returned
    assert not Approval.objects.filter(state="pending").exists()


@pytest.mark.parametrize("until", ["soon", None, 5, "2020-01-01T00:00:00Z", "2999-01-01T00:00:00"])
def test_an_end_is_a_moment_to_come(tower: Any, until: Any) -> None:
    goal = run_out(tower)
    with pytest.raises(ApprovalInvalid, match="until"):
        answer(tower, pending(goal), until=until)
    assert pending(goal)


# --- degrade ------------------------------------------------------------------------------------


def test_fewer_gpus_end_what_runs_on_more_and_start_it_anew(tower: Any) -> None:
    tower.register("tuner", gpus=2)
    goal = tower.apply(agents="tuner", budget="24 GPU-seconds").goal
    for _ in range(5):
        tower.reconcile(goal)
        tower.twins.cluster.advance(4_000)
    tower.reconcile(goal)
    assert goal.phase == Phase.PAUSED
    answer(tower, pending(goal), degrade={"gpus": 1})
    tower.reconcile(goal)
    wide, narrow = tower.attempts(goal)
    assert (wide.gpus, wide.state) == (2, "stopped")
    assert (narrow.gpus, narrow.state, goal.phase) == (1, "running", Phase.RUNNING)
    said = condition_of(goal, "Degraded")
    assert said is not None
    assert said["message"] == "approver: at most 1 GPU for each task."
    assert is_balanced(goal.accounts.get(unit=Unit.GPU_MS))


def test_no_further_iteration_lands_at_the_end_of_this_one(tower: Any) -> None:
    goal = run_out(tower)
    answer(tower, pending(goal), degrade={"last_iteration": True})
    tower.reconcile(goal)
    (attempt,) = tower.attempts(goal)
    tower.observe(goal, attempt, 900.0)
    tower.twins.cluster.finish(attempt.workload)
    tower.reconcile(goal)
    assert (goal.phase, goal.iteration) == (Phase.FAILED, 1)


def test_fewer_tasks_run_at_once(tower: Any) -> None:
    for name in ("a", "b", "c"):
        tower.register(name, gpus=1)
    goal = tower.apply(agents="a, b, c", budget="3 GPU-seconds").goal
    for _ in range(4):
        tower.reconcile(goal)
        tower.twins.cluster.advance(4_000)
    tower.reconcile(goal)
    active = len([one for one in tower.attempts(goal) if one.state == "paused"])
    assert active < 3
    answer(tower, pending(goal), degrade={"parallel": 1})
    for _ in range(3):
        tower.reconcile(goal)
    running = [one for one in tower.attempts(goal) if one.state in ("running", "paused")]
    assert len(running) <= max(active, 1)


@pytest.mark.parametrize(
    ("degrade", "said"),
    [
        ({}, "at least one"),
        ({"gpus": 1}, "no open task gets more than 1"),
        ({"gpus": 0}, "a whole number from 1"),
        ({"gpus": True}, "a whole number from 1"),
        ({"parallel": 1}, "enter less"),
        ({"model": "small"}, "no open task has a smaller model"),
        ({"model": ""}, "the name of a model"),
        ({"model": ["a", 1]}, "the name of a model"),
        ({"colour": "red"}, "degrade.colour: not one of"),
        ({"last_iteration": False}, "nothing of it asks for less"),
        ("less", "at least one"),
    ],
)
def test_a_degradation_must_take_something(tower: Any, degrade: Any, said: str) -> None:
    goal = run_out(tower)
    with pytest.raises(ApprovalInvalid, match=said):
        answer(tower, pending(goal), degrade=degrade)
    assert pending(goal).signatures.count() == 0


# --- what the wait risks ------------------------------------------------------------------------


def test_the_stake_is_a_cost_a_deadline_or_unknown(tower: Any) -> None:
    set_price(kind="gpu", name="default", micro_usd=3_600_000, actor=tower.admin.actor)
    held = run_out(tower, more="throttle: {gpusOnPause: Hold}")
    tower.register("profiler")
    late = tower.apply(
        "late", more="requireApproval: true, deadlineSeconds: 600".replace(", ", "\n  ")
    ).goal
    calm = tower.apply("calm", more="requireApproval: true").goal
    for goal in (late, calm):
        tower.reconcile(goal)
    open_ones = list(Approval.objects.filter(state="pending"))
    stakes = stakes_of(open_ones)
    by_goal = {one.goal_uid: stakes[one.uid] for one in open_ones}
    assert (by_goal[held.uid].gpus_held, by_goal[held.uid].micro_usd_per_minute) == (1, 60_000)
    assert by_goal[held.uid].asks == {"gpu_ms": 12_000}
    assert by_goal[late.uid].damage == "the Goal's deadline"
    assert by_goal[late.uid].asks == {"gpu_ms": 3_000_000}
    assert (by_goal[calm.uid].damage_at, by_goal[calm.uid].damage) == (None, "")
    ordered = sorted(open_ones, key=lambda one: stakes[one.uid].urgency(expires_at=one.expires_at))
    assert [one.goal_uid for one in ordered] == [held.uid, late.uid, calm.uid]


# --- how many must approve ----------------------------------------------------------------------


@pytest.mark.parametrize(("text", "quorum"), [(None, 1), ("3", 3), ("two", 2), ("0", 2), ("99", 9)])
def test_a_goal_may_ask_for_several_approvers(tower: Any, text: str | None, quorum: int) -> None:
    tower.register("profiler")
    goal = tower.apply(more="requireApproval: true").goal
    if text is not None:
        Goal.objects.update(annotations={"orchestration.ai/approval-quorum": text})
    tower.reconcile(goal)
    assert pending(goal).quorum == quorum


@pytest.mark.parametrize(
    ("said", "quorum"),
    [
        (["plain"], 1),
        ([{"msg": "two", "quorum": 2}, {"msg": "three", "quorum": 3}], 3),
        ({"msg": "one", "quorum": 5}, 5),
        ([{"msg": "too many", "quorum": 50}], 9),
        ([{"msg": "none", "quorum": 0}, {"msg": "odd", "quorum": True}], 1),
        (True, 1),
    ],
)
def test_a_rule_may_ask_for_several_approvers(said: Any, quorum: int) -> None:
    from governance.policy.verdict import quorum_in

    assert quorum_in(said) == quorum


def test_why_a_graph_is_asked_about_is_a_sentence(tower: Any) -> None:
    tower.register("profiler")
    tower.reconcile(tower.apply(more="requireApproval: true").goal)
    why = Approval.objects.get().facts[0]["value"]
    assert why.startswith("an approver must sign")

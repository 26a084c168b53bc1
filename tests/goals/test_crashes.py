"""A worker killed at any write, or a cluster that fails at any call: every Goal ends the same."""

import os
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from django.db import OperationalError, connection
from django.utils import timezone

from agents.cluster.base import ClusterError, ClusterUnavailable
from agents.models import Attempt
from goals.models import Goal, LedgerEntry
from goals.services.ledger import is_balanced
from goals.services.reconcile import reconcile_goal
from governance.models import Approval, Decision, JournalRecord
from governance.services.approvals import decide_approval
from governance.services.verification import verify_journal
from lineage.models import Edge

pytestmark = pytest.mark.django_db(transaction=True)

WRITES = ("INSERT", "UPDATE", "DELETE")
ROUNDS_MAX = 60
# Every write is tried with CRASH_STRIDE=1; by default a sample that covers each kind of step.
STRIDE = int(os.environ.get("CRASH_STRIDE", "13"))


# What was seen on the way: a state that nobody lived to see is not recorded.
SIGHTINGS = frozenset({"goal.condition", "attempt.paused", "attempt.running"})


class Killed(BaseException):
    """SIGKILL as the code sees it: nothing it wrote to catch errors catches this."""


@contextmanager
def failing_at(number: int, error: BaseException) -> Iterator[list[str]]:
    """The write with that number (from 1) raises instead of happening; yields writes seen."""
    seen: list[str] = []

    def count(execute: Any, sql: str, params: Any, many: bool, context: Any) -> Any:
        if sql.startswith(WRITES):
            seen.append(sql)
            if len(seen) == number:
                raise error
        return execute(sql, params, many, context)

    with connection.execute_wrapper(count):
        yield seen


def visit(goal: Goal) -> None:
    """One worker's turn; a dead worker's lease runs out before the next."""
    try:
        for _ in range(20):
            if not reconcile_goal(goal.uid):
                break
    except Killed:
        expire_lease(goal)
        raise


def expire_lease(goal: Goal) -> None:
    Goal.objects.filter(pk=goal.pk).exclude(lease_owner="").update(
        lease_expires_at=timezone.now() - timezone.timedelta(seconds=1)
    )


def world(tower: Any, goal: Goal) -> None:
    """What happens outside: people answer, programs run for 12 s and end."""
    for approval in Approval.objects.filter(goal_uid=goal.uid, state="pending"):
        decide_approval(
            approval,
            principal=tower.approver,
            approve=True,
            reason="Go on.",
            request_digest=approval.request_digest,
        )
    cluster = tower.twins.cluster
    cluster.advance(4_000)
    for attempt in Attempt.objects.filter(goal_uid=goal.uid, finished_at__isnull=True):
        status = cluster.get(attempt.workload)
        if status and status.phase == "Running" and status.running_ms >= 12_000:
            tower.observe(goal, attempt, 80.0, span_id=goal.uid.hex[:16])
            cluster.finish(attempt.workload)


def drive(tower: Any, goal: Goal) -> None:
    """Until the Goal has landed; a visit that was killed is simply made again."""
    for _ in range(ROUNDS_MAX):
        try:
            visit(goal)
        except Killed:
            continue
        goal.refresh_from_db()
        expire_lease(goal)  # one that could not be given back
        if goal.landed_at is not None:
            return
        condition = next((c for c in goal.conditions if c["type"] == "Reconciled"), None)
        if condition is None or condition["status"] == "True":
            world(tower, goal)
    raise AssertionError(f"{goal} is {goal.phase} for ever: {goal.conditions}")


def outcome(goal: Goal) -> dict[str, Any]:
    """All that must be the same however often a worker died."""
    accounts = {a.unit: (a.limit, a.reserved, a.settled) for a in goal.accounts.all()}
    assert all(is_balanced(account) for account in goal.accounts.all())
    actions = JournalRecord.objects.filter(goal_uid=goal.uid).values_list("action", flat=True)
    return {
        "phase": goal.phase,
        "accounts": accounts,
        "attempts": list(
            Attempt.objects.filter(goal_uid=goal.uid)
            .order_by("task", "number")
            .values_list("task", "number", "state", "gpu_settled_ms", "gpu_allowance_ms")
        ),
        "entries": LedgerEntry.objects.filter(account__goal=goal).count(),
        "decisions": Decision.objects.filter(goal_uid=goal.uid).count(),
        "edges": Counter(Edge.objects.filter(goal_uid=goal.uid).values_list("relation", flat=True)),
        "actions": Counter(action for action in actions if action not in SIGHTINGS),
    }


def fresh_goal(tower: Any, number: int) -> Goal:
    applied = tower.apply(
        f"goal-{number}", agents="scout, tuner", budget="12 GPU-seconds, 1 USD", more=MORE
    )
    return applied.goal  # type: ignore[no-any-return]


MORE = "requireApproval: true"


@pytest.fixture
def fleet(tower: Any) -> Any:
    from goals.services.prices import set_price

    set_price(kind="gpu", name="default", micro_usd=3_600_000, actor=tower.admin.actor)
    tower.register("scout", produces="profile")
    tower.register("tuner", gpus=1, consumes="profile", produces="weights")
    return tower


def unperturbed(tower: Any) -> tuple[dict[str, Any], int]:
    goal = fresh_goal(tower, 0)
    with failing_at(-1, Killed()) as writes:
        drive(tower, goal)
    return outcome(goal), len(writes)


def test_a_worker_killed_at_any_write_changes_nothing_of_the_outcome(fleet: Any) -> None:
    expected, writes = unperturbed(fleet)
    assert expected["phase"] == "Satisfied"
    assert expected["actions"]["approval.approved"] == 2
    for number in range(1, writes + 1, STRIDE):
        goal = fresh_goal(fleet, number)
        with failing_at(number, Killed()) as seen:
            drive_with_answers_outside(fleet, goal)
        assert outcome(goal) == expected, f"killed at write {number}: {seen[number - 1][:120]}"
    assert verify_journal().holds


def test_an_error_of_the_database_at_any_write_is_said_and_survived(fleet: Any) -> None:
    expected, writes = unperturbed(fleet)
    for number in range(2, writes + 1, STRIDE * 2):
        goal = fresh_goal(fleet, number)
        with failing_at(number, OperationalError("disk I/O error")) as seen:
            drive_with_answers_outside(fleet, goal)
        assert outcome(goal) == expected, f"failed at write {number}: {seen[number - 1][:120]}"
    assert verify_journal().holds


def drive_with_answers_outside(tower: Any, goal: Goal) -> None:
    """As `drive`; an error in somebody else's write (the approver's) is theirs to repeat."""
    for _ in range(ROUNDS_MAX):
        try:
            drive(tower, goal)
        except (Killed, OperationalError):
            expire_lease(goal)
            continue
        return


CALLS_MAX = 90


def failing_cluster(cluster: Any, number: int, error: ClusterError) -> Callable[[], None]:
    """The call with that number raises; returns what ends this."""
    calls = 0
    maybe_fail = cluster._maybe_fail

    def count() -> None:
        nonlocal calls
        calls += 1
        if calls == number:
            cluster.fail_next(error)
        maybe_fail()

    cluster._maybe_fail = count
    return lambda: setattr(cluster, "_maybe_fail", maybe_fail)


@pytest.mark.parametrize("kind", [ClusterError, ClusterUnavailable])
def test_a_cluster_that_fails_at_any_call_delays_and_changes_nothing(
    fleet: Any, kind: type[ClusterError]
) -> None:
    expected, _ = unperturbed(fleet)
    for number in range(1, CALLS_MAX, STRIDE):
        goal = fresh_goal(fleet, number)
        restore = failing_cluster(fleet.twins.cluster, number, kind("the cluster hiccups"))
        try:
            drive_with_cluster(fleet, goal)
        finally:
            restore()
        assert outcome(goal) == expected, f"failed at call {number}"


def drive_with_cluster(tower: Any, goal: Goal) -> None:
    for _ in range(ROUNDS_MAX):
        try:
            drive(tower, goal)
        except ClusterError:  # the test's own look at the cluster
            continue
        return

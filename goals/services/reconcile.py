"""Reconcile: read what is wanted and what is, take the next step, until nothing is left to do."""

import datetime as dt
import logging
from uuid import UUID

from django.db.models import Q
from django.db.models.functions import Now
from django.utils import timezone

from agents.cluster.base import ClusterError
from agents.domain.states import ACTIVE_STATES
from agents.models import Attempt
from goals.domain.states import TERMINAL_PHASES, Phase
from goals.models import Goal
from goals.services.conditions import journal_goal, set_condition
from goals.services.landing import finish_landing, start_landing
from goals.services.lease import (
    Lease,
    LeaseLost,
    acquire_lease,
    fenced,
    release_lease,
    worker_identity,
)
from goals.services.parents import settle_with_parent
from goals.services.planning import judge_step, plan_step
from goals.services.running import run_step, stop_attempts
from governance.policy.base import PolicyError

logger = logging.getLogger(__name__)

# Steps in one visit; a Goal that wants more is visited again at once. Keeps one busy Goal from
# holding a worker.
STEPS_MAX = 12
RESYNC_SECONDS = 1.0  # how often an active Goal is looked at without being rung for


def reconcile_goal(goal_uid: UUID) -> bool:
    """Take a Goal as far as it goes now; True when more can be done at once.

    Level-triggered: it reads the rows and the cluster each time, so any number of repeats and any
    crash in between lead to the same end. Does nothing while another worker holds the lease.
    """
    lease = acquire_lease(goal_uid, owner=worker_identity())
    if lease is None:
        return False
    again = True
    try:
        for _ in range(STEPS_MAX):
            goal = Goal.objects.get(pk=goal_uid)
            again = _step(goal, lease)
            if not again:
                break
    except LeaseLost:
        logger.info("lease of %s was taken over", goal_uid)
        return False
    except (ClusterError, PolicyError) as error:
        logger.warning("goal %s waits: %s", goal_uid, error)
        _say_waiting(goal_uid, lease, error)
        again = False
    finally:
        _schedule_next(goal_uid)
        release_lease(lease)
    return again


def _step(goal: Goal, lease: Lease) -> bool:
    if goal.landing and not goal.is_landed:
        return _land(goal, lease)
    if _is_overdue(goal):
        with fenced(lease):
            start_landing(
                goal,
                Phase.FAILED,
                reason="DeadlineExceeded",
                message=f"Not done {goal.spec['deadlineSeconds']} s after it was asked for.",
            )
        return True
    match Phase(goal.phase):
        case Phase.DRAFT:
            return _stop_leftovers(goal, lease) and plan_step(goal, lease)
        case Phase.PLANNED:
            return judge_step(goal, lease)
        case Phase.RUNNING | Phase.PAUSED:
            return run_step(goal, lease)
        case Phase.AWAITING_APPROVAL:
            return False
        case _:
            return _after_landing(goal, lease)


def _stop_leftovers(goal: Goal, lease: Lease) -> bool:
    """A changed Goal starts anew only once nothing of the old generation runs."""
    if Attempt.objects.filter(goal_uid=goal.uid, state__in=ACTIVE_STATES).exists():
        return stop_attempts(goal, lease)
    return True


def _land(goal: Goal, lease: Lease) -> bool:
    if not stop_attempts(goal, lease):
        return False
    finish_landing(goal, lease)
    return True


def _after_landing(goal: Goal, lease: Lease) -> bool:
    """Hide a Goal whose deletion was waiting for it to land; settle with its parent."""
    settle_with_parent(goal, lease)
    if goal.deletion_requested_at is None or goal.deleted_at is not None:
        return False
    with fenced(lease):
        Goal.objects.filter(pk=goal.pk, deleted_at__isnull=True).update(deleted_at=timezone.now())
        journal_goal(goal, "goal.deleted", {})
    return False


def _is_overdue(goal: Goal) -> bool:
    seconds = goal.spec.get("deadlineSeconds")
    if seconds is None or goal.is_landed:
        return False
    return timezone.now() > goal.created_at + dt.timedelta(seconds=seconds)


def _say_waiting(goal_uid: UUID, lease: Lease, error: Exception) -> None:
    try:
        with fenced(lease):
            set_condition(
                Goal.objects.get(pk=goal_uid),
                "Reconciled",
                False,
                reason=type(error).__name__,
                message=str(error),
            )
    except LeaseLost:
        return


def _schedule_next(goal_uid: UUID) -> None:
    Goal.objects.filter(pk=goal_uid).update(
        reconcile_after=timezone.now() + dt.timedelta(seconds=RESYNC_SECONDS)
    )


def goals_due() -> list[UUID]:
    """Goals that are not done and were not looked at within the resync period."""
    undone = ~Q(phase__in=TERMINAL_PHASES) | Q(
        deletion_requested_at__isnull=False, deleted_at__isnull=True
    )
    return list(
        Goal.objects.filter(undone, reconcile_after__lte=Now())
        .order_by("reconcile_after")
        .values_list("uid", flat=True)[:1000]
    )

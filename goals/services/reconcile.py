"""Reconcile: read what is wanted and what is, take the next step, until nothing is left to do."""

import datetime as dt
import logging
from uuid import UUID

from django.db import Error as DatabaseError
from django.db.models import Q
from django.db.models.functions import Now
from django.utils import timezone

from agents.cluster.base import ClusterError
from agents.domain.states import ACTIVE_STATES
from agents.models import Attempt
from goals.domain.states import TERMINAL_PHASES, Phase
from goals.models import Goal
from goals.services.conditions import GoalMoved, condition_of, journal_goal, set_condition
from goals.services.landing import (
    finish_landing,
    have_children_landed,
    land_children,
    start_landing,
)
from goals.services.lease import (
    Lease,
    LeaseLost,
    acquire_lease,
    fenced,
    kept_alive,
    release_lease,
    worker_identity,
)
from goals.services.planning import judge_step, plan_step
from goals.services.running import run_step, settle_last_tokens, stop_attempts
from governance.policy.base import PolicyError
from lineage.telemetry.base import TelemetryError

logger = logging.getLogger(__name__)

# Steps in one visit; a Goal that wants more is visited again at once. Keeps one busy Goal from
# holding a worker.
STEPS_MAX = 12
RESYNC_SECONDS = 1.0  # how often an active Goal is looked at without being rung for
QUIET_SECONDS = 10.0  # the same for one that waits for an answer: only its deadline can pass
# A Goal that cannot go on is tried again after as long as it has failed, within these.
RETRY_MIN_SECONDS = 1.0
RETRY_MAX_SECONDS = 60.0
RING_LIFE_SECONDS = 5  # an unheard ring is rung again after this, and never piles up
_RECONCILED = "Reconciled"
# Errors whose text is meant for people.
EXPECTED_ERRORS = (ClusterError, PolicyError, TelemetryError)


def reconcile_goal(goal_uid: UUID) -> bool:
    """Take a Goal as far as it goes now; True when more can be done at once.

    Level-triggered: it reads the rows and the cluster each time, so any number of repeats and any
    crash in between lead to the same end. Does nothing while another worker holds the lease.
    """
    lease = acquire_lease(goal_uid, owner=worker_identity())
    if lease is None:
        return False
    delay = RESYNC_SECONDS
    try:
        with kept_alive(lease):
            again, delay = _steps(goal_uid, lease)
    except LeaseLost:
        logger.info("the lease of %s is over", goal_uid)
        return False
    except GoalMoved as error:
        logger.info("%s", error)
        again = True
    except Exception as error:  # whatever it is, the Goal says so, waits and is tried again
        if isinstance(error, EXPECTED_ERRORS):
            logger.warning("goal %s waits: %s", goal_uid, error)
        else:
            logger.exception("goal %s cannot go on", goal_uid)
        delay = _say_waiting(goal_uid, lease, error)
        again = False
    _leave(lease, delay)
    return again


def _steps(goal_uid: UUID, lease: Lease) -> tuple[bool, float]:
    """Whether more can be done at once, and in how many seconds to look again otherwise."""
    again = True
    for _ in range(STEPS_MAX):
        again = _step(Goal.objects.get(pk=goal_uid), lease)
        if not again:
            break
    goal = Goal.objects.get(pk=goal_uid)
    _say_going_on(goal, lease)
    is_quiet = goal.phase == Phase.AWAITING_APPROVAL and not goal.landing
    return again, QUIET_SECONDS if is_quiet else RESYNC_SECONDS


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
            return False  # the answer moves it
        case _:
            return _after_landing(goal, lease)


def _stop_leftovers(goal: Goal, lease: Lease) -> bool:
    """A changed Goal starts anew only once nothing of the old generation runs."""
    if Attempt.objects.filter(goal_uid=goal.uid, state__in=ACTIVE_STATES).exists():
        return stop_attempts(goal, lease)
    return True


def _land(goal: Goal, lease: Lease) -> bool:
    land_children(goal, lease)
    if not stop_attempts(goal, lease):
        return False
    if not have_children_landed(goal):
        return False
    settle_last_tokens(goal, lease)
    finish_landing(goal, lease)
    return True


def _after_landing(goal: Goal, lease: Lease) -> bool:
    """Hide a Goal whose deletion was waiting for it to land."""
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
    return timezone.now() > goal.asked_at + dt.timedelta(seconds=seconds)


def _say_waiting(goal_uid: UUID, lease: Lease, error: Exception) -> float:
    """Say in a condition why the Goal does not go on; how long to wait, in seconds.

    What an unexpected error says may hold what is nobody's business: it is in the log alone.
    """
    is_expected = isinstance(error, EXPECTED_ERRORS)
    text = str(error) if is_expected else "An unexpected error, see the log; it is tried again."
    try:
        with fenced(lease):
            goal = Goal.objects.get(pk=goal_uid)
            set_condition(goal, _RECONCILED, False, reason=type(error).__name__, message=text)
    except (LeaseLost, DatabaseError):
        return RETRY_MIN_SECONDS
    condition = condition_of(goal, _RECONCILED)
    if condition is None:
        return RETRY_MIN_SECONDS
    since = dt.datetime.fromisoformat(condition["lastTransitionTime"])
    failing = (timezone.now() - since).total_seconds()
    return min(max(failing, RETRY_MIN_SECONDS), RETRY_MAX_SECONDS)


def _say_going_on(goal: Goal, lease: Lease) -> None:
    condition = condition_of(goal, _RECONCILED)
    if condition is not None and condition["status"] == "False":
        with fenced(lease):
            set_condition(goal, _RECONCILED, True, reason="GoesOn")


def _leave(lease: Lease, delay_seconds: float) -> None:
    """Say when to look again and give the lease back; what cannot be said expires by itself."""
    try:
        release_lease(lease, again_in=dt.timedelta(seconds=delay_seconds))
    except DatabaseError as error:
        logger.warning("lease of %s not given back: %s", lease.goal_uid, error)


def claim_due_goals() -> list[UUID]:
    """Goals to ring for now; each is due again only after the ring's life.

    However long the workers are busy, at most one living ring of a Goal is in the queue.
    """
    due = goals_due()
    Goal.objects.filter(pk__in=due).update(
        reconcile_after=timezone.now() + dt.timedelta(seconds=RING_LIFE_SECONDS)
    )
    return due


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

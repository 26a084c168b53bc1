"""Says on the Goal what keeps its attempts from running, and what the cluster took from it."""

from collections.abc import Sequence
from typing import Any, Final

from agents.cluster.base import DISRUPTIONS
from agents.domain.states import AttemptState
from agents.models import Attempt
from agents.services.blocked import BLOCKED
from goals.models import Goal
from goals.services.conditions import condition_of, journal_goal, set_condition
from goals.services.lease import Lease, fenced

SCHEDULED: Final = "Scheduled"  # False while an attempt waits for something others hold
DISRUPTED: Final = "Disrupted"  # True from an eviction, preemption or lost node until it runs again


def say_blocked(goal: Goal, attempts: Sequence[Attempt], lease: Lease) -> None:
    """Set both conditions from the attempts as just read; writes only what is news."""
    waiting = [one for one in attempts if _is_waiting(one)]
    if waiting:
        first = waiting[0]
        more = f" ({len(waiting) - 1} more tasks wait)" if len(waiting) > 1 else ""
        _say(goal, lease, SCHEDULED, False, first.reason, f"{first.task}: {first.message}{more}")
    elif _status(goal, SCHEDULED) == "False":
        _say(goal, lease, SCHEDULED, True, "NothingWaits", "")
    taken = next((one for one in attempts if _is_disrupted(one)), None)
    if taken is not None:
        message = f"{taken.task}, attempt {taken.number}: {taken.message} It is tried again."
        _say(goal, lease, DISRUPTED, True, taken.reason, message)
    elif _status(goal, DISRUPTED) == "True":
        _say_recovered(goal, attempts, lease)


def _say_recovered(goal: Goal, attempts: Sequence[Attempt], lease: Lease) -> None:
    lost = Attempt.objects.filter(
        goal_uid=goal.uid, state=AttemptState.LOST, reason__in=DISRUPTIONS
    ).order_by("-finished_at")
    last = lost.first()
    if last is None:
        return
    again = next((one for one in attempts if _replaces(one, last)), None)
    if again is not None:
        message = f"{again.task} runs again, as attempt {again.number}."
        _say(goal, lease, DISRUPTED, False, "RunsAgain", message)


def _replaces(attempt: Attempt, lost: Attempt) -> bool:
    is_later = attempt.created_at > lost.created_at
    has_run = attempt.state in (AttemptState.RUNNING, AttemptState.SUCCEEDED)
    return attempt.task == lost.task and is_later and has_run


def _say(goal: Goal, lease: Lease, kind: str, status: bool, reason: str, message: str) -> None:
    """Also journals a new sentence under an old reason: others follow the journal."""
    known = condition_of(goal, kind) or {}
    if (known.get("status"), known.get("reason"), known.get("message")) == (
        str(status),
        reason,
        message,
    ):
        return
    is_old = (known.get("status"), known.get("reason")) == (str(status), reason)
    with fenced(lease):
        set_condition(goal, kind, status, reason=reason, message=message)
        if is_old:
            journal_goal(goal, "goal.condition", {"condition": condition_of(goal, kind)})


def _is_waiting(attempt: Attempt) -> bool:
    return attempt.state == AttemptState.PENDING and attempt.message.startswith(BLOCKED)


def _is_disrupted(attempt: Attempt) -> bool:
    return attempt.state == AttemptState.LOST and attempt.reason in DISRUPTIONS


def _status(goal: Goal, kind: str) -> Any:
    return (condition_of(goal, kind) or {}).get("status")

"""Phase and conditions of a Goal: every change of them is written, journaled and announced here."""

from typing import Any

from django.db import transaction
from django.utils import timezone

from goals.domain.states import Phase, check_transition
from goals.events import hint_on_commit, ring_on_commit
from goals.models import Goal
from governance.services.journal import append_record, rfc3339
from lineage.domain import Actor, ActorKind

RECONCILER = Actor(ActorKind.SYSTEM, "reconcile")


class GoalMoved(Exception):
    """The Goal is no longer where it was read: read it again."""


def with_condition(
    conditions: list[dict[str, Any]],
    *,
    kind: str,
    status: bool | None,
    reason: str,
    message: str,
    generation: int,
) -> list[dict[str, Any]]:
    """The list with one condition set, as Kubernetes does it.

    `lastTransitionTime` moves only when the status does; None is "Unknown".
    """
    word = "Unknown" if status is None else str(status)
    earlier = next((c for c in conditions if c["type"] == kind), None)
    since = rfc3339(timezone.now())
    if earlier is not None and earlier["status"] == word:
        since = earlier["lastTransitionTime"]
    entry = {
        "type": kind,
        "status": word,
        "reason": reason,
        "message": message,
        "observedGeneration": generation,
        "lastTransitionTime": since,
    }
    return [*(c for c in conditions if c["type"] != kind), entry]


def condition_of(goal: Goal, kind: str) -> dict[str, Any] | None:
    """The condition of that type, or None."""
    conditions: list[dict[str, Any]] = goal.conditions
    return next((c for c in conditions if c["type"] == kind), None)


def set_condition(
    goal: Goal,
    kind: str,
    status: bool | None,
    *,
    reason: str,
    message: str = "",
    actor: Actor = RECONCILER,
) -> bool:
    """Set one condition in the caller's transaction; True when anything about it changed."""
    earlier = condition_of(goal, kind)
    conditions = with_condition(
        goal.conditions,
        kind=kind,
        status=status,
        reason=reason,
        message=message,
        generation=goal.generation,
    )
    entry = conditions[-1]
    if earlier == entry:
        return False
    with transaction.atomic():
        Goal.objects.filter(pk=goal.pk).update(conditions=conditions)
        goal.conditions = conditions
        if earlier is None or (earlier["status"], earlier["reason"]) != (
            entry["status"],
            entry["reason"],
        ):
            journal_goal(goal, "goal.condition", {"condition": entry}, actor=actor)
        hint_on_commit(goal_uid=goal.uid, namespace=goal.namespace, topic="goal")
    return True


def set_phase(
    goal: Goal,
    phase: Phase,
    *,
    reason: str,
    message: str = "",
    actor: Actor = RECONCILER,
    **fields: Any,
) -> None:
    """Move a Goal to another phase, in the caller's transaction.

    `fields` are further columns that change with it. Raises TransitionRefused, GoalMoved.
    """
    current = Phase(goal.phase)
    check_transition(current, phase)
    conditions = with_condition(
        goal.conditions,
        kind="Ready",
        status=phase is Phase.SATISFIED if Phase(phase) in _ENDED else None,
        reason=reason,
        message=message,
        generation=goal.generation,
    )
    with transaction.atomic():
        moved = Goal.objects.filter(pk=goal.pk, phase=current, generation=goal.generation).update(
            phase=phase, conditions=conditions, **fields
        )
        if moved != 1:
            raise GoalMoved(f"{goal} is no longer {current}.")
        goal.phase, goal.conditions = phase, conditions
        for name, value in fields.items():
            setattr(goal, name, value)
        journal_goal(
            goal,
            "goal.phase",
            {"from": current.value, "to": phase.value, "reason": reason, "message": message},
            actor=actor,
        )
        hint_on_commit(goal_uid=goal.uid, namespace=goal.namespace, topic="goal")
        ring_on_commit(goal.uid)


_ENDED = frozenset({Phase.SATISFIED, Phase.EXHAUSTED, Phase.FAILED, Phase.CANCELLED, Phase.DENIED})


def journal_goal(
    goal: Goal, action: str, body: dict[str, Any], *, actor: Actor = RECONCILER
) -> None:
    """Write a journal record about a Goal, in the caller's transaction."""
    append_record(
        action=action,
        actor=actor,
        object_kind="goal",
        object_id=str(goal.uid),
        namespace=goal.namespace,
        goal_uid=goal.uid,
        body={"name": goal.name, "generation": goal.generation, **body},
    )

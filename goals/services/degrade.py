"""Degraded Goals: an approver's caps are read from the answers, and enforced."""

import json
from typing import Any

from agents.domain.states import ACTIVE_STATES, DesiredState
from agents.models import Attempt
from agents.services.attempts import models_of, set_desired
from goals.domain.degrade import Degradation, parse_degradation
from goals.domain.states import TaskState
from goals.models import Goal, Task
from governance.domain import ApprovalKind, ApprovalState
from governance.models import Approval
from lineage.domain import Actor

DEFAULT_MAX_ITERATIONS = 3


def degradation_of(goal: Goal) -> Degradation:
    """All that approvers have taken from this generation of the Goal."""
    answered = Approval.objects.filter(
        goal_uid=goal.uid,
        kind=ApprovalKind.BUDGET,
        state=ApprovalState.APPROVED,
        answer__has_key="degrade",
    )
    found = Degradation()
    for canonical, answer in answered.values_list("request_canonical", "answer"):
        if json.loads(canonical)["generation"] == goal.generation:
            found = found.tightened(parse_degradation(answer["degrade"]))
    return found


def iterations_allowed(goal: Goal) -> int:
    """How often the graph may run in all."""
    declared = int(goal.spec.get("maxIterations", DEFAULT_MAX_ITERATIONS))
    return min(declared, goal.iteration) if degradation_of(goal).last_iteration else declared


def open_tasks(goal: Goal) -> Any:
    """Tasks of the current iteration that have not succeeded."""
    tasks = Task.objects.filter(goal=goal, graph_digest=goal.graph_digest, iteration=goal.iteration)
    return tasks.exclude(state=TaskState.SUCCEEDED)


def enforce_degradation(goal: Goal, degradation: Degradation, *, actor: Actor) -> None:
    """End what uses more than the caps, in the caller's transaction.

    Reconcile starts it anew with less; what it had reserved is given back when it has ended.
    """
    if degradation.gpus is None and not degradation.models:
        return
    for attempt in Attempt.objects.filter(goal_uid=goal.uid, state__in=ACTIVE_STATES):
        if _uses_more(attempt, degradation):
            set_desired(attempt, DesiredState.STOPPED, actor=actor)


def _uses_more(attempt: Attempt, degradation: Degradation) -> bool:
    models = tuple(models_of(attempt))
    is_wide = degradation.gpus_of(attempt.gpus) < attempt.gpus
    return is_wide or degradation.models_of(models) != models

"""Degraded Goals: an approver's caps are read from the answers, checked, and enforced."""

import json
from typing import Any

from django.db.models import Max

from agents.domain.states import ACTIVE_STATES, DesiredState
from agents.models import Attempt
from agents.services.attempts import set_desired
from goals.domain.degrade import Degradation, DegradeInvalid, parse_degradation
from goals.domain.states import TaskState
from goals.models import Goal, Task
from governance.domain import ApprovalInvalid, ApprovalKind, ApprovalState
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


def ways_to_degrade(goal: Goal) -> dict[str, int]:
    """What there is to take: the most GPUs an open task gets now, tasks open, iterations left."""
    now = degradation_of(goal)
    tasks = open_tasks(goal)
    widest = tasks.aggregate(most=Max("gpus"))["most"] or 0
    at_once = tasks.count() if now.parallel is None else min(now.parallel, tasks.count())
    return {
        "gpus": now.gpus_of(widest),
        "parallel": at_once,
        "iterations": max(iterations_allowed(goal) - goal.iteration, 0),
    }


def check_degradation(goal: Goal, document: Any) -> Degradation:
    """The degradation, if it takes something from the Goal. Raises ApprovalInvalid."""
    try:
        wanted = parse_degradation(document)
    except DegradeInvalid as error:
        raise ApprovalInvalid(str(error)) from error
    ways = ways_to_degrade(goal)
    if wanted.gpus is not None and wanted.gpus >= ways["gpus"]:
        raise ApprovalInvalid(
            f"degrade.gpus: no open task gets more than {ways['gpus']} GPUs: enter less."
        )
    if wanted.parallel is not None and wanted.parallel >= ways["parallel"]:
        raise ApprovalInvalid(
            f"degrade.parallel: {ways['parallel']} tasks are open at once: enter less."
        )
    if wanted.last_iteration and not ways["iterations"]:
        raise ApprovalInvalid("degrade.last_iteration: this iteration is the last anyway.")
    return wanted


def enforce_degradation(goal: Goal, degradation: Degradation, *, actor: Actor) -> None:
    """End what uses more than the cap, in the caller's transaction.

    Reconcile starts it anew on fewer GPUs; what it had reserved is given back when it has ended.
    """
    if degradation.gpus is None:
        return
    wide = Attempt.objects.filter(
        goal_uid=goal.uid, state__in=ACTIVE_STATES, gpus__gt=degradation.gpus
    )
    for attempt in wide:
        set_desired(attempt, DesiredState.STOPPED, actor=actor)

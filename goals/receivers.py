"""What goals do at news from governance, and what they answer when it asks."""

import json
from collections.abc import Iterable, Sequence
from typing import Any
from uuid import UUID

from agents.models import Agent
from goals.conduct_pages import conduct_documents
from goals.events import hint_on_commit, ring_on_commit
from goals.models import Account, Goal
from goals.services.drifting import apply_drift_answer
from goals.services.lease import break_lease
from goals.services.releases import apply_release_answer
from goals.services.stakes import stakes_of
from goals.services.throttle import (
    apply_budget_answer,
    apply_graph_answer,
    check_budget_answer,
)
from governance.domain import ApprovalKind, ApprovalState, Stake
from governance.models import Approval
from lineage.domain import Actor


def apply_answer(sender: object, *, approval: Approval, actor: Actor, **_: Any) -> None:
    """Apply a decided, expired or voided approval to what it was about."""
    request = json.loads(approval.request_canonical)
    if approval.kind == ApprovalKind.RELEASE:
        apply_release_answer(approval, request, actor)
    goal = Goal.objects.filter(pk=approval.goal_uid).first() if approval.goal_uid else None
    if goal is not None:
        if approval.state != ApprovalState.VOIDED:
            break_lease(goal.uid)  # what voids is the Goal's own worker, or breaks it itself
        if approval.kind == ApprovalKind.BUDGET:
            apply_budget_answer(approval, goal, request, actor)
        elif approval.kind == ApprovalKind.GRAPH:
            apply_graph_answer(approval, goal, request)
        elif approval.kind == ApprovalKind.DRIFT:
            apply_drift_answer(approval, goal, request)
        ring_on_commit(goal.uid)
    hint_on_commit(goal_uid=approval.goal_uid, namespace=approval.namespace, topic="approval")


def check_answer(sender: object, *, approval: Approval, answer: dict[str, Any], **_: Any) -> None:
    """Refuse an answer that could not be applied, before anybody signs it."""
    if approval.kind != ApprovalKind.BUDGET or approval.goal_uid is None:
        return
    goal = Goal.objects.filter(pk=approval.goal_uid).first()
    if goal is not None:
        check_budget_answer(goal, answer, json.loads(approval.request_canonical))


def tell_touched(sender: object, *, approval: Approval, **_: Any) -> None:
    """Open pages fetch an approval again that was signed, asked about or escalated."""
    hint_on_commit(goal_uid=approval.goal_uid, namespace=approval.namespace, topic="approval")


def tell_stakes(
    sender: object, *, approvals: Sequence[Approval], has_ways: bool = False, **_: Any
) -> dict[UUID, Stake]:
    """What the wait for each of these answers risks."""
    return stakes_of(approvals, has_ways=has_ways)


def tell_spend(
    sender: object, *, goal_uids: Iterable[UUID], **_: Any
) -> dict[UUID, dict[str, int]]:
    """What each of these Goals has settled, by unit of its budget."""
    found: dict[UUID, dict[str, int]] = {}
    settled = Account.objects.filter(goal_id__in=list(goal_uids))
    for goal_uid, unit, amount in settled.values_list("goal_id", "unit", "settled"):
        found.setdefault(goal_uid, {})[unit] = amount
    return found


def tell_conduct(sender: object, *, agent: Agent, **_: Any) -> dict[UUID, dict[str, Any]]:
    """What this agent's attempts did lately, and what policy said of it."""
    return conduct_documents(agent)

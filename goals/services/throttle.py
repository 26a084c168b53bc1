"""The economic throttle: at the limit a human is asked, and the answer grants or lands."""

import json
from collections.abc import Sequence
from typing import Any

from django.db.models import QuerySet

from agents.cluster import get_cluster
from agents.models import Attempt
from goals.domain.budget import parse_budget
from goals.domain.degrade import parse_degradation
from goals.domain.states import Phase, Unit
from goals.events import hint_on_commit
from goals.models import Account, Goal
from goals.services.approval_facts import budget_facts, quorum_asked
from goals.services.conditions import set_condition, set_phase
from goals.services.degrade import enforce_degradation
from goals.services.landing import start_landing
from goals.services.ledger import (
    BIGGEST_AMOUNT,
    LedgerError,
    NotCovered,
    Source,
    open_account,
)
from goals.services.metering import Shortage
from goals.services.parents import cover_from_parent
from goals.services.planning import barred_from
from goals.services.ways import check_degradation
from governance.domain import ApprovalInvalid, ApprovalKind, ApprovalState
from governance.models import Approval
from governance.services.approvals import Fact, Question, open_approval
from lineage.domain import Actor, NodeKind, NodeRef, Relation
from lineage.services.graph import link

# What is asked for when the budget names nothing of the dimension that ran short.
DEFAULT_ASK = {Unit.GPU_MS: 600_000, Unit.TOKENS: 100_000, Unit.MICRO_USD: 5_000_000}


def open_question(goal: Goal) -> Approval | None:
    """The budget question of this Goal that nobody has answered yet."""
    return _questions(goal).filter(state=ApprovalState.PENDING).first()


def is_waiting_for_budget(goal: Goal) -> bool:
    """Whether a budget question of this Goal is still open."""
    return open_question(goal) is not None


def must_ask(goal: Goal, shortage: Shortage) -> bool:
    """Whether the open question, if any, does not answer this shortage.

    One question at a time: another dimension that ran short is asked for after the answer.
    """
    pending = open_question(goal)
    if pending is None:
        return True
    request = json.loads(pending.request_canonical)
    return bool(request["unit"] == shortage.unit and int(request["ask"]) < shortage.wanted)


def shortage_facts(goal: Goal, shortage: Shortage) -> list[Fact]:
    """The facts of the card. Asks the telemetry store: never within a transaction."""
    account = Account.objects.filter(goal=goal, unit=shortage.unit).first()
    empty = account or Account(goal=goal, unit=shortage.unit)
    return budget_facts(goal, empty, why=shortage.why)


def request_budget(goal: Goal, shortage: Shortage, facts: Sequence[Fact]) -> Approval:
    """Open the approval for more of one dimension, in the caller's transaction.

    Each question has a number, so that one that was voided or answered can be asked again.
    """
    account, _ = Account.objects.get_or_create(goal=goal, unit=shortage.unit)
    answered = _questions(goal).exclude(state=ApprovalState.PENDING).count()
    approval = open_approval(
        Question(
            kind=ApprovalKind.BUDGET,
            namespace=goal.namespace,
            goal_uid=goal.uid,
            subject_kind="goal",
            subject_id=str(goal.uid),
            title=f"More budget for {goal.namespace}/{goal.name}",
            request={
                "kind": "budget",
                "goal": str(goal.uid),
                "generation": goal.generation,
                "graph_digest": goal.graph_digest,
                "number": answered + 1,
                "unit": shortage.unit.value,
                "limit": str(account.limit),
                "ask": str(_ask(goal, shortage)),
            },
            requested_by=goal.requested_by,
            barred=barred_from(goal),
            facts=facts,
            quorum=quorum_asked(goal),
        )
    )
    hint_on_commit(goal_uid=goal.uid, namespace=goal.namespace, topic="approval")
    return approval


def _questions(goal: Goal) -> QuerySet[Approval]:
    return Approval.objects.filter(
        kind=ApprovalKind.BUDGET, subject_kind="goal", subject_id=str(goal.uid)
    )


def _ask(goal: Goal, shortage: Shortage) -> int:
    """As much again as was budgeted at first, and at least what is short."""
    budgeted = parse_budget(goal.spec["budget"]).amounts().get(shortage.unit.value)
    least = max(shortage.wanted, _to_start_anew(goal, shortage))
    return min(max(budgeted or DEFAULT_ASK[shortage.unit], least), BIGGEST_AMOUNT)


def _to_start_anew(goal: Goal, shortage: Shortage) -> int:
    """GPU-milliseconds of a whole run, where a pause ends the program; 0 where it keeps it.

    What an attempt has used was not enough, whatever its estimate says: so much again doubles
    what it gets, and it lands after a few answers instead of starting anew for ever.
    """
    if shortage.unit != Unit.GPU_MS or get_cluster().keeps_paused or not shortage.attempt_uid:
        return 0
    attempt = Attempt.objects.filter(pk=shortage.attempt_uid).first()
    graph = goal.graphs.filter(digest=goal.graph_digest).first()
    if attempt is None or graph is None:
        return 0
    forecast = graph.estimates.get(attempt.task, {}).get("gpu_seconds", {})
    return max(attempt.gpu_ms, round((forecast.get("p90") or 0) * 1000))


def granted_amount(approval: Approval, request: dict[str, Any]) -> int:
    """What an approver granted: all that was asked, or less. Raises ApprovalInvalid."""
    return _checked_grant(approval.answer, request)


def _checked_grant(answer: dict[str, Any], request: dict[str, Any]) -> int:
    asked = int(request["ask"])
    granted = answer.get("grant", asked)
    if not isinstance(granted, int) or isinstance(granted, bool) or not 0 < granted <= asked:
        raise ApprovalInvalid(
            f"grant: between 1 and {asked} {request['unit']} (what was asked), not {granted!r}."
        )
    return granted


def check_budget_answer(goal: Goal, answer: dict[str, Any], request: dict[str, Any]) -> None:
    """Whether an approver's answer could be applied now. Raises ApprovalInvalid."""
    _checked_grant(answer, request)
    if "degrade" in answer:
        check_degradation(goal, answer["degrade"])


def apply_budget_answer(
    approval: Approval, goal: Goal, request: dict[str, Any], actor: Actor
) -> None:
    """Grant, or land the Goal; in the transaction of the answer."""
    if approval.state != ApprovalState.APPROVED:
        if approval.state != ApprovalState.VOIDED:
            start_landing(
                goal,
                Phase.EXHAUSTED,
                reason="BudgetDenied",
                message=f"More budget was {approval.state}: {approval.reason}",
            )
        return
    unit = Unit(request["unit"])
    amount = granted_amount(approval, request)
    source = Source(actor=actor, approval_uid=approval.uid, note=approval.reason[:255])
    key = f"approval:{approval.uid}"
    try:
        cover_from_parent(goal, unit=unit, amount=amount, key=key, actor=actor)
        open_account(goal, unit=unit, limit=amount, key=key, source=source)
    except NotCovered as error:
        raise ApprovalInvalid(f"grant: the parent Goal cannot cover it: {error}") from error
    except LedgerError as error:
        raise ApprovalInvalid(f"grant: {error}") from error
    if "degrade" in approval.answer:
        _degrade(goal, approval, actor)
    _link_approval(goal, approval)


def _degrade(goal: Goal, approval: Approval, actor: Actor) -> None:
    degradation = parse_degradation(approval.answer["degrade"])
    enforce_degradation(goal, degradation, actor=actor)
    words = f"{approval.decided_by}: {degradation.words()}."
    set_condition(goal, "Degraded", True, reason="ApprovedWithLess", message=words)


def apply_graph_answer(approval: Approval, goal: Goal, request: dict[str, Any]) -> None:
    """Clear the graph for running, or end the Goal as Denied; in the answer's transaction."""
    if (
        goal.phase != Phase.AWAITING_APPROVAL
        or goal.landing
        or request["graph_digest"] != goal.graph_digest
    ):
        return
    if approval.state == ApprovalState.APPROVED:
        message = f"{approval.decided_by}: {approval.reason}"
        set_condition(goal, "Admitted", True, reason="Approved", message=message)
        set_phase(goal, Phase.RUNNING, reason="Approved", message=message)
        _link_approval(goal, approval)
    elif approval.state != ApprovalState.VOIDED:
        message = f"{approval.state}: {approval.reason}"
        set_condition(goal, "Admitted", False, reason="ApprovalDenied", message=message)
        start_landing(goal, Phase.DENIED, reason="ApprovalDenied", message=message)


def _link_approval(goal: Goal, approval: Approval) -> None:
    link(
        NodeRef(NodeKind.GOAL, str(goal.uid)),
        Relation.APPROVED_BY,
        NodeRef(NodeKind.APPROVAL, str(approval.uid)),
        namespace=goal.namespace,
        goal_uid=goal.uid,
    )

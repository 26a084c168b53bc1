"""The economic throttle: at the limit a human is asked, and the answer grants or lands."""

from typing import Any

from goals.domain.budget import parse_budget
from goals.domain.states import EntryKind, Phase, Unit
from goals.events import hint_on_commit
from goals.models import Account, Goal
from goals.services.approval_facts import budget_facts
from goals.services.conditions import set_condition, set_phase
from goals.services.landing import start_landing
from goals.services.ledger import Source, open_account, post_entry
from goals.services.metering import Shortage
from governance.domain import ApprovalInvalid, ApprovalKind, ApprovalState
from governance.models import Approval
from governance.services.approvals import Question, open_approval
from lineage.domain import Actor, NodeKind, NodeRef, Relation
from lineage.services.graph import link

# What is asked for when the budget names nothing of the dimension that ran short.
DEFAULT_ASK = {Unit.GPU_MS: 600_000, Unit.TOKENS: 100_000, Unit.MICRO_USD: 5_000_000}


def request_budget(goal: Goal, shortage: Shortage) -> Approval:
    """Open the approval for more of one dimension, in the caller's transaction; once per limit."""
    account, _ = Account.objects.get_or_create(goal=goal, unit=shortage.unit)
    ask = _ask(goal, shortage)
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
                "unit": shortage.unit.value,
                "limit": str(account.limit),
                "ask": str(ask),
            },
            requested_by=goal.requested_by,
            barred=[n for n in {goal.requested_by, goal.sponsor, *goal.editors} if n],
            facts=budget_facts(goal, account, why=shortage.why),
        )
    )
    hint_on_commit(goal_uid=goal.uid, namespace=goal.namespace, topic="approval")
    return approval


def _ask(goal: Goal, shortage: Shortage) -> int:
    """As much again as was budgeted at first, and at least what is short."""
    budgeted = parse_budget(goal.spec["budget"]).amounts().get(shortage.unit.value)
    return max(budgeted or DEFAULT_ASK[shortage.unit], shortage.wanted)


def is_waiting_for_budget(goal: Goal) -> bool:
    """Whether a budget question of this Goal is still open."""
    return Approval.objects.filter(
        kind=ApprovalKind.BUDGET,
        subject_kind="goal",
        subject_id=str(goal.uid),
        state=ApprovalState.PENDING,
    ).exists()


def granted_amount(approval: Approval, request: dict[str, Any]) -> int:
    """What an approver granted: all that was asked, or less. Raises ApprovalInvalid."""
    asked = int(request["ask"])
    granted = approval.answer.get("grant", asked)
    if not isinstance(granted, int) or isinstance(granted, bool) or not 0 < granted <= asked:
        raise ApprovalInvalid(
            f"grant: between 1 and {asked} {request['unit']} (what was asked), not {granted!r}."
        )
    return granted


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
    account = Account.objects.filter(goal=goal, unit=unit).first()
    key = f"approval:{approval.uid}"
    if account is None:
        open_account(goal, unit=unit, limit=amount, key=key, source=source)
    else:
        post_entry(account, kind=EntryKind.GRANT, amount=amount, key=key, source=source)
    _link_approval(goal, approval)


def apply_graph_answer(approval: Approval, goal: Goal, request: dict[str, Any]) -> None:
    """Clear the graph for running, or end the Goal as Denied; in the answer's transaction."""
    if goal.phase != Phase.AWAITING_APPROVAL or request["graph_digest"] != goal.graph_digest:
        return
    if approval.state == ApprovalState.APPROVED:
        message = f"{approval.decided_by}: {approval.reason}"
        set_condition(goal, "Admitted", True, reason="Approved", message=message)
        set_phase(goal, Phase.RUNNING, reason="Approved", message=message)
        _link_approval(goal, approval)
    elif approval.state != ApprovalState.VOIDED:
        message = f"{approval.state}: {approval.reason}"
        set_condition(goal, "Admitted", False, reason="ApprovalDenied", message=message)
        set_phase(goal, Phase.DENIED, reason="ApprovalDenied", message=message)


def _link_approval(goal: Goal, approval: Approval) -> None:
    link(
        NodeRef(NodeKind.GOAL, str(goal.uid)),
        Relation.APPROVED_BY,
        NodeRef(NodeKind.APPROVAL, str(approval.uid)),
        namespace=goal.namespace,
        goal_uid=goal.uid,
    )

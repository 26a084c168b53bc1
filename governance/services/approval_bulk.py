"""Several approvals answered at once: each is judged by itself and says what became of it."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final
from uuid import UUID

from governance.access import NotVisible, Principal, get_visible_approval
from governance.domain import (
    ApprovalConflict,
    ApprovalForbidden,
    ApprovalInvalid,
    ApprovalState,
    GovernanceError,
)
from governance.models import Approval
from governance.services.approvals import checked_reason, decide_approval

BULK_MAX: Final = 100
OUTCOMES: Final = {
    ApprovalConflict: "conflict",
    ApprovalForbidden: "forbidden",
    ApprovalInvalid: "invalid",
}


@dataclass(frozen=True, slots=True)
class Answered:
    """What became of one of them. `outcome` is approved, denied, signed, already or why not.

    `message` is a sentence for the person, "" when the outcome says it all.
    """

    uid: UUID
    outcome: str
    message: str = ""
    approval: Approval | None = None


def answer_many(
    seen: Sequence[tuple[UUID, str]], *, principal: Principal, approve: bool, reason: str
) -> list[Answered]:
    """Approve or deny each (approval uid, digest of what was seen), in a transaction of its own.

    One that fails keeps no other. What the same person has answered the same way before counts as
    done, so that a repeat is safe. Raises ApprovalInvalid for a bad list or reason.
    """
    if not 0 < len(seen) <= BULK_MAX:
        raise ApprovalInvalid(f"approvals: from 1 to {BULK_MAX} at once.")
    if len({uid for uid, _ in seen}) != len(seen):
        raise ApprovalInvalid("approvals: each of them once.")
    reason = checked_reason(reason)
    return [
        _answer_one(uid, digest, principal=principal, approve=approve, reason=reason)
        for uid, digest in seen
    ]


def _answer_one(
    uid: UUID, digest: str, *, principal: Principal, approve: bool, reason: str
) -> Answered:
    try:
        approval = get_visible_approval(principal, uid)
    except NotVisible as error:
        return Answered(uid, "missing", str(error))
    if _is_answered(approval, principal, approve):
        return Answered(uid, "already", "You have answered this so before.", approval)
    try:
        decide_approval(
            approval,
            principal=principal,
            approve=approve,
            reason=reason,
            request_digest=digest,
        )
    except GovernanceError as error:
        return Answered(uid, OUTCOMES.get(type(error), "invalid"), str(error), approval)
    if approval.state == ApprovalState.PENDING:
        left = approval.quorum - approval.signatures.count()
        return Answered(uid, "signed", f"{left} more must approve.", approval)
    return Answered(uid, approval.state, "", approval)


def _is_answered(approval: Approval, principal: Principal, approve: bool) -> bool:
    if approve and approval.signatures.filter(signer=principal.username).exists():
        return approval.state in (ApprovalState.PENDING, ApprovalState.APPROVED)
    state = ApprovalState.APPROVED if approve else ApprovalState.DENIED
    return (approval.state, approval.decided_by) == (state, principal.username)

"""API of approvals: read, answer, ask, lend the right to answer."""

from typing import Any
from uuid import UUID

from django.db.models import QuerySet
from django.http import HttpRequest
from ninja import Router
from ninja.pagination import CursorPagination, paginate

from governance.access import (
    NotAllowed,
    Principal,
    get_visible_approval,
    narrowed_by,
    visible_approvals,
)
from governance.approval_inbox import (
    Waiting,
    mine_of,
    open_approvals,
    stakes_for,
    waiting_of,
)
from governance.approval_schemas import (
    AnsweredOut,
    AnswerIn,
    ApprovalDetailOut,
    ApprovalOut,
    DelegationIn,
    DelegationOut,
    DenyIn,
    ManyIn,
    MessageOut,
    QuestionIn,
    ReplyIn,
    WaitingOut,
)
from governance.domain import ApprovalInvalid, ApprovalState
from governance.models import Approval, ApprovalMessage, Delegation
from governance.services.approval_bulk import Answered, answer_many
from governance.services.approval_threads import ask_about_approval, reply_about_approval
from governance.services.approvals import decide_approval
from governance.services.delegations import (
    delegate_approvals,
    revoke_delegation,
    visible_delegations,
)

approval_router = Router(tags=["approvals"])


def _person(request: HttpRequest) -> Principal:
    """The person who asks. Raises NotAllowed for agents."""
    principal: Principal | None = getattr(request.auth, "principal", None)  # type: ignore[attr-defined]
    if principal is None:
        raise NotAllowed("An agent may not do this; it is for people.")
    return principal


@approval_router.get("/approvals", response=list[ApprovalOut])
@paginate(CursorPagination, ordering=("-created_at",))
def list_approvals(
    request: HttpRequest, state: str = "", namespace: str = "", goal: UUID | None = None
) -> QuerySet[Approval]:
    """Approvals, newest first."""
    found = visible_approvals(_person(request))
    return narrowed_by(found, state=state, namespace=namespace, goal_uid=goal)


@approval_router.get("/approvals/inbox", response=list[WaitingOut])
def inbox(request: HttpRequest, mine: bool = False, namespace: str = "") -> list[Waiting]:
    """What is open, soonest damage first, at most 500; `mine` is what you should answer."""
    principal = _person(request)
    found = narrowed_by(visible_approvals(principal), namespace=namespace)
    waiting = waiting_of(open_approvals(found), principal=principal)
    return mine_of(waiting, principal=principal) if mine else waiting


@approval_router.post("/approvals/answer", response=list[AnsweredOut])
def answer_several(request: HttpRequest, payload: ManyIn) -> list[Answered]:
    """Approve or deny several; each is judged by itself, and a repeat is safe."""
    return answer_many(
        [(one.uid, one.request_digest) for one in payload.approvals],
        principal=_person(request),
        approve=payload.decision == "approve",
        reason=payload.reason,
    )


@approval_router.get("/approvals/{uid}", response=ApprovalDetailOut)
def get_approval(request: HttpRequest, uid: UUID) -> Approval:
    """One approval with its signatures, its thread and what its wait risks."""
    approval: Any = get_visible_approval(_person(request), uid)
    if approval.state == ApprovalState.PENDING:
        approval.stake = stakes_for([approval], has_ways=True).get(approval.uid)
    found: Approval = approval
    return found


@approval_router.post("/approvals/{uid}/approve", response=ApprovalOut)
def approve(request: HttpRequest, uid: UUID, payload: AnswerIn) -> Approval:
    """Approve exactly what was seen, or less, for a time, or with less for the Goal.

    Where several people must approve, it stays pending until the last of them did.
    """
    return _decide(request, uid, payload, approve=True, answer=payload.document())


@approval_router.post("/approvals/{uid}/degrade", response=ApprovalOut)
def degrade(request: HttpRequest, uid: UUID, payload: AnswerIn) -> Approval:
    """Approve, and let the Goal go on with less: `degrade` says with what."""
    if payload.degrade is None:
        raise ApprovalInvalid(
            "degrade: say with what it goes on: gpus, parallel, last_iteration, model."
        )
    return _decide(request, uid, payload, approve=True, answer=payload.document())


@approval_router.post("/approvals/{uid}/deny", response=ApprovalOut)
def deny(request: HttpRequest, uid: UUID, payload: DenyIn) -> Approval:
    """Deny what was seen."""
    return _decide(request, uid, payload, approve=False, answer={})


def _decide(
    request: HttpRequest, uid: UUID, payload: DenyIn, *, approve: bool, answer: dict[str, Any]
) -> Approval:
    principal = _person(request)
    return decide_approval(
        get_visible_approval(principal, uid),
        principal=principal,
        approve=approve,
        reason=payload.reason,
        request_digest=payload.request_digest,
        answer=answer,
    )


@approval_router.post("/approvals/{uid}/ask", response=MessageOut)
def ask(request: HttpRequest, uid: UUID, payload: QuestionIn) -> ApprovalMessage:
    """Ask before answering; the request stays open and its time runs on."""
    principal = _person(request)
    approval = get_visible_approval(principal, uid)
    return ask_about_approval(approval, principal=principal, to=payload.to, body=payload.text)


@approval_router.post("/approvals/{uid}/reply", response=MessageOut)
def reply(request: HttpRequest, uid: UUID, payload: ReplyIn) -> ApprovalMessage:
    """Answer what was asked about a request."""
    principal = _person(request)
    approval = get_visible_approval(principal, uid)
    return reply_about_approval(approval, principal=principal, body=payload.text)


@approval_router.get("/delegations", response=list[DelegationOut])
@paginate(CursorPagination, ordering=("-created_at",))
def list_delegations(request: HttpRequest, namespace: str = "") -> QuerySet[Delegation]:
    """Who may approve for whom, newest first."""
    return narrowed_by(visible_delegations(_person(request)), namespace=namespace)


@approval_router.post("/delegations", response=DelegationOut)
def delegate(request: HttpRequest, payload: DelegationIn) -> Delegation:
    """Lend your own right to approve in a namespace, until an end of at most 30 days."""
    return delegate_approvals(
        _person(request),
        to=payload.to,
        namespace=payload.namespace,
        ends_at=payload.until,
        reason=payload.reason,
    )


@approval_router.delete("/delegations/{uid}", response=DelegationOut)
def revoke(request: HttpRequest, uid: UUID) -> Delegation:
    """Take a lent right back at once; doing it again changes nothing."""
    return revoke_delegation(_person(request), uid)

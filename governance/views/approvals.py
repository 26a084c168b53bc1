"""Pages of approvals: the inbox, what was decided, the card and its answer."""

import json
from http import HTTPStatus
from typing import Any
from uuid import UUID

from django.core.paginator import Paginator
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.utils import timezone
from django.views.decorators.http import require_GET, require_POST
from django.views.decorators.vary import vary_on_headers

from governance.access import Principal, get_visible_approval, signing_right, visible_approvals
from governance.approval_forms import AnswerForm
from governance.approval_inbox import (
    INBOX_MAX,
    holding_of,
    median_seconds,
    mine_of,
    open_approvals,
    stakes_for,
    sum_of_asks,
    waiting_of,
)
from governance.domain import (
    ApprovalConflict,
    ApprovalForbidden,
    ApprovalInvalid,
    ApprovalState,
    GovernanceError,
    Permission,
    Stake,
)
from governance.export import table_export
from governance.models import Approval
from governance.row_filter import FilterInvalid, filter_query
from governance.services.approval_threads import may_reply, whom_to_ask
from governance.services.approvals import decide_approval, why_not_open
from governance.sessions import session_principal
from governance.time_range import time_range

PAGE_SIZE = 25
COLUMNS = {
    name: name
    for name in (
        "uid", "namespace", "kind", "title", "state", "requested_by", "goal_uid",
        "request_digest", "created_at", "expires_at", "quorum", "waits_on", "escalated_at",
        "decided_by", "decided_for", "decided_at", "reason",
    )
}  # fmt: skip
FILTER_WORDS = ("title", "requested_by", "namespace", "kind")
FILTER_LABELS = {"kind": "kind", "namespace": "namespace", "requested_by": "requested_by"}
DECIDED_WORDS = (*FILTER_WORDS, "decided_by", "reason")
DECIDED_LABELS = {**FILTER_LABELS, "state": "state", "by": "decided_by"}
STATUS = {
    ApprovalConflict: HTTPStatus.CONFLICT,
    ApprovalForbidden: HTTPStatus.FORBIDDEN,
    ApprovalInvalid: HTTPStatus.UNPROCESSABLE_ENTITY,
}


@require_GET
@vary_on_headers("HX-Request")
def approval_list(request: HttpRequest) -> HttpResponse:
    """What waits for an answer, by the damage that the wait does."""
    principal = session_principal(request)
    found = visible_approvals(principal)
    text, problem = request.GET.get("q", ""), ""
    try:
        found = found.filter(filter_query(text, words=FILTER_WORDS, labels=FILTER_LABELS))
    except FilterInvalid as error:
        problem, found = str(error), found.none()
    rows = found.order_by("-created_at")
    if export := table_export(request, name="approvals", columns=COLUMNS, rows=rows):
        return export
    waiting = waiting_of(open_approvals(found), principal=principal)
    mine = mine_of(waiting, principal=principal)
    is_mine = request.GET.get("who") == "mine"
    shown = mine if is_mine else waiting
    context = {
        "waiting": Paginator(shown, PAGE_SIZE).get_page(request.GET.get("page")),
        "mine": len(mine),
        "all": len(waiting),
        "is_mine": is_mine,
        "is_cut": len(waiting) == INBOX_MAX,
        "most": INBOX_MAX,
        "sums": _sums(one.stake for one in shown),
        "cost": holding_of((one.approval, one.stake) for one in shown),
        "can_pick": any(not one.why_not for one in shown),
        "q": text,
        "problem": problem,
        "tab": "waiting",
        "nav": "approvals",
    }
    part = "#live" if request.headers.get("HX-Request") else ""
    status = HTTPStatus.UNPROCESSABLE_ENTITY if problem else HTTPStatus.OK
    return render(request, f"governance/approval_list.html{part}", context, status=status)


def _sums(stakes: Any) -> list[tuple[str, int]]:
    return sorted(sum_of_asks(stakes).items())


@require_GET
@vary_on_headers("HX-Request")
def approval_decided(request: HttpRequest) -> HttpResponse:
    """What was answered, by whom, why and how long it took."""
    chosen = time_range(request.GET)
    found = visible_approvals(session_principal(request)).exclude(state=ApprovalState.PENDING)
    found = found.filter(chosen.q("decided_at"))
    text, problem = request.GET.get("q", ""), ""
    try:
        found = found.filter(filter_query(text, words=DECIDED_WORDS, labels=DECIDED_LABELS))
    except FilterInvalid as error:
        problem, found = str(error), found.none()
    rows = found.order_by("-decided_at", "-created_at")
    if export := table_export(request, name="decided", columns=COLUMNS, rows=rows):
        return export
    context = {
        "decided": Paginator(rows, PAGE_SIZE).get_page(request.GET.get("page")),
        "median": median_seconds(found),
        "range": chosen,
        "q": text,
        "problem": problem,
        "tab": "decided",
        "nav": "approvals",
    }
    part = "#live" if request.headers.get("HX-Request") else ""
    status = HTTPStatus.UNPROCESSABLE_ENTITY if problem else HTTPStatus.OK
    return render(request, f"governance/approval_decided.html{part}", context, status=status)


@require_GET
@vary_on_headers("HX-Request")
def approval_detail(request: HttpRequest, uid: UUID) -> HttpResponse:
    """The card of one approval."""
    approval = get_visible_approval(session_principal(request), uid)
    return approval_card(request, approval, form_of(approval))


@require_GET
def approval_standing(request: HttpRequest, uid: UUID) -> HttpResponse:
    """Where an approval stands now: what a card that is being filled in is compared with."""
    approval = get_visible_approval(session_principal(request), uid)
    context = standing_of(approval)
    return render(request, "governance/approval_detail.html#standing", context)


@require_POST
@vary_on_headers("HX-Request")
def approval_answer(request: HttpRequest, uid: UUID) -> HttpResponse:
    """Approve, less, until or with less, or deny; who comes too late sees who decided."""
    principal = session_principal(request)
    approval = get_visible_approval(principal, uid)
    form = form_of(approval, request.POST)
    if not form.is_valid():
        return approval_card(request, approval, form, status=HTTPStatus.UNPROCESSABLE_ENTITY)
    try:
        decide_approval(
            approval,
            principal=principal,
            approve=form.cleaned_data["decision"] == "approve",
            reason=form.cleaned_data["reason"],
            request_digest=form.cleaned_data["request_digest"],
            answer=form.answer(),
        )
    except GovernanceError as error:
        return refused(request, uid, form, error)
    if request.headers.get("HX-Request"):
        return approval_card(request, approval, form)
    return redirect("approval_detail", uid)


def refused(
    request: HttpRequest, uid: UUID, form: AnswerForm, error: GovernanceError
) -> HttpResponse:
    """The card as it stands, with why the answer did not count."""
    approval = get_visible_approval(session_principal(request), uid)
    status = STATUS.get(type(error), HTTPStatus.UNPROCESSABLE_ENTITY)
    return approval_card(request, approval, form, refused=str(error), status=status)


def form_of(approval: Approval, posted: Any = None) -> AnswerForm:
    """The form of an answer to this approval."""
    asked = json.loads(approval.request_canonical)
    return AnswerForm(posted, unit=asked.get("unit", ""), asked=int(asked.get("ask", 0)))


def standing_of(approval: Approval) -> dict[str, Any]:
    """What tells an outdated card: state, who decided, and the newer request if there is one."""
    newer = None
    if approval.state == ApprovalState.VOIDED:
        newer = Approval.objects.filter(
            subject_kind=approval.subject_kind,
            subject_id=approval.subject_id,
            namespace=approval.namespace,
            state=ApprovalState.PENDING,
        ).first()
    is_open = approval.state == ApprovalState.PENDING and approval.expires_at > timezone.now()
    return {
        "approval": approval,
        "newer": newer,
        "closed": "" if is_open else why_not_open(approval),
    }


def approval_card(
    request: HttpRequest,
    approval: Approval,
    form: AnswerForm,
    *,
    refused: str = "",
    status: HTTPStatus = HTTPStatus.OK,
    thread_error: str = "",
) -> HttpResponse:
    """The card, whole or as the part that is swapped."""
    asked = json.loads(approval.request_canonical)
    granted = approval.answer.get("grant", form.asked if form.measure else None)
    principal = session_principal(request)
    is_pending = approval.state == ApprovalState.PENDING
    right = signing_right(principal, approval)
    context = {
        **standing_of(approval),
        "asked": asked,
        "unit": asked.get("unit", ""),
        "granted": granted if approval.state == ApprovalState.APPROVED else None,
        "form": form,
        "refused": refused,
        "thread_error": thread_error,
        "barred": right.why_not,
        "lender": right.right_of if right.right_of != principal.username else "",
        "signatures": list(approval.signatures.all()) if approval.quorum > 1 else [],
        "messages_said": list(approval.messages.all()),
        "choices": whom_to_ask(approval) if is_pending and not right.why_not else [],
        "may_reply": is_pending and bool(approval.waits_on) and _replies(principal, approval),
        "stake": _stake(approval) if is_pending else Stake(),
        "is_overdue": approval.expires_at <= timezone.now(),
        "can_delegate": principal.may(Permission.APPROVE, namespace=approval.namespace),
        "nav": "approvals",
    }
    part = "#card" if request.headers.get("HX-Request") else ""
    return render(request, f"governance/approval_detail.html{part}", context, status=status)


def _stake(approval: Approval) -> Stake:
    return stakes_for([approval], has_ways=True).get(approval.uid, Stake())


def _replies(principal: Principal, approval: Approval) -> bool:
    return not may_reply(principal, approval)

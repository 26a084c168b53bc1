"""Pages of approvals: the inbox, what was decided, the card."""

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

from governance.access import get_visible_approval, may_decide, visible_approvals
from governance.domain import (
    ApprovalConflict,
    ApprovalForbidden,
    ApprovalInvalid,
    ApprovalState,
)
from governance.export import table_export
from governance.forms import AnswerForm
from governance.models import Approval
from governance.services.approvals import decide_approval
from governance.sessions import session_principal

PAGE_SIZE = 25
COLUMNS = {
    name: name
    for name in (
        "uid", "namespace", "kind", "title", "state", "requested_by", "goal_uid",
        "request_digest", "created_at", "expires_at", "decided_by", "decided_at", "reason",
    )
}  # fmt: skip


@require_GET
@vary_on_headers("HX-Request")
def approval_list(request: HttpRequest) -> HttpResponse:
    """What waits for an answer, soonest to expire first; below it what was answered."""
    principal = session_principal(request)
    found = visible_approvals(principal)
    pending = list(found.filter(state=ApprovalState.PENDING).order_by("expires_at")[:200])
    decided = found.exclude(state=ApprovalState.PENDING).order_by("-decided_at", "-created_at")
    for name, rows in (
        ("approvals", found.order_by("-created_at")),
        ("pending", found.filter(state=ApprovalState.PENDING).order_by("expires_at")),
        ("decided", decided),
    ):
        if export := table_export(request, name=name, columns=COLUMNS, rows=rows):
            return export
    context = {
        "pending": [(approval, may_decide(principal, approval)) for approval in pending],
        "decided": Paginator(decided, PAGE_SIZE).get_page(request.GET.get("page")),
        "nav": "approvals",
    }
    part = "#live" if request.headers.get("HX-Request") else ""
    return render(request, f"governance/approval_list.html{part}", context)


@require_GET
@vary_on_headers("HX-Request")
def approval_detail(request: HttpRequest, uid: UUID) -> HttpResponse:
    """The card of one approval."""
    approval = get_visible_approval(session_principal(request), uid)
    return _card(request, approval, _form_of(approval))


@require_POST
@vary_on_headers("HX-Request")
def approval_answer(request: HttpRequest, uid: UUID) -> HttpResponse:
    """Approve, approve less, or deny; who comes too late sees who decided."""
    principal = session_principal(request)
    approval = get_visible_approval(principal, uid)
    form = _form_of(approval, request.POST)
    if not form.is_valid():
        return _card(request, approval, form, status=HTTPStatus.UNPROCESSABLE_ENTITY)
    answer = form.cleaned_data
    is_part = answer["decision"] == "approve" and answer["grant"] is not None
    try:
        decide_approval(
            approval,
            principal=principal,
            approve=answer["decision"] == "approve",
            reason=answer["reason"],
            request_digest=answer["request_digest"],
            answer={"grant": answer["grant"]} if is_part else {},
        )
    except ApprovalConflict as error:
        return _refused(request, uid, form, str(error), HTTPStatus.CONFLICT)
    except ApprovalForbidden as error:
        return _refused(request, uid, form, str(error), HTTPStatus.FORBIDDEN)
    except ApprovalInvalid as error:
        return _refused(request, uid, form, str(error), HTTPStatus.UNPROCESSABLE_ENTITY)
    if request.headers.get("HX-Request"):
        return _card(request, approval, form)
    return redirect("approval_detail", uid)


def _refused(
    request: HttpRequest, uid: UUID, form: AnswerForm, why: str, status: HTTPStatus
) -> HttpResponse:
    approval = get_visible_approval(session_principal(request), uid)
    return _card(request, approval, form, refused=why, status=status)


def _form_of(approval: Approval, posted: Any = None) -> AnswerForm:
    asked = json.loads(approval.request_canonical)
    return AnswerForm(posted, unit=asked.get("unit", ""), asked=int(asked.get("ask", 0)))


def _card(
    request: HttpRequest,
    approval: Approval,
    form: AnswerForm,
    *,
    refused: str = "",
    status: HTTPStatus = HTTPStatus.OK,
) -> HttpResponse:
    asked = json.loads(approval.request_canonical)
    granted = approval.answer.get("grant", form.asked if form.measure else None)
    context = {
        "approval": approval,
        "asked": asked,
        "unit": asked.get("unit", ""),
        "granted": granted if approval.state == ApprovalState.APPROVED else None,
        "form": form,
        "refused": refused,
        "barred": may_decide(session_principal(request), approval),
        "is_overdue": approval.expires_at <= timezone.now(),
        "nav": "approvals",
    }
    part = "#card" if request.headers.get("HX-Request") else ""
    return render(request, f"governance/approval_detail.html{part}", context, status=status)

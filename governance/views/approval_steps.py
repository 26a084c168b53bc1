"""Steps about approvals beside the answer: questions, several at once, delegations."""

from http import HTTPStatus
from typing import Any
from uuid import UUID

from django.core.paginator import Paginator
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.utils import timezone
from django.views.decorators.http import require_http_methods, require_POST
from django.views.decorators.vary import vary_on_headers

from governance.access import (
    NotAllowed,
    Principal,
    delegations_in_force,
    get_visible_approval,
    visible_approvals,
)
from governance.approval_forms import BulkForm, DelegationForm, MessageForm
from governance.approval_inbox import sum_of_asks, waiting_of
from governance.domain import EVERY_NAMESPACE, ApprovalInvalid, GovernanceError, Permission
from governance.export import table_export
from governance.models import Approval
from governance.services.approval_bulk import BULK_MAX, answer_many
from governance.services.approval_threads import ask_about_approval, reply_about_approval
from governance.services.delegations import (
    delegate_approvals,
    revoke_delegation,
    visible_delegations,
    who_may_receive,
)
from governance.sessions import session_principal
from governance.views.approvals import STATUS, approval_card, form_of

DELEGATION_COLUMNS = {
    "uid": "uid",
    "from": "delegator.username",
    "to": "delegate.username",
    "namespace": "namespace",
    "reason": "reason",
    "created_at": "created_at",
    "ends_at": "ends_at",
    "revoked_at": "revoked_at",
    "revoked_by": "revoked_by",
}
PAGE_SIZE = 25
NAMESPACES_SHOWN = 200


@require_POST
@vary_on_headers("HX-Request")
def approval_ask(request: HttpRequest, uid: UUID) -> HttpResponse:
    """Ask before answering; the request stays open."""
    return _say(request, uid, is_question=True)


@require_POST
@vary_on_headers("HX-Request")
def approval_reply(request: HttpRequest, uid: UUID) -> HttpResponse:
    """Answer what was asked about a request."""
    return _say(request, uid, is_question=False)


def _say(request: HttpRequest, uid: UUID, *, is_question: bool) -> HttpResponse:
    principal = session_principal(request)
    approval = get_visible_approval(principal, uid)
    form = MessageForm(request.POST)
    answer = form_of(approval)
    if not form.is_valid():
        why = " ".join(str(error) for errors in form.errors.values() for error in errors)
        status = HTTPStatus.UNPROCESSABLE_ENTITY
        return approval_card(request, approval, answer, thread_error=why, status=status)
    said = form.cleaned_data
    try:
        if is_question:
            ask_about_approval(approval, principal=principal, to=said["to"], body=said["text"])
        else:
            reply_about_approval(approval, principal=principal, body=said["text"])
    except GovernanceError as error:
        status = STATUS.get(type(error), HTTPStatus.UNPROCESSABLE_ENTITY)
        approval = get_visible_approval(principal, uid)
        return approval_card(request, approval, answer, thread_error=str(error), status=status)
    if request.headers.get("HX-Request"):
        return approval_card(request, approval, answer)
    return redirect("approval_detail", uid)


@require_http_methods(["GET", "POST"])
def approval_bulk(request: HttpRequest) -> HttpResponse:
    """Review several with their sum; then answer each, and say what became of each."""
    principal = session_principal(request)
    if request.method == "GET":
        return _review(request, principal, request.GET.getlist("uid"), BulkForm())
    form = BulkForm(request.POST)
    pairs = [one.partition(" ")[::2] for one in request.POST.getlist("seen")[: BULK_MAX + 1]]
    uids = [uid for uid, _ in pairs]
    if not form.is_valid():
        return _review(request, principal, uids, form, status=HTTPStatus.UNPROCESSABLE_ENTITY)
    try:
        answered = answer_many(
            [(UUID(uid), digest) for uid, digest in pairs],
            principal=principal,
            approve=form.cleaned_data["decision"] == "approve",
            reason=form.cleaned_data["reason"],
        )
    except (ApprovalInvalid, ValueError) as error:
        form.add_error(None, str(error))
        return _review(request, principal, uids, form, status=HTTPStatus.UNPROCESSABLE_ENTITY)
    context = {
        "answered": answered,
        "done": sum(1 for one in answered if one.outcome in ("approved", "denied", "already")),
        "decision": form.cleaned_data["decision"],
        "nav": "approvals",
    }
    return render(request, "governance/approval_bulk_done.html", context)


def _review(
    request: HttpRequest,
    principal: Principal,
    uids: list[str],
    form: BulkForm,
    *,
    status: HTTPStatus = HTTPStatus.OK,
) -> HttpResponse:
    wanted = []
    for text in uids[:BULK_MAX]:
        try:
            wanted.append(UUID(text))
        except ValueError:
            continue  # what is no uid names no approval
    found = visible_approvals(principal).filter(pk__in=wanted)
    waiting = waiting_of(list(found.prefetch_related("signatures")), principal=principal)
    ready = [one for one in waiting if not one.why_not]
    context = {
        "ready": ready,
        "left_out": [one for one in waiting if one.why_not],
        "sums": sorted(sum_of_asks(one.stake for one in ready).items()),
        "is_cut": len(uids) > BULK_MAX,
        "most": BULK_MAX,
        "form": form,
        "nav": "approvals",
    }
    return render(request, "governance/approval_bulk.html", context, status=status)


@require_http_methods(["GET", "POST"])
def delegation_list(request: HttpRequest) -> HttpResponse:
    """Who may approve for whom, until when; lending one's own right."""
    principal = session_principal(request)
    form = DelegationForm(request.POST if request.method == "POST" else None)
    status = HTTPStatus.OK
    if request.method == "POST":
        if form.is_valid() and _lend(principal, form):
            return redirect("delegation_list")
        status = HTTPStatus.UNPROCESSABLE_ENTITY
    found = visible_delegations(principal)
    rows = found.order_by("-created_at")
    if export := table_export(request, name="delegations", columns=DELEGATION_COLUMNS, rows=rows):
        return export
    spaces = _own_namespaces(principal)
    chosen = form["namespace"].value() or (spaces[0] if spaces else "")
    in_force = set(delegations_in_force().filter(pk__in=found).values_list("pk", flat=True)[:1000])
    page = Paginator(rows, PAGE_SIZE).get_page(request.GET.get("page"))
    context = {
        "form": form,
        "spaces": spaces,
        "people": who_may_receive(principal, namespace=chosen) if spaces else [],
        "delegations": page,
        "rows": [(one, one.pk in in_force, _may_revoke(principal, one)) for one in page],
        "now": timezone.now(),
        "tab": "delegations",
        "nav": "approvals",
    }
    return render(request, "governance/approval_delegations.html", context, status=status)


def _own_namespaces(principal: Principal) -> list[str]:
    """Namespaces in which the person approves in their own right."""
    spaces = principal.namespaces(Permission.APPROVE)
    if spaces is not None:
        return sorted(spaces)
    seen = Approval.objects.order_by("namespace").values_list("namespace", flat=True).distinct()
    named = {name for name in principal.permissions if name != EVERY_NAMESPACE}
    return [EVERY_NAMESPACE, *sorted({"default", *named, *seen[:NAMESPACES_SHOWN]})]


def _may_revoke(principal: Principal, delegation: Any) -> bool:
    names = (delegation.delegator.username, delegation.delegate.username)
    return principal.username in names or principal.may(
        Permission.ADMINISTER, namespace=delegation.namespace
    )


def _lend(principal: Principal, form: DelegationForm) -> bool:
    wanted = form.cleaned_data
    try:
        delegate_approvals(
            principal,
            to=wanted["to"],
            namespace=wanted["namespace"],
            ends_at=wanted["until"],
            reason=wanted["reason"],
        )
    except (ApprovalInvalid, NotAllowed) as error:
        name, _, words = str(error).partition(": ")
        form.add_error(name if name in form.fields else None, words or str(error))
        return False
    return True


@require_POST
def delegation_revoke(request: HttpRequest, uid: UUID) -> HttpResponse:
    """Take a lent right back at once."""
    revoke_delegation(session_principal(request), uid)
    return redirect("delegation_list")

"""Pages of one Goal: overview, ledger, attempts, decisions, lineage, journal."""

import re
from http import HTTPStatus
from typing import Any
from uuid import UUID

from django.contrib import messages
from django.core.paginator import Paginator
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.urls import reverse
from django.views.decorators.http import require_GET, require_POST
from django.views.decorators.vary import vary_on_headers

from agents.models import Attempt
from goals.access import get_operable_goal, get_visible_goal
from goals.forms import SteerForm
from goals.models import Goal, LedgerEntry, Release
from goals.pages import (
    account_views,
    gpu_sources,
    graph_view,
    measured_view,
    metering_word,
    refusals_of,
    steps_of,
)
from goals.services.apply import (
    GoalConflict,
    cancel_goal,
    delete_goal,
    pause_goal,
    resume_goal,
)
from goals.services.verdicts import verdict_rows
from goals.services.why import SPAN_ID
from goals.views.goal_cursor import cursor_page
from goals.views.goal_graph import compared, graph_page
from goals.views.goal_timeline import timeline
from governance.access import (
    NotVisible,
    visible_approvals,
    visible_decisions,
    visible_records,
    within,
)
from governance.domain import Permission
from governance.export import table_export
from governance.sessions import session_principal
from governance.time_range import time_range
from lineage.models import Artifact, Edge

PAGE_SIZE = 50
DECISIONS = 25  # a page; each lists its messages
LISTED = 20  # rows of each of several tables on one page
WAITING = 3  # questions to people that are read for the head, which says two and "more"
RECENT = 8  # journal records on the overview
ENTRY_ID = re.compile("[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
LEDGER_COLUMNS = {
    "uid": "uid",
    "at": "created_at",
    "entry": "kind",
    "debit": "debit",
    "credit": "credit",
    "amount": "amount",
    "unit": "account.unit",
    "attempt_uid": "attempt_uid",
    "span_id": "span_id",
    "approval_uid": "approval_uid",
    "note": "note",
    "idempotency_key": "idempotency_key",
}
ATTEMPT_COLUMNS = {
    name: name
    for name in (
        "uid", "task", "iteration", "number", "agent_name", "state", "reason", "exit_code",
        "spiffe_id", "identity_revoked_at", "gpus", "running_ms", "gpu_ms", "gpu_idle_held_ms",
        "created_at", "started_at", "finished_at",
    )
}  # fmt: skip
RECORD_COLUMNS = {
    name: name
    for name in (
        "seq", "at", "action", "actor_kind", "actor_id", "object_kind", "object_id", "hash",
    )
}  # fmt: skip
DECISION_COLUMNS = {
    name: name
    for name in (
        "uid", "at", "outcome", "stage", "point", "subject_kind", "subject_id", "messages", "error",
        "bundle_digest", "input_digest",
    )
}  # fmt: skip
TABS = (
    ("overview", "Overview", "goal_detail"),
    ("ledger", "Ledger", "goal_ledger"),
    ("attempts", "Attempts", "goal_attempts"),
    ("decisions", "Decisions", "goal_decisions"),
    ("changes", "Changes", "goal_changes"),
    ("trace", "Causal trace", "goal_trace"),
    ("lineage", "Lineage", "goal_lineage"),
    ("journal", "Journal", "goal_journal"),
)


def goal_page(
    request: HttpRequest,
    goal: Goal,
    tab: str,
    context: dict[str, Any],
    *,
    status: HTTPStatus = HTTPStatus.OK,
) -> HttpResponse:
    """One tab of a Goal, or only its live part."""
    principal = session_principal(request)
    steps = steps_of(goal, principal)
    waiting = visible_approvals(principal).filter(goal_uid=goal.uid, state="pending")
    frame = {
        "goal": goal,
        "objective": measured_view(goal),
        "accounts": account_views([goal])[goal.pk],
        "steps": steps,
        "refusals": refusals_of(steps),
        "waiting": list(waiting.order_by("expires_at")[:WAITING]),
        "may_edit": principal.may(Permission.OPERATE, namespace=goal.namespace),
        "tabs": TABS,
        "tab": tab,
        "nav": "goals",
        **context,
    }
    part = "#live" if request.headers.get("HX-Request") else ""
    return render(request, f"goals/goal_{tab}.html{part}", frame, status=status)


@require_GET
@vary_on_headers("HX-Request")
def goal_detail(request: HttpRequest, reference: str) -> HttpResponse:
    """Where the Goal stands and why: graph, verdicts, budget, conditions, what happened last."""
    goal = get_visible_goal(session_principal(request), reference)
    return goal_page(request, goal, "overview", _overview(request, goal))


def _overview(request: HttpRequest, goal: Goal) -> dict[str, Any]:
    records = visible_records(session_principal(request)).filter(goal_uid=goal.uid)
    graph = graph_view(goal)
    context: dict[str, Any] = {"graph": graph}
    if graph is not None:
        approvals = visible_approvals(session_principal(request)).filter(goal_uid=goal.uid)
        context |= {
            "drawn": graph_page(request, graph),
            "compared": compared(goal, graph),
            "verdicts": verdict_rows(graph.verdicts),
            "timeline": timeline(
                goal,
                list(approvals.order_by("-created_at")[:PAGE_SIZE]),
                order=[task.name for task in graph.tasks],
            ),
        }
    return {
        **context,
        "records": list(records.order_by("-seq")[:RECENT]),
        "conditions": sorted(goal.conditions, key=lambda c: c["lastTransitionTime"], reverse=True),
    }


@require_POST
def goal_steer(request: HttpRequest, reference: str) -> HttpResponse:
    """Pause, resume, cancel or delete."""
    principal = session_principal(request)
    goal = get_operable_goal(principal, reference)
    form = SteerForm(request.POST)
    if not form.is_valid():
        context = {**_overview(request, goal), "refused": "step: pause, resume, cancel or delete."}
        return goal_page(request, goal, "overview", context, status=HTTPStatus.UNPROCESSABLE_ENTITY)
    step, reason = form.cleaned_data["step"], form.cleaned_data["reason"]
    try:
        match step:
            case "pause":
                goal = pause_goal(goal, principal=principal)
            case "resume":
                goal = resume_goal(goal, principal=principal)
            case "cancel":
                goal = cancel_goal(goal, principal=principal, reason=reason)
            case _:
                goal = delete_goal(goal, principal=principal)
    except GoalConflict as error:
        goal.refresh_from_db()
        context = {**_overview(request, goal), "refused": str(error)}
        return goal_page(request, goal, "overview", context, status=HTTPStatus.CONFLICT)
    messages.success(request, f"{goal}: asked to {step}.")
    is_named = goal.deleted_at is None
    return redirect("goal_detail", f"{goal.namespace}/{goal.name}" if is_named else str(goal.uid))


@require_GET
@vary_on_headers("HX-Request")
def goal_ledger(request: HttpRequest, reference: str) -> HttpResponse:
    """Every entry of the Goal's accounts, newest first; `?span=` those of one span.

    `?entry=` is one alone, for links to it: it may stand on any page of the list.
    """
    goal = get_visible_goal(session_principal(request), reference)
    rows = LedgerEntry.objects.filter(account__goal=goal).select_related("account")
    span = time_range(request.GET)
    rows = rows.filter(span.q("created_at")).order_by("-created_at", "-uid")
    of_span = request.GET.get("span", "")
    if SPAN_ID.fullmatch(of_span):
        rows = rows.filter(span_id=of_span)
    else:
        of_span = ""
    of_entry = request.GET.get("entry", "")
    if ENTRY_ID.fullmatch(of_entry):
        rows = rows.filter(uid=of_entry)
    else:
        of_entry = ""
    if export := table_export(request, name="ledger", columns=LEDGER_COLUMNS, rows=rows):
        return export
    page = cursor_page(request, rows, key="created_at")
    context = {"page": page, "range": span, "of_span": of_span, "of_entry": of_entry}
    return goal_page(request, goal, "ledger", context)


@require_GET
def entry_detail(request: HttpRequest, uid: UUID) -> HttpResponse:
    """Permalink of a ledger entry: to the ledger of its Goal."""
    seen = Goal.objects.filter(within(session_principal(request), Permission.VIEW))
    goal = seen.filter(accounts__entries=uid).first()
    if goal is None:
        raise NotVisible(f"There is no ledger entry {uid} that you may see.")
    return redirect(f"{reverse('goal_ledger', args=[str(goal.uid)])}?entry={uid}")


@require_GET
@vary_on_headers("HX-Request")
def goal_attempts(request: HttpRequest, reference: str) -> HttpResponse:
    """Every attempt, newest first, with identity, exit and GPUs."""
    goal = get_visible_goal(session_principal(request), reference)
    span = time_range(request.GET)
    found = Attempt.objects.filter(span.q("created_at"), goal_uid=goal.uid).order_by("-created_at")
    if export := table_export(request, name="attempts", columns=ATTEMPT_COLUMNS, rows=found):
        return export
    page = cursor_page(request, found, key="created_at")
    sources = gpu_sources()
    rows = [(attempt, metering_word(attempt, sources)) for attempt in page.object_list]
    return goal_page(request, goal, "attempts", {"page": page, "rows": rows, "range": span})


@require_GET
@vary_on_headers("HX-Request")
def goal_decisions(request: HttpRequest, reference: str) -> HttpResponse:
    """Policy decisions and approvals about the Goal, newest first."""
    principal = session_principal(request)
    goal = get_visible_goal(principal, reference)
    decisions = visible_decisions(principal).filter(goal_uid=goal.uid).defer("input_canonical")
    span = time_range(request.GET)
    decisions = decisions.filter(span.q("at")).order_by("-at")
    if export := table_export(request, name="decisions", columns=DECISION_COLUMNS, rows=decisions):
        return export
    approvals = visible_approvals(principal).filter(goal_uid=goal.uid)
    context = {
        "page": cursor_page(request, decisions, key="at", size=DECISIONS),
        "range": span,
        "approvals": Paginator(approvals.order_by("-created_at"), LISTED).get_page(
            request.GET.get("approvals")
        ),
    }
    return goal_page(request, goal, "decisions", context)


@require_GET
@vary_on_headers("HX-Request")
def goal_lineage(request: HttpRequest, reference: str) -> HttpResponse:
    """Releases, artifacts and the edges of provenance that belong to the Goal."""
    goal = get_visible_goal(session_principal(request), reference)
    edges = Edge.objects.filter(goal_uid=goal.uid, namespace=goal.namespace).order_by("pk")
    releases = Paginator(Release.objects.filter(goal_uid=goal.uid), LISTED)
    artifacts = Paginator(Artifact.objects.filter(goal_uid=goal.uid), LISTED)
    context = {
        "releases": releases.get_page(request.GET.get("releases")),
        "artifacts": artifacts.get_page(request.GET.get("artifacts")),
        "page": cursor_page(request, edges, key="id", is_descending=False, size=LISTED),
    }
    return goal_page(request, goal, "lineage", context)


@require_GET
@vary_on_headers("HX-Request")
def goal_journal(request: HttpRequest, reference: str) -> HttpResponse:
    """The journal of the Goal, newest first."""
    principal = session_principal(request)
    goal = get_visible_goal(principal, reference)
    rows = visible_records(principal).filter(goal_uid=goal.uid).defer("canonical")
    span = time_range(request.GET)
    rows = rows.filter(span.q("at")).order_by("-seq")
    if export := table_export(request, name="journal", columns=RECORD_COLUMNS, rows=rows):
        return export
    page = cursor_page(request, rows, key="seq")
    return goal_page(request, goal, "journal", {"page": page, "range": span})

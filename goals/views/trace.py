"""Pages of the causal trace: what each agent saw and did, and because of what."""

from typing import Any

from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.views.decorators.http import require_GET
from django.views.decorators.vary import vary_on_headers

from goals.access import get_visible_goal
from goals.models import Goal
from goals.views.goal_causes import branch, explore, span_view
from goals.views.goal_detail import goal_page
from governance.access import NotVisible, Principal, within
from governance.domain import Permission
from governance.sessions import session_principal
from lineage.telemetry import get_telemetry
from lineage.telemetry.base import Span

PAGE_SIZE = 50
PAGE_BELOW = 20  # under the explorer, which is what a person has come for
CHANGES_SHOWN = 100
TARGET_MAX = 200  # characters of what was changed


@require_GET
@vary_on_headers("HX-Request")
def goal_trace(request: HttpRequest, reference: str, span_id: str = "") -> HttpResponse:
    """Spans of a Goal by start time; a picked one with its causes and effects."""
    goal = get_visible_goal(session_principal(request), reference)
    if span_id and request.headers.get("HX-Request"):
        return goal_page(request, goal, "trace", {"span_id": span_id})
    store = get_telemetry()
    cursor = request.GET.get("cursor", "")
    found = store.goal_spans(
        goal.namespace, str(goal.uid), cursor=cursor, limit=PAGE_BELOW if span_id else PAGE_SIZE
    )
    target = request.GET.get("changed", "").strip()[:TARGET_MAX]
    context: dict[str, Any] = {
        "span_id": span_id,
        "spans": [span_view(span) for span in found.spans],
        "next_cursor": found.next_cursor,
        "cursor": cursor,
        "explored": explore(goal, _span_of(goal, span_id)) if span_id else None,
        "target": target,
        "changes": [
            (span_view(span), span.owner.goal_uid == str(goal.uid))
            for span in store.who_changed(goal.namespace, target, limit=CHANGES_SHOWN)
        ]
        if target
        else [],
    }
    return goal_page(request, goal, "trace", context)


@require_GET
def goal_effects(request: HttpRequest, reference: str, span_id: str) -> HttpResponse:
    """The direct effects of a span from `?offset=` on: a piece of the explorer's tree."""
    goal = get_visible_goal(session_principal(request), reference)
    _span_of(goal, span_id)
    offset = request.GET.get("offset", "0")
    found = branch(goal, span_id, offset=int(offset) if offset.isdigit() and len(offset) < 6 else 0)
    return render(request, "goals/_gbranch.html", {"goal": goal, "branch": found})


def _span_of(goal: Goal, span_id: str) -> Span:
    """A span of the Goal, or of its namespace where it is an effect of it. Raises NotVisible."""
    span = get_telemetry().span(goal.namespace, span_id)
    if span is None or span.owner.goal_uid != str(goal.uid):
        raise NotVisible(f"There is no span {span_id!r} of {goal} that you may see.")
    return span


@require_GET
def span_detail(request: HttpRequest, span_id: str) -> HttpResponse:
    """Permalink of a span: to its place in the trace of its Goal."""
    span = _visible_span(session_principal(request), span_id)
    return redirect("goal_span", span.owner.goal_uid, span_id)


def _visible_span(principal: Principal, span_id: str) -> Span:
    goals = Goal.objects.filter(within(principal, Permission.VIEW))
    for namespace in goals.order_by("namespace").values_list("namespace", flat=True).distinct():
        span = get_telemetry().span(namespace, span_id)
        if span is not None and span.owner.goal_uid:
            return span
    raise NotVisible(f"There is no span {span_id!r} that you may see.")

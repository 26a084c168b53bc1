"""Pages of the causal trace: what each agent saw and did, and because of what."""

import json
from dataclasses import dataclass
from typing import Any

from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect
from django.views.decorators.http import require_GET
from django.views.decorators.vary import vary_on_headers

from goals.access import get_visible_goal
from goals.models import Goal
from goals.views.goal_detail import goal_page
from governance.access import NotVisible, Principal, within
from governance.domain import Permission
from governance.sessions import session_principal
from lineage.telemetry import get_telemetry
from lineage.telemetry.base import Span

PAGE_SIZE = 100
EFFECTS_SHOWN = 100


@dataclass(frozen=True, slots=True)
class SpanView:
    """One span with what a page says of it."""

    span: Span
    kind: str  # "observation" | "action" | "span"
    value: str  # what an observation saw, "" for others
    milliseconds: float

    @property
    def attributes(self) -> str:
        return json.dumps(dict(self.span.attributes), indent=1, ensure_ascii=False, default=str)


def span_view(span: Span) -> SpanView:
    """The span as the page names it."""
    seen: Any = span.attributes.get("observation.value")
    text = ""
    if seen is not None:
        name = span.attributes.get("observation.metric", "")
        aggregate = span.attributes.get("observation.aggregate", "")
        unit = span.attributes.get("observation.unit", "")
        text = f"{aggregate} {name} {seen:.4g} {unit}" if isinstance(seen, int | float) else ""
    kind = "observation" if span.is_observation else "action" if span.is_action else "span"
    spent = (span.end_at - span.start_at).total_seconds() * 1000
    return SpanView(span, kind, text.strip(), spent)


@require_GET
@vary_on_headers("HX-Request")
def goal_trace(request: HttpRequest, reference: str, span_id: str = "") -> HttpResponse:
    """Spans of a Goal by start time; a picked one with its causes and effects."""
    goal = get_visible_goal(session_principal(request), reference)
    store = get_telemetry()
    cursor = request.GET.get("cursor", "")
    found = store.goal_spans(goal.namespace, str(goal.uid), cursor=cursor, limit=PAGE_SIZE)
    context: dict[str, Any] = {
        "spans": [span_view(span) for span in found.spans],
        "next_cursor": found.next_cursor,
        "cursor": cursor,
        "picked": None,
    }
    if span_id:
        context |= _picked(goal, span_id)
    return goal_page(request, goal, "trace", context)


def _picked(goal: Goal, span_id: str) -> dict[str, Any]:
    store = get_telemetry()
    span = store.span(goal.namespace, span_id)
    if span is None or span.owner.goal_uid != str(goal.uid):
        raise NotVisible(f"There is no span {span_id!r} of {goal} that you may see.")
    causes = store.causes(goal.namespace, span_id)
    effects = store.effects(goal.namespace, span_id, limit=EFFECTS_SHOWN)
    return {
        "picked": span_view(span),
        "causes": [span_view(one) for one in causes if one.span_id != span_id],
        "effects": [span_view(one) for one in effects if one.span_id != span_id],
    }


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

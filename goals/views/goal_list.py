"""Pages: the list of Goals."""

from http import HTTPStatus
from typing import Any

from django.core.paginator import Paginator
from django.db.models import Q
from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.views.decorators.http import require_GET
from django.views.decorators.vary import vary_on_headers

from goals.access import visible_goals
from goals.forms import GoalFilter
from goals.pages import account_views, objective_view
from goals.views.goal_form import may_operate
from governance.domain import Permission
from governance.export import table_export
from governance.row_filter import row_filter
from governance.sessions import session_principal
from governance.time_range import time_range

PAGE_SIZE = 50
FILTER_WORDS = ("name", "namespace", "objective", "requested_by")
FILTER_LABELS = {
    "goal": "name",
    "namespace": "namespace",
    "phase": "phase",
    "requester": "requested_by",
    "sponsor": "sponsor",
}
COLUMNS = {
    name: name
    for name in (
        "uid", "namespace", "name", "phase", "satisfied", "objective", "measured_value",
        "measured_unit", "measured_at", "iteration", "requested_by", "sponsor", "created_at",
        "started_at", "landed_at",
    )
}  # fmt: skip


@require_GET
@vary_on_headers("HX-Request")
def goal_list(request: HttpRequest) -> HttpResponse:
    """Goals, newest first, filtered by text, phase and namespace."""
    principal = session_principal(request)
    visible = visible_goals(principal)
    form = GoalFilter(request.GET)
    status = HTTPStatus.OK if form.is_valid() else HTTPStatus.UNPROCESSABLE_ENTITY
    chosen = row_filter(request.GET, words=FILTER_WORDS, labels=FILTER_LABELS)
    asked = time_range(request.GET)
    found = visible.filter(_query(form.cleaned_data)) if form.is_valid() else visible.none()
    found = chosen.keep(found.filter(asked.q("created_at"))).order_by("-created_at")
    if export := table_export(request, name="goals", columns=COLUMNS, rows=found):
        return export
    page = Paginator(found, PAGE_SIZE).get_page(request.GET.get("page"))
    goals = list(page.object_list)
    accounts = account_views(goals)
    spaces = principal.namespaces(Permission.VIEW)
    context = {
        "form": form,
        "filter": chosen,
        "range": asked,
        "may_view": spaces is None or bool(spaces),
        "page": page,
        "rows": [(goal, objective_view(goal), accounts[goal.pk]) for goal in goals],
        "namespaces": list(
            visible.order_by("namespace").values_list("namespace", flat=True).distinct()
        ),
        "may_create": may_operate(principal),
        "nav": "goals",
    }
    part = "#live" if request.headers.get("HX-Request") else ""
    return render(request, f"goals/goal_list.html{part}", context, status=status)


def _query(wanted: dict[str, Any]) -> Q:
    query = Q()
    if wanted["phase"]:
        query &= Q(phase=wanted["phase"])
    if wanted["namespace"]:
        query &= Q(namespace=wanted["namespace"])
    return query

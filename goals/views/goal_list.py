"""Pages: the list of Goals."""

from http import HTTPStatus
from typing import Any

from django.db.models import Q
from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.views.decorators.http import require_GET
from django.views.decorators.vary import vary_on_headers

from goals.access import visible_goals
from goals.forms import GoalFilter
from goals.pages import account_views, objective_view
from goals.views.goal_cursor import cursor_page
from goals.views.goal_form import may_operate
from governance.domain import Permission
from governance.export import table_export
from governance.row_filter import row_filter
from governance.sessions import session_principal
from governance.time_range import time_range

# By the words of `?sort=`: the column and whether the greatest comes first.
SORTS = {
    "": ("created_at", True),
    "oldest": ("created_at", False),
    "name": ("name", False),
    "phase": ("phase", False),
    "requester": ("requested_by", False),
}
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
    """Goals by cursor, filtered by text, phase, namespace, agent and time, sorted as asked."""
    principal = session_principal(request)
    visible = visible_goals(principal)
    form = GoalFilter(request.GET)
    status = HTTPStatus.OK if form.is_valid() else HTTPStatus.UNPROCESSABLE_ENTITY
    chosen = row_filter(request.GET, words=FILTER_WORDS, labels=FILTER_LABELS)
    asked = time_range(request.GET)
    found = visible.filter(_query(form.cleaned_data)) if form.is_valid() else visible.none()
    found = chosen.keep(found.filter(asked.q("created_at")))
    key, is_descending = SORTS[form.cleaned_data.get("sort", "") if form.is_valid() else ""]
    found = found.order_by(f"{'-' if is_descending else ''}{key}", "pk")
    if export := table_export(request, name="goals", columns=COLUMNS, rows=found):
        return export
    page = cursor_page(request, found, key=key, is_descending=is_descending)
    goals = page.object_list
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
    if wanted["agent"]:
        # Names are kept in quotes in the JSON of the list, which every database can search.
        query &= Q(spec__agents__icontains=f'"{wanted["agent"]}"')
    return query

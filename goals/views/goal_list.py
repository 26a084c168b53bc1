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
from governance.export import table_export
from governance.sessions import session_principal

PAGE_SIZE = 50
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
    found = visible.filter(_query(form.cleaned_data)) if form.is_valid() else visible.none()
    found = found.order_by("-created_at")
    if export := table_export(request, name="goals", columns=COLUMNS, rows=found):
        return export
    page = Paginator(found, PAGE_SIZE).get_page(request.GET.get("page"))
    goals = list(page.object_list)
    accounts = account_views(goals)
    context = {
        "form": form,
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
    if text := wanted["q"]:
        query &= (
            Q(name__icontains=text) | Q(objective__icontains=text) | Q(requested_by__icontains=text)
        )
    return query

"""Pages: the list of Goals and the form for a new one."""

from http import HTTPStatus
from typing import Any

from django.core.paginator import Paginator
from django.db.models import Q
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.views.decorators.http import require_GET, require_http_methods
from django.views.decorators.vary import vary_on_headers

from agents.domain.documents import load_documents
from agents.domain.problems import FieldProblem, ManifestError
from goals.access import visible_goals
from goals.domain.manifest import GoalManifest, parse_goal
from goals.forms import GoalFilter, ManifestForm
from goals.models import Goal
from goals.pages import GraphView, account_views, objective_view, plan_view
from goals.services.apply import GoalError, apply_goal, check_goal
from goals.services.planning import preview_graph
from governance.access import NotAllowed, Principal
from governance.domain import Permission
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
TEMPLATE = """\
apiVersion: orchestration.ai/v1
kind: Goal
metadata:
  name: reduce-p99-latency
spec:
  objective: "p99 latency < 120 ms for /checkout"
  budget: 50 GPU-minutes
  agents: [profiler, optimizer, canary_deployer]
"""


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
        "may_create": _may_operate(principal),
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


def _may_operate(principal: Principal) -> bool:
    spaces = principal.namespaces(Permission.OPERATE)
    return spaces is None or bool(spaces)


@require_http_methods(["GET", "POST"])
@vary_on_headers("HX-Request")
def goal_new(request: HttpRequest) -> HttpResponse:
    """A manifest is checked and planned without effect, then applied."""
    principal = session_principal(request)
    if not _may_operate(principal):
        raise NotAllowed("Making a Goal needs the role operator; ask an administrator.")
    if request.method == "GET":
        return _form(request, ManifestForm(initial={"manifest": TEMPLATE}))
    form = ManifestForm(request.POST)
    if not form.is_valid():
        return _form(request, form, status=HTTPStatus.UNPROCESSABLE_ENTITY)
    try:
        manifest = _one_goal(form.cleaned_data["manifest"])
        principal.require(Permission.OPERATE, namespace=manifest.namespace)
        if form.cleaned_data["step"] == "apply":
            return _to_goal(request, apply_goal(manifest, principal=principal).goal)
        plan = _plan(manifest, principal)
    except ManifestError as error:
        return _form(request, form, problems=error.problems, status=HTTPStatus.UNPROCESSABLE_ENTITY)
    except (GoalError, NotAllowed) as error:
        is_conflict = isinstance(error, GoalError)
        status = HTTPStatus.CONFLICT if is_conflict else HTTPStatus.FORBIDDEN
        return _form(request, form, problems=[FieldProblem("", str(error))], status=status)
    return _form(request, form, plan=plan, manifest=manifest)


def _one_goal(text: str) -> GoalManifest:
    documents = load_documents(text)
    if len(documents) != 1:
        raise ManifestError(
            [FieldProblem("", f"One Goal at a time: the text holds {len(documents)} documents.")]
        )
    return parse_goal(documents[0])


def _plan(manifest: GoalManifest, principal: Principal) -> GraphView:
    graph = check_goal(manifest)
    judgement = preview_graph(graph, requested_by=principal.username)
    return plan_view(graph.priced_document(), digest=graph.digest, decisions=judgement.decisions)


def _to_goal(request: HttpRequest, goal: Goal) -> HttpResponse:
    response = redirect("goal_detail", f"{goal.namespace}/{goal.name}")
    if request.headers.get("HX-Request"):
        moved = HttpResponse(status=HTTPStatus.OK)
        moved["HX-Redirect"] = response["Location"]
        return moved
    return response


def _form(
    request: HttpRequest,
    form: ManifestForm,
    *,
    problems: Any = (),
    plan: GraphView | None = None,
    manifest: GoalManifest | None = None,
    status: HTTPStatus = HTTPStatus.OK,
) -> HttpResponse:
    context = {
        "form": form,
        "problems": problems,
        "graph": plan,
        "manifest": manifest,
        "nav": "goals",
    }
    part = "#answer" if request.headers.get("HX-Request") else ""
    return render(request, f"goals/goal_new.html{part}", context, status=status)

"""Pages: a Goal as a form and as YAML, two views of one text, checked as one types."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from http import HTTPStatus
from typing import Any

from django.http import HttpRequest, HttpResponse, JsonResponse
from django.shortcuts import redirect, render
from django.views.decorators.http import require_http_methods, require_POST
from django.views.decorators.vary import vary_on_headers

from agents.domain.documents import MAX_BYTES
from agents.domain.problems import FieldProblem, ManifestError
from agents.models import Agent
from goals.access import get_operable_goal, get_visible_goal
from goals.domain.manifest_form import FIELDS, FormField, Reading, field_of, read_form, write_form
from goals.domain.manifest_text import UneditableText
from goals.forms import ManifestForm
from goals.models import Goal
from goals.pages import plan_view
from goals.services.apply import GoalError, apply_goal
from goals.services.drafts import (
    DryRun,
    PlacedProblem,
    apply_edit,
    dry_run,
    example_text,
    examples,
    fresh_name,
    manifest_text,
    placed,
    problems_of,
    read_draft,
)
from goals.services.verdicts import verdict_rows
from goals.views.goal_graph import graph_page
from governance.access import NotAllowed, NotVisible, Principal, within
from governance.domain import Permission
from governance.sessions import session_principal

AGENTS_OFFERED = 200  # names that a form offers; any other can be typed
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
PREFIX = "f-"  # of the form's fields, beside those of the page
GROUPS = (
    ("What is asked", ("name", "namespace", "objective", "budget", "agents")),
    (
        "How far it may go",
        ("requireApproval", "deadlineSeconds", "maxIterations", "retries", "priority"),
    ),
    (
        "When the budget runs low",
        ("throttle-softLimitPercent", "throttle-gpusOnPause"),
    ),
    ("Who and what it belongs to", ("sponsor", "parent", "labels", "annotations")),
)


@dataclass(frozen=True, slots=True)
class FieldView:
    """A field of the form with what stands in it and what is wrong with it."""

    field: FormField
    reading: Reading
    problems: tuple[str, ...] = ()
    is_fixed: bool = False


@dataclass(frozen=True, slots=True)
class Draft:
    """What a person is writing; `typed` are the form's fields as they were posted."""

    text: str
    mode: str = "form"
    goal: Goal | None = None  # that is being edited
    generation: int = 0
    typed: Mapping[str, str] = field(default_factory=dict)
    problems: Sequence[PlacedProblem] = ()
    plan: DryRun | None = None
    status: HTTPStatus = HTTPStatus.OK


def may_operate(principal: Principal) -> bool:
    """Whether the person may make a Goal anywhere."""
    spaces = principal.namespaces(Permission.OPERATE)
    return spaces is None or bool(spaces)


def _require_operator(principal: Principal) -> None:
    if not may_operate(principal):
        whom = principal.whom_to_ask(Permission.ADMINISTER)
        raise NotAllowed(f"Making a Goal needs the role operator; {whom}")


@require_http_methods(["GET", "POST"])
@vary_on_headers("HX-Request")
def goal_new(request: HttpRequest) -> HttpResponse:
    """A new Goal: from an example, from another Goal (`?from=`), or from nothing."""
    principal = session_principal(request)
    _require_operator(principal)
    if request.method == "GET":
        return _page(request, Draft(_beginning(request, principal), mode=_wanted_mode(request)))
    return _submitted(request, principal, goal=None)


@require_http_methods(["GET", "POST"])
@vary_on_headers("HX-Request")
def goal_edit(request: HttpRequest, reference: str) -> HttpResponse:
    """The Goal's own manifest; applying it makes the next generation."""
    principal = session_principal(request)
    goal = get_operable_goal(principal, reference)
    if goal.deleted_at is not None:
        raise NotVisible(f"{goal} is deleted: clone it to make another of it.")
    if request.method == "GET":
        draft = Draft(
            manifest_text(goal), mode=_wanted_mode(request), goal=goal, generation=goal.generation
        )
        return _page(request, draft)
    return _submitted(request, principal, goal=goal)


@require_POST
def goal_draft(request: HttpRequest) -> JsonResponse:
    """The text with the form's fields written into it, what the form shows, and every problem.

    Takes and answers JSON; nothing is kept.
    """
    principal = session_principal(request)
    _require_operator(principal)
    asked = _asked(request)
    if asked is None:
        detail = 'The body must be JSON: {"text": "...", "fields": {"name": "..."}}.'
        return JsonResponse({"detail": detail}, status=HTTPStatus.UNPROCESSABLE_ENTITY)
    text, fields = asked
    unwritten: list[PlacedProblem] = []
    form_error, readings = "", None
    try:
        if fields is not None:
            text, found = write_form(text, fields)
            unwritten = [PlacedProblem(one.path, one.message, None) for one in found]
        readings = read_form(text)
    except (ManifestError, UneditableText) as error:
        form_error = str(error)
    problems = [*unwritten, *problems_of(text, principal=principal)]
    return JsonResponse(
        {
            "text": text,
            "fields": readings and {name: _reading(one) for name, one in readings.items()},
            "form_error": form_error,
            "problems": [_problem(one) for one in problems],
        }
    )


def _asked(request: HttpRequest) -> tuple[str, dict[str, str] | None] | None:
    try:
        body = json.loads(request.body)
    except ValueError:
        return None
    if not isinstance(body, dict):
        return None
    text, fields = body.get("text"), body.get("fields")
    if not isinstance(text, str) or len(text) > MAX_BYTES:
        return None
    if fields is None:
        return text, None
    if not isinstance(fields, dict) or not all(isinstance(one, str) for one in fields.values()):
        return None
    return text, fields


def _reading(reading: Reading) -> dict[str, str]:
    return {"value": reading.value, "why_not": reading.why_not}


def _problem(problem: PlacedProblem) -> dict[str, Any]:
    place = problem.place
    return {
        "path": problem.path,
        "field": field_of(problem.path) if problem.path else "",
        "message": problem.message,
        "line": place.line if place else 0,
        "column": place.column if place else 0,
        "length": place.length if place else 0,
    }


def _wanted_mode(request: HttpRequest) -> str:
    return "yaml" if request.GET.get("as") == "yaml" else "form"


def _beginning(request: HttpRequest, principal: Principal) -> str:
    """What a new Goal is begun from. Raises NotVisible."""
    if reference := request.GET.get("from", ""):
        goal = get_visible_goal(principal, reference)
        return manifest_text(goal, name=fresh_name(goal.namespace, goal.name))
    if key := request.GET.get("example", ""):
        text = example_text(key)
        if not text:
            raise NotVisible(f"There is no example {key!r}.")
        return text
    offered = examples()
    return example_text(offered[0].key) if offered else TEMPLATE


# --- What was posted ------------------------------------------------------------------------------


def _submitted(request: HttpRequest, principal: Principal, *, goal: Goal | None) -> HttpResponse:
    form = ManifestForm(request.POST)
    # A text area sends its lines with CR and LF, whatever they were.
    text = request.POST.get("manifest", "").replace("\r\n", "\n")
    mode = "form" if request.POST.get("mode") == "form" else "yaml"
    draft = Draft(text, mode=mode, goal=goal, typed=_typed(request))
    if not form.is_valid():
        words = [str(errors[0]) for errors in form.errors.values()]
        return _refused(request, draft, [FieldProblem("", one) for one in words])
    draft = replace(draft, generation=form.cleaned_data["generation"] or 0)
    if mode == "form":
        try:
            text, unwritten = write_form(text, draft.typed)
        except (ManifestError, UneditableText) as error:
            return _refused(request, replace(draft, mode="yaml"), [FieldProblem("", str(error))])
        if unwritten:
            return _refused(request, draft, unwritten)
    match form.cleaned_data["step"]:
        case "to_yaml":
            return _page(request, replace(draft, text=text, mode="yaml", typed={}))
        case "to_form":
            return _to_form(request, replace(draft, text=text))
        case step:
            return _judged(request, principal, draft, text, is_kept=step == "apply")


def _typed(request: HttpRequest) -> dict[str, str]:
    return {
        one.name: request.POST[PREFIX + one.name].replace("\r\n", "\n")
        for one in FIELDS
        if PREFIX + one.name in request.POST
    }


def _to_form(request: HttpRequest, draft: Draft) -> HttpResponse:
    try:
        read_form(draft.text)
    except ManifestError as error:
        return _refused(request, replace(draft, mode="yaml"), error.problems)
    except UneditableText as error:
        return _refused(request, replace(draft, mode="yaml"), [FieldProblem("", str(error))])
    return _page(request, replace(draft, mode="form", typed={}))


def _judged(
    request: HttpRequest, principal: Principal, draft: Draft, text: str, *, is_kept: bool
) -> HttpResponse:
    try:
        manifest = read_draft(text)
        principal.require(Permission.OPERATE, namespace=manifest.namespace)
        if not is_kept:
            plan = dry_run(manifest, principal=principal)
            return _page(request, replace(draft, plan=plan))
        if draft.goal is None:
            goal = apply_goal(manifest, principal=principal).goal
        else:
            goal = apply_edit(
                manifest, goal=draft.goal, generation=draft.generation, principal=principal
            ).goal
    except ManifestError as error:
        return _refused(request, draft, error.problems, text=text)
    except GoalError as error:
        return _refused(request, draft, [FieldProblem("", str(error))], HTTPStatus.CONFLICT)
    except NotAllowed as error:
        problem = FieldProblem("metadata.namespace", str(error))
        return _refused(request, draft, [problem], HTTPStatus.FORBIDDEN, text=text)
    return _to_goal(request, goal)


def _refused(
    request: HttpRequest,
    draft: Draft,
    problems: Sequence[FieldProblem],
    status: HTTPStatus = HTTPStatus.UNPROCESSABLE_ENTITY,
    *,
    text: str = "",
) -> HttpResponse:
    found = placed(text or draft.text, problems)
    return _page(request, replace(draft, problems=found, status=status))


def _to_goal(request: HttpRequest, goal: Goal) -> HttpResponse:
    response = redirect("goal_detail", f"{goal.namespace}/{goal.name}")
    if request.headers.get("HX-Request"):
        moved = HttpResponse(status=HTTPStatus.OK)
        moved["HX-Redirect"] = response["Location"]
        return moved
    return response


# --- The page -------------------------------------------------------------------------------------


def _page(request: HttpRequest, draft: Draft) -> HttpResponse:
    plan = draft.plan
    context: dict[str, Any] = {
        "draft": draft,
        "problems": [(one, field_of(one.path) if one.path else "") for one in draft.problems],
        "nav": "goals",
    }
    if plan is not None:
        decisions = plan.judgement.decisions
        document = plan.graph.priced_document()
        graph = plan_view(document, digest=plan.graph.digest, decisions=decisions)
        context |= {
            "plan": plan,
            "graph": graph,
            "drawn": graph_page(request, graph),
            "verdicts": verdict_rows(graph.verdicts),
        }
    if request.headers.get("HX-Request"):
        return render(request, "goals/goal_new.html#answer", context, status=draft.status)
    context |= _editor(request, draft)
    return render(request, "goals/goal_new.html", context, status=draft.status)


def _editor(request: HttpRequest, draft: Draft) -> dict[str, Any]:
    principal = session_principal(request)
    agents = Agent.objects.filter(within(principal, Permission.OPERATE), retired_at__isnull=True)
    return {
        "groups": _groups(draft),
        "form_error": _form_error(draft.text),
        "examples": examples(),
        "agents": list(
            agents.order_by("namespace", "name").values("namespace", "name")[:AGENTS_OFFERED]
        ),
    }


def _form_error(text: str) -> str:
    try:
        read_form(text)
    except (ManifestError, UneditableText) as error:
        return str(error)
    return ""


def _groups(draft: Draft) -> list[tuple[str, list[FieldView]]]:
    """The fields as the text has them; what was typed stands as it was typed."""
    try:
        readings = read_form(draft.text)
    except (ManifestError, UneditableText):
        readings = {one.name: Reading() for one in FIELDS}
    if draft.mode == "form":
        shown = {name: replace(readings[name], value=text) for name, text in draft.typed.items()}
        readings |= {name: one for name, one in shown.items() if not one.why_not}
    by_field: dict[str, list[str]] = {}
    for problem in draft.problems:
        by_field.setdefault(field_of(problem.path), []).append(problem.message)
    fixed = ("name", "namespace") if draft.goal else ()
    views = {
        one.name: FieldView(
            one, readings[one.name], tuple(by_field.get(one.name, ())), one.name in fixed
        )
        for one in FIELDS
    }
    return [(title, [views[name] for name in names]) for title, names in GROUPS]

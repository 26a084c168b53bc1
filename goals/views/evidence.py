"""The page of evidence packs: make one for a Goal, and see which were taken by whom."""

import json
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.views.decorators.http import require_GET, require_POST

from goals.access import get_visible_goal, visible_goals
from goals.downloads import pack_name, pack_response
from goals.services.evidence_exports import EXPORTED, export_evidence, export_range
from governance.access import NotVisible, Principal, visible_records
from governance.domain import Permission
from governance.export import table_export
from governance.sessions import session_principal
from governance.time_range import PRESETS, time_range
from lineage.evidence.base import EvidenceError
from lineage.registry.base import RegistryError
from lineage.signing.base import SigningError

GOALS_SHOWN = 50
PACKS_SHOWN = 50
COLUMNS = {
    name: name
    for name in ("namespace", "name", "uid", "phase", "requested_by", "created_at", "landed_at")
}


@require_GET
def pack_list(request: HttpRequest) -> HttpResponse:
    """Goals of a time, each with a button for its pack, and the packs that were taken."""
    return _page(request)


@require_POST
def pack_make(request: HttpRequest, reference: str) -> HttpResponse:
    """The pack of one Goal, as a download that the journal remembers."""
    principal = session_principal(request)
    goal = get_visible_goal(principal, reference)
    try:
        content = export_evidence(goal, actor=principal.actor)
    except (EvidenceError, RegistryError, SigningError) as error:
        problem = f"{goal}: no pack could be made. {error}"
        return _page(request, problem=problem, status=HTTPStatus.CONFLICT)
    return pack_response(content, name=goal.name)


@require_POST
def range_pack_make(request: HttpRequest) -> HttpResponse:
    """The pack of a time, as a download that the journal remembers."""
    principal = session_principal(request)
    chosen = time_range(request.POST)
    namespace = request.POST.get("namespace", "").strip()
    fields: dict[str, str] = {}
    if chosen.problem or chosen.since is None:
        fields["time"] = chosen.problem or "time: say when it begins."
    if not namespace:
        fields["namespace"] = "namespace: choose one, or every one."
    if chosen.since is None or fields:
        status = HTTPStatus.UNPROCESSABLE_ENTITY
        return _page(request, fields=fields, status=status)
    try:
        content = export_range(
            principal=principal, namespace=namespace, since=chosen.since, until=chosen.until
        )
    except EvidenceError as error:
        fields["time"] = str(error)
        return _page(request, fields=fields, status=HTTPStatus.UNPROCESSABLE_ENTITY)
    except (RegistryError, SigningError) as error:
        problem = f"No pack could be made. {error}"
        return _page(request, problem=problem, status=HTTPStatus.CONFLICT)
    return pack_response(content, name=pack_name(namespace, chosen.since))


def _page(
    request: HttpRequest,
    *,
    problem: str = "",
    fields: Mapping[str, str] | None = None,
    status: HTTPStatus = HTTPStatus.OK,
) -> HttpResponse:
    principal = session_principal(request)
    chosen = time_range(request.GET)
    text = request.GET.get("q", "").strip()[:200]
    goals = visible_goals(principal).filter(chosen.q("created_at")).order_by("-created_at")
    if text:
        try:
            goals = goals.filter(pk=get_visible_goal(principal, text).pk)
        except NotVisible:
            goals = goals.filter(name__icontains=text)
    if export := table_export(request, name="goals", columns=COLUMNS, rows=goals):
        return export
    taken = visible_records(principal).filter(action=EXPORTED).order_by("-seq")[:PACKS_SHOWN]
    context = {
        "goals": list(goals[:GOALS_SHOWN]),
        "q": text,
        "range": chosen,
        "problem": problem,
        "fields": fields or {},
        "asked": request.POST,
        "spaces": _spaces(principal),
        "sees_all": principal.namespaces(Permission.VIEW) is None,
        "presets": {name: words for name, (words, _) in PRESETS.items()},
        "packs": [_pack(record) for record in taken],
        "nav": "audit",
    }
    return render(request, "goals/pack_list.html", context, status=status)


def _spaces(principal: Principal) -> list[str]:
    """Namespaces of which the person may take a pack."""
    held = principal.namespaces(Permission.VIEW)
    if held is not None:
        return sorted(held)
    return list(
        visible_goals(principal)
        .order_by("namespace")
        .values_list("namespace", flat=True)
        .distinct()
    )


def _pack(record: Any) -> dict[str, Any]:
    body = json.loads(record.canonical)["body"]
    return {"record": record, **body, "size_bytes": int(body["size_bytes"])}

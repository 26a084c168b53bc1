"""Pages of the journal and of policy decisions."""

import json
from http import HTTPStatus
from typing import Any
from uuid import UUID

from django.core.paginator import Paginator
from django.db.models import Q, QuerySet
from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.views.decorators.http import require_GET
from django.views.decorators.vary import vary_on_headers

from governance.access import NotVisible, visible_decisions, visible_records
from governance.export import table_export
from governance.forms import JournalFilter
from governance.models import BundleVersion, Checkpoint, JournalHead, JournalRecord
from governance.sessions import session_principal
from governance.time_range import time_range

PAGE_SIZE = 50
COLUMNS = {
    name: name
    for name in (
        "seq", "at", "action", "actor_kind", "actor_id", "object_kind", "object_id", "namespace",
        "goal_uid", "hash",
    )
}  # fmt: skip


@require_GET
@vary_on_headers("HX-Request")
def record_list(request: HttpRequest) -> HttpResponse:
    """Search of the journal, newest first, with the state of the chain."""
    form = JournalFilter(request.GET)
    status = HTTPStatus.OK if form.is_valid() else HTTPStatus.UNPROCESSABLE_ENTITY
    found = visible_records(session_principal(request)).order_by("-seq")
    if form.is_valid():
        found = found.filter(_query(form.cleaned_data))
    chosen = time_range(request.GET)
    found = found.filter(chosen.q("at")).defer("canonical")
    if export := table_export(request, name="journal", columns=COLUMNS, rows=found):
        return export
    head = JournalHead.objects.first()
    checkpoint = Checkpoint.objects.order_by("-size").first()
    context = {
        "form": form,
        "range": chosen,
        "records": Paginator(found, PAGE_SIZE).get_page(request.GET.get("page")),
        "head": head,
        "checkpoint": checkpoint,
        "beyond": (head.size if head else 0) - (checkpoint.size if checkpoint else 0),
        "nav": "journal",
    }
    part = "#records" if request.headers.get("HX-Request") else ""
    return render(request, f"governance/record_list.html{part}", context, status=status)


def _query(wanted: dict[str, Any]) -> Q:
    query = Q()
    if wanted["action"]:
        query &= Q(action__startswith=wanted["action"])
    if wanted["actor"]:
        query &= Q(actor_id__contains=wanted["actor"])
    if wanted["seq"] is not None:
        query &= Q(seq=wanted["seq"])
    if wanted["hash"]:
        query &= Q(hash__startswith=wanted["hash"])
    if wanted["goal"]:
        query &= _about_goal(wanted["goal"])
    return query


def _about_goal(text: str) -> Q:
    """By uid, or by the name that records of a Goal carry in their body."""
    try:
        return Q(goal_uid=UUID(text))
    except ValueError:
        name = text.rpartition("/")[2]
        named = JournalRecord.objects.filter(
            action="goal.created", canonical__contains=f'"name":{json.dumps(name)}'
        )
        return Q(goal_uid__in=named.values("goal_uid"))


@require_GET
def record_detail(request: HttpRequest, seq: int) -> HttpResponse:
    """One record with the exact bytes that were hashed."""
    visible: QuerySet[JournalRecord] = visible_records(session_principal(request))
    record = visible.filter(pk=seq).first()
    if record is None:
        raise NotVisible(f"There is no journal record {seq} that you may see.")
    document = json.loads(record.canonical)
    context = {
        "record": record,
        "previous_hash": document["prev"],
        "body": json.dumps(document["body"], indent=2, ensure_ascii=False),
        "checkpoint": Checkpoint.objects.filter(size__gt=seq).order_by("size").first(),
        "nav": "journal",
    }
    return render(request, "governance/record_detail.html", context)


@require_GET
def decision_detail(request: HttpRequest, uid: UUID) -> HttpResponse:
    """One policy decision with its messages, the bundle that made it and its exact input."""
    decision = visible_decisions(session_principal(request)).filter(pk=uid).first()
    if decision is None:
        raise NotVisible(f"There is no decision {uid} that you may see.")
    bundle = BundleVersion.objects.filter(digest=decision.bundle_digest).first()
    sources = {m["path"]: m["source"].splitlines() for m in bundle.modules} if bundle else {}
    context = {
        "decision": decision,
        "bundle": bundle,
        "messages_shown": [
            {**message, "source": _line_of(sources, message)} for message in decision.messages
        ],
        "input": json.dumps(json.loads(decision.input_canonical), indent=2, ensure_ascii=False),
        "nav": "goals",
    }
    return render(request, "governance/decision_detail.html", context)


def _line_of(sources: dict[str, list[str]], message: dict[str, Any]) -> str:
    """The line of policy a message names, "" when it names none."""
    lines = sources.get(message["path"], [])
    number = message["line"] or 0
    return lines[number - 1].strip() if 0 < number <= len(lines) else ""


@require_GET
def decision_input(request: HttpRequest, uid: UUID) -> HttpResponse:
    """The canonical bytes of a decision's input, as they were hashed."""
    decision = visible_decisions(session_principal(request)).filter(pk=uid).first()
    if decision is None:
        raise NotVisible(f"There is no decision {uid} that you may see.")
    response = HttpResponse(decision.input_canonical, content_type="application/json")
    response["Content-Disposition"] = f'attachment; filename="decision-{uid}-input.json"'
    return response

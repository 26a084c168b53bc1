"""Pages of the journal and of policy decisions."""

import json
from typing import Any
from uuid import UUID

from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.views.decorators.http import require_GET

from governance.access import NotVisible, visible_decisions, visible_records
from governance.models import BundleVersion, Checkpoint, JournalRecord
from governance.sessions import session_principal


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
        "nav": "audit",
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

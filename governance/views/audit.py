"""Pages of the audit: search of the journal, the state of its chain, verification of packs."""

import datetime as dt
import hashlib
from http import HTTPStatus
from typing import Any
from urllib.parse import urlencode

from django.contrib import messages
from django.core.files.uploadedfile import UploadedFile
from django.http import HttpRequest, HttpResponse, QueryDict
from django.shortcuts import redirect, render
from django.urls import reverse
from django.utils import timezone
from django.views.decorators.http import require_GET, require_http_methods, require_POST
from django.views.decorators.vary import vary_on_headers

from governance.access import NotAllowed, Principal, require_auditor, visible_records
from governance.domain import Permission
from governance.export import table_export
from governance.models import Checkpoint, JournalCheck, JournalHead
from governance.services.journal_search import (
    KEYS,
    TEXT_MAX,
    JournalSearch,
    SearchInvalid,
    matching_records,
    search_records,
    suggestions,
    understand,
)
from governance.services.verification_steps import current_check, verify_further
from governance.sessions import session_principal
from governance.time_range import TimeRange, time_range
from lineage.evidence.inspection import PACK_MAX_BYTES
from lineage.evidence.sandbox import SandboxError, TooBusy, verify_upload
from lineage.signing import get_signer

# What links and bookmarks of the journal used to say, as the qualifier that says it now.
OLD_PARAMETERS = ("action", "actor", "goal", "seq", "hash")
COLUMNS = {
    name: name
    for name in (
        "seq", "at", "action", "actor_kind", "actor_id", "object_kind", "object_id", "namespace",
        "goal_uid", "hash",
    )
}  # fmt: skip
LATE_AFTER = dt.timedelta(minutes=10)  # the schedule verifies every minute
EXAMPLES = (
    "action:release.*",
    "actor:agent created:24h",
    "action:approval.* created:7d",
    "object:artifact recalled",
)


@require_GET
@vary_on_headers("HX-Request")
def audit(request: HttpRequest) -> HttpResponse:
    """Search of the journal, newest first, with the state of the chain."""
    principal = session_principal(request)
    text = _asked(request.GET)
    chosen = time_range(request.GET)
    problem: SearchInvalid | None = None
    try:
        search = understand(_with_time(text, chosen))
    except SearchInvalid as error:
        problem, search = error, JournalSearch()
    context: dict[str, Any] = {
        "q": text,
        "range": chosen,
        "problem": problem,
        "keys": KEYS,
        "examples": EXAMPLES,
        "text_max": TEXT_MAX,
        "nav": "audit",
        **_chain(principal),
    }
    if problem is not None:
        context["marked"] = _marked(text, problem)
    else:
        before = _cursor(request.GET)
        visible = visible_records(principal)
        size = context["head"].size if context["head"] else 0
        rows = matching_records(visible, search, journal_size=size, before=before)
        rows = rows.defer("canonical")
        if export := table_export(request, name="journal", columns=COLUMNS, rows=rows):
            return export
        page = search_records(
            visible,
            search,
            journal_size=size,
            sees_all=principal.namespaces(Permission.VIEW) is None,
            before=before,
        )
        context |= {
            "page": page,
            "is_first": before is None,
            "newest_query": _at(request.GET, None),
            "older_query": _at(request.GET, page.older),
        }
    status = HTTPStatus.UNPROCESSABLE_ENTITY if problem or chosen.problem else HTTPStatus.OK
    part = "#records" if request.headers.get("HX-Request") else ""
    return render(request, f"governance/audit.html{part}", context, status=status)


@require_GET
def audit_suggestions(request: HttpRequest) -> HttpResponse:
    """Ways to go on with a search, as the options of its field."""
    visible = visible_records(session_principal(request))
    options = suggestions(visible, request.GET.get("q", ""))
    return render(request, "governance/audit_suggestions.html", {"options": options})


@require_POST
def audit_check(request: HttpRequest) -> HttpResponse:
    """Verify what of the journal is not verified yet, for as long as a person waits."""
    require_auditor(session_principal(request))
    check = verify_further(is_fresh=request.POST.get("from") == "start")
    if check.flaw_seq is None:
        messages.success(request, f"{check.size:,} records hold.")
    return redirect(f"{reverse('audit')}#chain")


@require_http_methods(["GET", "POST"])
def audit_verify(request: HttpRequest) -> HttpResponse:
    """A dropped pack, verified by both verifiers; nothing of it is kept."""
    principal = session_principal(request)
    if not principal.permissions:
        whom = principal.whom_to_ask(Permission.ADMINISTER)
        raise NotAllowed(f"Verifying packs needs a role, viewer at least; {whom}")
    context: dict[str, Any] = {
        "max_mib": PACK_MAX_BYTES >> 20,
        "nav": "audit",
        "own_fingerprint": _own_fingerprint(),
    }
    status = HTTPStatus.OK
    if request.method == "POST":
        upload = request.FILES.get("pack")
        if not isinstance(upload, UploadedFile):
            context["problem"], status = "Choose a pack: a .zip.", HTTPStatus.UNPROCESSABLE_ENTITY
        else:
            status = _verified(upload, context)
    return render(request, "governance/audit_verify.html", context, status=status)


def _verified(upload: "UploadedFile[Any]", context: dict[str, Any]) -> HTTPStatus:
    try:
        report, second = verify_upload(upload.chunks())
    except TooBusy as error:
        context["problem"] = str(error)
        return HTTPStatus.SERVICE_UNAVAILABLE
    except SandboxError as error:
        context["problem"] = str(error)
        return HTTPStatus.UNPROCESSABLE_ENTITY
    context |= {
        "report": report,
        "second": second,
        "is_good": report.ok and second.ok,
        "is_ours": report.fingerprint == context["own_fingerprint"],
        "name": (upload.name or "the file")[:120],
        "size": upload.size,
    }
    return HTTPStatus.OK


def _own_fingerprint() -> str:
    """What a pack of this tower has for a fingerprint of its keys."""
    signer = get_signer()
    keys = signer.trusted_root().encode() + signer.public_keys()["checkpoint.vkey"].encode()
    return hashlib.sha256(keys).hexdigest()


def _asked(asked: QueryDict) -> str:
    """The search, with what the parameters of old links said."""
    terms = [asked.get("q", "").strip()]
    for name in OLD_PARAMETERS:
        value = asked.get(name, "").strip().replace('"', "")
        if value:
            terms.append(f'{name}:"{value}"' if " " in value else f"{name}:{value}")
    return " ".join(term for term in terms if term)


def _with_time(text: str, chosen: TimeRange) -> str:
    """The search within the time of the page's picker; one that is wrong is said by the picker."""
    if not chosen.text or chosen.problem:
        return text
    return f"{text} created:{chosen.text.replace(' ', 'T')}".strip()


def _at(asked: QueryDict, cursor: int | None) -> str:
    """The page's query at another place of the journal."""
    query = asked.copy()
    for name in ("cursor", "format", "table"):
        query.pop(name, None)
    if cursor is not None:
        query["cursor"] = str(cursor)
    return query.urlencode()


def _cursor(asked: QueryDict) -> int | None:
    text = asked.get("cursor", "")
    return int(text) if text.isascii() and text.isdigit() and len(text) <= 18 else None


def _marked(text: str, problem: SearchInvalid) -> dict[str, Any]:
    """The text in three pieces, the middle one wrong, and what may have been meant instead."""
    before, after = text[: problem.start], text[problem.end :]
    return {
        "before": before,
        "wrong": text[problem.start : problem.end],
        "after": after,
        "meant": [
            {"text": one, "query": urlencode({"q": f"{before}{one}{after}"})}
            for one in problem.meant
        ],
    }


def _chain(principal: Principal) -> dict[str, Any]:
    head = JournalHead.objects.first()
    checkpoint = Checkpoint.objects.order_by("-size").first()
    check: JournalCheck = current_check()
    size = head.size if head else 0
    return {
        "head": head,
        "checkpoint": checkpoint,
        "beyond": size - (checkpoint.size if checkpoint else 0),
        "is_unsigned_for_long": _is_late(checkpoint.created_at if checkpoint else None),
        "check": check,
        "unchecked": max(size - check.size, 0),
        "is_late": _is_late(check.checked_at),
        "may_check": principal.namespaces(Permission.AUDIT) != frozenset(),
    }


def _is_late(last: dt.datetime | None) -> bool:
    """Whether what the schedule does every minute was last done long ago."""
    return last is not None and timezone.now() - last > LATE_AFTER

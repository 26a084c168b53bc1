"""API of the journal: search with qualifiers, verification."""

import datetime as dt
from http import HTTPStatus
from typing import Any

from django.http import HttpRequest
from ninja import Router, Schema
from ninja.errors import HttpError

from governance.access import NotAllowed, Principal, require_auditor, visible_records
from governance.domain import Permission
from governance.models import JournalCheck, JournalHead
from governance.schemas import RecordOut
from governance.services.journal_search import SearchInvalid, search_records, understand
from governance.services.verification_steps import current_check, verify_further

PAGE_MAX = 500
journal_router = Router(tags=["governance"])


class FoundOut(Schema):
    """A page of a search; `older` is where the next one begins, null after the last.

    With `is_partial` only the records between the two numbers were looked at.
    """

    results: list[RecordOut]
    older: int | None
    searched_from: int
    searched_to: int
    is_partial: bool


class CheckOut(Schema):
    """How far the journal holds: `size` records of `records`, and the first that does not."""

    records: int
    size: int
    checkpoints: int
    started_at: dt.datetime | None
    checked_at: dt.datetime | None
    whole_at: dt.datetime | None
    flaw_seq: int | None
    flaw_why: str


class CheckIn(Schema):
    """Whether to begin at record 0 again."""

    from_start: bool = False


def _person(request: HttpRequest) -> Principal:
    principal: Principal | None = getattr(request.auth, "principal", None)  # type: ignore[attr-defined]
    if principal is None:
        raise NotAllowed("An agent may not do this; it is for people.")
    return principal


@journal_router.get("/journal/search", response=FoundOut)
def search_journal(
    request: HttpRequest, q: str = "", before: int | None = None, size: int = 50
) -> Any:
    """Search with the qualifiers of the Audit page, newest first, before record `before`."""
    principal = _person(request)
    try:
        search = understand(q)
    except SearchInvalid as error:
        raise HttpError(HTTPStatus.UNPROCESSABLE_ENTITY, f"q: {error}") from None
    head = JournalHead.objects.first()
    page = search_records(
        visible_records(principal),
        search,
        journal_size=head.size if head else 0,
        sees_all=principal.namespaces(Permission.VIEW) is None,
        before=before,
        size=max(1, min(size, PAGE_MAX)),
    )
    return {
        "results": page.records,
        "older": page.older,
        "searched_from": page.searched_from,
        "searched_to": page.searched_to,
        "is_partial": page.is_partial,
    }


@journal_router.get("/journal/verification", response=CheckOut)
def journal_verification(request: HttpRequest) -> dict[str, Any]:
    """How far the journal was verified, when, and what was found."""
    _person(request)
    return _said(current_check())


@journal_router.post("/journal/verification", response=CheckOut)
def verify_journal_further(request: HttpRequest, payload: CheckIn) -> dict[str, Any]:
    """Verify what is not verified yet, for some seconds; repeat until `size` is `records`."""
    require_auditor(_person(request))
    return _said(verify_further(is_fresh=payload.from_start))


def _said(check: JournalCheck) -> dict[str, Any]:
    head = JournalHead.objects.first()
    return {
        "records": head.size if head else 0,
        "size": check.size,
        "checkpoints": check.checkpoints,
        "started_at": check.started_at if check.checked_at else None,
        "checked_at": check.checked_at,
        "whole_at": check.whole_at,
        "flaw_seq": check.flaw_seq,
        "flaw_why": check.flaw_why,
    }

"""API of evidence packs: take one of a time, and see which were taken."""

import datetime as dt
import json
from typing import Any

from django.http import HttpRequest, HttpResponse
from ninja import Router, Schema
from ninja.pagination import CursorPagination, paginate
from pydantic import AwareDatetime

from agents.authentication import caller_of
from goals.downloads import pack_name, pack_response
from goals.services.evidence_exports import EXPORTED, export_range
from governance.access import visible_records
from governance.models import JournalRecord
from lineage.evidence.base import EVERY_NAMESPACE

packs_router = Router(tags=["evidence"])


class RangeIn(Schema):
    """A time: from `since` until before `until`, or now; of a namespace, or of all with `*`."""

    since: AwareDatetime
    until: AwareDatetime | None = None
    namespace: str = EVERY_NAMESPACE


class PackOut(Schema):
    """A pack that was taken: who, when, of what, and its SHA-256."""

    seq: int
    at: dt.datetime
    actor_id: str
    object_kind: str
    object_id: str
    namespace: str
    name: str
    sha256: str
    size_bytes: int

    @staticmethod
    def resolve_name(record: JournalRecord) -> str:
        return str(_body(record)["name"])

    @staticmethod
    def resolve_sha256(record: JournalRecord) -> str:
        return str(_body(record)["sha256"])

    @staticmethod
    def resolve_size_bytes(record: JournalRecord) -> int:
        return int(_body(record)["size_bytes"])


def _body(record: JournalRecord) -> dict[str, Any]:
    body: dict[str, Any] = json.loads(record.canonical)["body"]
    return body


@packs_router.get("/packs", response=list[PackOut])
@paginate(CursorPagination, ordering=("-seq",))
def list_packs(request: HttpRequest) -> Any:
    """Packs that were taken, newest first."""
    return visible_records(caller_of(request).person).filter(action=EXPORTED)


@packs_router.post("/packs")
def take_pack(request: HttpRequest, payload: RangeIn) -> HttpResponse:
    """The evidence pack of a time: a ZIP that is verified without us. The journal remembers it."""
    content = export_range(
        principal=caller_of(request).person,
        namespace=payload.namespace,
        since=payload.since,
        until=payload.until,
    )
    return pack_response(content, name=pack_name(payload.namespace, payload.since))

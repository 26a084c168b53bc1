"""The journal: an append-only hash chain, written in the transaction of each change."""

import datetime as dt
import hashlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from uuid import UUID

import rfc8785
from django.db import transaction
from django.utils import timezone

from governance.models import JournalHead, JournalRecord
from lineage.domain import Actor

GENESIS_HASH = "0" * 64
LEAF_PREFIX = b"\x00"  # RFC 9162, 2.1.1: separates leaves from inner nodes


class JournalOutsideTransaction(RuntimeError):
    """A record was to be written outside the transaction of its change (I5)."""


def rfc3339(moment: dt.datetime) -> str:
    """UTC with microseconds, e.g. `2026-01-01T00:00:00.000000Z`."""
    return moment.astimezone(dt.UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


@contextmanager
def journaled() -> Iterator[None]:
    """A transaction that will append to the journal: it takes the journal's lock first.

    Everybody takes that lock before any row, so that no two of them can wait for each other: a
    worker that holds a Goal's row and waits for the journal, and an approver who holds the journal
    and waits for the Goal's row, would be a deadlock on PostgreSQL. SQLite serialises writers at
    BEGIN and loses nothing.
    """
    with transaction.atomic():
        _locked_head()
        yield


@dataclass(frozen=True, slots=True)
class News:
    """One state change to be journaled. `body` is plain JSON without secrets."""

    action: str
    actor: Actor
    object_kind: str
    object_id: str
    namespace: str
    goal_uid: UUID | str | None = None
    body: Mapping[str, Any] | None = None


def append_record(
    *,
    action: str,
    actor: Actor,
    object_kind: str,
    object_id: str,
    namespace: str,
    goal_uid: UUID | str | None = None,
    body: Mapping[str, Any] | None = None,
) -> JournalRecord:
    """Append one record; see `append_records`."""
    return append_records([News(action, actor, object_kind, object_id, namespace, goal_uid, body)])[
        0
    ]


def append_records(news: Sequence[News]) -> list[JournalRecord]:
    """Append records to the chain; they commit or vanish with the caller's transaction.

    The head row is locked until the commit, which gives the chain its order. Raises
    JournalOutsideTransaction when no transaction is open.
    """
    if not transaction.get_connection().in_atomic_block:
        raise JournalOutsideTransaction(news[0].action if news else "nothing")
    if not news:
        return []
    head = _locked_head()
    at = timezone.now()
    records: list[JournalRecord] = []
    last_hash = head.last_hash
    for seq, item in enumerate(news, start=head.size):
        record = _chained(item, seq=seq, at=at, prev=last_hash)
        last_hash = record.hash
        records.append(record)
    JournalRecord.objects.bulk_create(records, batch_size=500)
    JournalHead.objects.filter(pk=head.pk).update(
        size=head.size + len(records), last_hash=last_hash
    )
    return records


def _chained(item: News, *, seq: int, at: dt.datetime, prev: str) -> JournalRecord:
    document: dict[str, Any] = {
        "seq": seq,
        "at": rfc3339(at),
        "actor": item.actor.document(),
        "action": item.action,
        "object": {"kind": item.object_kind, "id": item.object_id},
        "namespace": item.namespace,
        "goal": str(item.goal_uid) if item.goal_uid else None,
        "body": dict(item.body or {}),
        "prev": prev,
    }
    canonical = rfc8785.dumps(document)
    return JournalRecord(
        seq=seq,
        at=at,
        actor_kind=item.actor.kind.value,
        actor_id=item.actor.id,
        action=item.action,
        object_kind=item.object_kind,
        object_id=item.object_id,
        namespace=item.namespace,
        goal_uid=item.goal_uid,
        canonical=canonical.decode("utf-8"),
        hash=hashlib.sha256(canonical).hexdigest(),
        leaf_hash=hashlib.sha256(LEAF_PREFIX + canonical).digest(),
    )


def _locked_head() -> JournalHead:
    head = JournalHead.objects.select_for_update().first()
    if head is None:
        JournalHead.objects.get_or_create(pk=1, defaults={"last_hash": GENESIS_HASH})
        head = JournalHead.objects.select_for_update().get(pk=1)
    return head

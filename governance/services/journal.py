"""The journal: an append-only hash chain, written in the transaction of each change."""

import datetime as dt
import hashlib
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


def append_record(
    *,
    action: str,
    actor: Actor,
    object_kind: str,
    object_id: str,
    namespace: str,
    goal_uid: UUID | str | None = None,
    body: dict[str, Any] | None = None,
) -> JournalRecord:
    """Append one record to the chain; it commits or vanishes with the caller's transaction.

    `body` is plain JSON without secrets. The head row is locked until the commit, which gives the
    chain its order. Raises JournalOutsideTransaction when no transaction is open.
    """
    if not transaction.get_connection().in_atomic_block:
        raise JournalOutsideTransaction(action)
    head = _locked_head()
    at = timezone.now()
    document = {
        "seq": head.size,
        "at": rfc3339(at),
        "actor": actor.document(),
        "action": action,
        "object": {"kind": object_kind, "id": object_id},
        "namespace": namespace,
        "goal": str(goal_uid) if goal_uid else None,
        "body": body or {},
        "prev": head.last_hash,
    }
    canonical = rfc8785.dumps(document)
    digest = hashlib.sha256(canonical).hexdigest()
    record = JournalRecord.objects.create(
        seq=head.size,
        at=at,
        actor_kind=actor.kind.value,
        actor_id=actor.id,
        action=action,
        object_kind=object_kind,
        object_id=object_id,
        namespace=namespace,
        goal_uid=goal_uid,
        canonical=canonical.decode("utf-8"),
        hash=digest,
        leaf_hash=hashlib.sha256(LEAF_PREFIX + canonical).digest(),
    )
    JournalHead.objects.filter(pk=head.pk).update(size=head.size + 1, last_hash=digest)
    return record


def _locked_head() -> JournalHead:
    head = JournalHead.objects.select_for_update().first()
    if head is None:
        JournalHead.objects.get_or_create(pk=1, defaults={"last_hash": GENESIS_HASH})
        head = JournalHead.objects.select_for_update().get(pk=1)
    return head

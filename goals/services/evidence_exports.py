"""Evidence packs that people take with them: made, and remembered in the journal."""

import datetime as dt
import hashlib

from goals.models import Goal
from goals.services.evidence import evidence_pack
from goals.services.range_evidence import range_pack
from governance.access import Principal
from governance.domain import Permission
from governance.services.journal import append_record, journaled
from lineage.domain import Actor
from lineage.evidence.base import EVERY_NAMESPACE

EXPORTED = "evidence.exported"


def export_evidence(goal: Goal, *, actor: Actor) -> bytes:
    """The pack of a Goal as a ZIP; the journal keeps who took it and its SHA-256.

    Raises what `evidence_pack` does. Taken twice it is remembered twice.
    """
    content = evidence_pack(goal)
    with journaled():
        append_record(
            action=EXPORTED,
            actor=actor,
            object_kind="goal",
            object_id=str(goal.uid),
            namespace=goal.namespace,
            goal_uid=goal.uid,
            body={
                "name": goal.name,
                "sha256": hashlib.sha256(content).hexdigest(),
                "size_bytes": str(len(content)),
            },
        )
    return content


def export_range(
    *,
    principal: Principal,
    namespace: str,
    since: dt.datetime,
    until: dt.datetime | None = None,
) -> bytes:
    """The pack of a time of a namespace, or of EVERY_NAMESPACE; remembered as `export_evidence`.

    Whoever takes it must see all of it. Raises NotAllowed and what `range_pack` does.
    """
    principal.require(Permission.VIEW, namespace=namespace)
    content = range_pack(namespace=namespace, since=since, until=until)
    is_whole = namespace == EVERY_NAMESPACE
    ends = until.isoformat() if until else "then"
    with journaled():
        append_record(
            action=EXPORTED,
            actor=principal.actor,
            object_kind="journal",
            object_id=f"{since.isoformat()}..{ends}",
            namespace="" if is_whole else namespace,
            body={
                "name": f"{'every namespace' if is_whole else namespace}, {_words(since, until)}",
                "sha256": hashlib.sha256(content).hexdigest(),
                "size_bytes": str(len(content)),
            },
        )
    return content


def _words(since: dt.datetime, until: dt.datetime | None) -> str:
    first = f"{since.astimezone(dt.UTC):%Y-%m-%d %H:%M}"
    return f"{first} to {until.astimezone(dt.UTC):%Y-%m-%d %H:%M}" if until else f"since {first}"

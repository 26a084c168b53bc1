"""Evidence packs that people take with them: made, and remembered in the journal."""

import hashlib

from goals.models import Goal
from goals.services.evidence import evidence_pack
from governance.services.journal import append_record, journaled
from lineage.domain import Actor

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

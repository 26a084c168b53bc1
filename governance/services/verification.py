"""Verification of the journal as it is kept: every hash, every link, every signed root."""

import hashlib
import json
from dataclasses import dataclass
from typing import Any

from governance.models import Checkpoint, JournalHead, JournalRecord
from governance.services.checkpoints import ORIGIN, note_text
from governance.services.journal import GENESIS_HASH, LEAF_PREFIX, rfc3339
from lineage.merkle import MerkleTree
from lineage.signing import get_signer
from lineage.signing.base import Signer, SigningError

RECORDS_PER_READ = 5_000


@dataclass(frozen=True, slots=True)
class Flaw:
    """The first thing that does not hold: at which record, and what."""

    seq: int
    why: str


@dataclass(frozen=True, slots=True)
class JournalVerdict:
    """How much was walked and what was found; `flaw` None when all of it holds."""

    records: int
    checkpoints: int
    flaw: Flaw | None

    @property
    def holds(self) -> bool:
        return self.flaw is None


def verify_journal(*, signer: Signer | None = None) -> JournalVerdict:
    """Walk the chain from its first record and hold it to every signed checkpoint.

    Reads each record once, whatever this process remembers of them. Raises `SigningError`s only
    when the signer cannot be used at all.
    """
    # The head is read first: what is appended during the walk is beyond it.
    head = JournalHead.objects.first()
    size = head.size if head else 0
    tree, prev = MerkleTree(), GENESIS_HASH
    records = JournalRecord.objects.filter(seq__lt=size).order_by("seq")
    for record in records.iterator(chunk_size=RECORDS_PER_READ):
        flaw = record_flaw(record, seq=tree.size, prev=prev)
        if flaw is not None:
            return JournalVerdict(tree.size, 0, flaw)
        prev = record.hash
        tree.append(bytes(record.leaf_hash))
    if tree.size != size:
        return JournalVerdict(tree.size, 0, Flaw(tree.size, f"{size} records are said to exist."))
    if head is not None and head.last_hash != prev:
        return JournalVerdict(size, 0, Flaw(size - 1, "Its hash is not the one the head names."))
    beyond = JournalRecord.objects.filter(seq__lt=0).order_by("seq").first()
    if beyond is not None:
        return JournalVerdict(size, 0, Flaw(beyond.seq, "It stands before the first record."))
    return _held_to_checkpoints(tree, signer or get_signer())


def record_flaw(record: JournalRecord, *, seq: int, prev: str) -> Flaw | None:
    """What does not hold about one record that must be number `seq` after the hash `prev`."""
    if record.seq != seq:
        return Flaw(seq, f"It is missing: the next record is {record.seq}.")
    content = record.canonical.encode("utf-8", "surrogatepass")
    if hashlib.sha256(content).hexdigest() != record.hash:
        return Flaw(seq, "Its content is not what was hashed.")
    if hashlib.sha256(LEAF_PREFIX + content).digest() != bytes(record.leaf_hash):
        return Flaw(seq, "Its leaf hash is not that of its content.")
    try:
        document: dict[str, Any] = json.loads(record.canonical)
    except ValueError:
        return Flaw(seq, "Its content is no JSON.")
    if document.get("prev") != prev:
        return Flaw(seq, "It does not follow the record before it.")
    wrong = [name for name, value in _columns(record).items() if document.get(name) != value]
    if wrong:
        return Flaw(seq, f"Its column for {wrong[0]!r} does not say what was hashed.")
    return None


def _columns(record: JournalRecord) -> dict[str, Any]:
    """What the searchable columns say, in the shape of the document."""
    return {
        "seq": record.seq,
        "at": rfc3339(record.at),
        "actor": {"kind": record.actor_kind, "id": record.actor_id},
        "action": record.action,
        "object": {"kind": record.object_kind, "id": record.object_id},
        "namespace": record.namespace,
        "goal": str(record.goal_uid) if record.goal_uid else None,
    }


def _held_to_checkpoints(tree: MerkleTree, signer: Signer) -> JournalVerdict:
    seen = 0
    for checkpoint in Checkpoint.objects.order_by("size"):
        why = _missing(checkpoint, tree) or checkpoint_flaw(
            checkpoint, tree.root(checkpoint.size), signer
        )
        if why:
            return JournalVerdict(tree.size, seen, Flaw(max(checkpoint.size - 1, 0), why))
        seen += 1
    return JournalVerdict(tree.size, seen, None)


def _missing(checkpoint: Checkpoint, tree: MerkleTree) -> str:
    if checkpoint.size <= tree.size:
        return ""
    return f"A checkpoint over {checkpoint.size} records was signed, {tree.size} are left."


def checkpoint_flaw(checkpoint: Checkpoint, root: bytes, signer: Signer) -> str:
    """Why a checkpoint does not hold over records with that root, "" when it does."""
    if root.hex() != checkpoint.root_hash:
        return f"The records are not those of the checkpoint at {checkpoint.size}."
    try:
        text = signer.verify_note(checkpoint.note)
    except SigningError:
        return f"The signature of the checkpoint at {checkpoint.size} does not hold."
    if text != note_text(checkpoint.size, root):
        return f"The checkpoint at {checkpoint.size} signs something else ({ORIGIN})."
    return ""

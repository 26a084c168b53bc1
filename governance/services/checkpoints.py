"""Checkpoints: signed Merkle roots over the journal, so that outsiders can hold us to it."""

import base64
import threading

from django.db import IntegrityError, transaction

from governance.models import Checkpoint, JournalRecord
from lineage.merkle import MerkleTree
from lineage.signing import get_signer
from lineage.signing.base import Signer

ORIGIN = "orchestration.ai/clearance/journal"  # first line of the note (C2SP tlog-checkpoint)


class _JournalTree:
    """The tree of what this process has read so far; it only grows, as the journal does."""

    def __init__(self) -> None:
        self.tree = MerkleTree()
        self.lock = threading.Lock()


_cache = _JournalTree()


class JournalBroken(Exception):
    """The journal no longer yields the root that was signed."""


def journal_tree(*, is_fresh: bool = False) -> MerkleTree:
    """The tree over all committed records; later calls read only what is new.

    `is_fresh` reads all of them again.
    """
    with _cache.lock:
        first = JournalRecord.objects.values_list("leaf_hash", flat=True).filter(seq=0).first()
        if (
            is_fresh
            or first is None
            or (_cache.tree.size and _cache.tree.node(0, 0) != bytes(first))
        ):
            _cache.tree = MerkleTree()  # another journal (a fresh database): start over
        tree = _cache.tree
        fresh = JournalRecord.objects.filter(seq__gte=tree.size).order_by("seq")
        for seq, leaf in fresh.values_list("seq", "leaf_hash").iterator(chunk_size=10_000):
            if seq != tree.size:
                break  # a gap is not skipped; verification names it
            tree.append(bytes(leaf))
        return tree


def note_text(size: int, root: bytes) -> str:
    """The text of a checkpoint (C2SP tlog-checkpoint), to be signed as a note."""
    return f"{ORIGIN}\n{size}\n{base64.b64encode(root).decode()}\n"


def _agrees(tree: MerkleTree, checkpoint: Checkpoint) -> bool:
    return checkpoint.size <= tree.size and tree.root(checkpoint.size).hex() == checkpoint.root_hash


def make_checkpoint(*, signer: Signer | None = None) -> Checkpoint | None:
    """Sign the root over all records so far; None when nothing came since the last one."""
    tree = journal_tree()
    size = tree.size
    if size == 0:
        return None
    last = Checkpoint.objects.order_by("-size").first()
    if last is not None and last.size == size:
        return last
    if last is not None and not _agrees(tree, last):
        tree = journal_tree(is_fresh=True)  # what this process remembers may be what is wrong
        size = tree.size
        if not _agrees(tree, last):
            raise JournalBroken(f"The records before {last.size} are not those that were signed.")
    root = tree.root(size)
    note = (signer or get_signer()).sign_note(note_text(size, root))
    try:
        with transaction.atomic():
            return Checkpoint.objects.create(size=size, root_hash=root.hex(), note=note)
    except IntegrityError:  # another process signed the same size; one is enough
        return Checkpoint.objects.get(size=size)

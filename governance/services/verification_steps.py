"""Verification of a long journal in bounded steps, each going on where the last one stopped."""

import datetime as dt
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from django.db import transaction
from django.utils import timezone

from governance.models import Checkpoint, JournalCheck, JournalHead, JournalRecord
from governance.services.journal import GENESIS_HASH
from governance.services.verification import (
    Flaw,
    checkpoint_flaw,
    record_flaw,
)
from lineage.merkle import node_hash
from lineage.signing import get_signer
from lineage.signing.base import Signer

logger = logging.getLogger(__name__)

RECORDS_PER_STEP = 100_000  # at most; the clock usually ends a step before
SECONDS_PER_STEP = 3.0  # a person waits for it
SECONDS_PER_TURN = 10.0  # nobody waits for the schedule, but other tasks do
FRESH_AFTER = dt.timedelta(days=1)  # what was found to hold may have been changed since
RECORDS_PER_READ = 2_000


@dataclass(slots=True)
class Frontier:
    """The complete subtrees over the leaves so far, largest first: all an append needs."""

    size: int = 0
    hashes: list[bytes] = field(default_factory=list)

    def append(self, leaf: bytes) -> None:
        """Add the hash of the next leaf."""
        node, size = leaf, self.size
        while size & 1:
            node = node_hash(self.hashes.pop(), node)
            size >>= 1
        self.hashes.append(node)
        self.size += 1

    def root(self) -> bytes:
        """The root over all leaves (RFC 9162, 2.1.1); there must be one at least."""
        root = self.hashes[-1]
        for node in reversed(self.hashes[:-1]):
            root = node_hash(node, root)
        return root


@dataclass(slots=True)
class _Walk:
    frontier: Frontier
    last_hash: str
    checkpoints: int
    flaw: Flaw | None = None


def current_check() -> JournalCheck:
    """How far the journal was verified; a row that says "not at all" when nobody ever did."""
    return JournalCheck.objects.first() or JournalCheck(last_hash=GENESIS_HASH)


def verify_further(
    *,
    is_fresh: bool = False,
    signer: Signer | None = None,
    seconds: float = SECONDS_PER_STEP,
    clock: Callable[[], float] = time.monotonic,
    at_once: int = RECORDS_PER_READ,
) -> JournalCheck:
    """Verify what is not verified yet, for at most `seconds`; `is_fresh` begins at record 0.

    The time is looked at after every `at_once` records.

    What an earlier step found to hold is not read again: each signed root checked afterwards is
    over those records too, so that it would not agree if they or this row had been changed. A flaw
    stays until somebody begins afresh. Two people at once: the one that got further is kept.
    """
    begun = current_check()
    if is_fresh or begun.size == 0:
        begun = JournalCheck(last_hash=GENESIS_HASH, started_at=timezone.now(), pk=begun.pk)
    elif begun.flaw_seq is not None:
        return begun
    walk = _Walk(
        Frontier(begun.size, [bytes.fromhex(one) for one in begun.frontier]),
        begun.last_hash,
        begun.checkpoints,
    )
    deadline = clock() + seconds
    head = JournalHead.objects.first()
    size = head.size if head else 0
    if size < walk.frontier.size:
        missing = f"{walk.frontier.size} records were verified, {size} are left."
        walk.flaw = Flaw(size, missing)
    signer = signer or get_signer()
    while walk.flaw is None and walk.frontier.size < size and clock() < deadline:
        if walk.frontier.size - begun.size >= RECORDS_PER_STEP:
            break
        _read_on(walk, min(size, walk.frontier.size + at_once), signer)
    if walk.flaw is None and head is not None and walk.frontier.size == size:
        walk.flaw = _head_flaw(walk, head)
    return _keep(begun, walk, size)


def verify_on_schedule(
    *, now: dt.datetime | None = None, seconds: float = SECONDS_PER_TURN
) -> JournalCheck:
    """One turn of the scheduled verification: go on, or begin at record 0 again after a day.

    A pass over the whole journal is finished before the next one begins. A flaw stays as it was
    found until a person begins afresh; it is logged once.
    """
    before, now = current_check(), now or timezone.now()
    is_finished = before.whole_at is not None and before.whole_at >= before.started_at
    is_old = now - before.started_at >= FRESH_AFTER
    is_fresh = is_finished and is_old and before.flaw_seq is None
    check = verify_further(is_fresh=is_fresh, seconds=seconds)
    if check.flaw_seq is not None and before.flaw_seq is None:
        logger.error("the journal does not hold at record %s: %s", check.flaw_seq, check.flaw_why)
    return check


def _read_on(walk: _Walk, end: int, signer: Signer) -> None:
    start = walk.frontier.size
    signed = {one.size: one for one in Checkpoint.objects.filter(size__gt=start, size__lte=end)}
    for record in JournalRecord.objects.filter(seq__gte=start, seq__lt=end).order_by("seq"):
        walk.flaw = record_flaw(record, seq=walk.frontier.size, prev=walk.last_hash)
        if walk.flaw is not None:
            return
        walk.last_hash = record.hash
        walk.frontier.append(bytes(record.leaf_hash))
        if (checkpoint := signed.get(walk.frontier.size)) is None:
            continue
        why = checkpoint_flaw(checkpoint, walk.frontier.root(), signer)
        if why:
            walk.flaw = Flaw(record.seq, why)
            return
        walk.checkpoints += 1
    if walk.frontier.size < end:
        walk.flaw = Flaw(walk.frontier.size, "It is missing.")


def _head_flaw(walk: _Walk, head: JournalHead) -> Flaw | None:
    size = walk.frontier.size
    if head.last_hash != walk.last_hash:
        return Flaw(size - 1, "Its hash is not the one the head names.")
    beyond = Checkpoint.objects.filter(size__gt=size).order_by("size").first()
    # The head is read first: a checkpoint beyond it may cover records that came since.
    newest = JournalHead.objects.values_list("size", flat=True).first() or 0
    if beyond is not None and beyond.size > newest:
        why = f"A checkpoint over {beyond.size} records was signed, {newest} are left."
        return Flaw(size - 1, why)
    return None


def _keep(begun: JournalCheck, walk: _Walk, size: int) -> JournalCheck:
    now = timezone.now()
    is_whole = walk.flaw is None and walk.frontier.size == size
    values = {
        "size": walk.frontier.size,
        "last_hash": walk.last_hash,
        "frontier": [one.hex() for one in walk.frontier.hashes],
        "checkpoints": walk.checkpoints,
        "started_at": begun.started_at,
        "checked_at": now,
        "whole_at": now if is_whole else begun.whole_at,
        "flaw_seq": walk.flaw.seq if walk.flaw else None,
        "flaw_why": walk.flaw.why if walk.flaw else "",
    }
    with transaction.atomic():
        kept = JournalCheck.objects.select_for_update().first()
        is_behind = (
            kept is not None
            and kept.started_at == begun.started_at
            and (kept.size > walk.frontier.size or kept.flaw_seq is not None)
        )
        if kept is not None and is_behind:
            return kept
        check, _ = JournalCheck.objects.update_or_create(pk=1, defaults=values)
    return check

"""The journal (I5): no change without a record, no gap, and every touched byte is found."""

from typing import Any

import pytest
from django.db import connection, transaction

from governance.models import Checkpoint, JournalHead, JournalRecord
from governance.services.checkpoints import JournalBroken, journal_tree, make_checkpoint
from governance.services.journal import (
    JournalOutsideTransaction,
    News,
    append_record,
    append_records,
    journaled,
)
from governance.services.verification import verify_journal
from lineage.domain import Actor, ActorKind
from tests.agents.identities import shared_database
from tests.goals.test_ledger import race

__all__ = ["shared_database"]

pytestmark = pytest.mark.django_db
ACTOR = Actor(ActorKind.HUMAN, "ada")


def write(count: int = 1, *, body: Any = None) -> None:
    with journaled():
        append_records(
            [
                News("thing.made", ACTOR, "thing", str(n), "default", None, body)
                for n in range(count)
            ]
        )


@pytest.mark.django_db(transaction=True)
def test_nothing_is_recorded_outside_the_transaction_of_its_change() -> None:
    with pytest.raises(JournalOutsideTransaction):
        append_record(
            action="a", actor=ACTOR, object_kind="thing", object_id="1", namespace="default"
        )
    assert JournalRecord.objects.count() == 0


def test_concurrent_appenders_leave_one_chain_without_a_gap(shared_database: None) -> None:
    assert JournalHead.objects.count() == 0  # and they race to make the head

    def append(_: int) -> None:
        for _ in range(3):
            write(2)

    assert race(24, append) == [None] * 24
    assert JournalRecord.objects.count() == 24 * 6
    verdict = verify_journal()
    assert (verdict.records, verdict.flaw) == (24 * 6, None)
    connection.close()


@pytest.mark.django_db(transaction=True)
def test_a_rolled_back_change_leaves_no_record_and_no_gap() -> None:
    write()
    with transaction.atomic():
        write(3)
        transaction.set_rollback(True)
    write()
    assert list(JournalRecord.objects.values_list("seq", flat=True)) == [0, 1]
    assert verify_journal().holds


def test_ten_thousand_records_are_written_in_bulk(twins: Any) -> None:
    from django.test.utils import CaptureQueriesContext

    with CaptureQueriesContext(connection) as queries:
        write(10_000)
    assert len(queries) < 200
    assert verify_journal().records == 10_000


@pytest.mark.parametrize(
    ("column", "value", "why"),
    [
        ("canonical", '{"seq":3}', "what was hashed"),
        ("hash", "0" * 64, "what was hashed"),
        ("leaf_hash", b"\x00" * 32, "leaf hash"),
        ("actor_id", "mallory", "actor"),
        ("action", "thing.unmade", "action"),
        ("namespace", "other", "namespace"),
        ("object_id", "9", "object"),
        ("seq", 99, "missing"),
    ],
)
def test_a_changed_row_is_found(twins: Any, column: str, value: Any, why: str) -> None:
    write(8)
    make_checkpoint()
    assert verify_journal().holds
    JournalRecord.objects.filter(seq=3).update(**{column: value})
    flaw = verify_journal().flaw
    assert flaw is not None
    assert flaw.seq == 3
    assert why in flaw.why


def rewrite_from(seq: int) -> None:
    """What somebody with the database in hands would do: a whole new chain from there."""
    JournalRecord.objects.filter(seq__gte=seq).delete()
    last = JournalRecord.objects.get(seq=seq - 1)
    JournalHead.objects.update(size=seq, last_hash=last.hash)
    write(8 - seq, body={"forged": True})


def test_a_rewritten_chain_is_found_by_its_checkpoint(twins: Any) -> None:
    write(8)
    make_checkpoint()
    rewrite_from(5)
    flaw = verify_journal().flaw
    assert flaw is not None
    assert "checkpoint at 8" in flaw.why
    write()
    journal_tree(is_fresh=True)
    with pytest.raises(JournalBroken):
        make_checkpoint()


def test_a_cut_off_end_is_found(twins: Any) -> None:
    write(8)
    make_checkpoint()
    JournalRecord.objects.filter(seq__gte=6).delete()
    assert verify_journal().flaw.seq == 6  # type: ignore[union-attr]
    JournalHead.objects.update(size=6, last_hash=JournalRecord.objects.get(seq=5).hash)
    assert "2 are left" not in verify_journal().flaw.why  # type: ignore[union-attr]
    assert "was signed" in verify_journal().flaw.why  # type: ignore[union-attr]


def test_a_forged_checkpoint_is_found(twins: Any) -> None:
    write(4)
    checkpoint = make_checkpoint()
    assert checkpoint is not None
    Checkpoint.objects.update(note=checkpoint.note.replace("\n4\n", "\n3\n"))
    assert "signature" in verify_journal().flaw.why  # type: ignore[union-attr]


def test_checkpoints_made_at_once_are_one(twins: Any) -> None:
    write(4)
    first, again = make_checkpoint(), make_checkpoint()
    assert first == again
    assert Checkpoint.objects.count() == 1
    write()
    second = make_checkpoint()
    assert second is not None
    tree = journal_tree()
    assert tree.root(4).hex() == first.root_hash  # type: ignore[union-attr]
    assert tree.root(5).hex() == second.root_hash

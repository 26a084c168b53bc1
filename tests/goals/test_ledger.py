"""The ledger: nothing is overspent however many spend at once, and one key has one effect."""

import threading
from collections.abc import Callable
from typing import Any

import pytest
from django.db import connection

from goals.domain.states import EntryKind, Pool, Unit
from goals.models import Account, Goal
from goals.services.ledger import (
    BIGGEST_AMOUNT,
    KeyReused,
    LedgerError,
    NotCovered,
    Source,
    is_balanced,
    open_account,
    post_entry,
    reserve_up_to,
    sums_of_entries,
)
from governance.services.verification import verify_journal
from lineage.domain import Actor, ActorKind
from tests.agents.identities import shared_database

__all__ = ["shared_database"]

SOURCE = Source(actor=Actor(ActorKind.SYSTEM, "test"))
SPENDERS = 512
LIMIT = 1_000  # 512 spenders want 5 each: 2560, 200 of them can be served
PRICE = 5


def make_account(*, limit: int = LIMIT, name: str = "spend") -> Account:
    goal = Goal.objects.create(
        namespace="default", name=name, spec={}, objective="x", requested_by="ada"
    )
    return open_account(goal, unit=Unit.TOKENS, limit=limit, key="budget:1", source=SOURCE)


def race(count: int, act: Callable[[int], Any]) -> list[Any]:
    """What each of `count` threads answered or raised; all begin at the same moment."""
    results: list[Any] = [None] * count
    gate = threading.Barrier(count)
    # PostgreSQL's default is a hundred connections; SQLite takes as many as there are threads.
    room = threading.Semaphore(count if connection.vendor == "sqlite" else 64)

    def run(index: int) -> None:
        gate.wait()
        try:
            with room:
                results[index] = _closing(act, index)
        except Exception as error:
            results[index] = error

    threads = [threading.Thread(target=run, args=(index,)) for index in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return results


def _closing(act: Callable[[int], Any], index: int) -> Any:
    try:
        return act(index)
    finally:
        connection.close()


def test_512_spenders_never_overspend(shared_database: None) -> None:
    account = make_account()

    def spend(index: int) -> str:
        try:
            post_entry(
                account, kind=EntryKind.RESERVE, amount=PRICE, key=f"spend:{index}", source=SOURCE
            )
        except NotCovered:
            return "refused"
        return "served"

    answers = race(SPENDERS, spend)
    assert {answer: answers.count(answer) for answer in set(answers)} == {
        "served": LIMIT // PRICE,
        "refused": SPENDERS - LIMIT // PRICE,
    }
    assert is_balanced(account)
    assert (account.reserved, account.available) == (LIMIT, 0)
    assert verify_journal().holds


def test_a_naive_ledger_overspends_in_the_same_race(shared_database: None) -> None:
    """The control: the race above is one that a ledger can lose."""
    account = make_account()

    def spend(_: int) -> None:
        row = Account.objects.get(pk=account.pk)
        if row.limit - row.overrun >= PRICE:  # a column that no constraint guards
            row.overrun += PRICE
            paid.append(PRICE)
            Account.objects.filter(pk=row.pk).update(overrun=row.overrun)

    paid: list[int] = []
    race(SPENDERS, spend)
    assert sum(paid) > LIMIT


def test_one_key_has_one_effect_however_many_post_it(shared_database: None) -> None:
    account = make_account()

    def spend(_: int) -> Any:
        return post_entry(
            account, kind=EntryKind.RESERVE, amount=PRICE, key="the same", source=SOURCE
        ).uid

    uids = race(32, spend)
    assert len(set(uids)) == 1
    assert is_balanced(account)
    assert account.reserved == PRICE


@pytest.mark.django_db
def test_a_key_that_named_another_entry_is_refused() -> None:
    account = make_account()
    post_entry(account, kind=EntryKind.RESERVE, amount=5, key="k", source=SOURCE)
    for kind, amount in ((EntryKind.RESERVE, 6), (EntryKind.SETTLE, 5)):
        with pytest.raises(KeyReused):
            post_entry(account, kind=kind, amount=amount, key="k", source=SOURCE)
    assert is_balanced(account)


@pytest.mark.django_db
@pytest.mark.parametrize("amount", [0, -1, -(2**63), BIGGEST_AMOUNT + 1, 2**70])
def test_amounts_that_move_nothing_or_too_much_are_refused(amount: int) -> None:
    account = make_account()
    for kind in EntryKind:
        with pytest.raises(LedgerError):
            post_entry(account, kind=kind, amount=amount, key="k", source=SOURCE)
    assert sums_of_entries(account)[Pool.AVAILABLE] == LIMIT


@pytest.mark.django_db
def test_grants_never_pass_what_a_column_holds() -> None:
    account = make_account(limit=BIGGEST_AMOUNT)
    with pytest.raises(LedgerError, match="cannot pass"):
        post_entry(account, kind=EntryKind.GRANT, amount=1, key="k", source=SOURCE)
    assert is_balanced(account)


@pytest.mark.django_db
@pytest.mark.parametrize(
    ("kind", "amount"),
    [
        (EntryKind.RESERVE, LIMIT + 1),
        (EntryKind.SETTLE, 1),
        (EntryKind.RELEASE, 1),
        (EntryKind.RETURN, LIMIT + 1),
    ],
)
def test_a_pool_that_is_too_small_is_left_alone(kind: EntryKind, amount: int) -> None:
    account = make_account()
    with pytest.raises(NotCovered):
        post_entry(account, kind=kind, amount=amount, key="k", source=SOURCE)
    assert is_balanced(account)
    assert account.entries.count() == 1


def test_reserving_what_is_left_shares_it_out_exactly(shared_database: None) -> None:
    account = make_account(limit=103)

    def take(index: int) -> int:
        try:
            return reserve_up_to(
                account, amount=10, least=3, key=f"take:{index}", source=SOURCE
            ).amount
        except NotCovered:
            return 0

    taken = race(24, take)
    assert sorted(taken, reverse=True)[:11] == [10] * 10 + [3]
    assert sum(taken) == 103
    assert is_balanced(account)


def test_nothing_is_written_of_an_entry_whose_transaction_is_killed(shared_database: None) -> None:
    from tests.goals.test_crashes import Killed, failing_at

    account = make_account()
    with failing_at(-1, Killed()) as writes:
        post_entry(account, kind=EntryKind.RESERVE, amount=1, key="whole", source=SOURCE)
    for number in range(1, len(writes) + 1):
        with pytest.raises(Killed), failing_at(number, Killed()):
            post_entry(account, kind=EntryKind.RESERVE, amount=7, key=f"k{number}", source=SOURCE)
        assert is_balanced(account)
        assert account.reserved == 1
    assert verify_journal().holds

"""The budget ledger: double entry per Goal, reserve before spend, never more than the limit."""

from dataclasses import dataclass
from uuid import UUID

from django.db import IntegrityError
from django.db.models import F, Q

from goals.domain.states import MOVES, EntryKind, Pool, Unit
from goals.models import Account, Goal, LedgerEntry
from governance.services.journal import append_record, journaled
from lineage.domain import Actor

BIGGEST_AMOUNT = 2**62  # keeps sums within a signed 64-bit column


class LedgerError(Exception):
    """The ledger refused; the text says what to do."""


class NotCovered(LedgerError):
    """The pool the entry debits does not hold that much."""

    def __init__(self, *, unit: str, wanted: int, held: int) -> None:
        super().__init__(f"{wanted} {unit} wanted, {held} available.")
        self.unit, self.wanted, self.held = unit, wanted, held


class KeyReused(LedgerError):
    """The idempotency key was used before for another entry."""


class NoAccount(LedgerError):
    """The Goal's budget has no such dimension, so nothing of it may be spent."""


@dataclass(frozen=True, slots=True)
class Source:
    """What a ledger entry is for: links it to attempt, span and approval."""

    actor: Actor
    attempt_uid: UUID | None = None
    span_id: str = ""
    approval_uid: UUID | None = None
    note: str = ""


# Guard and change of the account, per kind of entry: one conditional UPDATE decides.
def _guard(kind: EntryKind, amount: int) -> Q:
    if kind is EntryKind.RESERVE or kind is EntryKind.RETURN:
        return Q(limit__gte=F("reserved") + F("settled") + amount)
    if kind is EntryKind.SETTLE or kind is EntryKind.RELEASE:
        return Q(reserved__gte=amount)
    return Q(limit__lte=BIGGEST_AMOUNT - amount)


def _change(kind: EntryKind, amount: int) -> dict[str, object]:
    changes: dict[EntryKind, dict[str, object]] = {
        EntryKind.GRANT: {"limit": F("limit") + amount},
        EntryKind.RESERVE: {"reserved": F("reserved") + amount},
        EntryKind.SETTLE: {
            "reserved": F("reserved") - amount,
            "settled": F("settled") + amount,
        },
        EntryKind.RELEASE: {"reserved": F("reserved") - amount},
        EntryKind.RETURN: {"limit": F("limit") - amount},
    }
    return changes[kind]


def account_of(goal_uid: UUID, unit: Unit) -> Account:
    """The account of one dimension. Raises NoAccount."""
    account = Account.objects.filter(goal_id=goal_uid, unit=unit).first()
    if account is None:
        raise NoAccount(f"The budget says nothing of {unit}: it may not be spent.")
    return account


def post_entry(
    account: Account, *, kind: EntryKind, amount: int, key: str, source: Source
) -> LedgerEntry:
    """Move `amount` (> 0, in the account's unit) between two pools, once per `key`.

    The same key with the same kind and amount returns the first entry and moves nothing. Raises
    NotCovered when the debited pool is too small, KeyReused when the key named another entry.
    """
    if not 0 < amount <= BIGGEST_AMOUNT:
        raise LedgerError(f"An entry moves between 1 and {BIGGEST_AMOUNT}, not {amount}.")
    if (earlier := _earlier_entry(account, kind, amount, key)) is not None:
        return earlier
    try:
        with journaled():
            return _move(account, kind, amount, key, source)
    except IntegrityError:
        # Another process posted the same key between our look and our insert.
        if (earlier := _earlier_entry(account, kind, amount, key)) is not None:
            return earlier
        raise


def _earlier_entry(account: Account, kind: EntryKind, amount: int, key: str) -> LedgerEntry | None:
    entry = LedgerEntry.objects.filter(account=account, idempotency_key=key).first()
    if entry is not None and (entry.kind != kind or entry.amount != amount):
        raise KeyReused(f"Key {key!r} already names a {entry.kind} of {entry.amount}.")
    return entry


def _move(account: Account, kind: EntryKind, amount: int, key: str, source: Source) -> LedgerEntry:
    moved = Account.objects.filter(_guard(kind, amount), pk=account.pk).update(
        **_change(kind, amount)
    )
    if moved != 1:
        account.refresh_from_db()
        if kind is EntryKind.GRANT:
            raise LedgerError(f"The limit of {account.unit} cannot pass {BIGGEST_AMOUNT}.")
        held = account.available if MOVES[kind][0] is Pool.AVAILABLE else account.reserved
        raise NotCovered(unit=account.unit, wanted=amount, held=held)
    debit, credit = MOVES[kind]
    entry = LedgerEntry.objects.create(
        account=account,
        kind=kind,
        debit=debit,
        credit=credit,
        amount=amount,
        idempotency_key=key,
        attempt_uid=source.attempt_uid,
        span_id=source.span_id,
        approval_uid=source.approval_uid,
        note=source.note,
    )
    goal = account.goal
    append_record(
        action=f"ledger.{kind.value}",
        actor=source.actor,
        object_kind="ledger_entry",
        object_id=str(entry.uid),
        namespace=goal.namespace,
        goal_uid=goal.uid,
        body={
            "unit": account.unit,
            "amount": str(amount),
            "debit": debit.value,
            "credit": credit.value,
            "key": key,
            "attempt": str(source.attempt_uid or ""),
            "span": source.span_id,
            "approval": str(source.approval_uid or ""),
        },
    )
    return entry


def open_account(goal: Goal, *, unit: Unit, limit: int, key: str, source: Source) -> Account:
    """The account of one dimension with its first grant; repeating it changes nothing."""
    with journaled():
        account, _ = Account.objects.get_or_create(goal=goal, unit=unit)
        post_entry(account, kind=EntryKind.GRANT, amount=limit, key=key, source=source)
    account.refresh_from_db()
    return account


def reserve_up_to(
    account: Account, *, amount: int, least: int, key: str, source: Source
) -> LedgerEntry:
    """Reserve `amount`, or what is left if that is at least `least`. Raises NotCovered."""
    if earlier := LedgerEntry.objects.filter(account=account, idempotency_key=key).first():
        return earlier
    while True:
        account.refresh_from_db()
        take = min(amount, account.available)
        if take < least:
            raise NotCovered(unit=account.unit, wanted=least, held=account.available)
        try:
            return post_entry(account, kind=EntryKind.RESERVE, amount=take, key=key, source=source)
        except NotCovered:
            continue  # somebody took some meanwhile: look again at what is left


def sums_of_entries(account: Account) -> dict[Pool, int]:
    """Balances recomputed from the entries alone: the check of invariant I1."""
    pools = dict.fromkeys(Pool, 0)
    for debit, credit, amount in account.entries.values_list("debit", "credit", "amount"):
        pools[Pool(debit)] -= amount
        pools[Pool(credit)] += amount
    return pools


def is_balanced(account: Account) -> bool:
    """Whether entries and balances agree and nothing is overspent (I1)."""
    account.refresh_from_db()
    pools = sums_of_entries(account)
    return (
        pools[Pool.RESERVED] == account.reserved
        and pools[Pool.SETTLED] == account.settled
        and pools[Pool.AVAILABLE] == account.available
        and account.available >= 0
        and sum(pools.values()) == 0
    )

"""The arithmetic of a packed ledger: double entry, no pool below zero, nothing overspent."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

_POOLS = frozenset(("outside", "available", "reserved", "settled"))
_MOVE = frozenset(("unit", "amount", "debit", "credit", "key"))


def check_ledger(ledger: Mapping[str, Any]) -> None:
    """Raise ValueError, naming the entry or account, unless the ledger adds up.

    Entries are replayed in their order: everything but `outside` stays at zero or above, so that
    reserved and settled together never pass what was granted.
    """
    balances: dict[str, Counter[str]] = {}
    seen: set[tuple[str, str]] = set()
    for number, entry in enumerate(ledger["entries"], start=1):
        unit, amount = entry["unit"], entry["amount"]
        if type(amount) is not int or amount <= 0:
            raise ValueError(f"ledger entry {number} moves nothing")
        if {entry["debit"], entry["credit"]} - _POOLS:
            raise ValueError(f"ledger entry {number} names an unknown pool")
        if (unit, entry["key"]) in seen:
            raise ValueError(f"ledger entry {number} repeats an idempotency key")
        seen.add((unit, entry["key"]))
        pools = balances.setdefault(unit, Counter())
        pools[entry["debit"]] -= amount
        pools[entry["credit"]] += amount
        if any(pools[pool] < 0 for pool in _POOLS - {"outside"}):
            raise ValueError(f"ledger entry {number} overspends {unit}")
    for account in ledger["accounts"]:
        _check_account(account, balances.pop(account["unit"], Counter()))
    if balances:
        raise ValueError("there are entries of an account that is not listed")


def disagreeing_record(
    ledger: Mapping[str, Any], records: Sequence[Mapping[str, Any]]
) -> int | None:
    """The position of the first journal record of a ledger entry that the ledger lacks or alters.

    Entries without a record are no fault: they may be newer than the records.
    """
    entries = {entry["uid"]: entry for entry in ledger["entries"] if "uid" in entry}
    for position, record in enumerate(records):
        if record["object"]["kind"] != "ledger_entry":
            continue
        entry = entries.pop(record["object"]["id"], None)
        if entry is None or f"ledger.{entry['kind']}" != record["action"]:
            return position
        stated = {name: str(record["body"][name]) for name in _MOVE & record["body"].keys()}
        if stated != {name: str(entry[name]) for name in stated}:
            return position
    return None


def _check_account(account: Mapping[str, Any], pools: Counter[str]) -> None:
    stated = tuple(account[name] for name in ("limit", "reserved", "settled"))
    if any(type(value) is not int for value in stated):
        raise ValueError("a balance is no whole number")
    if stated != (-pools["outside"], pools["reserved"], pools["settled"]):
        raise ValueError(f"the entries do not give the balance of {account['unit']}")
    if stated[1] + stated[2] > stated[0]:
        raise ValueError(f"{account['unit']} is overspent")

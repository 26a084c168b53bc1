"""Sub-goals and their parents: what a child may spend is reserved in its parent, always.

Every grant to a child is a reservation in the parent's account of the same dimension, in the same
transaction, and every return a release: the sum of the children never exceeds the parent (I1).
"""

from django.db.models import QuerySet, Sum

from goals.domain.states import TERMINAL_PHASES, EntryKind, Unit
from goals.events import ring_on_commit
from goals.models import Account, Goal, LedgerEntry
from goals.services.ledger import NotCovered, Source, post_entry
from lineage.domain import Actor


def parent_of(goal: Goal) -> Goal | None:
    """The Goal that this one draws on, or None."""
    reserved = _entries(goal).select_related("account__goal").first()
    if reserved is not None:
        return reserved.account.goal
    return find_parent(goal.namespace, str(goal.spec.get("parent") or ""))


def find_parent(namespace: str, name: str) -> Goal | None:
    """The Goal of that name that may take children, or None."""
    if not name:
        return None
    found = Goal.objects.filter(namespace=namespace, name=name, deleted_at__isnull=True)
    return found.filter(landing="").exclude(phase__in=TERMINAL_PHASES).first()


def cover_from_parent(goal: Goal, *, unit: Unit, amount: int, key: str, actor: Actor) -> None:
    """Reserve in the parent what a child is about to be granted; nothing without a parent.

    `key` names the grant. Runs in the caller's transaction. Raises NotCovered.
    """
    if not goal.spec.get("parent"):
        return
    parent = parent_of(goal)
    account = parent.accounts.filter(unit=unit).first() if parent else None
    if account is None:
        raise NotCovered(unit=unit, wanted=amount, held=0)
    post_entry(
        account,
        kind=EntryKind.RESERVE,
        amount=amount,
        key=f"{_prefix(goal)}{unit}:{key}",
        source=Source(actor=actor, note=f"sub-goal {goal.name}"),
    )


def return_to_parent(goal: Goal, *, unit: Unit, amount: int, key: str, actor: Actor) -> None:
    """Release in the parent what a child no longer may spend; in the caller's transaction."""
    account = Account.objects.filter(
        unit=unit, entries__idempotency_key__startswith=_prefix(goal)
    ).first()
    if account is not None:
        post_entry(
            account,
            kind=EntryKind.RELEASE,
            amount=amount,
            key=f"{_prefix(goal)}{unit}:{key}",
            source=Source(actor=actor, note=f"sub-goal {goal.name}"),
        )


def settle_with_parent(goal: Goal, *, actor: Actor) -> None:
    """Settle in the parent what a landed child spent and release the rest.

    Runs in the transaction that lands the child; once per generation.
    """
    for account in Account.objects.filter(
        entries__idempotency_key__startswith=_prefix(goal)
    ).distinct():
        sums = _sums(goal, account)
        held = sums[EntryKind.RESERVE] - sums[EntryKind.SETTLE] - sums[EntryKind.RELEASE]
        child = goal.accounts.filter(unit=account.unit).first()
        spent = min((child.settled if child else 0) - sums[EntryKind.SETTLE], held)
        for kind, amount in ((EntryKind.SETTLE, spent), (EntryKind.RELEASE, held - spent)):
            if amount > 0:
                post_entry(
                    account,
                    kind=kind,
                    amount=amount,
                    key=f"{_prefix(goal)}{account.unit}:landed:{goal.generation}:{kind.value}",
                    source=Source(actor=actor, note=f"sub-goal {goal.name} landed"),
                )
        ring_on_commit(account.goal_id)


def living_children(goal: Goal) -> QuerySet[Goal]:
    """Children of a Goal that have not landed."""
    return Goal.objects.filter(
        namespace=goal.namespace, spec__parent=goal.name, deleted_at__isnull=True
    ).exclude(phase__in=TERMINAL_PHASES)


def _prefix(goal: Goal) -> str:
    return f"child:{goal.uid}:"


def _entries(goal: Goal) -> QuerySet[LedgerEntry]:
    return LedgerEntry.objects.filter(idempotency_key__startswith=_prefix(goal))


def _sums(goal: Goal, account: Account) -> dict[EntryKind, int]:
    sums = dict.fromkeys(EntryKind, 0)
    totals = _entries(goal).filter(account=account).values_list("kind").annotate(Sum("amount"))
    for kind, total in totals:
        sums[EntryKind(kind)] = total
    return sums

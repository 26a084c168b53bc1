"""Sub-goals and their parents: what a child spent is settled in the parent, the rest released."""

from goals.domain.states import EntryKind
from goals.models import Account, Goal, LedgerEntry
from goals.services.lease import Lease, fenced
from goals.services.ledger import Source, post_entry
from goals.services.metering import METER


def settle_with_parent(goal: Goal, lease: Lease) -> None:
    """Close a landed child's reservation in its parent's accounts; repeating it changes nothing."""
    if not goal.spec.get("parent"):
        return
    with fenced(lease):
        for entry in LedgerEntry.objects.filter(
            kind=EntryKind.RESERVE, idempotency_key__startswith=f"child:{goal.uid}:"
        ).select_related("account"):
            _close(goal, entry)


def _close(goal: Goal, entry: LedgerEntry) -> None:
    child = Account.objects.filter(goal=goal, unit=entry.account.unit).first()
    spent = min(child.settled if child else 0, entry.amount)
    source = Source(actor=METER, note=f"sub-goal {goal.name} landed")
    key = f"landed:{goal.uid}:{entry.account.unit}"
    if spent:
        post_entry(
            entry.account, kind=EntryKind.SETTLE, amount=spent, key=f"{key}:settle", source=source
        )
    if entry.amount > spent:
        post_entry(
            entry.account,
            kind=EntryKind.RELEASE,
            amount=entry.amount - spent,
            key=f"{key}:release",
            source=source,
        )

"""The inbox of approvals: what waits, in the order of the damage that the wait does."""

import statistics
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final, cast

from django.db.models import QuerySet

from governance.access import APPROVING_ROLES, Principal, may_decide
from governance.domain import EVERY_NAMESPACE, ApprovalState, Permission, Stake
from governance.models import Approval, Membership
from governance.signals import stakes_asked

INBOX_MAX: Final = 500  # soonest to expire; beyond, the inbox says so
MEDIAN_OF: Final = 10_000  # newest decisions that the median is taken of


@dataclass(frozen=True, slots=True)
class Waiting:
    """One open approval as a person sees it; `why_not` is "" when they may decide it now."""

    approval: Approval
    stake: Stake
    why_not: str
    signers: tuple[str, ...]

    @property
    def missing(self) -> int:
        """People that must still approve."""
        return self.approval.quorum - len(self.signers)


def waiting_of(approvals: Sequence[Approval], *, principal: Principal) -> list[Waiting]:
    """The approvals with what their wait risks, soonest damage first."""
    return [
        Waiting(
            approval=one,
            stake=stake,
            why_not=may_decide(principal, one),
            signers=tuple(s.signer for s in one.signatures.all()) if one.quorum > 1 else (),
        )
        for one, stake in by_damage(approvals)
    ]


def by_damage(approvals: Sequence[Approval]) -> list[tuple[Approval, Stake]]:
    """The approvals with what their wait risks, soonest damage first."""
    stakes = stakes_for(approvals)
    found = [(one, stakes.get(one.uid, Stake())) for one in approvals]
    return sorted(found, key=lambda pair: pair[1].urgency(expires_at=pair[0].expires_at))


@dataclass(frozen=True, slots=True)
class Holding:
    """GPUs kept by what waits, and their cost a minute: None while a price is unknown."""

    gpus: int
    micro_usd: int | None


def holding_of(waiting: Iterable[tuple[Approval, Stake]]) -> Holding:
    """What several keep together: a Goal with two questions keeps its GPUs once."""
    held = {one.goal_uid or one.uid: stake for one, stake in waiting if stake.gpus_held}
    costs = [stake.micro_usd_per_minute for stake in held.values()]
    known = [cost for cost in costs if cost is not None]
    return Holding(
        gpus=sum(stake.gpus_held for stake in held.values()),
        micro_usd=sum(known) if len(known) == len(costs) else None,
    )


def stakes_for(approvals: Sequence[Approval], *, has_ways: bool = False) -> dict[Any, Stake]:
    """What the wait for each risks, by approval uid, from whoever keeps the budgets."""
    stakes: dict[Any, Stake] = {}
    told = stakes_asked.send(sender=Approval, approvals=approvals, has_ways=has_ways)
    for _, found in told:
        stakes.update(cast("dict[Any, Stake]", found))
    return stakes


def open_approvals(visible: QuerySet[Approval]) -> list[Approval]:
    """What is open among these, soonest to expire first, at most INBOX_MAX."""
    pending = visible.filter(state=ApprovalState.PENDING).order_by("expires_at")
    found = list(pending[:INBOX_MAX])
    if any(one.quorum > 1 for one in found):
        return list(pending.prefetch_related("signatures")[:INBOX_MAX])
    return found


def mine_of(waiting: Iterable[Waiting], *, principal: Principal) -> list[Waiting]:
    """What waits for this person: what they may decide as approver of its namespace.

    Whoever approves everywhere is the wider group: theirs is what was escalated, and what has no
    approver of its own.
    """
    decidable = [one for one in waiting if not one.why_not]
    if not any(_is_wide(one.approval, principal) for one in decidable):
        return decidable
    served = set(
        Membership.objects.filter(role__in=APPROVING_ROLES, user__is_active=True)
        .exclude(namespace=EVERY_NAMESPACE)
        .values_list("namespace", flat=True)
    )
    return [
        one
        for one in decidable
        if not _is_wide(one.approval, principal)
        or one.approval.escalated_at is not None
        or one.approval.namespace not in served
    ]


def _is_wide(approval: Approval, principal: Principal) -> bool:
    """Whether the person may decide this only because they may everywhere."""
    own = principal.permissions.get(approval.namespace, frozenset())
    if Permission.APPROVE in own:
        return False
    return principal.may(Permission.APPROVE, namespace=approval.namespace)


def sum_of_asks(stakes: Iterable[Stake]) -> dict[str, int]:
    """What several ask for in all, by unit."""
    total: Counter[str] = Counter()
    for stake in stakes:
        total.update(stake.asks)
    return dict(total)


def median_seconds(decided: QuerySet[Approval]) -> float | None:
    """How long people took, from the question to the decision; None when none was decided."""
    by_people = decided.filter(state__in=(ApprovalState.APPROVED, ApprovalState.DENIED))
    times = by_people.order_by("-decided_at").values_list("created_at", "decided_at")[:MEDIAN_OF]
    taken = [(end - begin).total_seconds() for begin, end in times if end is not None]
    return statistics.median(taken) if taken else None

"""What waits for a human, by the damage that the wait does, and what it costs."""

from dataclasses import dataclass
from typing import Final

from governance.access import Principal, may_decide, visible_approvals
from governance.approval_inbox import INBOX_MAX, by_damage, holding_of, open_approvals
from governance.domain import ApprovalState, Stake
from governance.models import Approval

SHOWN: Final = 3  # one line of a wide screen: the map must not be pushed out of sight


@dataclass(frozen=True, slots=True)
class Waiting:
    """One unanswered approval and what its wait risks; `why_not` is "" when one may decide it."""

    approval: Approval
    stake: Stake
    why_not: str


@dataclass(frozen=True, slots=True)
class WaitingRoom:
    """What waits: the first few in the order of the inbox, how many in all, and what all cost.

    Of more than `INBOX_MAX` only those that expire soonest are ordered and summed.
    """

    first: tuple[Waiting, ...]
    count: int
    gpus: int
    micro_usd_per_minute: int | None  # None while a price is unknown

    @property
    def left_out(self) -> int:
        return self.count - len(self.first)


def waiting_for_people(principal: Principal) -> WaitingRoom:
    """The unanswered approvals this person may see."""
    visible = visible_approvals(principal)
    found = by_damage(open_approvals(visible))
    count = len(found)
    if count == INBOX_MAX:
        count = visible.filter(state=ApprovalState.PENDING).count()
    holding = holding_of(found)
    return WaitingRoom(
        first=tuple(
            Waiting(one, stake, may_decide(principal, one)) for one, stake in found[:SHOWN]
        ),
        count=count,
        gpus=holding.gpus,
        micro_usd_per_minute=holding.micro_usd,
    )

"""What waits for a human, soonest to expire first, and what the wait costs."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final
from uuid import UUID

from agents.domain.states import AttemptState
from agents.models import Attempt
from goals.services.metering import PriceUnknown, gpu_cost
from governance.access import Principal, may_decide, visible_approvals
from governance.domain import ApprovalState
from governance.models import Approval

SHOWN: Final = 8
MINUTE_MS: Final = 60_000


@dataclass(frozen=True, slots=True)
class Waiting:
    """One unanswered approval. GPUs are those its Goal holds meanwhile; None is unknown."""

    approval: Approval
    why_not: str  # "" when this person may decide it
    gpus: int
    micro_usd_per_minute: int | None


@dataclass(frozen=True, slots=True)
class WaitingRoom:
    """What waits: the first few, how many in all, and the sum of what those shown cost."""

    first: tuple[Waiting, ...]
    count: int
    gpus: int
    micro_usd_per_minute: int | None

    @property
    def left_out(self) -> int:
        return self.count - len(self.first)


def waiting_for_people(principal: Principal) -> WaitingRoom:
    """The unanswered approvals this person may see."""
    pending = visible_approvals(principal).filter(state=ApprovalState.PENDING)
    approvals = list(pending.order_by("expires_at")[:SHOWN])
    held = _held_gpus({approval.goal_uid for approval in approvals if approval.goal_uid})
    first = tuple(
        Waiting(
            approval=approval,
            why_not=may_decide(principal, approval),
            gpus=_gpus(approval, held),
            micro_usd_per_minute=_cost(_gpus(approval, held)),
        )
        for approval in approvals
    )
    gpus = sum(held.values())  # a Goal with two questions holds its GPUs once
    return WaitingRoom(first, pending.count(), gpus, _cost(gpus))


def _gpus(approval: Approval, held: dict[UUID, int]) -> int:
    return held.get(approval.goal_uid, 0) if approval.goal_uid else 0


def _held_gpus(goal_uids: Iterable[UUID]) -> dict[UUID, int]:
    """GPUs that attempts of these Goals hold: running, or paused with their GPUs kept."""
    held: dict[UUID, int] = {}
    holders = Attempt.objects.filter(
        goal_uid__in=list(goal_uids),
        gpus__gt=0,
        state__in=(AttemptState.RUNNING, AttemptState.PAUSED),
    )
    for goal_uid, state, gpus, specification in holders.values_list(
        "goal_uid", "state", "gpus", "specification"
    ):
        if state == AttemptState.RUNNING or specification.get("hold_gpus_on_pause"):
            held[goal_uid] = held.get(goal_uid, 0) + gpus
    return held


def _cost(gpus: int) -> int | None:
    try:
        return gpu_cost(gpus * MINUTE_MS) if gpus else 0
    except PriceUnknown:
        return None

"""What the wait for an answer risks: what it costs a minute, what is lost first, and when."""

import datetime as dt
import json
from collections.abc import Iterable, Sequence
from typing import Any, Final, NamedTuple
from uuid import UUID

from django.db.models import QuerySet, Sum
from django.utils import timezone

from agents.domain.states import AttemptState
from agents.models import Attempt
from goals.domain.budget import BudgetSyntaxError, parse_budget
from goals.domain.states import Phase, Unit
from goals.models import Account, Goal
from goals.services.metering import PriceUnknown, gpu_cost
from goals.services.model_costs import priced_ways
from goals.services.ways import ways_to_degrade
from governance.domain import ApprovalKind, Stake, Ways
from governance.models import Approval

MINUTE_MS: Final = 60_000
IN_LIST: Final = 500  # keys of one query


def stakes_of(approvals: Sequence[Approval], *, has_ways: bool = False) -> dict[UUID, Stake]:
    """The stake of each open approval, by its uid; five queries however many there are.

    `has_ways` adds how each Goal could go on with less, for some queries each.
    """
    uids = {one.goal_uid for one in approvals if one.goal_uid}
    goals = _asking(uids)
    running, held = _gpus(uids)
    price = _minute_price()
    stakes: dict[UUID, Stake] = {}
    for approval in approvals:
        goal = goals.get(approval.goal_uid) if approval.goal_uid else None
        gpus = held.get(approval.goal_uid, 0) if approval.goal_uid else 0
        damage_at, damage = _first_damage(
            approval,
            goal,
            running.get(approval.goal_uid, 0) if approval.goal_uid else 0,
        )
        cost = 0 if not gpus else None if price is None else price * gpus
        ways = _ways(approval) if has_ways and approval.goal_uid in goals else None
        stakes[approval.uid] = Stake(damage_at, damage, gpus, cost, _asks(approval), ways)
    return stakes


def _ways(approval: Approval) -> Ways:
    goal = Goal.objects.get(uid=str(approval.goal_uid))
    return priced_ways(goal, ways_to_degrade(goal))


class Asking(NamedTuple):
    """What is asked of a Goal here; a list has hundreds, so no rows are made of them."""

    phase: str
    asked_at: dt.datetime
    deadline_seconds: int | None
    gpu_ms_left: int | None  # of the limit, reserved or not; None without such a budget


def _asking(uids: Iterable[UUID]) -> dict[UUID, Asking]:
    budgets = Account.objects.filter(unit=Unit.GPU_MS).values_list("goal_id", "limit", "settled")
    left = {uid: limit - settled for uid, limit, settled in _in_parts(budgets, "goal_id", uids)}
    goals = Goal.objects.order_by().values_list("uid", "phase", "asked_at", "spec__deadlineSeconds")
    return {
        uid: Asking(phase, asked_at, deadline, left.get(uid))
        for uid, phase, asked_at, deadline in _in_parts(goals, "uid", uids)
    }


def _in_parts(rows: Any, column: str, keys: Iterable[UUID]) -> Iterable[Any]:
    wanted = sorted(keys)
    for start in range(0, len(wanted), IN_LIST):
        yield from rows.filter(**{f"{column}__in": wanted[start : start + IN_LIST]})


def _gpus(uids: Iterable[UUID]) -> tuple[dict[UUID, int], dict[UUID, int]]:
    """GPUs that run, and that are kept without running, by Goal."""
    holders = Attempt.objects.filter(gpus__gt=0).order_by()
    running = _sums(holders.filter(state=AttemptState.RUNNING), uids)
    kept = holders.filter(state=AttemptState.PAUSED, specification__hold_gpus_on_pause=True)
    held = dict(running)
    for uid, gpus in _sums(kept, uids).items():
        held[uid] = held.get(uid, 0) + gpus
    return running, held


def _sums(attempts: QuerySet[Attempt], uids: Iterable[UUID]) -> dict[UUID, int]:
    counted = attempts.values_list("goal_uid").annotate(Sum("gpus"))
    return {uid: int(gpus) for uid, gpus in _in_parts(counted, "goal_uid", uids)}


def _minute_price() -> int | None:
    try:
        return gpu_cost(MINUTE_MS)
    except PriceUnknown:
        return None


def _first_damage(
    approval: Approval, goal: Asking | None, gpus_running: int
) -> tuple[dt.datetime | None, str]:
    """The first loss that can be told, and what is lost."""
    losses: list[tuple[dt.datetime, str]] = []
    if approval.kind == ApprovalKind.BUDGET:
        losses.append((approval.expires_at, "the paused work is ended"))
    if approval.kind == ApprovalKind.DRIFT:
        losses.append((approval.expires_at, "the Goal ends as Failed"))
    if goal is not None and goal.deadline_seconds is not None:
        due_at = goal.asked_at + dt.timedelta(seconds=goal.deadline_seconds)
        losses.append((due_at, "the Goal's deadline"))
    is_burning = goal is not None and goal.phase == Phase.RUNNING and gpus_running
    if goal is not None and goal.gpu_ms_left is not None and is_burning:
        left = dt.timedelta(milliseconds=goal.gpu_ms_left / gpus_running)
        losses.append((timezone.now() + left, "the budget runs out"))
    return min(losses, default=(None, ""))


def _asks(approval: Approval) -> dict[str, int]:
    """What is asked for, by unit of the ledger; a graph asks for its Goal's whole budget."""
    request = json.loads(approval.request_canonical)
    if approval.kind == ApprovalKind.BUDGET:
        return {request["unit"]: int(request["ask"])}
    if approval.kind == ApprovalKind.GRAPH:
        try:
            return parse_budget(request["budget"]).amounts()
        except BudgetSyntaxError:
            return {}
    return {}

"""Grants with an end: when it comes, what was not used goes back and the Goal asks again."""

import json
import logging
from typing import Any

from goals.domain.states import EntryKind, Phase, Unit
from goals.events import hint_on_commit, ring_on_commit
from goals.models import Account, Goal
from goals.services.conditions import set_condition
from goals.services.lease import break_lease
from goals.services.ledger import Source, post_entry
from goals.services.metering import METER, Shortage
from goals.services.parents import return_to_parent
from goals.services.throttle import granted_amount, must_ask, request_budget, shortage_facts
from governance.models import Approval
from governance.services.approvals import Fact, lapses_due, mark_lapsed
from governance.services.journal import journaled

logger = logging.getLogger(__name__)


def lapse_grants() -> int:
    """End every grant whose time is over; how many ended.

    Each in a transaction of its own: one that cannot be ended does not keep the others.
    """
    ended = 0
    for approval in lapses_due():
        try:
            ended += _lapse(approval)
        except Exception:  # whatever is wrong with one Goal, the other grants end all the same
            logger.exception("the grant of approval %s cannot be ended", approval.uid)
    return ended


def _lapse(approval: Approval) -> bool:
    request = json.loads(approval.request_canonical)
    goal = Goal.objects.filter(pk=approval.goal_uid).first() if approval.goal_uid else None
    account = None
    if goal is not None:
        account = goal.accounts.filter(unit=request["unit"]).first()
    if goal is None or account is None:
        with journaled():
            return mark_lapsed(approval)
    shortage = Shortage(
        Unit(request["unit"]),
        1,
        0,
        None,
        f"The grant that {approval.decided_by} gave ended at {approval.lapses_at:%Y-%m-%d %H:%M} "
        "UTC.",
    )
    facts = shortage_facts(goal, shortage)  # asks the telemetry store: outside the transaction
    with journaled():
        if not mark_lapsed(approval):
            return False
        goal = Goal.objects.select_for_update().get(pk=goal.pk)
        if goal.generation == request["generation"] and not goal.landing:
            _take_back(goal, approval, request, shortage, facts)
    return True


def _take_back(
    goal: Goal, approval: Approval, request: dict[str, Any], shortage: Shortage, facts: list[Fact]
) -> None:
    """Return what was not used of the grant, and ask again when nothing else is left.

    What running attempts hold ahead (at most some seconds of each GPU) is theirs already: a
    cluster's allowance is never lowered. They are paused with it and give it back when they end.
    """
    break_lease(goal.uid)
    account = Account.objects.get(goal=goal, unit=shortage.unit)
    unused = min(granted_amount(approval, request), account.available)
    key = f"lapse:{approval.uid}"
    if unused > 0:
        source = Source(
            actor=METER, approval_uid=approval.uid, note="not used when its time was over"
        )
        post_entry(account, kind=EntryKind.RETURN, amount=unused, key=key, source=source)
        return_to_parent(goal, unit=shortage.unit, amount=unused, key=key, actor=METER)
        account.refresh_from_db()
    set_condition(goal, "BudgetAvailable", False, reason="GrantLapsed", message=shortage.why)
    is_under_way = goal.phase in (Phase.RUNNING, Phase.PAUSED)
    if is_under_way and account.available == 0 and must_ask(goal, shortage):
        request_budget(goal, shortage, facts)
    ring_on_commit(goal.uid)
    hint_on_commit(goal_uid=goal.uid, namespace=goal.namespace, topic="approval")

"""Reads of Goals: resources, accounts, the chain of facts behind each."""

from collections.abc import Iterable
from typing import Any

from agents.models import Attempt
from goals.domain.states import EntryKind
from goals.models import Goal, LedgerEntry, Release, Task
from governance.services.journal import rfc3339

API_VERSION = "orchestration.ai/v1"


def goal_resource(goal: Goal) -> dict[str, Any]:
    """The Goal as the custom resource `Goal` of `orchestration.ai/v1`."""
    return {
        "apiVersion": API_VERSION,
        "kind": "Goal",
        "metadata": goal_metadata(goal),
        "spec": goal.spec,
        "status": goal_status(goal),
    }


def goal_metadata(goal: Goal) -> dict[str, Any]:
    """The metadata block of the resource."""
    return {
        "name": goal.name,
        "namespace": goal.namespace,
        "uid": str(goal.uid),
        "generation": goal.generation,
        "labels": goal.labels,
        "annotations": goal.annotations,
        "creationTimestamp": rfc3339(goal.created_at),
        "deletionTimestamp": rfc3339(goal.deletion_requested_at)
        if goal.deletion_requested_at
        else None,
    }


def goal_status(goal: Goal) -> dict[str, Any]:
    """The status block: where the Goal stands and why."""
    return {
        "phase": goal.phase,
        "satisfied": goal.satisfied,
        "observedGeneration": goal.observed_generation,
        "conditions": goal.conditions,
        "iteration": goal.iteration,
        "graphDigest": goal.graph_digest,
        "requestedBy": goal.requested_by,
        "desired": goal.desired,
        "measured": None
        if goal.measured_at is None
        else {
            "value": goal.measured_value,
            "unit": goal.measured_unit,
            "at": rfc3339(goal.measured_at),
            "spanId": goal.measured_span_id,
        },
        "accounts": account_documents(goal),
        "startedAt": rfc3339(goal.started_at) if goal.started_at else None,
        "landedAt": rfc3339(goal.landed_at) if goal.landed_at else None,
    }


def account_documents(goal: Goal) -> list[dict[str, Any]]:
    """The budget by dimension, each in the ledger's unit."""
    returned = landing_returns([goal])
    return [
        {
            "unit": account.unit,
            "granted": account.limit + returned.get(account.pk, 0),
            "limit": account.limit,
            "reserved": account.reserved,
            "settled": account.settled,
            "available": account.available,
            "overrun": account.overrun,
        }
        for account in goal.accounts.all()
    ]


def landing_returns(goals: Iterable[Goal]) -> dict[int, int]:
    """What the accounts of landed Goals gave back as they landed, by account, in one query.

    By so much each limit has sunk since. What an earlier generation gave back is not counted: the
    next one was granted its own budget.
    """
    keys = {goal.pk: f"landed:{goal.generation}" for goal in goals if goal.is_landed}
    if not keys:
        return {}
    entries = LedgerEntry.objects.filter(
        account__goal__in=list(keys),
        kind=EntryKind.RETURN,
        idempotency_key__in=set(keys.values()),
    )
    columns = ("account_id", "account__goal_id", "idempotency_key", "amount")
    return {
        account: amount
        for account, goal, key, amount in entries.order_by().values_list(*columns)
        if key == keys[goal]
    }


def tasks_of(goal: Goal) -> list[Task]:
    """Tasks of the current graph in all its iterations."""
    return list(goal.tasks.filter(graph_digest=goal.graph_digest))


def attempts_of(goal: Goal) -> list[Attempt]:
    """All attempts of a Goal, oldest first."""
    return list(Attempt.objects.filter(goal_uid=goal.uid).select_related("agent"))


def ledger_of(goal: Goal) -> list[LedgerEntry]:
    """All entries of a Goal's accounts, oldest first."""
    return list(LedgerEntry.objects.filter(account__goal=goal).select_related("account"))


def releases_of(goal: Goal) -> list[Release]:
    """Releases made by a Goal's attempts."""
    return list(Release.objects.filter(goal_uid=goal.uid))

"""Why an attempt does not run, as one sentence for people of its namespace."""

import datetime as dt
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Final

from django.utils import timezone

from agents.cluster.base import Blockage, Cluster, Holder, WorkloadPhase, WorkloadStatus
from agents.models import Attempt

HOLDERS_SAID: Final = 5  # a sentence, not a list
BLOCKED: Final = "blocked by: "


def with_holders(status: WorkloadStatus, *, gpus: int, cluster: Cluster) -> WorkloadStatus:
    """The status of one that waits for GPUs, with who holds them: the adapter may not have said."""
    if status.blockage is not None or status.reason != "Unschedulable":
        return status
    cards = cluster.gpus()
    held = Counter(card.held_by for card in cards if card.held_by)
    rows = Attempt.objects.filter(workload__in=list(held)).order_by("workload")
    holders = tuple(
        Holder(row.namespace, row.workload, True, held[row.workload], row.started_at)
        for row in rows
    )
    free = len(cards) - held.total()
    return replace(
        status, blockage=Blockage(f"{free} of {len(cards)} GPUs free, {gpus} asked", holders)
    )


def status_words(status: WorkloadStatus) -> str:
    """The status's message, with who is in the way of it where the cluster can tell."""
    if status.blockage is None:
        return status.message
    words = blockage_words(status.blockage, namespace=status.namespace)
    return BLOCKED + words if status.phase is WorkloadPhase.PENDING else f"{words}."


def blockage_words(blockage: Blockage, *, namespace: str) -> str:
    """What is in the way and who holds it, for a reader of this namespace.

    Holders in other namespaces are counted, not named: whoever reads this may have no rights
    there. Labels only claim that a pod is an attempt's; the rows say which ones are.
    """
    if not blockage.holders:
        return blockage.what
    own = [one for one in blockage.holders if one.namespace == namespace]
    rows = {row.workload: row for row in _rows(own, namespace)}
    said = [*_goals(own, rows), *_foreign(own, rows)]
    elsewhere = [one for one in blockage.holders if one.namespace != namespace]
    if elsewhere:
        is_one = len({one.namespace for one in elsewhere}) == 1
        word = "another namespace" if is_one else "other namespaces"
        said.append(_with_amount(word, sum(one.amount for one in elsewhere)))
    more = len(said) - HOLDERS_SAID
    if more > 0:
        said = [*said[:HOLDERS_SAID], f"{more} more"]
    return f"{blockage.what}; {blockage.verb} {', '.join(said)}"


def _rows(holders: Sequence[Holder], namespace: str) -> Iterable[Attempt]:
    names = [one.name for one in holders if one.is_workload]
    return Attempt.objects.filter(workload__in=names, namespace=namespace) if names else ()


def _goals(holders: Sequence[Holder], rows: Mapping[str, Attempt]) -> list[str]:
    """Each Goal once, with its one attempt or the number of them."""
    of_goal: dict[str, list[tuple[Holder, Attempt]]] = {}
    for one in holders:
        row = rows.get(one.name) if one.is_workload else None
        if row is not None:
            of_goal.setdefault(row.specification.get("goal", ""), []).append((one, row))
    return [_goal(goal, parts) for goal, parts in of_goal.items()]


def _goal(goal: str, parts: Sequence[tuple[Holder, Attempt]]) -> str:
    words = _with_amount(f"Goal {goal}", sum(holder.amount for holder, _ in parts))
    began = min((holder.since for holder, _ in parts if holder.since), default=None)
    since = f", since {_clock_words(began)}" if began else ""
    if len(parts) > 1:
        return f"{words} ({len(parts)} attempts{since})"
    row = parts[0][1]
    return f"{words} (attempt {row.task} {row.number}{since})"


def _foreign(holders: Sequence[Holder], rows: Mapping[str, Attempt]) -> list[str]:
    return [
        _with_amount(f"foreign workload {one.namespace}/{one.name}", one.amount)
        for one in holders
        if not (one.is_workload and one.name in rows)
    ]


def _with_amount(words: str, amount: int) -> str:
    return f"{words} {amount}" if amount else words


def _clock_words(at: dt.datetime) -> str:
    """Hours and minutes, with the day unless it is today's; in UTC, as every reader's zone."""
    at = at.astimezone(dt.UTC)
    is_today = at.date() == timezone.now().astimezone(dt.UTC).date()
    return at.strftime("%H:%M UTC" if is_today else "%d %b %H:%M UTC")

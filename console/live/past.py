"""The fleet as it was at a minute of the past day, told in the frame of the live feed."""

import datetime as dt
import json
from collections.abc import Iterable, Sequence
from typing import Any, Final
from uuid import UUID

import numpy as np
from django.db.models import Count, Q, Sum

from agents.domain.states import AttemptState
from agents.fleet.columns import FINISHED_CODES, FleetColumns
from agents.fleet.domain import Changes, GoalFact, RunFact
from agents.fleet.frames import UNKNOWN_AGE
from agents.fleet.views import FleetView
from agents.models import Attempt
from console.live.rights import Namespaces
from console.live.sources import (
    FINISHED_MINUTES,
    LANDED_HOURS,
    MAX_LANDED,
    RUN_FIELDS,
    fuel_of,
    parts,
    run_facts,
    to_ms,
    tokens_of,
)
from goals.domain.states import EntryKind
from goals.models import Account, Goal, LedgerEntry
from governance.models import Approval, JournalRecord

PAST_HOURS: Final = 24
MAX_RUNS: Final = 20_000  # of one picture; more is said in the frame, as on the live map
MAX_GOALS: Final = 5_000
_PAUSES: Final = ("attempt.paused", "attempt.running")
_AT = {name: place for place, name in enumerate(RUN_FIELDS)}


def past_frame(at: dt.datetime, namespaces: Namespaces) -> bytes:
    """A snapshot frame of what these namespaces (None: all) showed at `at` (aware).

    Rows keep when a run was made, started and ended; the journal adds pauses and phases, the
    ledger the fuel. What is kept nowhere is unknown: GPU time of a run that was still going.
    """
    seen = Q() if namespaces is None else Q(namespace__in=namespaces)
    rows, is_cut = _rows(at, seen)
    goals = _goals(at, seen, {row[_AT["goal_uid"]] for row in rows})
    columns = FleetColumns(max_runs=MAX_RUNS)
    facts = _goal_facts(at, goals)
    columns.apply(Changes(runs=_runs(at, rows), goals=facts), now_ms=to_ms(at))
    _forget_meters(columns)
    columns.is_truncated = is_cut
    view = FleetView(columns, namespaces)
    return view.snapshot(at_ms=to_ms(at), ages=(0, UNKNOWN_AGE))


def _rows(at: dt.datetime, seen: Q) -> tuple[list[tuple[Any, ...]], bool]:
    """Attempts that were on the map at `at`, newest first."""
    kept = at - dt.timedelta(minutes=FINISHED_MINUTES)
    on_map = Q(finished_at__isnull=True) | Q(finished_at__gte=kept)
    found = Attempt.objects.filter(seen, on_map, created_at__lte=at).order_by("-created_at")
    rows = list(found.values_list(*RUN_FIELDS)[: MAX_RUNS + 1])
    return rows[:MAX_RUNS], len(rows) > MAX_RUNS


def _runs(at: dt.datetime, rows: Sequence[tuple[Any, ...]]) -> list[RunFact]:
    going = {row[_AT["goal_uid"]] for row in rows if not _has(row, "finished_at", at)}
    paused = _paused(at, going)
    told = []
    for row in rows:
        then = list(row)
        uid = row[_AT["uid"]]
        if not _has(row, "finished_at", at):
            state = AttemptState.RUNNING if _has(row, "started_at", at) else AttemptState.PENDING
            then[_AT["state"]] = AttemptState.PAUSED if uid in paused else state
            then[_AT["finished_at"]] = None
        if not _has(row, "started_at", at):
            then[_AT["started_at"]], then[_AT["gpu_ids"]] = None, []
        told.append(tuple(then))
    return run_facts(told, paused)


def _has(row: tuple[Any, ...], field: str, at: dt.datetime) -> bool:
    """Whether that had happened by then."""
    moment = row[_AT[field]]
    return moment is not None and bool(moment <= at)


def _paused(at: dt.datetime, goal_uids: Iterable[UUID]) -> dict[UUID, dt.datetime]:
    """Attempts whose last word by then was that they are paused, and since when."""
    last: dict[str, tuple[str, dt.datetime]] = {}
    for part in parts(goal_uids):
        records = JournalRecord.objects.filter(goal_uid__in=part, action__in=_PAUSES, at__lte=at)
        for uid, action, moment in records.order_by("seq").values_list("object_id", "action", "at"):
            last[uid] = (action, moment)
    return {UUID(uid): since for uid, (action, since) in last.items() if action == _PAUSES[0]}


def _goals(at: dt.datetime, seen: Q, of_runs: set[UUID]) -> list[Goal]:
    """Goals in the air at `at`, those landed within the day before it, and those of the runs."""
    day = at - dt.timedelta(hours=LANDED_HOURS)
    existing = Goal.objects.filter(seen, created_at__lte=at)
    existing = existing.filter(Q(deleted_at__isnull=True) | Q(deleted_at__gt=at))
    flying = existing.filter(Q(landed_at__isnull=True) | Q(landed_at__gt=at))
    landed = existing.filter(landed_at__lte=at, landed_at__gte=day).order_by("-landed_at")
    found = {goal.uid: goal for goal in flying.order_by("-created_at")[:MAX_GOALS]}
    found |= {goal.uid: goal for goal in landed[:MAX_LANDED]}
    for part in parts(of_runs - found.keys()):
        found |= {goal.uid: goal for goal in existing.filter(uid__in=part)}
    return list(found.values())


def _goal_facts(at: dt.datetime, goals: Sequence[Goal]) -> list[GoalFact]:
    phases: dict[UUID, str] = {}
    waiting: dict[UUID, int] = {}
    accounts: dict[UUID, list[Account]] = {}
    uids = [goal.uid for goal in goals]
    for part in parts(uids):
        moves = JournalRecord.objects.filter(goal_uid__in=part, action="goal.phase")
        rows = moves.order_by("seq").values_list("goal_uid", "canonical", "at")
        for uid, canonical, moment in rows:
            if uid is None:
                continue
            move = json.loads(canonical)["body"]
            if moment <= at:
                phases[uid] = move["to"]
            else:
                phases.setdefault(uid, move["from"])
        open_then = Approval.objects.filter(goal_uid__in=part, created_at__lte=at)
        open_then = open_then.filter(Q(decided_at__isnull=True) | Q(decided_at__gt=at)).order_by()
        waiting |= dict(open_then.values_list("goal_uid").annotate(Count("uid")))
        for account in _accounts(at, part):
            accounts.setdefault(account.goal_id, []).append(account)
    return [
        GoalFact(
            uid=goal.uid,
            namespace=goal.namespace,
            name=goal.name,
            phase=phases.get(goal.uid, goal.phase),
            waiting=waiting.get(goal.uid, 0),
            changed_ms=to_ms(at),
            tokens=tokens_of(accounts.get(goal.uid, [])),
            **fuel_of(accounts.get(goal.uid, []), {}),
        )
        for goal in goals
    ]


def _accounts(at: dt.datetime, goal_uids: Sequence[UUID]) -> list[Account]:
    """Accounts as the ledger's entries by then add up; none of them is ever saved."""
    sums: dict[int, dict[str, int]] = {}
    entries = LedgerEntry.objects.filter(account__goal__in=goal_uids, created_at__lte=at)
    for pk, kind, amount in (
        entries.order_by().values_list("account", "kind").annotate(total=Sum("amount"))
    ):
        sums.setdefault(pk, {})[kind] = amount
    told = []
    for account in Account.objects.filter(pk__in=sums):
        by = sums[account.pk]
        settled = by.get(EntryKind.SETTLE, 0)
        # What a landed Goal gave back is no smaller budget: the live map counts so, too.
        account.limit = by.get(EntryKind.GRANT, 0)
        account.settled, account.overrun = settled, 0
        account.reserved = by.get(EntryKind.RESERVE, 0) - settled - by.get(EntryKind.RELEASE, 0)
        told.append(account)
    return told


def _forget_meters(columns: FleetColumns) -> None:
    """The rows hold what was metered since: of a run that was still going that is not known."""
    rows = columns.run_rows
    rows["gpu_ms"][~np.isin(rows["state"], FINISHED_CODES)] = np.nan

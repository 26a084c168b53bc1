"""Where the hub learns of the fleet: the database, through the journal's tail."""

import datetime as dt
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final
from uuid import UUID

from django.db.models import Count, Max
from django.utils import timezone

from agents.domain.states import ACTIVE_STATES, FINISHED_STATES
from agents.fleet.domain import (
    UNKNOWN_COUNT,
    UNKNOWN_SHARE,
    Changes,
    GoalFact,
    RunFact,
    share_code,
)
from agents.models import Attempt
from console.live.foreign import ForeignFeed
from goals.domain.states import ACTIVE_PHASES, TERMINAL_PHASES, Unit
from goals.models import Account, Goal
from goals.selectors import landing_returns
from governance.domain import ApprovalState
from governance.models import Approval, JournalRecord

FINISHED_MINUTES: Final = 15  # how long a run that ended stays on the map
LANDED_HOURS: Final = 24  # how long a Goal that landed keeps its strip
MAX_ENDED: Final = 5000  # runs that ended lately, newest first
MAX_LANDED: Final = 500
MAX_TAIL: Final = 5000  # records read at once; the rest at the next look
IN_LIST: Final = 500  # keys of one query (SQLite allows 999 variables)
FINISHED_ACTIONS: Final = tuple(f"attempt.{state.value}" for state in FINISHED_STATES)
RUN_FIELDS: Final = (
    "uid", "goal_uid", "namespace", "agent_name", "agent_role", "task", "gpu_ids", "state",
    "gpus", "gpu_ms", "created_at", "started_at", "finished_at",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Tail:
    """What the journal says has changed: news, the next record to read, whether more waits."""

    changes: Changes
    next_seq: int
    is_more: bool


class FleetSource:
    """The database as the hub asks it; every method is called in the hub's own thread."""

    def __init__(self) -> None:
        self._foreign = ForeignFeed()

    def load(self) -> tuple[Changes, int]:
        changes, next_seq = load_fleet()
        return replace(changes, runs=[*changes.runs, *self._foreign.load()]), next_seq

    def since(self, seq: int) -> Tail:
        return changed_since(seq)

    def meters(self) -> Changes:
        foreign = self._foreign.changes()
        return replace(foreign, meters=read_meters().meters)


def load_fleet() -> tuple[Changes, int]:
    """All that is on the map now, and the journal record from which news follows."""
    next_seq = _journal_end()  # before the rows: what changes meanwhile is read twice, not never
    active = list(Attempt.objects.filter(state__in=ACTIVE_STATES).values_list(*RUN_FIELDS))
    ended = JournalRecord.objects.filter(action__in=FINISHED_ACTIONS).order_by("-seq")
    uids = _uids(ended.values_list("object_id", flat=True)[:MAX_ENDED])
    since = timezone.now() - dt.timedelta(minutes=FINISHED_MINUTES)
    runs = run_facts(active, {}) + [run for run in runs_of(uids) if run.changed_ms >= to_ms(since)]
    landed = Goal.objects.filter(
        phase__in=TERMINAL_PHASES,
        landed_at__gte=timezone.now() - dt.timedelta(hours=LANDED_HOURS),
    ).order_by("-landed_at")
    wanted = set(Goal.objects.filter(phase__in=ACTIVE_PHASES).values_list("uid", flat=True))
    wanted |= set(landed.values_list("uid", flat=True)[:MAX_LANDED])
    wanted |= {run.goal_uid for run in runs}
    goals, _ = goals_of(wanted)
    return Changes(runs=_once(runs), goals=goals, is_whole=True), next_seq


def changed_since(seq: int) -> Tail:
    """Runs and Goals named by journal records from `seq` on."""
    records = list(
        JournalRecord.objects.filter(seq__gte=seq)
        .order_by("seq")
        .values_list("seq", "object_kind", "object_id", "goal_uid", "at")[:MAX_TAIL]
    )
    attempts = {UUID(record[2]): record[4] for record in records if record[1] == "attempt"}
    # An attempt's own record says nothing of its Goal; whatever else names a Goal may.
    goals = {record[3] for record in records if record[3] is not None and record[1] != "attempt"}
    found, gone = goals_of(goals)
    changes = Changes(runs=runs_of(attempts, changed_at=attempts), goals=found, gone_goals=gone)
    next_seq = records[-1][0] + 1 if records else seq
    return Tail(changes, next_seq, is_more=len(records) == MAX_TAIL)


def read_meters() -> Changes:
    """GPU time of the runs that hold GPUs: meters move without a record of the journal."""
    running = Attempt.objects.filter(state__in=ACTIVE_STATES, gpus__gt=0)
    return Changes(meters=list(running.values_list("uid", "gpu_ms")))


def runs_of(
    uids: Iterable[UUID], *, changed_at: Mapping[UUID, dt.datetime] | None = None
) -> list[RunFact]:
    """The attempts of these uids, as far as they exist; `changed_at` where the journal said it."""
    return [
        run
        for part in parts(uids)
        for run in run_facts(
            Attempt.objects.filter(uid__in=part).values_list(*RUN_FIELDS), changed_at or {}
        )
    ]


def goals_of(uids: Iterable[UUID]) -> tuple[list[GoalFact], list[UUID]]:
    """The Goals of these uids with their fuel, and those that are no more."""
    facts: list[GoalFact] = []
    gone: list[UUID] = []
    for part in parts(uids):
        found = list(Goal.objects.filter(uid__in=part, deleted_at__isnull=True))
        gone += set(part) - {goal.uid for goal in found}
        facts += _goal_facts(found)
    return facts, gone


def _goal_facts(goals: Sequence[Goal]) -> list[GoalFact]:
    uids = [goal.uid for goal in goals]
    accounts: dict[UUID, list[Account]] = {uid: [] for uid in uids}
    for account in Account.objects.filter(goal__in=uids):
        accounts[account.goal_id].append(account)
    waiting = dict(
        Approval.objects.filter(goal_uid__in=uids, state=ApprovalState.PENDING)
        .order_by()
        .values_list("goal_uid")
        .annotate(Count("uid"))
    )
    returned = landing_returns(goals)
    now_ms = to_ms(timezone.now())
    return [
        GoalFact(
            uid=goal.uid,
            namespace=goal.namespace,
            name=goal.name,
            phase=goal.phase,
            waiting=waiting.get(goal.uid, 0),
            changed_ms=now_ms,
            tokens=tokens_of(accounts[goal.uid]),
            **fuel_of(accounts[goal.uid], returned),
        )
        for goal in goals
    ]


def fuel_of(accounts: Sequence[Account], returned: Mapping[int, int]) -> dict[str, Any]:
    """Shares and unit of the account that is nearest to its limit."""
    worst: dict[str, Any] = {
        "settled_share": UNKNOWN_SHARE, "reserved_share": UNKNOWN_SHARE, "unit": ""
    }  # fmt: skip
    for account in accounts:
        whole = account.limit + returned.get(account.pk, 0)
        if account.unit == Unit.TOKENS and whole == 0:
            continue  # counted, not budgeted
        settled = share_code(account.settled + account.overrun, whole)
        if worst["unit"] == "" or settled > worst["settled_share"]:
            worst = {
                "settled_share": settled,
                "reserved_share": share_code(account.reserved, whole),
                "unit": account.unit,
            }
    return worst


def tokens_of(accounts: Sequence[Account]) -> int:
    for account in accounts:
        if account.unit == Unit.TOKENS:
            return min(account.settled + account.overrun, UNKNOWN_COUNT - 1)
    return UNKNOWN_COUNT


def run_facts(
    rows: Iterable[tuple[Any, ...]], changed_at: Mapping[UUID, dt.datetime]
) -> list[RunFact]:
    return [
        RunFact(
            uid=uid,
            goal_uid=goal_uid,
            namespace=namespace,
            agent=agent,
            role=role,
            task=task,
            node=", ".join(str(gpu) for gpu in gpu_ids),
            state=state,
            gpus=gpus,
            gpu_ms=gpu_ms,
            created_ms=to_ms(created_at),
            changed_ms=to_ms(changed_at.get(uid) or finished_at or started_at or created_at),
        )
        for (uid, goal_uid, namespace, agent, role, task, gpu_ids, state, gpus, gpu_ms, created_at,
             started_at, finished_at) in rows
    ]  # fmt: skip


def _once(runs: Iterable[RunFact]) -> list[RunFact]:
    return list({run.uid: run for run in runs}.values())


def _journal_end() -> int:
    last = JournalRecord.objects.aggregate(last=Max("seq"))["last"]
    return 0 if last is None else int(last) + 1


def _uids(texts: Iterable[str]) -> list[UUID]:
    return list({UUID(text): None for text in texts})


def parts(uids: Iterable[UUID]) -> Iterable[list[UUID]]:
    wanted = list(uids)
    return (wanted[start : start + IN_LIST] for start in range(0, len(wanted), IN_LIST))


def to_ms(moment: dt.datetime) -> float:
    return moment.timestamp() * 1000

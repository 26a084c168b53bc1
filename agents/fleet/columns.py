"""The fleet in memory: one row of a structured array per agent run and per Goal."""

import math
from collections.abc import Iterable, Sequence
from typing import Any, Final
from uuid import UUID

import numpy as np
import numpy.typing as npt

from agents.fleet.domain import (
    NO_GOAL,
    STATE_CODES,
    UNKNOWN_CONFIDENCE,
    UNKNOWN_SHARE,
    WHOLE_SHARE,
    Changes,
    GoalFact,
    RunFact,
    SpanFact,
    clip,
    confidence_code,
    kind_of,
)

RUN: Final = np.dtype(
    [
        ("uid", "u1", (16,)), ("namespace", "<u4"), ("goal", "<u4"), ("agent", "<u4"),
        ("role", "<u4"), ("task", "<u4"), ("kind", "u1"), ("gpus", "<u2"), ("created", "<f8"),
        ("state", "u1"), ("confidence", "u1"), ("node", "<u4"), ("span", "<u4"),
        ("gpu_ms", "<f8"), ("changed", "<f8"), ("is_used", "?"), ("is_new", "?"),
        ("is_dirty", "?"),
    ]
)  # fmt: skip
GOAL: Final = np.dtype(
    [
        ("uid", "u1", (16,)), ("namespace", "<u4"), ("name", "<u4"), ("phase", "<u4"),
        ("unit", "<u4"), ("settled", "<u2"), ("reserved", "<u2"), ("waiting", "<u2"),
        ("tokens", "<u4"), ("exhausts", "<f8"), ("changed", "<f8"), ("is_used", "?"),
        ("is_dirty", "?"),
    ]
)  # fmt: skip
FIRST_CAPACITY: Final = 1024
MAX_RUNS: Final = 200_000  # 20 MB of columns; beyond it new runs are left out, and that is said
MAX_NAMES: Final = 100_000  # agents choose the names of spans
MANY_NAMES: Final = "(too many names)"
BURN_SECONDS: Final = 10.0  # a rate measured over less is noise
DELETED: Final = "Deleted"  # in place of the phase of a Goal that is no more
FINISHED_CODES: Final = tuple(
    STATE_CODES[state] for state in ("succeeded", "failed", "stopped", "lost")
)

Rows = npt.NDArray[Any]
Slots = npt.NDArray[np.int64]


class Names:
    """Every text once, by number; number 0 is the empty text. Bounded by `MAX_NAMES`."""

    def __init__(self) -> None:
        self.texts: list[str] = [""]
        self._numbers: dict[str, int] = {"": 0}

    def number(self, text: str) -> int:
        known = self._numbers.get(text)
        if known is not None:
            return known
        text = clip(text)
        if text not in self._numbers:
            if len(self.texts) >= MAX_NAMES:
                return self.number(MANY_NAMES) if text != MANY_NAMES else 0
            self._numbers[text] = len(self.texts)
            self.texts.append(text)
        return self._numbers[text]


class FleetColumns:
    """The fleet. Changed rows stay marked until `settle`, so that every view can encode them."""

    def __init__(self, *, max_runs: int = MAX_RUNS) -> None:
        self.names = Names()
        self.runs: Rows = np.zeros(FIRST_CAPACITY, RUN)
        self.goals: Rows = np.zeros(FIRST_CAPACITY, GOAL)
        self.is_truncated = False
        self.removed: list[int] = []  # slots given up since `settle`
        self._max_runs = max_runs
        self._run_slots: dict[bytes, int] = {}
        self._goal_slots: dict[bytes, int] = {}
        self._free: list[int] = []
        self._deleted: list[int] = []
        self._run_top = self._goal_top = 0
        self._burns: dict[int, tuple[float, int]] = {}

    def __len__(self) -> int:
        return len(self._run_slots)

    @property
    def run_rows(self) -> Rows:
        """The part of `runs` that has ever been used."""
        return self.runs[: self._run_top]

    @property
    def goal_rows(self) -> Rows:
        """The part of `goals` that has ever been used."""
        return self.goals[: self._goal_top]

    def apply(self, changes: Changes, *, now_ms: float) -> None:
        """Take over news of a source; the same news again changes nothing."""
        for goal in changes.goals:
            self._put_goal(goal, now_ms)
        for run in changes.runs:
            self._put_run(run)
        for uid, gpu_ms in changes.meters:
            slot = self._run_slots.get(uid.bytes)
            if slot is not None and self.runs["gpu_ms"][slot] < gpu_ms:
                self.runs["gpu_ms"][slot] = gpu_ms
                self.runs["is_dirty"][slot] = True
        for uid in changes.gone_runs:
            self._drop_run(uid.bytes)
        for uid in changes.gone_goals:
            self._drop_goal(uid.bytes)
        if changes.is_whole:
            self._keep_only(changes.runs, changes.goals)

    def apply_spans(self, spans: Iterable[SpanFact]) -> None:
        """Take over last spans; those of runs that are not on the map are ignored."""
        for span in spans:
            slot = self._run_slots.get(span.uid.bytes)
            if slot is None:
                continue
            values = (self.names.number(span.name), confidence_code(span.confidence))
            row = self.runs[slot]
            if (row["span"], row["confidence"]) != values:
                row["span"], row["confidence"] = values
                row["is_dirty"] = True

    def drop_finished(self, *, before_ms: float) -> int:
        """Take finished runs whose last change is older off the map; how many that were."""
        rows = self.run_rows
        is_over = rows["is_used"] & np.isin(rows["state"], FINISHED_CODES)
        slots = np.flatnonzero(is_over & (rows["changed"] < before_ms))
        for slot in slots.tolist():
            self._drop_run(rows["uid"][slot].tobytes())
        return len(slots)

    def settle(self) -> None:
        """Every view has encoded the changes: forget that they are new."""
        self.run_rows["is_dirty"] = False
        self.run_rows["is_new"] = False
        self.goal_rows["is_dirty"] = False
        self._free += self.removed
        self.removed = []
        self.goals["is_used"][self._deleted] = False
        self._deleted = []

    def _put_run(self, fact: RunFact) -> None:
        slot = self._run_slots.get(fact.uid.bytes)
        if slot is None:
            slot = self._add_run(fact)
            if slot is None:
                return
        row, number = self.runs[slot], self.names.number
        goal = self._goal_slots.get(fact.goal_uid.bytes, NO_GOAL)
        values = (STATE_CODES.get(fact.state, 0), number(fact.node))
        if row["goal"] != goal:  # the Goal became known after its run
            row["goal"], row["is_new"], row["is_dirty"] = goal, True, True
        if (row["state"], row["node"]) != values or row["changed"] < fact.changed_ms:
            row["state"], row["node"] = values
            row["changed"] = max(row["changed"], fact.changed_ms)
            row["is_dirty"] = True
        if row["gpu_ms"] < fact.gpu_ms:
            row["gpu_ms"], row["is_dirty"] = fact.gpu_ms, True
        if row["gpus"] != (gpus := min(fact.gpus, 0xFFFF)):  # a workload of others was scaled
            row["gpus"], row["is_new"], row["is_dirty"] = gpus, True, True

    def _add_run(self, fact: RunFact) -> int | None:
        if len(self._run_slots) >= self._max_runs:
            self.is_truncated = True
            return None
        if self._free:
            slot = self._free.pop()
        else:
            slot = self._run_top
            self._run_top += 1
            if self._run_top > len(self.runs):
                self.runs = _grown(self.runs)
        number, row = self.names.number, self.runs[slot]
        row["uid"] = np.frombuffer(fact.uid.bytes, "u1")
        row["namespace"], row["agent"] = number(fact.namespace), number(fact.agent)
        row["role"], row["task"] = number(fact.role), number(fact.task)
        row["goal"] = self._goal_slots.get(fact.goal_uid.bytes, NO_GOAL)
        row["kind"] = kind_of(role=fact.role, gpus=fact.gpus)
        row["gpus"], row["created"] = min(fact.gpus, 0xFFFF), fact.created_ms
        row["span"], row["confidence"], row["gpu_ms"] = 0, UNKNOWN_CONFIDENCE, 0
        row["state"], row["node"], row["changed"] = STATE_CODES.get(fact.state, 0), 0, 0.0
        row["is_used"], row["is_new"], row["is_dirty"] = True, True, True
        self._run_slots[fact.uid.bytes] = slot
        return slot

    def _drop_run(self, uid: bytes) -> None:
        slot = self._run_slots.pop(uid, None)
        if slot is not None:
            self.runs["is_used"][slot] = False
            self.runs["is_new"][slot] = self.runs["is_dirty"][slot] = False
            self.removed.append(slot)
            self.is_truncated = False

    def _put_goal(self, fact: GoalFact, now_ms: float) -> None:
        slot = self._goal_slots.get(fact.uid.bytes)
        is_new = slot is None
        if slot is None:
            slot = self._goal_top
            self._goal_top += 1
            if self._goal_top > len(self.goals):
                self.goals = _grown(self.goals)
            self._goal_slots[fact.uid.bytes] = slot
        row, number = self.goals[slot], self.names.number
        values = (
            number(fact.namespace), number(fact.name), number(fact.phase), number(fact.unit),
            fact.settled_share, fact.reserved_share, min(fact.waiting, 0xFFFF), fact.tokens,
        )  # fmt: skip
        fields = ("namespace", "name", "phase", "unit", "settled", "reserved", "waiting", "tokens")
        exhausts = self._exhaustion(slot, fact, now_ms)
        is_same = tuple(row[name] for name in fields) == values and (
            row["exhausts"] == exhausts or (math.isnan(row["exhausts"]) and math.isnan(exhausts))
        )
        if is_new or not is_same:
            row["uid"] = np.frombuffer(fact.uid.bytes, "u1")
            for name, value in zip(fields, values, strict=True):
                row[name] = value
            row["exhausts"], row["changed"] = exhausts, fact.changed_ms
            row["is_used"] = row["is_dirty"] = True

    def _exhaustion(self, slot: int, fact: GoalFact, now_ms: float) -> float:
        """When the budget ends at the rate seen so far (ms since 1970), NaN while unknown."""
        before = self._burns.get(slot)
        if before is None or fact.settled_share == UNKNOWN_SHARE or fact.settled_share < before[1]:
            self._burns[slot] = (now_ms, fact.settled_share)
            return math.nan
        seconds = (now_ms - before[0]) / 1000
        burnt = fact.settled_share - before[1]
        if fact.phase != "Running" or seconds < BURN_SECONDS or burnt == 0:
            return float(self.goals["exhausts"][slot]) if fact.phase == "Running" else math.nan
        return now_ms + (WHOLE_SHARE - fact.settled_share) / burnt * seconds * 1000

    def _drop_goal(self, uid: bytes) -> None:
        slot = self._goal_slots.pop(uid, None)
        if slot is not None:  # its place is not used again: few Goals are ever deleted
            self.goals["phase"][slot] = self.names.number(DELETED)
            self.goals["is_dirty"][slot] = True
            self._deleted.append(slot)
            self._burns.pop(slot, None)

    def _keep_only(self, runs: Sequence[RunFact], goals: Sequence[GoalFact]) -> None:
        kept = {run.uid.bytes for run in runs}
        for uid in [uid for uid in self._run_slots if uid not in kept]:
            self._drop_run(uid)
        alive = {goal.uid.bytes for goal in goals}
        for uid in [uid for uid in self._goal_slots if uid not in alive]:
            self._drop_goal(uid)

    def run_of(self, uid: UUID) -> Any:
        """The row of a run, None when it is not on the map."""
        slot = self._run_slots.get(uid.bytes)
        return None if slot is None else self.runs[slot]


def _grown(rows: Rows) -> Rows:
    bigger = np.zeros(len(rows) * 2, rows.dtype)
    bigger[: len(rows)] = rows
    return bigger

"""What one set of namespaces may see of the fleet, encoded once for everybody who may (I7)."""

import secrets
from collections.abc import Sequence
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from agents.fleet.columns import FleetColumns, Rows
from agents.fleet.domain import NO_GOAL
from agents.fleet.frames import (
    ADDED_COLUMNS,
    CHANGED_COLUMNS,
    GOAL_COLUMNS,
    IS_TRUNCATED,
    Frame,
    FrameKind,
    Stamp,
    encode,
)

# Slots, Goals and names that a feed has given up are not used again; when so many more were given
# out than are alive, the feed begins anew.
SPARE: Final = 4096
NAME_FIELDS: Final = {
    "goals": ("namespace", "name", "phase", "unit"),
    "added": ("namespace", "agent", "role", "task"),
    "changed": ("node", "span"),
}
UNSEEN: Final = -1

Numbers = npt.NDArray[np.int64]


class _Numbering:
    """Numbers of one feed for numbers of the fleet: what a person may not see is not counted."""

    def __init__(self) -> None:
        self._given: Numbers = np.full(1024, UNSEEN, np.int64)
        self.count = 0

    def give(self, wanted: Numbers) -> Numbers:
        """Number those that have none; returns them in the order of their new numbers."""
        fresh = np.unique(wanted[self.of(wanted) == UNSEEN])
        self._given[fresh] = np.arange(self.count, self.count + len(fresh))
        self.count += len(fresh)
        return fresh

    def of(self, wanted: Numbers) -> Numbers:
        top = int(wanted.max(initial=0)) + 1
        if top > len(self._given):
            grown = np.full(max(top, 2 * len(self._given)), UNSEEN, np.int64)
            grown[: len(self._given)] = self._given
            self._given = grown
        numbers: Numbers = self._given[wanted]
        return numbers

    def forget(self, given_up: Numbers) -> Numbers:
        """The numbers of those that had one; they have none from now on."""
        numbers = self.of(given_up)
        self._given[given_up] = UNSEEN
        known: Numbers = numbers[numbers != UNSEEN]
        return known


class FleetView:
    """The feed of one visibility set (`namespaces`, None is all): epoch, sequence, its numbers."""

    def __init__(self, columns: FleetColumns, namespaces: frozenset[str] | None) -> None:
        self._columns = columns
        self._namespaces = namespaces
        self._sees: npt.NDArray[np.bool_] = np.zeros(0, bool)
        self.total = 0
        self.begin()

    def begin(self) -> None:
        """A new epoch: everything is numbered again by the next snapshot."""
        self.epoch = secrets.randbits(32)
        self.sequence = 0
        self._names, self._goals, self._runs = _Numbering(), _Numbering(), _Numbering()
        self._told = 0  # names
        self._texts: list[str] = []
        self._snapshot: tuple[int, bytes] | None = None
        self._number_everything()

    def delta(self, *, at_ms: float, ages: tuple[int, int]) -> bytes | None:
        """The frame of what changed since the last `settle` of the columns; None when nothing did.

        Must be called for every change: it moves the sequence on. A feed that has given out too
        many numbers begins anew; its frame is then a snapshot.
        """
        columns = self._columns
        runs, goals = columns.run_rows, columns.goal_rows
        removed = self._runs.forget(np.array(columns.removed, np.int64))
        dirty = np.flatnonzero(runs["is_dirty"])
        dirty = dirty[self._visible(runs["namespace"][dirty])]
        goal_slots = np.flatnonzero(goals["is_dirty"] & goals["is_used"])
        goal_slots = goal_slots[self._visible(goals["namespace"][goal_slots])]
        if not (len(removed) or len(dirty) or len(goal_slots)):
            return None
        self.total += int((self._runs.of(dirty) == UNSEEN).sum()) - len(removed)
        self.sequence += 1
        if self._runs.count > 2 * self.total + SPARE:
            self.begin()
            return self.snapshot(at_ms=at_ms, ages=ages)
        added = dirty[runs["is_new"][dirty]]
        return self._encode(FrameKind.DELTA, goal_slots, added, dirty, removed, at_ms, ages)

    def snapshot(self, *, at_ms: float, ages: tuple[int, int]) -> bytes:
        """All there is, as of the last delta; encoded once for each sequence number."""
        if self._snapshot is None or self._snapshot[0] != self.sequence:
            goals, runs = self._everything()
            nothing = np.zeros(0, np.int64)
            raw = self._encode(FrameKind.SNAPSHOT, goals, runs, runs, nothing, at_ms, ages)
            self._snapshot = (self.sequence, raw)
        return self._snapshot[1]

    def heartbeat(self, *, at_ms: float, ages: tuple[int, int]) -> bytes:
        """A frame without changes: the feed is alive, its sources so old."""
        return encode(Frame(kind=FrameKind.HEARTBEAT, stamp=self._stamp(at_ms, ages)))

    def _stamp(self, at_ms: float, ages: tuple[int, int]) -> Stamp:
        return Stamp(
            epoch=self.epoch,
            sequence=self.sequence,
            at_ms=at_ms,
            database_age_ms=ages[0],
            bus_age_ms=ages[1],
            flags=IS_TRUNCATED if self._columns.is_truncated else 0,
            total=self.total,
        )

    def _visible(self, namespace_numbers: npt.NDArray[Any]) -> npt.NDArray[np.bool_]:
        if self._namespaces is None:
            return np.ones(len(namespace_numbers), bool)
        texts = self._columns.names.texts
        if len(self._sees) < len(texts):
            new = [text in self._namespaces for text in texts[len(self._sees) :]]
            self._sees = np.concatenate([self._sees, np.array(new, bool)])
        seen: npt.NDArray[np.bool_] = self._sees[namespace_numbers]
        return seen

    def _everything(self) -> tuple[Numbers, Numbers]:
        goals, runs = self._columns.goal_rows, self._columns.run_rows
        goal_slots = np.flatnonzero(goals["is_used"])
        run_slots = np.flatnonzero(runs["is_used"])
        return (
            goal_slots[self._visible(goals["namespace"][goal_slots])],
            run_slots[self._visible(runs["namespace"][run_slots])],
        )

    def _number_everything(self) -> None:
        goals, runs = self._everything()
        self._goals.give(goals)
        self._runs.give(runs)
        self.total = len(runs)

    def _encode(
        self, kind: FrameKind, goals: Numbers, added: Numbers, changed: Numbers, removed: Numbers,
        at_ms: float, ages: tuple[int, int],
    ) -> bytes:  # fmt: skip
        columns = self._columns
        self._goals.give(goals)
        self._runs.give(added)
        goal_columns = _pick(columns.goal_rows, goals, GOAL_COLUMNS, skip=("goal",))
        goal_columns["goal"] = self._goals.of(goals)
        added_columns = _pick(columns.run_rows, added, ADDED_COLUMNS, skip=("slot",))
        added_columns["slot"] = self._runs.of(added)
        added_columns["goal"] = self._goal_numbers(added_columns["goal"])
        changed_columns = _pick(columns.run_rows, changed, CHANGED_COLUMNS, skip=("slot",))
        changed_columns["slot"] = self._runs.of(changed)
        named = {"goals": goal_columns, "added": added_columns, "changed": changed_columns}
        names = self._rename(named, is_whole=kind is FrameKind.SNAPSHOT)
        return encode(
            Frame(
                kind=kind,
                stamp=self._stamp(at_ms, ages),
                names=names,
                goals=goal_columns,
                added=added_columns,
                changed=changed_columns,
                removed={"slot": removed},
            )
        )

    def _goal_numbers(self, slots: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """Numbers of the feed for the Goals of runs; a Goal it has not told of is none."""
        known = slots != NO_GOAL
        numbers = np.full(len(slots), NO_GOAL, np.int64)
        given = self._goals.of(slots[known].astype(np.int64))
        numbers[known] = np.where(given == UNSEEN, NO_GOAL, given)
        return numbers

    def _rename(self, named: dict[str, dict[str, Any]], *, is_whole: bool) -> Sequence[str]:
        """Put the feed's numbers of names in place of the fleet's; the names to tell of."""
        for section, fields in NAME_FIELDS.items():
            for field in fields:
                wanted = named[section][field].astype(np.int64)
                fresh = self._names.give(wanted)
                self._texts += [self._columns.names.texts[number] for number in fresh.tolist()]
                named[section][field] = self._names.of(wanted)
        names = self._texts if is_whole else self._texts[self._told :]
        self._told = len(self._texts)
        return tuple(names)


def _pick(
    rows: Rows, slots: Numbers, shape: Sequence[tuple[str, str]], *, skip: tuple[str, ...]
) -> dict[str, Any]:
    picked = rows[slots]
    return {name: picked[name] for name, _ in shape if name not in skip}

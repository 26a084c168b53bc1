"""A map as a browser keeps it, in Python: applies frames, knows a gap when it sees one."""

from typing import Any
from uuid import UUID, uuid4

from agents.fleet.domain import NO_GOAL, GoalFact, RunFact
from agents.fleet.frames import Frame, FrameKind, decode

NOW_MS = 1_800_000_000_000.0


def run_fact(**changes: Any) -> RunFact:
    known: dict[str, Any] = {
        "uid": uuid4(), "goal_uid": uuid4(), "namespace": "default", "agent": "tuner",
        "role": "worker", "task": "tune", "node": "declared-0", "state": "running", "gpus": 1,
        "gpu_ms": 0, "created_ms": NOW_MS, "changed_ms": NOW_MS,
    }  # fmt: skip
    return RunFact(**(known | changes))


def goal_fact(**changes: Any) -> GoalFact:
    known: dict[str, Any] = {
        "uid": uuid4(), "namespace": "default", "name": "faster", "phase": "Running",
        "settled_share": 0, "reserved_share": 0, "unit": "gpu_ms", "waiting": 0, "tokens": 0,
        "changed_ms": NOW_MS,
    }  # fmt: skip
    return GoalFact(**(known | changes))


class LiveMap:
    """What one client shows; `has_gap` once a frame was missed."""

    def __init__(self) -> None:
        self.names: list[str] = []
        self.goals: dict[int, dict[str, Any]] = {}
        self.runs: dict[int, dict[str, Any]] = {}
        self.at: tuple[int, int] | None = None
        self.has_gap = False
        self.last: Frame | None = None
        self.snapshots = 0

    def take(self, raw: bytes) -> None:
        frame = self.last = decode(raw)
        stamp = frame.stamp
        if frame.kind is FrameKind.SNAPSHOT:
            self.names, self.goals, self.runs, self.has_gap = [], {}, {}, False
            self.snapshots += 1
        else:
            step = 1 if frame.kind is FrameKind.DELTA else 0
            if self.at is None or self.at != (stamp.epoch, stamp.sequence - step):
                self.has_gap = True
                return
        self.at = (stamp.epoch, stamp.sequence)
        self.names += frame.names
        self._goals(frame)
        self._runs(frame)

    def _goals(self, frame: Frame) -> None:
        for row in _rows(frame.goals):
            named = {key: self.names[row[key]] for key in ("namespace", "name", "phase", "unit")}
            self.goals[row["goal"]] = row | named

    def _runs(self, frame: Frame) -> None:
        for row in _rows(frame.added):
            named = {key: self.names[row[key]] for key in ("namespace", "agent", "role", "task")}
            self.runs.setdefault(row["slot"], {}).update(row | named)
        for row in _rows(frame.changed):
            named = {key: self.names[row[key]] for key in ("node", "span")}
            self.runs[row["slot"]].update(row | named)
        for row in _rows(frame.removed):
            del self.runs[row["slot"]]

    def picture(self) -> dict[UUID, tuple[Any, ...]]:
        """By uid: what can be seen of each run, free of the feed's own numbers."""
        seen = ("namespace", "agent", "role", "task", "kind", "gpus", "created", "state",
                "confidence", "node", "span", "gpu_ms", "changed")  # fmt: skip
        return {
            row["uid"]: (*(row[key] for key in seen), self._goal_of(row))
            for row in self.runs.values()
        }

    def goal_picture(self) -> dict[UUID, tuple[Any, ...]]:
        seen = ("namespace", "name", "phase", "unit", "settled", "reserved", "waiting", "tokens")
        return {
            row["uid"]: tuple(row[key] for key in seen)
            for row in self.goals.values()
            if row["phase"] != "Deleted"
        }

    def _goal_of(self, row: dict[str, Any]) -> UUID | None:
        return None if row["goal"] == NO_GOAL else self.goals[row["goal"]]["uid"]


def _rows(columns: Any) -> list[dict[str, Any]]:
    if not columns:
        return []
    names = list(columns)
    values = [
        [UUID(bytes=bytes(uid)) for uid in columns[name]]
        if name == "uid"
        else columns[name].tolist()
        for name in names
    ]
    return [dict(zip(names, row, strict=True)) for row in zip(*values, strict=True)]

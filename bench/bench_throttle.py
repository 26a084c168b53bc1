"""From the instant a Goal's budget is used up: to the stopped process, and to the open approval."""

import contextlib
import json
import sqlite3
import statistics
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from uuid import UUID

from agents.cluster.shim.processes import read_process
from tests.console.real_tower import RealTower
from tests.kill.people import Person, team_member

GOALS = 24
AT_ONCE = 2  # as many as a small machine has cores; each of them spins
BUDGET_SECONDS = 1  # GPU-seconds, on one declared slot: all of it is reserved at the start
# Negative delays are no mistake: the shim stops a process a few milliseconds before its limit.
AIM_MS = 1000.0  # limit reached -> process stopped, p99
RESYNC_MS = 1000.0  # the control plane looks at each Goal this often, and asks when it sees it
POLL_SECONDS = 0.002
PATIENCE_SECONDS = 30.0
AGENT = """
apiVersion: orchestration.ai/v1
kind: Agent
metadata: {name: spinner, namespace: default}
spec:
  role: worker
  image: bench/spinner:1.0
  command: [python, -c, "while True: pass"]
  serviceAccountName: spinner
  resources: {limits: {nvidia.com/gpu: 1}}
  estimate: {seconds: 60}
"""
GOAL = """
apiVersion: orchestration.ai/v1
kind: Goal
metadata: {{name: {name}, namespace: default}}
spec: {{objective: "level >= 100 %", budget: {seconds} GPU-seconds, agents: [spinner]}}
"""


class Stopped:
    """One Goal on its way to its limit; times are monotonic nanoseconds."""

    def __init__(self, name: str, uid: str) -> None:
        self.name, self.uid = name, UUID(uid).hex
        self.limit_at = self.stopped_at = self.asked_at = 0

    def look(self, tower: RealTower, database: sqlite3.Connection) -> bool:
        """Note what has happened since the last look; whether everything has."""
        record = _record(tower, self.name)
        if record is not None and record["started_monotonic_ns"]:
            self.limit_at = record["started_monotonic_ns"] + BUDGET_SECONDS * 10**9
            if not self.stopped_at and read_process(record["pid"]).state == "T":
                self.stopped_at = time.monotonic_ns()
        if not self.asked_at:
            sql = "SELECT 1 FROM governance_approval WHERE goal_uid = ? AND state = 'pending'"
            if database.execute(sql, [self.uid]).fetchone():
                self.asked_at = time.monotonic_ns()
        return bool(self.limit_at and self.stopped_at and self.asked_at)


def _record(tower: RealTower, name: str) -> dict[str, int] | None:
    for path in (tower.data / "cluster" / "workloads").glob(f"{name}-spinner-*/status.json"):
        with contextlib.suppress(FileNotFoundError):
            return dict(json.loads(path.read_bytes()))
    return None


def goals_at_their_limit(tower: RealTower, team: Person) -> Iterator[Stopped]:
    """Every Goal, once it is stopped and its approval is open."""
    path = f"file:{tower.data}/clearance.sqlite3?mode=ro"
    with contextlib.closing(sqlite3.connect(path, uri=True, isolation_level=None)) as database:
        for first in range(0, GOALS, AT_ONCE):
            names = [f"limit-{number}" for number in range(first, first + AT_ONCE)]
            text = "---".join(GOAL.format(name=name, seconds=BUDGET_SECONDS) for name in names)
            applied = team.insist("POST", "apply", f"{AGENT}---{text}".encode())
            goals = [Stopped(row["name"], row["uid"]) for row in applied if row["kind"] == "Goal"]
            give_up_at = time.monotonic() + PATIENCE_SECONDS
            waiting = list(goals)
            while waiting := [one for one in waiting if not one.look(tower, database)]:
                if time.monotonic() > give_up_at:
                    raise TimeoutError(f"{waiting[0].name} did not reach its limit in time")
                time.sleep(POLL_SECONDS)
            yield from goals
            for goal in goals:
                team.insist("POST", f"goals/{UUID(goal.uid)}/cancel", {"reason": "measured"})


def run() -> list[dict[str, object]]:
    """p50 and p99 of both delays, through the whole product on its embedded defaults."""
    with tempfile.TemporaryDirectory(prefix="bench-throttle-") as directory:
        tower = RealTower(Path(directory))
        try:
            tower.start().ready()
            found = list(goals_at_their_limit(tower, team_member(tower)))
        finally:
            tower.close()
    stopped = [(one.stopped_at - one.limit_at) / 1e6 for one in found]
    asked = [(one.asked_at - one.limit_at) / 1e6 for one in found]
    return [
        *_rows("limit reached -> process stopped", stopped, limit_ms=AIM_MS, what="aim"),
        *_rows("limit reached -> approval open", asked, limit_ms=RESYNC_MS, what="resync period"),
    ]


def _rows(name: str, delays: list[float], *, limit_ms: float, what: str) -> list[dict[str, object]]:
    cuts = statistics.quantiles(delays, n=100, method="inclusive")
    return [
        {
            "name": f"{name}, p{percent}",
            "value": round(cuts[percent - 1], 1),
            "unit": "ms",
            "peer": f"{what} {limit_ms:g} ms",
            "ratio": round(cuts[percent - 1] / limit_ms, 4),
        }
        for percent in (50, 99)
    ]


if __name__ == "__main__":
    for line in run():
        print(line)

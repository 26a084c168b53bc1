"""How soon the tower is ready and how much memory it holds when nothing happens."""

import tempfile
import time
from pathlib import Path
from signal import SIGTERM

from tests.console.real_tower import RealTower, descendants, is_alive

READY_LIMIT_SECONDS = 15.0
RSS_LIMIT_MIB = 1024.0
IDLE_SECONDS = 10.0  # long enough for every process to have finished what it does at its start


def run() -> list[dict[str, object]]:
    """Seconds to ready of a first and a second start; memory idle, of each process and in all."""
    with tempfile.TemporaryDirectory(prefix="bench-tower-") as directory:
        tower = RealTower(Path(directory))
        try:
            first = _seconds_to_ready(tower, times=1)
            time.sleep(IDLE_SECONDS)
            memory = _memory_mib(tower)
            tower.signal(SIGTERM)
            second = _seconds_to_ready(tower, times=2)
        finally:
            tower.close()
    rss = sum(held[0] for held in memory.values())
    pss = sum(held[1] for held in memory.values())
    rows = [
        _row("first start -> ready", first, "s", READY_LIMIT_SECONDS),
        _row("second start -> ready", second, "s", READY_LIMIT_SECONDS),
        _row("idle RSS, all processes", rss, "MiB", RSS_LIMIT_MIB),
        _row("idle PSS, all processes", pss, "MiB", RSS_LIMIT_MIB),
    ]
    rows += [
        {"name": f"idle RSS, {name}", "value": round(held[0], 1), "unit": "MiB"}
        for name, held in memory.items()
    ]
    return rows


def _row(name: str, value: float, unit: str, limit: float) -> dict[str, object]:
    ratio = round(value / limit, 3)
    return {"name": name, "value": round(value, 2), "unit": unit,
            "peer": f"limit {limit:g} {unit}", "ratio": ratio}  # fmt: skip


def _seconds_to_ready(tower: RealTower, *, times: int) -> float:
    began = time.monotonic()
    tower.start().ready(times=times)
    return time.monotonic() - began


def _memory_mib(tower: RealTower) -> dict[str, tuple[float, float]]:
    """(RSS, PSS) of the tower itself and of each process with all it has started."""
    roots = {name: process["pid"] for name, process in tower.state()["processes"].items()}
    roots["watchman"] = tower.state()["watchman"]
    groups = {name: descendants(pid) for name, pid in roots.items()}
    counted = {pid for pids in groups.values() for pid in pids}
    groups["tower"] = [pid for pid in descendants(tower.pid) if pid not in counted]
    held = {}
    for name, pids in groups.items():
        rollups = [_rollup(pid) for pid in pids if is_alive(pid)]
        held[name] = (sum(one[0] for one in rollups), sum(one[1] for one in rollups))
    return held


def _rollup(pid: int) -> tuple[float, float]:
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()[1:]
    kib = {line.split(":")[0]: float(line.split()[1]) for line in lines}
    return kib["Rss"] / 1024, kib["Pss"] / 1024

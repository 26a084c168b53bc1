"""How long an operator takes to find 10,000 Goals and their resources in agreement, and its memory.

The rows and the resources agree to the last byte when it starts, so that it has to look at all of
them and to write nothing. Then its watches are too old (410) and it lists everything again.
"""

import json
import os
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from bench.on_cluster import bench_plane, environment
from tests.cluster.fault_proxy import Route, fault_proxy

ROOT = Path(__file__).resolve().parents[1]
GOALS = int(os.environ.get("GOALS", "10000"))
NAMESPACES = 20
PAGE = 500  # of a list, as the operator asks
AIM_SECONDS = 30.0
PATIENCE_SECONDS = 600.0
LOOK_SECONDS = 0.02


def memory(pid: int) -> float:
    """The most that a process held so far, in MB."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) / 1024


def relist_seconds(route: Route) -> float:
    """From 410 to the watch that follows a list of everything."""
    began = time.monotonic()
    route.expire_watches()
    deadline = began + PATIENCE_SECONDS
    while time.monotonic() < deadline:
        calls = [call for call in list(route.calls) if call.at >= began and "/goals" in call.path]
        pages = [call for call in calls if not call.is_watch and call.status == 200]
        if len(pages) >= GOALS / PAGE:
            return max(call.answered_at for call in pages) - began
        time.sleep(LOOK_SECONDS)
    raise RuntimeError("the operator never listed again")


def measure(directory: Path, route: Route, variables: Mapping[str, str]) -> dict[str, float]:
    """One operator, from its start on."""
    kubeconfig = str(route.kubeconfig(directory))
    command = [sys.executable, "-m", "bench.resync_goals", "operate", kubeconfig, str(GOALS)]
    with subprocess.Popen(
        command, cwd=ROOT, env=variables, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        try:
            answer: dict[str, float] = json.loads(process.stdout.readline())
            writes = [c.path for c in route.calls if c.is_write and "/leases" not in c.path]
            if writes:
                raise RuntimeError(f"the operator wrote {len(writes)} times: {writes[:3]}")
            answer["relisted"] = relist_seconds(route)
            answer["memory"] = memory(process.pid)
        finally:
            process.kill()
    return answer


def run() -> Sequence[dict[str, Any]]:
    """Each figure with what it is compared to; `ratio` is value / limit."""
    with bench_plane() as (plane, directory), fault_proxy(plane) as proxy:
        for number in range(NAMESPACES):
            plane.add_namespace(f"bench-{number}")
        variables = environment(directory)
        began = time.monotonic()
        make = [sys.executable, "-m", "bench.resync_goals", "make", str(plane.kubeconfig)]
        subprocess.run([*make, str(GOALS)], cwd=ROOT, env=variables, check=True)
        print(f"{GOALS} Goals made in {time.monotonic() - began:.0f} s", file=sys.stderr)
        return rows(measure(directory, proxy.route("resync"), variables))


def rows(found: Mapping[str, float]) -> Sequence[dict[str, Any]]:
    """The figures, beside the aim."""
    names = {
        "listed": "all resources listed",
        "looked": "start -> every Goal looked at",
        "relisted": "410 -> everything listed again",
    }
    told: list[dict[str, Any]] = [
        {
            "name": f"{what}, {GOALS:,} Goals",
            "value": round(found[key], 2),
            "unit": "s",
            "peer": f"{AIM_SECONDS:g} s (the aim)",
            "ratio": round(found[key] / AIM_SECONDS, 3),
        }
        for key, what in names.items()
    ]
    memory_row = {"name": f"operator, most memory, {GOALS:,} Goals", "unit": "MB"}
    return [*told, {**memory_row, "value": round(found["memory"], 1)}]


if __name__ == "__main__":
    for line in run():
        print(f"{line['name']}: {line['value']} {line['unit']}")

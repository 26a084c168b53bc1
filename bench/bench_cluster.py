"""How soon a workload stops at its limit, and what running it under a shim adds to its start."""

import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from agents.cluster.base import WorkloadSpec
from agents.cluster.local import LocalCluster
from agents.cluster.shim.processes import read_process
from agents.cluster.shim.records import WorkloadDirectory

WORKLOADS = 60
AT_ONCE = 4  # twice the cores of a small machine, all of them spinning
# Long enough for all of them to be started, and watched, before the first one stops.
ALLOWANCE_MS = 1000
AIM_MS = 1000.0  # limit reached -> process stopped, p99
STARTS = 20
POLL_SECONDS = 0.0005
PATIENCE_SECONDS = 30.0
SPIN = "while True: pass"
# Monotonic time is one clock for every process of the machine (clock_gettime(2)).
TELL_TIME = "import time; print(time.monotonic_ns(), flush=True)"
Found = TypeVar("Found")


def _spec(name: str, code: str, *, gpus: int = 0, allowance_ms: int | None = None) -> WorkloadSpec:
    return WorkloadSpec(
        name=name,
        namespace="bench",
        goal_uid="bench",
        task="bench",
        attempt_uid=name,
        agent="bench",
        service_account="bench",
        image="bench",
        command=("python", "-I", "-S", "-c", code),
        gpus=gpus,
        gpu_allowance_ms=allowance_ms,
    )


def _eventually(question: Callable[[], Found]) -> Found:
    give_up_at = time.monotonic() + PATIENCE_SECONDS
    while not (answer := question()):
        if time.monotonic() > give_up_at:
            raise TimeoutError("the cluster did not get there in time")
        time.sleep(POLL_SECONDS)
    return answer


def stop_delays_ms(cluster: LocalCluster) -> list[float]:
    """Milliseconds from the allowance's instant to the stopped process (negative: before it)."""
    delays: list[float] = []
    for first in range(0, WORKLOADS, AT_ONCE):
        names = [f"spin-{number}" for number in range(first, first + AT_ONCE)]
        for name in names:
            cluster.create(_spec(name, SPIN, gpus=1, allowance_ms=ALLOWANCE_MS))
        pids = {name: _eventually(lambda name=name: cluster.get(name).pid) for name in names}
        stopped_at: dict[str, int] = {}

        def all_stopped(
            pids: dict[str, int] = pids, stopped_at: dict[str, int] = stopped_at
        ) -> bool:
            for name, pid in pids.items():
                if name not in stopped_at and read_process(pid).state == "T":
                    stopped_at[name] = time.monotonic_ns()
            return len(stopped_at) == len(pids)

        assert not any(read_process(pid).state == "T" for pid in pids.values())
        _eventually(all_stopped)
        for name in names:
            record = WorkloadDirectory(cluster.directory / "workloads" / name).record()
            limit_at = record.started_monotonic_ns + ALLOWANCE_MS * 1_000_000
            delays.append((stopped_at[name] - limit_at) / 1e6)
            status = _eventually(
                lambda name=name: one if (one := cluster.get(name)).phase == "Paused" else None
            )
            assert status.gpu_ms <= ALLOWANCE_MS
            cluster.delete(name)
    _eventually(lambda: all(status.is_finished for status in cluster.list()))
    return delays


def start_ms(cluster: LocalCluster) -> float:
    """Median milliseconds from `create` to the program's first instruction."""
    delays = []
    for number in range(STARTS):
        name = f"start-{number}"
        before = time.monotonic_ns()
        cluster.create(_spec(name, TELL_TIME))
        _eventually(lambda name=name: cluster.get(name).is_finished)
        delays.append((int(cluster.output(name)) - before) / 1e6)
    return statistics.median(delays)


def plain_start_ms() -> float:
    """The same program under subprocess alone."""
    delays = []
    for _ in range(STARTS):
        before = time.monotonic_ns()
        command = [sys.executable, "-I", "-S", "-c", TELL_TIME]
        answer = subprocess.run(command, check=True, capture_output=True, env={})
        delays.append((int(answer.stdout) - before) / 1e6)
    return statistics.median(delays)


def run() -> list[dict[str, object]]:
    """Each figure with what it is compared to; `ratio` is value / peer."""
    with tempfile.TemporaryDirectory(prefix="bench-cluster-") as directory:
        cluster = LocalCluster(Path(directory), declared_gpus=AT_ONCE)
        cuts = statistics.quantiles(stop_delays_ms(cluster), n=100, method="inclusive")
        under_shim, plain = start_ms(cluster), plain_start_ms()
    figures = [
        ("limit reached -> process stopped, p50", cuts[49], AIM_MS, "the aim"),
        ("limit reached -> process stopped, p99", cuts[98], AIM_MS, "the aim"),
        ("workload start, p50", under_shim, plain, "subprocess alone"),
    ]
    return [
        {
            "name": name,
            "value": round(value, 2),
            "unit": "ms",
            "peer": f"{peer:.2f} ms ({what})",
            "ratio": round(value / peer, 4),
        }
        for name, value, peer, what in figures
    ]


if __name__ == "__main__":
    for line in run():
        print(f"{line['name']}: {line['value']} {line['unit']}; {line['ratio']} x {line['peer']}")

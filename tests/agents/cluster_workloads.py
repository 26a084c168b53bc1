"""Specifications and waiting, shared by the tests of the local cluster."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from agents.cluster.base import WorkloadSpec, WorkloadStatus
from agents.cluster.local import LocalCluster
from agents.cluster.shim.processes import read_process

PATIENCE_SECONDS = 30.0
FOREVER = "import time\nwhile True: time.sleep(0.01)"
Found = TypeVar("Found")


def python_spec(name: str, code: str, **changes: Any) -> WorkloadSpec:
    """A workload that runs `code` in a bare interpreter."""
    fields: dict[str, Any] = {
        "name": name,
        "namespace": "shop",
        "goal_uid": "g",
        "task": "tune",
        "attempt_uid": f"attempt-{name}",
        "agent": "optimizer",
        "service_account": "optimizer",
        "image": "sha256:0",
        "command": ("python", "-S", "-c", code),
    }
    return WorkloadSpec(**{**fields, **changes})


def eventually(question: Callable[[], Found], *, seconds: float = PATIENCE_SECONDS) -> Found:
    """The first true answer; fails when there is none in time."""
    give_up_at = time.monotonic() + seconds
    while True:
        answer = question()
        if answer:
            return answer
        assert time.monotonic() < give_up_at, f"still {answer!r} after {seconds} s"
        time.sleep(0.005)


def finished(cluster: LocalCluster, name: str) -> WorkloadStatus:
    """The last status of a workload."""
    eventually(lambda: cluster.get(name).is_finished)
    return cluster.get(name)


def running(cluster: LocalCluster, name: str) -> WorkloadStatus:
    """The status once it runs."""
    eventually(lambda: cluster.get(name).phase == "Running")
    return cluster.get(name)


def lines(cluster: LocalCluster, name: str) -> list[str]:
    return cluster.output(name, limit=1 << 24).decode().splitlines()


def is_alive(pid: int) -> bool:
    """Whether a process runs or sleeps (a zombie does not)."""
    process = read_process(pid)
    return process is not None and process.state not in "ZX"


def end_all(directory: Path) -> None:
    """Leave no process behind, and check that none is left."""
    cluster = LocalCluster(directory)
    for status in cluster.list():
        cluster.delete(status.name, grace_seconds=0)
    eventually(lambda: all(status.is_finished for status in cluster.list()))
    for status in cluster.list():
        assert status.pid is None or not is_alive(status.pid)

"""What may be killed: every kind of process of a running tower, and the pids that are of it now."""

import contextlib
import json
import os
import signal
from collections.abc import Sequence
from pathlib import Path

from tests.console.real_tower import RealTower, descendants, is_alive, parent_of

SUPERVISED = ("valkey", "store", "web", "otlp", "worker", "beat", "node", "checkout")
TOWER = "tower"
WORKLOAD = ("shim", "guard", "agent")
SANDBOX = "sandbox"
KINDS = (*SUPERVISED, TOWER, *WORKLOAD, SANDBOX)
SANDBOX_PROGRAM = b"governance.policy.sandbox"


def pids_of(tower: RealTower, kind: str) -> Sequence[int]:
    """Processes of one kind that live now; none while it is between two lives."""
    if kind == TOWER:
        found = [tower.pid]
    elif kind in SUPERVISED:
        found = [tower.of(kind).get("pid")]
    elif kind == SANDBOX:
        found = [pid for pid in descendants(tower.pid) if SANDBOX_PROGRAM in _arguments(pid)]
    else:
        found = _of_workloads(tower, kind)
    return [pid for pid in found if pid and is_alive(pid)]


def workload_pids(tower: RealTower) -> list[int]:
    """Every shim, guard and agent that lives, of whatever workload."""
    return [pid for kind in WORKLOAD for pid in pids_of(tower, kind)]


def kill(pid: int) -> None:
    """SIGKILL; one that went by itself a moment ago is as dead."""
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)


def _of_workloads(tower: RealTower, kind: str) -> list[int]:
    found = []
    for path in (tower.data / "cluster" / "workloads").glob("*/status.json"):
        with contextlib.suppress(OSError, json.JSONDecodeError):
            status = json.loads(path.read_bytes())
            if status["phase"] in ("Succeeded", "Failed"):
                continue
            pid = status["pid"] if kind == "agent" else status["shim_pid"]
            found.append(parent_of(pid) if kind == "guard" and pid else pid)
    return [pid for pid in found if pid and pid > 1]


def _arguments(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""

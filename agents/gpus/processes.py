"""Whose the processes on a card are: the kernel says what started them."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from agents.gpus.domain import ComputeProcess, Owner

ANCESTORS_MAX = 64  # of a process; deeper trees do not exist outside of attacks
PROC = Path("/proc")
CGROUP_MAX = 16 << 10
POD_IN_CGROUP = re.compile(r"pod([0-9a-f]{8}(?:[-_][0-9a-f]{4}){3}[-_][0-9a-f]{12})")


@dataclass(frozen=True, slots=True)
class _Stat:
    program: str
    parent: int
    group: int
    session: int


def named(
    process: ComputeProcess, workloads: Mapping[int, str], *, proc: Path = PROC
) -> ComputeProcess:
    """The process with its owner. `workloads` maps the process ids of ours to their names.

    Ours is who descends from a workload, or is in its process group or session: a child whose
    parent has ended is adopted by init, but keeps those. What the kernel does not show (a process
    of another pid namespace, or one that has just ended) is of an unknown owner, not a foreign one.
    """
    stat = _stat(process.pid, proc)
    if stat is None:
        return process
    process = replace(process, pod_uid=_pod_uid(process.pid, proc))
    found, pid = stat, process.pid
    for _ in range(ANCESTORS_MAX):
        for one in (pid, found.group, found.session):
            if one in workloads:
                return replace(
                    process, owner=Owner.OURS, workload=workloads[one], program=stat.program
                )
        pid = found.parent
        parent = _stat(pid, proc) if pid > 1 else None
        if parent is None:
            break
        found = parent
    return replace(process, owner=Owner.FOREIGN, program=stat.program)


def _pod_uid(pid: int, proc: Path) -> str:
    """cgroups(7): kubelets put a pod's uid into the path, with `_` for `-` under systemd."""
    try:
        text = (proc / str(pid) / "cgroup").read_bytes()[:CGROUP_MAX].decode("ascii", "replace")
    except OSError:
        return ""
    found = POD_IN_CGROUP.search(text)
    return found[1].replace("_", "-") if found else ""


def _stat(pid: int, proc: Path) -> _Stat | None:
    """proc(5): `pid (comm) state ppid pgrp session …`; the name may hold anything."""
    try:
        text = (proc / str(pid) / "stat").read_bytes().decode("utf-8", errors="replace")
    except (OSError, ValueError):
        return None
    head, _, rest = text.rpartition(")")
    fields = rest.split()
    program = "".join(c if c.isprintable() else "?" for c in head.partition("(")[2])
    return _Stat(program, int(fields[1]), int(fields[2]), int(fields[3]))

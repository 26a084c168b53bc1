"""The shape of a supervised process and of its ready check: records that start nothing."""

import re
import signal
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

# Lines of a child's log that are also worth a line on the terminal: our own format
# ("date time LEVEL name …"), uvicorn's ("LEVEL: …") and Celery's ("[date time: LEVEL/…").
LOUD_LINE = re.compile(r"^(?:\S+ \S+ |\[\S+ \S+ )?(?:WARNING|ERROR|CRITICAL)\b")
GRACE_SECONDS = 10.0  # uvicorn is told to let requests finish for 5 s; twice that is plenty


@dataclass(frozen=True, slots=True)
class Started:
    """Ready as soon as the process runs."""


@dataclass(frozen=True, slots=True)
class HttpReady:
    """Ready when `GET path` answers 200."""

    host: str
    port: int
    path: str
    headers: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class PongReady:
    """Ready when the Redis protocol's PING on this unix socket is answered with PONG."""

    socket: Path


@dataclass(frozen=True, slots=True)
class FileReady:
    """Ready when the process has made this file; the tower removes it before every start."""

    path: Path


Ready = Started | HttpReady | PongReady | FileReady


@dataclass(frozen=True, slots=True, kw_only=True)
class ProcessSpec:
    """One supervised process. `where` is what the table shows as its address.

    `depends_on` names processes (or steps of the tower) that must have been ready once before the
    first start. A process that is not `is_essential` may fail without ending the tower's start. A
    one-shot is ready when it has exited 0 and is not started again. Above `memory_max_bytes` of
    resident memory the process is stopped and started afresh.
    """

    name: str
    argv: tuple[str, ...]
    environment: Mapping[str, str] = field(default_factory=dict)
    ready: Ready = Started()
    depends_on: tuple[str, ...] = ()
    stop_signal: signal.Signals = signal.SIGTERM
    grace_seconds: float = GRACE_SECONDS
    is_essential: bool = True
    is_one_shot: bool = False
    memory_max_bytes: int | None = None
    where: str = ""
    loud_line: re.Pattern[str] = LOUD_LINE


def start_order(
    specs: Iterable[ProcessSpec], *, steps: Iterable[str] = ()
) -> list[tuple[ProcessSpec, ...]]:
    """The processes in waves: each wave depends only on waves before it (and on `steps`).

    Raises ValueError for a name used twice, an unknown dependency or a cycle.
    """
    by_name: dict[str, ProcessSpec] = {}
    known_steps = set(steps)
    for spec in specs:
        if spec.name in by_name or spec.name in known_steps:
            raise ValueError(f"Two processes are called {spec.name!r}.")
        by_name[spec.name] = spec
    graph: dict[str, list[str]] = {}
    for spec in by_name.values():
        if unknown := set(spec.depends_on) - by_name.keys() - known_steps:
            raise ValueError(f"{spec.name} depends on {sorted(unknown)}, which do not exist.")
        graph[spec.name] = [name for name in spec.depends_on if name in by_name]
    sorter = TopologicalSorter(graph)
    try:
        sorter.prepare()
    except CycleError as error:
        raise ValueError(f"Processes wait for each other: {' -> '.join(error.args[1])}.") from error
    waves: list[tuple[ProcessSpec, ...]] = []
    while sorter.is_active():
        names = sorter.get_ready()
        waves.append(tuple(by_name[name] for name in names))
        sorter.done(*names)
    return waves

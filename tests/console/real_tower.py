"""The real tower on ports and a data directory of its own, for tests and benchmarks."""

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

ROOT = Path(__file__).resolve().parents[2]
PORTS = ("WEB_PORT", "OTLP_PORT", "STORE_PORT", "CHECKOUT_PORT")
PATIENCE_SECONDS = 60.0
Found = TypeVar("Found")


def eventually(what: Callable[[], Found], *, seconds: float = PATIENCE_SECONDS) -> Found:
    """The first true answer of `what`, asked again until the deadline."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if answer := what():
            return answer
        time.sleep(0.05)
    raise AssertionError(f"not within {seconds} s")


def free_ports(count: int) -> list[int]:
    """TCP ports that were free a moment ago, all different."""
    with contextlib.ExitStack() as stack:
        probes = [stack.enter_context(socket.socket()) for _ in range(count)]
        for probe in probes:
            probe.bind(("127.0.0.1", 0))
        return [probe.getsockname()[1] for probe in probes]


def is_alive(pid: int) -> bool:
    """Whether a process runs; a zombie does not."""
    return _stat(pid) is not None


def parent_of(pid: int) -> int | None:
    """The parent of a process that runs, None for one that does not."""
    return _stat(pid)


def descendants(pid: int) -> list[int]:
    """The process itself and everything it or its children started, as the kernel sees it now."""
    parents = {}
    for path in Path("/proc").iterdir():
        if path.name.isdigit() and (stat := _stat(int(path.name))) is not None:
            parents[int(path.name)] = stat
    found = [pid]
    for one in found:  # grows while it is walked: breadth first
        found += [child for child, parent in parents.items() if parent == one]
    return found


def _stat(pid: int) -> int | None:
    """The parent of a process that runs, None for one that does not."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return None
    return None if fields[0] in "ZX" else int(fields[1])


class RealTower:
    """`manage.py tower` with nothing else than its embedded defaults."""

    def __init__(self, directory: Path, **variables: str) -> None:
        self.data = directory / "d"
        self.output = directory / "output"
        self.ports = dict(zip(PORTS, free_ports(len(PORTS)), strict=True))
        self.environment = {
            "PATH": os.environ["PATH"],
            "HOME": str(directory),
            "CLEARANCE_DATA": str(self.data),
            "EXAMPLE": "0",
            **{name: str(port) for name, port in self.ports.items()},
            **variables,
        }
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> "RealTower":
        with self.output.open("ab") as output:
            self.process = subprocess.Popen(
                [sys.executable, "manage.py", "tower"],
                cwd=ROOT, env=self.environment, stdout=output, stderr=subprocess.STDOUT,
            )  # fmt: skip
        return self

    @property
    def pid(self) -> int:
        assert self.process is not None
        return self.process.pid

    def said(self) -> str:
        return self.output.read_text(errors="replace")

    def ready(self, *, times: int = 1) -> "RealTower":
        """Wait until it has said `times` times (over its starts) that it is ready."""
        assert self.process is not None

        def is_ready() -> bool:
            assert self.process is not None
            assert self.process.poll() is None, self.said()
            return self.said().count("Clearance is ready at ") >= times

        try:
            eventually(is_ready)
        except AssertionError as error:
            raise AssertionError(f"{error}\n{self.said()}") from None
        return self

    def state(self) -> dict[str, Any]:
        try:
            return json.loads((self.data / "run" / "tower.json").read_text())
        except FileNotFoundError:
            return {}

    def of(self, name: str) -> dict[str, Any]:
        return self.state().get("processes", {}).get(name, {})

    def signal(self, number: signal.Signals) -> int:
        """Send a signal and return the exit status."""
        assert self.process is not None
        self.process.send_signal(number)
        return self.process.wait(PATIENCE_SECONDS)

    def close(self) -> None:
        """Make sure that it is gone."""
        if self.process is not None and self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(PATIENCE_SECONDS)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()

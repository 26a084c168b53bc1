"""Fixtures for the worked examples: the heavy model once, a stand-in console, a real service."""

import os
import re
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from queue import Queue

import pytest

from examples.checkout.checkout_risk.model import RiskModel
from examples.checkout.checkout_risk.orders import load_split
from examples.checkout.checkout_risk.training import distil, fit_heavy
from tests.examples.console_stand_in import ConsoleStandIn

CHECKOUT = Path(__file__).resolve().parents[2] / "examples" / "checkout"
# The interpreter's own path, and nothing else of the surroundings.
PASSED_ON = {name: os.environ[name] for name in ("PATH", "PYTHONPATH") if name in os.environ}


class Program:
    """A real child process of ours, with its lines as they come."""

    def __init__(self, name: str, *, cwd: Path, environment: dict[str, str]) -> None:
        self.lines: list[str] = []
        self._arrived: Queue[str | None] = Queue()
        self.process = subprocess.Popen(
            [sys.executable, str(CHECKOUT / name)],
            cwd=cwd,
            env={"HOME": str(cwd), **PASSED_ON, **environment},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self._arrived.put(line.rstrip())
        self._arrived.put(None)

    def wait_for(self, pattern: str, *, seconds: float = 20.0) -> str:
        """The next line that matches; fails with everything said so far."""
        while True:
            line = self._arrived.get(timeout=seconds)
            if line is None:
                pytest.fail(f"ended before saying {pattern!r}: {self.lines}")
            self.lines.append(line)
            if re.search(pattern, line):
                return line

    def finish(self, *, seconds: float = 60.0) -> int:
        """Exit status, with all lines read."""
        status = self.process.wait(timeout=seconds)
        while (line := self._arrived.get(timeout=5)) is not None:
            self.lines.append(line)
        return status

    def end(self) -> None:
        """Leave nothing behind."""
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait(timeout=10)
        self._reader.join(timeout=5)
        assert self.process.stdout is not None
        self.process.stdout.close()


Start = Callable[..., Program]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Start an example's program in a directory of its own; killed after the test."""
    started: list[Program] = []

    def begin(name: str, **environment: str) -> Program:
        place = tmp_path / f"{len(started)}-{name.removesuffix('.py')}"
        place.mkdir()
        program = Program(name, cwd=place, environment=environment)
        started.append(program)
        return program

    yield begin
    for program in reversed(started):
        program.end()


@pytest.fixture
def console() -> Iterator[ConsoleStandIn]:
    """A console speaking the contract on an ephemeral port of loopback."""
    stand_in = ConsoleStandIn()
    stand_in.open()
    yield stand_in
    stand_in.close()


@pytest.fixture(scope="session")
def heavy() -> RiskModel:
    """The model the shop starts with; fitted once for all tests."""
    return fit_heavy(load_split().train, copies=None)


@pytest.fixture(scope="session")
def small(heavy: RiskModel) -> RiskModel:
    """What the optimizer makes of it."""
    return distil(heavy, load_split().train, width=48)


@pytest.fixture(scope="session")
def heavy_file(heavy: RiskModel, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Weights of the heavy model."""
    return heavy.save(tmp_path_factory.mktemp("weights") / "heavy.npz")


@pytest.fixture(scope="session")
def small_file(small: RiskModel, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Weights of the distilled model."""
    return small.save(tmp_path_factory.mktemp("weights") / "small.npz")

"""The command line against a live server in the test's process: in-process and as a program."""

import contextlib
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from queue import Empty, Queue
from typing import Any

import httpx
import pytest
from click.testing import CliRunner, Result

from console.cli.main import cli
from tests.towers import AGENT, GOAL, Tower

__all__ = ["Cli", "Program", "cli_of", "doorbell"]

ROOT = Path(__file__).resolve().parents[2]
DEADLINE_SECONDS = 20.0
MEASURED = "1" * 16  # the span of the measurement of `paused_goal`


class Program:
    """A real `clearance` process; its lines are read as they come."""

    def __init__(self, arguments: list[str], environment: dict[str, str]) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "console.cli.main", *arguments],
            cwd=ROOT,
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self._lines: Queue[str] = Queue()
        self._readers = [
            threading.Thread(target=self._read, args=(stream,), daemon=True)
            for stream in (self.process.stdout, self.process.stderr)
        ]
        for reader in self._readers:
            reader.start()

    def _read(self, stream: Any) -> None:
        for line in stream:
            self._lines.put(line.rstrip("\n"))

    def until(self, wanted: str) -> list[str]:
        """The lines up to the first that holds `wanted`."""
        seen: list[str] = []
        deadline = time.monotonic() + DEADLINE_SECONDS
        while time.monotonic() < deadline:
            try:
                seen.append(self._lines.get(timeout=0.2))
            except Empty:
                if self.process.poll() is not None and self._lines.empty():
                    break
                continue
            if wanted in seen[-1]:
                return seen
        raise AssertionError(f"{wanted!r} was not printed; only {seen}")

    def rest(self) -> list[str]:
        found = []
        while not self._lines.empty():
            found.append(self._lines.get())
        return found

    def say(self, text: str) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(text)
        self.process.stdin.flush()

    def end(self) -> int:
        return self.process.wait(DEADLINE_SECONDS)

    def close(self) -> None:
        """End the process, whatever became of the test, and let its readers finish."""
        self.process.kill()
        self.process.wait(DEADLINE_SECONDS)
        for reader in self._readers:
            reader.join(DEADLINE_SECONDS)
        for stream in (self.process.stdin, self.process.stdout, self.process.stderr):
            with contextlib.suppress(BrokenPipeError):
                stream.close()  # type: ignore[union-attr]


class Cli:
    """`clearance` as one person; without a token when `token` is empty."""

    def __init__(self, server: str, token: str, *, home: Path, programs: list[Program]) -> None:
        self.server, self.token = server, token
        self.home, self.programs = home, programs

    @property
    def environment(self) -> dict[str, str]:
        return {
            "CLEARANCE_URL": self.server,
            "CLEARANCE_TOKEN": self.token,
            "CLEARANCE_CONFIG": str(self.home / "clearance" / "config.json"),
        }

    def run(self, *arguments: str, stdin: str = "", **environment: str) -> Result:
        return CliRunner().invoke(
            cli, arguments, input=stdin, env={**self.environment, **environment}
        )

    def good(self, *arguments: str, stdin: str = "", **environment: str) -> str:
        """Stdout of a run that succeeds."""
        result = self.run(*arguments, stdin=stdin, **environment)
        assert result.exit_code == 0, (result.stdout, result.stderr)
        return result.stdout

    def push(self, name: str, content: bytes = b"weights", kind: str = "model") -> str:
        """Push an artifact as this person; its digest."""
        answer = httpx.post(
            f"{self.server}/api/v1/artifacts",
            params={"kind": kind, "name": name},
            content=content,
            headers={"Authorization": f"Bearer {self.token}"},
        )
        assert answer.status_code == 201, answer.text
        digest: str = answer.json()["digest"]
        return digest

    def newest_digest(self) -> str:
        return self.good("get", "artifacts", "-o", "name", "--limit", "1").strip()[
            len("artifact/") :
        ]

    @property
    def program_environment(self) -> dict[str, str]:
        kept = {k: v for k, v in os.environ.items() if not k.startswith("CLEARANCE_")}
        return {**kept, **self.environment, "PYTHONUNBUFFERED": "1"}

    def spawn(self, *arguments: str) -> Program:
        """A process of its own; the fixture ends it."""
        program = Program(list(arguments), self.program_environment)
        self.programs.append(program)
        return program


def paused_goal(tower: Tower, *, models: str = "") -> Any:
    """The Goal `fast`: measured once, then paused at its budget with a question open."""
    tower.register("profiler", produces="profile")
    tower.register("optimizer", gpus=1, consumes="profile", models=models)
    goal = tower.apply(
        "fast", agents="profiler, optimizer", budget="10 GPU-seconds, 5k tokens"
    ).goal
    tower.reconcile(goal)
    (profiler,) = tower.attempts(goal)
    tower.observe(goal, profiler, 300.0, span_id=MEASURED)
    tower.twins.cluster.finish(profiler.workload)
    tower.reconcile(goal)
    for _ in range(4):
        tower.twins.cluster.advance(3000)
        tower.reconcile(goal)
    assert goal.phase == "Paused"
    return goal


def release(cli: Cli, digest: str = "", *, environment: str = "canary") -> str:
    """Release the newest artifact, or that one; the release's id."""
    digest = digest or cli.newest_digest()
    where = ("--service", "checkout", "--environment", environment)
    made = cli.good("release", *where, "--digest", digest, "--reason", "r", "-o", "json")
    uid: str = json.loads(made)["id"]
    return uid


def agent_text(name: str, *, gpus: int = 0, role: str = "worker", consumes: str = "") -> str:
    return AGENT.format(name=name, role=role, gpus=gpus, consumes=consumes, produces="")


def goal_text(name: str, *, agents: str = "profiler", budget: str = "10 GPU-seconds") -> str:
    return GOAL.format(name=name, agents=agents, budget=budget, more="")


@pytest.fixture
def doorbell() -> Iterator[None]:
    """A broker in memory: commits ring it as they would ring Valkey, and nobody comes."""
    from console.celery import app

    known = app.conf.broker_url
    app.conf.broker_url = "memory://"
    yield
    app.conf.broker_url = known


@pytest.fixture
def cli_of(
    live_server: Any, doorbell: None, tower: Tower, tmp_path: Path
) -> Iterator[Callable[..., Cli]]:
    """The command line of a person of `people`; "" is nobody."""
    from governance.access import principal_of
    from governance.services.tokens import create_token

    programs: list[Program] = []

    def make(name: str = "operator") -> Cli:
        text = ""
        if name:
            user = tower.people[name]
            _, text = create_token(user, principal=principal_of(user), name="test")
        return Cli(live_server.url, text, home=tmp_path / "home", programs=programs)

    yield make
    for program in programs:
        program.close()

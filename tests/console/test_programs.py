"""Each program started by its own command, as a container starts it, on PostgreSQL and Redis."""

import os
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.console.real_tower import ROOT, eventually, free_ports
from tests.telemetry_store import start_store
from tests.with_servers import MissingServer, servers

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]
INIT = ("init", "--admin-password-file")


class Programs:
    """A place for programs: their variables, what they say, and their end."""

    def __init__(self, directory: Path, variables: dict[str, str]) -> None:
        self.directory = directory
        self.web_port, self.otlp_port = free_ports(2)
        self.environment = {
            "PATH": os.environ["PATH"],
            "HOME": str(directory),
            "CLEARANCE_DATA": str(directory),
            "SECRET_KEY": "k" * 50,
            "WEB_PORT": str(self.web_port),
            "OTLP_PORT": str(self.otlp_port),
            **variables,
        }
        self.running: list[subprocess.Popen[bytes]] = []

    def run(self, *arguments: str) -> "subprocess.CompletedProcess[str]":
        return subprocess.run(
            [sys.executable, "manage.py", *arguments],
            cwd=ROOT, env=self.environment, capture_output=True, text=True, timeout=120,
        )  # fmt: skip

    def start(self, name: str, *, ready_file: Path | None = None) -> "subprocess.Popen[bytes]":
        more = {"CLEARANCE_READY_FILE": str(ready_file)} if ready_file else {}
        with (self.directory / f"{name}.log").open("ab") as log:
            process = subprocess.Popen(
                [sys.executable, "manage.py", name],
                cwd=ROOT, env={**self.environment, **more}, stdout=log, stderr=subprocess.STDOUT,
            )  # fmt: skip
        self.running.append(process)
        return process

    def said(self, name: str) -> str:
        return (self.directory / f"{name}.log").read_text(errors="replace")

    def close(self) -> None:
        for process in self.running:
            if process.poll() is None:
                process.kill()
            process.wait(timeout=20)


@pytest.fixture(scope="module")
def programs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Programs]:
    directory = tmp_path_factory.mktemp("programs")
    try:
        with servers() as variables:
            store = start_store(directory)
            found = Programs(directory, {**variables, "STORE_PORT": str(store.port)})
            try:
                yield found
            finally:
                found.close()
                store.stop()
    except MissingServer as missing:
        pytest.skip(str(missing))


@pytest.fixture(scope="module")
def prepared(programs: Programs) -> Programs:
    """After `init`, which is run twice at once: a Job may be."""
    waited = programs.run("init", "--wait", "--patience", "0")
    assert waited.returncode == 1
    assert "migrations are not applied yet" in waited.stderr
    password = programs.directory / "password"
    password.write_text("a password of the test\n")
    both = [
        subprocess.Popen(
            [sys.executable, "manage.py", *INIT, str(password)],
            cwd=ROOT, env=programs.environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )
        for _ in range(2)
    ]  # fmt: skip
    said = [one.communicate(timeout=200)[0].decode() for one in both]
    assert [one.returncode for one in both] == [0, 0], said
    assert "created the administrator admin" in "".join(said)
    assert "a password of the test" not in "".join(said)
    return programs


def is_healthy(port: int) -> bool:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/healthz", timeout=2) as answer:
            return bool(answer.status == 200)
    except OSError:
        return False


def test_init_repeated_changes_nothing_and_ends_the_wait(prepared: Programs) -> None:
    again = prepared.run(*INIT, str(prepared.directory / "password"))
    assert again.returncode == 0, again.stderr
    assert "created" not in again.stdout
    assert "enforce" in again.stdout
    assert prepared.run("init", "--wait", "--patience", "0").returncode == 0


def test_init_says_what_it_cannot_use(programs: Programs) -> None:
    short = programs.directory / "short"
    short.write_text("short\n")
    for path, said in ((short, "at least 12 characters"), (Path("/absent"), "No such file")):
        refused = programs.run(*INIT, str(path))
        assert refused.returncode == 1
        assert said in refused.stderr
        assert "Traceback" not in refused.stderr


@pytest.mark.parametrize("name", ["web", "otlp"])
def test_a_server_answers_and_ends_when_told(prepared: Programs, name: str) -> None:
    port = prepared.web_port if name == "web" else prepared.otlp_port
    process = prepared.start(name)
    eventually(lambda: is_healthy(port))
    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=15) in (0, -signal.SIGTERM), prepared.said(name)


@pytest.mark.parametrize("name", ["worker", "beat"])
def test_its_file_says_that_it_is_at_work(prepared: Programs, tmp_path: Path, name: str) -> None:
    ready = tmp_path / "ready"
    ready.write_text("left by a process before")
    process = prepared.start(name, ready_file=ready)
    eventually(lambda: ready.exists() and ready.stat().st_size == 0)
    first = ready.stat().st_mtime_ns
    eventually(lambda: ready.stat().st_mtime_ns > first)
    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=30) == 0, prepared.said(name)

"""Starts the real store process for tests; import its fixture into the module that needs it."""

import os
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

START_SECONDS = 60
ROOT = Path(__file__).resolve().parent.parent


@dataclass
class StoreProcess:
    """A running store: where it listens and how to stop it."""

    process: subprocess.Popen[str]
    port: int
    path: Path
    token_file: Path

    @property
    def token(self) -> str:
        return self.token_file.read_text().strip()

    def kill(self) -> None:
        """SIGKILL, and wait until it is gone."""
        self.process.kill()
        self.process.wait(timeout=10)
        self._close()

    def stop(self) -> int:
        """SIGTERM; returns the exit status."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        status = self.process.wait(timeout=20)
        self._close()
        return status

    def _close(self) -> None:
        if self.process.stdout:
            self.process.stdout.close()

    def is_ready(self) -> bool:
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/ping", timeout=2) as answer:
            return answer.read() == b"Ok.\n"


def store_command(path: Path, token_file: Path, port: int = 0) -> list[str]:
    return [
        sys.executable, "-m", "lineage.telemetry.store", "--path", str(path),
        "--port", str(port), "--token-file", str(token_file),
    ]  # fmt: skip


def start_store(directory: Path) -> StoreProcess:
    """Start a store on an ephemeral port and wait until it answers."""
    path, token_file = directory / "store", directory / "keys" / "store.token"
    process = subprocess.Popen(
        store_command(path, token_file),
        stdout=subprocess.PIPE,
        text=True,
        cwd=ROOT,
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
    )
    assert process.stdout is not None
    line = process.stdout.readline()
    assert line.startswith("store: ready on "), f"the store said {line!r}"
    store = StoreProcess(process, int(line.rsplit(":", 1)[1]), path, token_file)
    assert store.is_ready()
    return store


@pytest.fixture(scope="session")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[StoreProcess]:
    """One store process for the whole session."""
    started = start_store(tmp_path_factory.mktemp("store"))
    yield started
    assert started.stop() == 0

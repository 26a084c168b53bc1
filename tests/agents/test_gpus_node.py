"""`manage.py node` as a real process: through the real binding into a real database."""

import json
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from tests.agents.nvml_library import CODES, card_uuid, compile_library, slice_uuid

ROOT = Path(__file__).parents[2]
PATIENCE_SECONDS = 60.0  # a loaded machine takes ten times as long to start an interpreter


class Node:
    """One node: its data directory, what its cards say, and the sampler's process."""

    def __init__(self, directory: Path, library: Path) -> None:
        self.directory = directory
        self.state = directory / "state"
        self.say("")
        self.environment = {
            "PATH": os.environ["PATH"],
            "HOME": str(directory),
            "CLEARANCE_DATA": str(directory / "d"),
            "CLUSTER_URL": "local:?gpus=3",
            "LD_LIBRARY_PATH": str(library),
            "STUB_STATE": str(self.state),
        }
        (directory / "d").mkdir()
        self.process: subprocess.Popen[bytes] | None = None

    @property
    def database(self) -> Path:
        return self.directory / "d" / "clearance.sqlite3"

    def say(self, text: str) -> None:
        """What the cards say from now on; whole or not at all."""
        draft = self.state.with_suffix(".draft")
        draft.write_text(text)
        draft.rename(self.state)

    def migrate(self) -> None:
        self.manage("migrate", "-v0").wait(PATIENCE_SECONDS)

    def start(self) -> None:
        self.process = self.manage("node", "--interval", "0.2", "--name", "n1")

    def end(self, number: signal.Signals) -> int:
        assert self.process is not None
        self.process.send_signal(number)
        return self.process.wait(PATIENCE_SECONDS)

    def manage(self, *arguments: str) -> "subprocess.Popen[bytes]":
        with (self.directory / "log").open("ab") as log:
            return subprocess.Popen(
                [sys.executable, "manage.py", *arguments],
                cwd=ROOT, env=self.environment, stdout=log, stderr=subprocess.STDOUT,
            )  # fmt: skip

    def said(self) -> str:
        return (self.directory / "log").read_text()

    def rows(self, query: str) -> list[Any]:
        """What the database holds; nothing while it has no tables."""
        try:
            with closing(sqlite3.connect(f"file:{self.database}?mode=ro", uri=True)) as database:
                return database.execute(query).fetchall()
        except sqlite3.OperationalError:
            return []

    def figure(self, column: str, device: str) -> Any:
        found = self.rows(f"SELECT {column} FROM agents_gpudevice WHERE device_id = '{device}'")
        return found[0][0] if found else None

    def trouble(self) -> str:
        found = self.rows("SELECT trouble FROM agents_gpunode WHERE name = 'n1'")
        return str(found[0][0]) if found else "none yet"

    def eventually(self, what: Callable[[], object]) -> None:
        deadline = time.monotonic() + PATIENCE_SECONDS
        while not what():
            assert time.monotonic() < deadline, self.said()[-2000:]
            time.sleep(0.05)


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return compile_library(tmp_path_factory.mktemp("nvml"))


@pytest.fixture(scope="module")
def database(tmp_path_factory: pytest.TempPathFactory, library: Path) -> Path:
    """A database with its tables, to be copied."""
    one = Node(tmp_path_factory.mktemp("template"), library)
    one.migrate()
    return one.database


@pytest.fixture
def node(tmp_path: Path, library: Path) -> Iterator[Node]:
    one = Node(tmp_path, library)
    yield one
    if one.process is not None and one.process.poll() is None:
        one.process.kill()
        one.process.wait()


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_a_node_is_sampled_whatever_happens_to_it(node: Node) -> None:
    node.start()
    node.eventually(lambda: "was not recorded: no such table" in node.said())  # no database yet
    node.migrate()
    node.eventually(lambda: node.figure("utilisation", card_uuid(0)) == 0.37)
    assert node.trouble() == ""

    node.say("uncorrected.0 3\nxid 0 79\nreasons.1 64\nmig.1 1\nslice.1.0 1\n")
    node.eventually(lambda: node.figure("ecc_uncorrected", card_uuid(0)) == 3)
    xids = json.loads(node.figure("xids", card_uuid(0)))
    assert [one["code"] for one in xids] == [79]
    assert (node.figure("is_hot", card_uuid(1)), node.figure("is_mig_on", card_uuid(1))) == (1, 1)
    assert node.figure("parent_id", slice_uuid(1, 0)) == card_uuid(1)
    records = "SELECT count(*) FROM governance_journalrecord WHERE action = 'gpu.xid'"
    assert node.rows(records) == [(1,)]

    assert node.end(signal.SIGKILL) == -signal.SIGKILL
    node.say(f"utilisation.0 81\nfail.handle.1 {CODES['gpu_is_lost']}\n")
    node.start()
    node.eventually(lambda: node.figure("utilisation", card_uuid(0)) == 0.81)
    # A process that never saw the card cannot name it; that it is missing is known all the same.
    node.eventually(lambda: node.figure("lost_at", card_uuid(1)))
    assert json.loads(node.figure("xids", card_uuid(0))) == xids

    node.say(f"fail.count {CODES['unknown']}\n")
    node.eventually(lambda: "NVML does not answer" in node.trouble())
    assert node.figure("utilisation", card_uuid(0)) == 0.81  # the last that was known
    node.say("")
    node.eventually(lambda: node.trouble() == "")
    node.eventually(lambda: node.figure("lost_at", card_uuid(1)) is None)
    assert node.end(signal.SIGTERM) == 0


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_a_replaced_driver_ends_the_process_for_a_new_one(node: Node, database: Path) -> None:
    shutil.copy(database, node.database)
    node.start()
    node.eventually(lambda: node.trouble() == "")
    node.say(f"fail.count {CODES['version_mismatch']}\n")
    assert node.process is not None
    assert node.process.wait(PATIENCE_SECONDS) == 1
    assert "NVML does not answer" in node.trouble()


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_without_a_driver_declared_slots_are_reported(node: Node, database: Path) -> None:
    shutil.copy(database, node.database)
    node.say(f"fail.init {CODES['driver_not_loaded']}\n")
    once = node.manage("node", "--once", "--name", "local")
    assert once.wait(PATIENCE_SECONDS) == 0
    assert node.rows("SELECT device_id, kind, utilisation FROM agents_gpudevice") == [
        (f"gpu-{index}", "slot", None) for index in range(3)
    ]

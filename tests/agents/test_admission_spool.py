"""The spool: what is answered is on the way to the database, whatever dies or fills up."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path

import pytest
from django.db import DataError, OperationalError

from agents.admission.draining import ODD_SUFFIX, Drain
from agents.admission.spool import (
    SPOOL_BYTES,
    SYNC_WAIT_SECONDS,
    Spool,
    SpoolFull,
    decisions_of,
    line_of,
)
from governance.models import Decision
from tests.with_servers import with_parent_death

ROOT = Path(__file__).resolve().parents[2]
PATIENCE_SECONDS = 30.0
# Says each line once it was kept, as the process answers; holds on to its segment until it dies.
WRITER = """
import itertools, os, pathlib, sys
import django
django.setup()
from agents.admission.spool import Spool, line_of
from tests.agents.test_admission_spool import decision
spool = Spool(pathlib.Path(sys.argv[1]))
spool.open()
for number in itertools.count():
    spool.keep(line_of([decision(number)]))
    os.write(1, b"%d\\n" % number)
"""


def decision(number: int = 0, **changes: object) -> Decision:
    """A decision that no two tests share."""
    fields = {
        "point": "workload", "namespace": "shop", "subject_kind": "pod",
        "subject_id": f"shop/agent-{number}", "input_digest": "sha256:" + "0" * 64,
        "input_canonical": '{"a":"\\\\u0000"}', "bundle_name": "starter", "bundle_digest": "d",
        "stage": "enforce", "outcome": "deny", "messages": [{"text": "a\x00b"}],
    }  # fmt: skip
    return Decision(**{**fields, **changes})


class Ledger:
    """A database that can be away, and that takes each decision once."""

    def __init__(self) -> None:
        self.kept: dict[object, Decision] = {}
        self.is_away = False
        self.refuses = ""

    def __call__(self, decisions: Sequence[Decision]) -> int:
        if self.is_away:
            raise OperationalError("away")
        if any(one.subject_id == self.refuses for one in decisions):
            raise DataError("too odd")
        self.kept |= {one.uid: one for one in decisions}
        return len(decisions)


def opened(directory: Path, *, spool_bytes: int = SPOOL_BYTES) -> Spool:
    spool = Spool(directory, spool_bytes=spool_bytes)
    spool.open()
    return spool


def test_a_line_gives_back_what_was_decided() -> None:
    made = decision()
    (found,) = decisions_of(line_of([made]))
    assert (found.uid, found.at, found.input_canonical, found.outcome) == (
        made.uid, made.at, made.input_canonical, "deny",
    )  # fmt: skip
    assert found.messages == [{"text": "a\ufffdb"}]  # PostgreSQL's JSON holds no NUL


def test_killed_at_any_moment_what_was_answered_is_recorded(tmp_path: Path) -> None:
    environment = {**os.environ, "DJANGO_SETTINGS_MODULE": "console.settings",
                   "CLEARANCE_DATA": str(tmp_path), "PYTHONPATH": str(ROOT)}  # fmt: skip
    process = subprocess.Popen(
        [sys.executable, "-c", WRITER, str(tmp_path / "spool")],
        env=environment, cwd=ROOT, stdout=subprocess.PIPE, preexec_fn=with_parent_death,
    )  # fmt: skip
    assert process.stdout is not None
    heard = [process.stdout.readline() for _ in range(50)]
    ledger, other = Ledger(), opened(tmp_path / "spool")
    Drain(other, record=ledger).step()
    assert not ledger.kept  # its writer lives
    process.send_signal(signal.SIGKILL)
    heard += process.stdout.readlines()
    process.wait(PATIENCE_SECONDS)
    process.stdout.close()
    Drain(other, record=ledger).step()
    recorded = {one.subject_id for one in ledger.kept.values()}
    assert {f"shop/agent-{int(line)}" for line in heard} <= recorded
    other.close()
    assert not [*(tmp_path / "spool").iterdir()]


def test_a_line_that_was_never_finished_was_never_answered(tmp_path: Path) -> None:
    spool = opened(tmp_path)
    torn = tmp_path / f"0-1-1{spool.path.suffix}"
    torn.write_bytes(line_of([decision(1)]) + b"no decision\n" + line_of([decision(2)])[:-9])
    ledger = Ledger()
    Drain(spool, record=ledger).step()
    assert {one.subject_id for one in ledger.kept.values()} == {"shop/agent-1"}
    assert torn.with_suffix(ODD_SUFFIX).read_bytes() == b"no decision\n"
    assert not torn.exists()


def test_what_the_database_refuses_is_set_aside_and_the_rest_taken(tmp_path: Path) -> None:
    spool, ledger = opened(tmp_path), Ledger()
    ledger.refuses = "shop/agent-1"
    for number in range(3):
        spool.keep(line_of([decision(number)]))
    Drain(spool, record=ledger).step()
    assert {one.subject_id for one in ledger.kept.values()} == {"shop/agent-0", "shop/agent-2"}
    (odd,) = tmp_path.glob(f"*{ODD_SUFFIX}")
    assert decisions_of(odd.read_bytes())[0].subject_id == "shop/agent-1"


def test_while_the_database_is_away_everything_waits_up_to_a_limit(tmp_path: Path) -> None:
    line = line_of([decision()])
    spool, ledger = opened(tmp_path, spool_bytes=10 * len(line)), Ledger()
    drain = Drain(spool, record=ledger)
    ledger.is_away = True
    for _ in range(9):
        spool.keep(line_of([decision()]))
        drain.step()
    assert spool.backlog_bytes + spool.path.stat().st_size == 9 * len(line)
    spool.keep(line_of([decision()]))
    spool.keep(line_of([decision()]))
    with pytest.raises(SpoolFull, match="wait for the database"):
        spool.keep(line_of([decision()]))
    ledger.is_away = False
    drain.step()
    drain.step()
    assert len(ledger.kept) == 11
    spool.keep(line)


def test_a_slow_disk_keeps_no_review_for_long(tmp_path: Path) -> None:
    release, stop = threading.Event(), threading.Event()

    def sync(_: int) -> None:
        release.wait(PATIENCE_SECONDS)

    spool = Spool(tmp_path, sync=sync)
    spool.open()
    flusher = threading.Thread(target=spool.run, args=[stop], daemon=True)
    flusher.start()
    began = time.monotonic()
    spool.keep(line_of([decision()]))
    assert SYNC_WAIT_SECONDS <= time.monotonic() - began < PATIENCE_SECONDS / 10
    assert spool.path.stat().st_size  # killed now, it is there
    release.set()
    stop.set()
    flusher.join(PATIENCE_SECONDS)


def test_one_flush_serves_all_that_wait(tmp_path: Path) -> None:
    flushes: list[int] = []
    spool, stop = Spool(tmp_path, sync=flushes.append), threading.Event()
    spool.open()
    writers = [
        threading.Thread(target=spool.keep, args=[line_of([decision(n)])]) for n in range(20)
    ]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join(PATIENCE_SECONDS)
    flusher = threading.Thread(target=spool.run, args=[stop], daemon=True)
    flusher.start()
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not flushes:
        assert time.monotonic() < deadline
        time.sleep(0.001)
    stop.set()
    flusher.join(PATIENCE_SECONDS)
    assert len(flushes) == 1
    assert len(spool.path.read_bytes().splitlines()) == 20

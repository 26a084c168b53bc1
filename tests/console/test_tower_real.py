"""The tower with its real processes, on ports and a data directory of its own."""

import contextlib
import fcntl
import os
import re
import signal
import sqlite3
import stat
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.console.real_tower import (
    ROOT,
    RealTower,
    descendants,
    eventually,
    is_alive,
)
from tests.kill.people import sign_in

pytestmark = [pytest.mark.slow, pytest.mark.kill, pytest.mark.timeout(400)]
# The promise is some two seconds; a machine that runs other tests beside gets more.
ENDED_SECONDS = 10.0
PROCESSES = ("valkey", "store", "web", "otlp", "worker", "beat", "node")


@pytest.fixture(scope="module")
def tower(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RealTower]:
    one = RealTower(tmp_path_factory.mktemp("tower"))
    yield one.start().ready()
    one.close()


def status(tower: RealTower, variable: str, path: str) -> int:
    url = f"http://127.0.0.1:{tower.ports[variable]}{path}"
    with urllib.request.urlopen(url, timeout=10) as answer:
        return answer.status


def users(tower: RealTower) -> list[tuple[str, str]]:
    with sqlite3.connect(f"file:{tower.data}/clearance.sqlite3?mode=ro", uri=True) as database:
        return database.execute("SELECT username, password FROM auth_user").fetchall()


def has_process(attempt: str) -> bool:
    """Whether any process has the environment that was made for this attempt."""
    for path in Path("/proc").glob("[0-9]*/environ"):
        with contextlib.suppress(OSError):  # somebody else's, or gone
            if f"CLEARANCE_ATTEMPT_UID={attempt}".encode() in path.read_bytes():
                return True
    return False


def test_everything_runs_and_answers(tower: RealTower) -> None:
    assert set(tower.state()["processes"]) == {*PROCESSES, "bootstrap"}
    assert tower.of("bootstrap")["state"] == "finished"
    assert all(tower.of(name)["state"] == "ready" for name in PROCESSES)
    assert status(tower, "WEB_PORT", "/healthz") == 200
    assert status(tower, "OTLP_PORT", "/healthz") == 200
    assert status(tower, "STORE_PORT", "/ping") == 200


def test_it_says_what_runs_where_and_the_password_once(tower: RealTower) -> None:
    said = tower.said()
    for name in PROCESSES:
        assert re.search(rf"{name} +{tower.of(name)['pid']} .*logs/{name}\.log", said)
    assert said.count("log in as admin with the password") == 1
    assert [name for name, _ in users(tower)] == ["admin"]


def test_all_state_is_ours_alone(tower: RealTower) -> None:
    assert stat.S_IMODE(tower.data.stat().st_mode) == 0o700
    open_to_others = [
        path
        for path in tower.data.rglob("*")
        if not path.is_symlink() and stat.S_IMODE(path.stat().st_mode) & 0o077
    ]
    assert open_to_others == []


def test_no_secret_is_in_an_argument_or_a_log(tower: RealTower) -> None:
    secrets = [path.read_text().strip() for path in (tower.data / "keys").rglob("*.token")]
    secrets.append((tower.data / "keys" / "secret_key").read_text())
    seen = "".join(path.read_text(errors="replace") for path in (tower.data / "logs").iterdir())
    for pid in descendants(tower.pid):
        seen += Path(f"/proc/{pid}/cmdline").read_text(errors="replace")
    assert len(secrets) >= 2
    assert not [secret for secret in secrets if secret in seen]


def test_a_second_tower_is_refused_in_one_line(tower: RealTower) -> None:
    done = subprocess.run(
        [sys.executable, "manage.py", "tower"],
        cwd=ROOT, env=tower.environment, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1
    assert f"A tower (pid {tower.pid}) already runs on {tower.data}" in done.stderr


def test_a_port_in_use_is_refused_in_one_line(tower: RealTower, tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "manage.py", "tower"],
        cwd=ROOT, capture_output=True, text=True, check=False,
        env={**tower.environment, "CLEARANCE_DATA": str(tmp_path)},
    )  # fmt: skip
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1
    port = tower.ports["WEB_PORT"]
    assert f"WEB_PORT={port} is already in use on 127.0.0.1: stop the program" in done.stderr


def test_an_agent_that_leaves_its_scope_is_ended_within_seconds(tower: RealTower) -> None:
    admin = sign_in(tower)
    manifest = ROOT / "examples" / "checkout" / "drifting-tuner.yaml"
    admin.insist("POST", "apply", manifest.read_bytes())
    (asked,) = eventually(lambda: admin.insist("GET", "approvals?state=pending")["results"])
    facts = {one["key"]: one["value"] for one in asked["facts"]}
    assert asked["kind"] == "drift"
    assert "orders/validation" in facts["why"]

    def ended() -> dict[str, Any] | None:
        (one,) = admin.insist("GET", "agents/default/threshold_tuner/drift")
        return one if one["conduct"]["ended_after_seconds"] is not None else None

    told = eventually(ended)
    seen = told["conduct"]
    assert seen["standing"] == "stopped"
    assert seen["revoked_after_seconds"] <= seen["ended_after_seconds"] <= ENDED_SECONDS
    assert not has_process(told["attempt"])
    admin.insist("DELETE", f"goals/{admin.goals()['better-threshold']['uid']}")


@pytest.mark.parametrize("name", PROCESSES)
def test_each_process_comes_back_after_kill_9(tower: RealTower, name: str) -> None:
    before = tower.of(name)
    os.kill(before["pid"], signal.SIGKILL)

    def is_back() -> bool:
        now = tower.of(name)
        return now["starts"] == before["starts"] + 1 and now["state"] == "ready"

    eventually(is_back)
    assert tower.process is not None
    assert tower.process.poll() is None


def test_kill_9_leaves_nothing_and_a_second_start_keeps_everything(tower: RealTower) -> None:
    pids = descendants(tower.pid)
    assert len(pids) > len(PROCESSES)
    secret, before = (tower.data / "keys" / "secret_key").read_text(), users(tower)
    tower.signal(signal.SIGKILL)
    eventually(lambda: not any(is_alive(pid) for pid in pids), seconds=10)
    with (tower.data / "run" / "tower.lock").open() as lock:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)

    tower.start().ready(times=2)
    assert users(tower) == before
    assert (tower.data / "keys" / "secret_key").read_text() == secret
    assert tower.said().count("log in as admin with the password") == 1


def test_sigterm_ends_everything_and_exits_0(tower: RealTower) -> None:
    pids = descendants(tower.pid)
    assert tower.signal(signal.SIGTERM) == 0
    assert not [pid for pid in pids if is_alive(pid)]
    assert not (tower.data / "run" / "tower.json").exists()
    assert "did not end within" not in tower.said()

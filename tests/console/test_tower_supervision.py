"""The supervisor with real toy processes: order, crashes, back-off, stop, and kill -9 of itself."""

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
PATIENCE_SECONDS = 15.0
SLEEP = "import time; time.sleep(600)"


def eventually(what: Callable[[], Any], *, seconds: float = PATIENCE_SECONDS) -> Any:
    """The first true answer of `what`, asked again until the deadline."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if answer := what():
            return answer
        time.sleep(0.02)
    raise AssertionError(f"not within {seconds} s")


def is_alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state not in "ZX"


class Tower:
    """One toy tower under test."""

    def __init__(self, directory: Path, *processes: dict[str, Any]) -> None:
        self.directory = directory
        self.output = directory / "output"
        with self.output.open("ab") as output:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "tests.console.toy_tower"],
                stdin=subprocess.PIPE,
                stdout=output,
                stderr=subprocess.STDOUT,
                cwd=ROOT,
            )
        assert self.process.stdin is not None
        request = {"directory": str(directory), "processes": processes}
        self.process.stdin.write(json.dumps(request).encode())
        self.process.stdin.close()

    def says(self, pattern: str) -> bool:
        return re.search(pattern, self.output.read_text()) is not None

    def state(self) -> dict[str, Any]:
        try:
            return json.loads((self.directory / "tower.json").read_text())
        except FileNotFoundError:
            return {}

    def of(self, name: str) -> dict[str, Any]:
        return self.state().get("processes", {}).get(name, {})

    def ready(self) -> "Tower":
        eventually(lambda: self.says("all ready"))
        return self

    def ends(self) -> int:
        return self.process.wait(PATIENCE_SECONDS)


@pytest.fixture
def tower(tmp_path: Path) -> Iterator[Callable[..., Tower]]:
    started: list[Tower] = []

    def start(*processes: dict[str, Any]) -> Tower:
        started.append(Tower(tmp_path, *processes))
        return started[-1]

    yield start
    for one in started:
        with contextlib.suppress(ProcessLookupError):
            one.process.kill()
        one.process.wait(PATIENCE_SECONDS)


def pid_file(path: Path) -> str:
    """Python text that writes the process's pid to `path` at once."""
    return f"import os; open({str(path) + '.new'!r}, 'w').write(str(os.getpid())); " + (
        f"os.rename({str(path) + '.new'!r}, {str(path)!r})"
    )


def read_pid(path: Path) -> int:
    return int(eventually(lambda: path.exists() and path.read_text()))


def test_a_process_starts_only_after_what_it_depends_on_is_ready(
    tower: Callable[..., Tower], tmp_path: Path
) -> None:
    gate, mark = tmp_path / "gate", tmp_path / "mark"
    one = tower(
        {"name": "late", "code": f"open({str(mark)!r}, 'w'); {SLEEP}", "depends_on": ["early"]},
        {"name": "early", "code": SLEEP, "ready_file": str(gate)},
    )
    eventually(lambda: one.of("early").get("state") == "starting")
    assert one.of("late")["state"] == "waiting"
    assert not mark.exists()
    gate.touch()
    eventually(mark.exists)
    one.ready()


def test_a_killed_process_comes_back(tower: Callable[..., Tower]) -> None:
    one = tower({"name": "web", "code": SLEEP}).ready()
    first = one.of("web")["pid"]
    os.kill(first, signal.SIGKILL)
    eventually(lambda: one.of("web").get("pid") not in (None, first))
    eventually(lambda: one.says(r"web +\| ended \(killed by SIGKILL\)"))
    eventually(lambda: one.of("web")["state"] == "ready")


def test_the_last_line_of_a_crash_is_shown_and_the_wait_doubles_up_to_the_cap(
    tower: Callable[..., Tower],
) -> None:
    crash = "import sys, time; time.sleep(0.05); sys.exit('port 1 is in use: choose another')"
    one = tower({"name": "web", "code": crash})
    eventually(lambda: one.says("next start in 0.4 s(?s:.)*next start in 0.4 s"))
    text = one.output.read_text()
    assert "ended (exit status 1): port 1 is in use: choose another" in text
    delays = re.findall(r"next start in ([0-9.]+) s", text)
    assert delays[:5] == ["0.05", "0.1", "0.2", "0.4", "0.4"]


def test_an_essential_process_that_never_gets_ready_ends_the_start(
    tower: Callable[..., Tower], tmp_path: Path
) -> None:
    one = tower(
        {"name": "other", "code": SLEEP},
        {"name": "store", "code": "import sys; sys.exit('the store is corrupt: restore it')",
         "ready_file": str(tmp_path / "never")},
    )  # fmt: skip
    assert one.ends() == 1
    assert one.says(r"store did not start in 3 attempts: the store is corrupt: restore it")


def test_a_process_that_is_not_essential_does_not_hold_up_the_start(
    tower: Callable[..., Tower], tmp_path: Path
) -> None:
    one = tower(
        {"name": "web", "code": SLEEP},
        {"name": "example", "code": "import sys; sys.exit('no')", "is_essential": False,
         "ready_file": str(tmp_path / "never")},
    ).ready()  # fmt: skip
    eventually(lambda: one.of("example").get("starts", 0) >= 4)
    assert one.process.poll() is None


def test_a_one_shot_runs_once_and_lets_its_dependants_start(
    tower: Callable[..., Tower], tmp_path: Path
) -> None:
    mark = tmp_path / "mark"
    one = tower(
        {"name": "setup", "code": f"open({str(mark)!r}, 'w')", "is_one_shot": True},
        {"name": "web", "code": f"assert __import__('os').path.exists({str(mark)!r}); {SLEEP}",
         "depends_on": ["setup"]},
    ).ready()  # fmt: skip
    assert one.of("setup") == {"pid": None, "state": "finished", "starts": 1}
    assert one.of("web")["starts"] == 1


@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM", "SIGHUP"])
def test_a_signal_stops_in_reverse_order_and_exits_0(
    tower: Callable[..., Tower], tmp_path: Path, name: str
) -> None:
    ends = tmp_path / "ends"
    ready = tmp_path / "ready"

    def code(label: str) -> str:
        return (
            "import signal, sys, time\n"
            f"def end(*_): open({str(ends)!r}, 'a').write({label!r}); sys.exit(0)\n"
            f"signal.signal(signal.SIGTERM, end); open({str(ready) + label!r}, 'w')\n"
            "time.sleep(600)"
        )

    one = tower(
        {"name": "a", "code": code("a"), "ready_file": f"{ready}a"},
        {"name": "b", "code": code("b"), "ready_file": f"{ready}b", "depends_on": ["a"]},
        {"name": "c", "code": code("c"), "ready_file": f"{ready}c", "depends_on": ["b"]},
    ).ready()
    one.process.send_signal(getattr(signal, name))
    assert one.ends() == 0
    assert ends.read_text() == "cba"


def test_what_ignores_the_stop_is_killed_with_its_whole_group_after_its_grace(
    tower: Callable[..., Tower], tmp_path: Path
) -> None:
    mine, child = tmp_path / "mine", tmp_path / "child"
    stubborn = (
        "import signal, subprocess, sys, time\n"
        "signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
        f"subprocess.Popen([sys.executable, '-I', '-c', {pid_file(child) + '; ' + SLEEP!r}])\n"
        f"{pid_file(mine)}\ntime.sleep(600)"
    )
    one = tower({"name": "web", "code": stubborn, "grace_seconds": 0.3}).ready()
    pids = [read_pid(mine), read_pid(child)]
    one.process.terminate()
    assert one.ends() == 0
    assert one.says("did not end within 0.3 s; killed")
    eventually(lambda: not any(is_alive(pid) for pid in pids))


def test_a_second_signal_kills_at_once(tower: Callable[..., Tower], tmp_path: Path) -> None:
    mine = tmp_path / "mine"
    code = (
        f"import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); {pid_file(mine)}; {SLEEP}"
    )
    one = tower({"name": "web", "code": code, "grace_seconds": 100}).ready()
    pid = read_pid(mine)
    one.process.terminate()
    eventually(lambda: one.says("stopping"))
    one.process.terminate()
    assert one.ends() == 0
    assert not is_alive(pid)


def test_a_grandchild_of_a_killed_process_dies_before_the_restart(
    tower: Callable[..., Tower], tmp_path: Path
) -> None:
    child = tmp_path / "child"
    code = (
        "import subprocess, sys, time\n"
        f"subprocess.Popen([sys.executable, '-I', '-c', {pid_file(child) + '; ' + SLEEP!r}])\n"
        "time.sleep(600)"
    )
    one = tower({"name": "worker", "code": code}).ready()
    orphan = read_pid(child)
    os.kill(one.of("worker")["pid"], signal.SIGKILL)
    eventually(lambda: not is_alive(orphan))
    eventually(lambda: one.of("worker").get("starts") == 2)


def test_kill_9_of_the_tower_leaves_no_process_behind(
    tower: Callable[..., Tower], tmp_path: Path
) -> None:
    child = tmp_path / "child"
    code = (
        "import signal, subprocess, sys, time\n"
        "for name in (signal.SIGTERM, signal.SIGHUP): signal.signal(name, signal.SIG_IGN)\n"
        f"subprocess.Popen([sys.executable, '-I', '-c', {pid_file(child) + '; ' + SLEEP!r}])\n"
        "time.sleep(600)"
    )
    one = tower({"name": "a", "code": code}, {"name": "b", "code": SLEEP}).ready()
    pids = [one.of("a")["pid"], one.of("b")["pid"], read_pid(child), one.state()["watchman"]]
    assert all(is_alive(pid) for pid in pids)
    one.process.kill()
    one.process.wait(PATIENCE_SECONDS)
    eventually(lambda: not any(is_alive(pid) for pid in pids))
    again = tower({"name": "a", "code": SLEEP}).ready()  # the lock went with the tower
    assert again.process.poll() is None


def test_a_killed_watchman_is_replaced_and_still_ends_the_groups(
    tower: Callable[..., Tower], tmp_path: Path
) -> None:
    child = tmp_path / "child"
    code = (
        "import subprocess, sys, time\n"
        f"subprocess.Popen([sys.executable, '-I', '-c', {pid_file(child) + '; ' + SLEEP!r}])\n"
        "time.sleep(600)"
    )
    one = tower({"name": "a", "code": code}).ready()
    first, orphan = one.state()["watchman"], read_pid(child)
    os.kill(first, signal.SIGKILL)
    eventually(lambda: one.state()["watchman"] not in (None, first))
    one.process.kill()
    eventually(lambda: not is_alive(orphan))


def test_a_second_tower_on_the_same_directory_says_so(tower: Callable[..., Tower]) -> None:
    one = tower({"name": "a", "code": SLEEP}).ready()
    other = tower({"name": "a", "code": SLEEP})
    assert other.ends() == 1
    assert other.says(rf"A tower \(pid {one.process.pid}\) already runs on")
    assert one.process.poll() is None


def test_a_program_that_does_not_exist_is_named(tower: Callable[..., Tower]) -> None:
    one = tower({"name": "a", "argv": ["/nowhere/program"], "ready_file": "/nowhere/ready"})
    assert one.ends() == 1
    assert one.says("a did not start in 3 attempts: cannot start /nowhere/program: No such file")


def test_output_goes_to_the_log_and_only_warnings_to_the_terminal(
    tower: Callable[..., Tower], tmp_path: Path
) -> None:
    code = f"print('INFO:     fine'); print('ERROR:    broken', flush=True); {SLEEP}"
    one = tower({"name": "web", "code": code}).ready()
    eventually(lambda: one.says(r"web +\| ERROR: +broken"))
    assert (tmp_path / "web.log").read_text() == "INFO:     fine\nERROR:    broken\n"
    assert not one.says("fine")


def test_a_process_that_holds_too_much_memory_is_started_afresh(
    tower: Callable[..., Tower], tmp_path: Path
) -> None:
    grown = tmp_path / "grown"
    # Grows in its first life only.
    code = (
        "import os, time\n"
        f"if not os.path.exists({str(grown)!r}):\n"
        f"    held = b'x' * (80 << 20); open({str(grown)!r}, 'w')\n"
        "time.sleep(600)"
    )
    one = tower({"name": "web", "code": code, "memory_max_bytes": 60 << 20}).ready()
    eventually(lambda: one.of("web").get("starts") == 2 and one.of("web")["state"] == "ready")
    assert one.says(r"web +\| holds \d+ MiB, more than the 60 MiB it may: restarting")


def test_a_child_dies_with_the_tower_even_without_the_watchman(tower: Callable[..., Tower]) -> None:
    one = tower({"name": "a", "code": SLEEP}).ready()
    pid, watchman = one.of("a")["pid"], one.state()["watchman"]
    os.kill(watchman, signal.SIGSTOP)
    try:
        one.process.kill()
        eventually(lambda: not is_alive(pid))
    finally:
        os.kill(watchman, signal.SIGKILL)


def test_the_guard_does_not_start_a_program_for_a_parent_that_is_gone(tmp_path: Path) -> None:
    mark = tmp_path / "mark"
    guard = ROOT / "console" / "tower" / "guard.py"
    for parent, status, is_started in ((1, 126, False), (os.getpid(), 0, True)):
        command = [sys.executable, "-I", "-S", str(guard), str(parent), "touch", str(mark)]
        assert subprocess.run(command, check=False).returncode == status
        assert mark.exists() is is_started

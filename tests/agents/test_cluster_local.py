"""What a local workload may do, and what it cannot: environment, output, memory, descendants."""

import ast
import os
import shutil
import signal
import stat
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from agents.cluster.base import ClusterUnavailable, WorkloadInvalid
from agents.cluster.local import LocalCluster
from agents.cluster.shim.processes import read_process
from tests.agents.cluster_workloads import (
    FOREVER,
    end_all,
    eventually,
    finished,
    is_alive,
    lines,
    python_spec,
    running,
)

COUNTER = "import time\ni = 0\nwhile True:\n  i += 1\n  print(i, flush=True)\n  time.sleep(0.002)"


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[LocalCluster]:
    yield LocalCluster(tmp_path / "cluster", declared_gpus=1, root=tmp_path)
    end_all(tmp_path / "cluster")


def test_nothing_is_inherited(cluster: LocalCluster, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DATABASE_PASSWORD", "hunter2")
    code = "import os, sys; print(dict(os.environ)); print(os.getcwd()); print(sys.stdin.read())"
    cluster.create(python_spec("bare", code, environment={"A": "1"}, gpus=1))
    status = finished(cluster, "bare")
    environment, directory, stdin = lines(cluster, "bare")
    # LC_CTYPE is set by CPython itself when it coerces the C locale (PEP 538).
    seen = {key: value for key, value in ast.literal_eval(environment).items() if key != "LC_CTYPE"}
    assert seen == {"A": "1", "CLEARANCE_GPU_SLOTS": "gpu-0"}
    assert directory == str(cluster.directory / "workloads" / "bare" / "workdir")
    assert stdin == ""
    assert status.exit_code == 0


def test_the_shim_itself_inherits_nothing(
    cluster: LocalCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DATABASE_PASSWORD", "hunter2")
    cluster.create(python_spec("bare", FOREVER))
    shim = read_process(running(cluster, "bare").pid).parent
    assert b"hunter2" not in Path(f"/proc/{shim}/environ").read_bytes()
    assert {os.readlink(f"/proc/{shim}/fd/{number}") for number in (0, 1)} == {"/dev/null"}


def test_only_standard_streams_are_open(cluster: LocalCluster) -> None:
    cluster.create(python_spec("files", "import os; print(sorted(os.listdir('/proc/self/fd')))"))
    finished(cluster, "files")
    # The fourth is the directory being listed.
    assert lines(cluster, "files") == ["['0', '1', '2', '3']"]


def test_the_state_is_private(cluster: LocalCluster) -> None:
    cluster.create(python_spec("private", "print(1)"))
    finished(cluster, "private")
    for path in [cluster.directory, *cluster.directory.rglob("*")]:
        mode = stat.S_IMODE(path.stat().st_mode)
        assert mode & 0o077 == 0, f"{path} has mode {mode:o}"


def test_a_stray_file_among_the_workloads_is_left_alone(
    cluster: LocalCluster, tmp_path: Path
) -> None:
    cluster.create(python_spec("sleeper", COUNTER))
    next(tmp_path.rglob("workloads")).joinpath("notes.txt").write_text("not ours")
    assert [status.name for status in cluster.list()] == ["sleeper"]


def test_nothing_runs_on_once_its_directory_is_gone(cluster: LocalCluster, tmp_path: Path) -> None:
    cluster.create(python_spec("counter", COUNTER))
    eventually(lambda: cluster.get("counter").pid is not None)
    pid = cluster.get("counter").pid
    shim = read_process(pid).parent
    guard = read_process(shim).parent
    shutil.rmtree(tmp_path / "cluster")
    family = [pid, shim, *([guard] if guard > 1 else [])]
    eventually(lambda: all(read_process(one) is None for one in family))


def test_a_pause_keeps_the_state(cluster: LocalCluster) -> None:
    cluster.create(python_spec("counter", COUNTER, gpus=1))
    eventually(lambda: len(lines(cluster, "counter")) > 20)
    cluster.pause("counter")
    eventually(lambda: cluster.get("counter").phase == "Paused")
    pid = cluster.get("counter").pid
    assert read_process(pid).state == "T"
    before = len(lines(cluster, "counter"))
    time.sleep(0.1)  # the stopped program would have counted on by some 50
    assert len(lines(cluster, "counter")) == before
    cluster.resume("counter")
    eventually(lambda: len(lines(cluster, "counter")) > before + 20)
    counted = [int(line) for line in lines(cluster, "counter")[:-1]]
    assert counted == list(range(1, len(counted) + 1))


def test_a_stopped_descendant_that_is_woken_is_stopped_again(cluster: LocalCluster) -> None:
    cluster.create(python_spec("woken", FOREVER))
    running(cluster, "woken")
    cluster.pause("woken")
    eventually(lambda: cluster.get("woken").phase == "Paused")
    pid = cluster.get("woken").pid
    os.kill(pid, signal.SIGCONT)
    eventually(lambda: read_process(pid).state != "T")
    eventually(lambda: read_process(pid).state == "T")


def test_the_allowance_stops_within_a_second(cluster: LocalCluster) -> None:
    cluster.create(python_spec("burn", "while True: pass", gpus=1, gpu_allowance_ms=400))
    pid = running(cluster, "burn").pid
    started_at = time.monotonic()
    eventually(lambda: read_process(pid).state == "T")
    assert time.monotonic() - started_at < 0.4 + 1.0
    status = cluster.get("burn")
    eventually(lambda: cluster.get("burn").reason == "AllowanceExhausted")
    assert status.gpu_ms <= 400


def test_a_hundred_megabytes_of_output_do_not_block(cluster: LocalCluster) -> None:
    code = (
        "import sys\nfor i in range(100): sys.stdout.write('x' * (1 << 20))\n"
        "print('end', file=sys.stderr)"
    )
    cluster.create(python_spec("loud", code, output_bytes_max=5000))
    status = finished(cluster, "loud")
    assert (status.phase, status.output_bytes, status.output_truncated) == ("Succeeded", 5000, True)
    assert cluster.output("loud", limit=1 << 20) == b"x" * 5000
    assert (cluster.directory / "workloads" / "loud" / "output.log").stat().st_size == 5000


def test_output_keeps_the_order_of_both_streams(cluster: LocalCluster) -> None:
    code = "import os\nfor i in range(200): os.write(1 + i % 2, b'%d\\n' % i)"
    cluster.create(python_spec("both", code))
    finished(cluster, "both")
    assert lines(cluster, "both") == [str(number) for number in range(200)]
    assert cluster.output("both", offset=2, limit=4) == b"1\n2\n"


def test_memory_is_limited(cluster: LocalCluster) -> None:
    code = (
        "import time\nkept = []\nwhile True:\n  kept.append(b'x' * (8 << 20))\n  time.sleep(0.01)"
    )
    cluster.create(python_spec("greedy", code, memory_bytes=64 << 20))
    status = finished(cluster, "greedy")
    assert (status.phase, status.reason) == ("Failed", "OutOfMemory")
    assert "limit is 64 MiB" in status.message


def test_memory_of_all_descendants_counts_together(cluster: LocalCluster) -> None:
    code = (
        "import os, time\nfor _ in range(4):\n  if not os.fork():\n"
        "    kept = b'x' * (40 << 20)\n    time.sleep(60)\ntime.sleep(60)"
    )
    cluster.create(python_spec("herd", code, memory_bytes=100 << 20))
    assert finished(cluster, "herd").reason == "OutOfMemory"


def test_memory_within_the_limit_is_left_alone(cluster: LocalCluster) -> None:
    code = (
        "import os, time\nkept = bytearray(b'x' * (40 << 20))\n"
        "for _ in range(3):\n  if not os.fork(): time.sleep(1.5); os._exit(0)\ntime.sleep(1.5)"
    )
    # 160 MiB when shared pages are counted for each process that maps them.
    cluster.create(python_spec("shared", code, memory_bytes=100 << 20))
    assert finished(cluster, "shared").phase == "Succeeded"


ESCAPES = """
import os, sys, time
def child():
    os.setsid()
    if os.fork(): os._exit(0)
    os.chdir("/")
    while True: time.sleep(0.01)
for _ in range(5):
    if not os.fork(): child()
time.sleep(0.3)
print("ready", flush=True)
"""


def _escaped(shim: int) -> list[int]:
    return [
        int(entry)
        for entry in os.listdir("/proc")
        if entry.isdigit() and (process := read_process(int(entry))) and process.parent == shim
    ]


@pytest.mark.parametrize("ending", ["exit", "delete"])
def test_descendants_that_left_the_group_die_too(cluster: LocalCluster, ending: str) -> None:
    code = ESCAPES if ending == "exit" else ESCAPES + FOREVER
    cluster.create(python_spec("daemons", code))
    shim = read_process(running(cluster, "daemons").pid).parent
    family = eventually(lambda: found if len(found := _escaped(shim)) >= 6 else [])
    if ending == "delete":
        cluster.delete("daemons", grace_seconds=0.1)
    finished(cluster, "daemons")
    assert not [pid for pid in family if is_alive(pid)]


def test_descendants_that_left_the_group_are_paused_too(cluster: LocalCluster) -> None:
    cluster.create(python_spec("daemons", ESCAPES + FOREVER))
    shim = read_process(running(cluster, "daemons").pid).parent
    family = eventually(lambda: found if len(found := _escaped(shim)) >= 6 else [])
    cluster.pause("daemons")
    eventually(lambda: cluster.get("daemons").phase == "Paused")
    assert {read_process(pid).state for pid in family if is_alive(pid)} == {"T"}


def test_a_fork_bomb_ends(cluster: LocalCluster) -> None:
    # Bounded at 400 by itself, so that a broken shim does not take the machine with it.
    code = (
        "import os, time\nfor _ in range(400):\n"
        "  if not os.fork():\n    os.setsid(); time.sleep(60); os._exit(0)\n"
        "print('all', flush=True)\ntime.sleep(60)"
    )
    cluster.create(python_spec("bomb", code))
    eventually(lambda: lines(cluster, "bomb") == ["all"])
    shim = read_process(cluster.get("bomb").pid).parent
    cluster.delete("bomb", grace_seconds=0)
    finished(cluster, "bomb")
    eventually(lambda: not is_alive(shim))
    marker = str(cluster.directory)
    left = [
        entry
        for entry in os.listdir("/proc")
        if entry.isdigit() and _working_directory(entry).startswith(marker)
    ]
    assert left == []


def _working_directory(pid: str) -> str:
    try:
        return os.readlink(f"/proc/{pid}/cwd")
    except OSError:
        return ""


def test_too_many_processes_end_the_workload(cluster: LocalCluster) -> None:
    code = "import os, time\nfor _ in range(1100):\n  if not os.fork(): time.sleep(60); os._exit(0)"
    cluster.create(python_spec("bomb", code + "\ntime.sleep(60)"))
    status = finished(cluster, "bomb")
    assert (status.reason, "1024 processes" in status.message) == ("Killed", True)


def test_delete_asks_before_it_kills(cluster: LocalCluster) -> None:
    code = (
        "import signal, sys, time\n"
        "def bye(*_): print('bye', flush=True); sys.exit(0)\n"
        "signal.signal(signal.SIGTERM, bye)\nprint('ready', flush=True)\n"
        "while True: time.sleep(0.01)"
    )
    cluster.create(python_spec("polite", code))
    eventually(lambda: lines(cluster, "polite") == ["ready"])
    cluster.pause("polite")
    eventually(lambda: cluster.get("polite").phase == "Paused")
    cluster.delete("polite")
    status = finished(cluster, "polite")
    assert (status.phase, status.reason) == ("Failed", "Deleted")
    assert lines(cluster, "polite") == ["ready", "bye"]


def test_delete_kills_who_does_not_listen(cluster: LocalCluster) -> None:
    code = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); print(1, flush=True)\n"
    cluster.create(python_spec("deaf", code + FOREVER))
    eventually(lambda: lines(cluster, "deaf"))
    cluster.delete("deaf", grace_seconds=0.2)
    status = finished(cluster, "deaf")
    assert (status.reason, status.exit_code) == ("Deleted", 128 + signal.SIGKILL)


def test_an_ending_workload_cannot_pass_its_allowance(cluster: LocalCluster) -> None:
    code = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); print(1, flush=True)\n"
    cluster.create(python_spec("deaf", code + FOREVER, gpus=1, gpu_allowance_ms=600))
    eventually(lambda: lines(cluster, "deaf"))
    cluster.delete("deaf", grace_seconds=60)
    status = finished(cluster, "deaf")
    assert 500 < status.gpu_ms <= 600


def test_relative_programs_come_from_the_root(cluster: LocalCluster, tmp_path: Path) -> None:
    (tmp_path / "agent.py").write_text("print('from the root')")
    script = tmp_path / "agent.sh"
    script.write_text("#!/bin/sh\necho shell $1")
    script.chmod(0o700)
    cluster.create(python_spec("script", "", command=("python", "agent.py")))
    cluster.create(python_spec("shell", "", command=("./agent.sh", "x")))
    finished(cluster, "script")
    finished(cluster, "shell")
    assert lines(cluster, "script") == ["from the root"]
    assert lines(cluster, "shell") == ["shell x"]
    with pytest.raises(WorkloadInvalid, match=r"nowhere\.py"):
        cluster.create(python_spec("nowhere", "", command=("python", "nowhere.py")))


def test_a_file_that_is_no_program_fails_to_start(cluster: LocalCluster, tmp_path: Path) -> None:
    broken = tmp_path / "broken"
    broken.write_bytes(b"\x7fELF nonsense")
    broken.chmod(0o700)
    cluster.create(python_spec("broken", "", command=("./broken",)))
    status = finished(cluster, "broken")
    assert (status.reason, "could not start" in status.message) == ("StartFailed", True)


def test_an_unusable_directory_is_not_an_empty_cluster(tmp_path: Path) -> None:
    blocked = tmp_path / "cluster"
    blocked.write_text("a file")
    cluster = LocalCluster(blocked)
    with pytest.raises(ClusterUnavailable):
        cluster.list()
    with pytest.raises(ClusterUnavailable):
        cluster.create(python_spec("any", "print(1)"))

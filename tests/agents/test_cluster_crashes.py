"""kill -9 of whoever takes part in running a workload: nothing is lost, doubled or left behind."""

import contextlib
import fcntl
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from agents.cluster.local import LocalCluster, start_shim
from agents.cluster.shim.processes import orphans, read_process
from agents.cluster.shim.records import Record, WorkloadDirectory, boot_id, is_locked
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

pytestmark = pytest.mark.kill

ROOT = Path(__file__).parents[2]
# Five descendants in sessions of their own, then the program goes on for ever.
DAEMONS = """
import os, time
for _ in range(5):
    if not os.fork():
        os.setsid()
        if os.fork(): os._exit(0)
        os.chdir("/")
        for number in range(3): os.close(number)
        while True: time.sleep(0.01)
time.sleep(0.2)
print("ready", flush=True)
"""


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[LocalCluster]:
    yield LocalCluster(tmp_path / "cluster", declared_gpus=1)
    end_all(tmp_path / "cluster")


@pytest.fixture
def freeze(cluster: LocalCluster) -> Iterator[Callable[[int], None]]:
    """Stops a process; a test that fails half way leaves none stopped for ever."""
    frozen: list[int] = []

    def stop(pid: int) -> None:
        frozen.append(pid)
        os.kill(pid, signal.SIGSTOP)

    yield stop
    for pid in frozen:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGCONT)


def _shim(cluster: LocalCluster, name: str) -> int:
    return WorkloadDirectory(cluster.directory / "workloads" / name).record().shim_pid


def _guard(shim: int) -> int:
    return read_process(shim).parent


def _children(parent: int) -> list[int]:
    pids = (int(entry) for entry in os.listdir("/proc") if entry.isdigit())
    return [pid for pid in pids if (each := read_process(pid)) and each.parent == parent]


def _creator(cluster: LocalCluster, *, then: str, launcher: str = "start_shim") -> list[str]:
    """A process of its own that creates the workload "once" and does `then`."""
    code = f"""
import os, signal, sys, time
from pathlib import Path
from agents.cluster.local import LocalCluster, start_shim
from tests.agents.cluster_workloads import python_spec
def die(path): os.kill(os.getpid(), signal.SIGKILL)
cluster = LocalCluster(Path({str(cluster.directory)!r}), declared_gpus=1, launcher={launcher})
for name in ("once", "once-more", "once-again"):
    cluster.create(python_spec(name, {_once(cluster)!r}))
{then}
"""
    return [sys.executable, "-c", code]


def _once(cluster: LocalCluster) -> str:
    """A program that leaves a line for each time it is run, then goes on for ever."""
    path = str(cluster.directory.parent / "runs")
    return (
        "import os, time\n"
        f"stream = os.open({path!r}, os.O_WRONLY | os.O_CREAT | os.O_APPEND)\n"
        "os.write(stream, os.getcwd().encode() + b'\\n')\n" + FOREVER
    )


def _runs(cluster: LocalCluster) -> list[str]:
    path = cluster.directory.parent / "runs"
    return sorted(path.read_text().split()) if path.exists() else []


def test_a_killed_shim_takes_its_program_with_it(cluster: LocalCluster) -> None:
    cluster.create(python_spec("victim", DAEMONS + FOREVER, gpus=1))
    eventually(lambda: lines(cluster, "victim") == ["ready"])
    started_at = time.monotonic()
    before = eventually(lambda: status if (status := cluster.get("victim")).gpu_ms else None)
    shim = _shim(cluster, "victim")
    family = [shim, *_children(shim)]
    assert len(family) == 7
    os.kill(shim, signal.SIGKILL)
    after = finished(cluster, "victim")
    assert (after.phase, after.reason) == ("Failed", "Killed")
    assert not [pid for pid in family if is_alive(pid)]
    assert before.running_ms <= after.running_ms
    assert after.running_ms <= 1000 * (time.monotonic() - started_at) + 1000
    assert cluster.gpus()[0].held_by == ""
    cluster.create(python_spec("victim", DAEMONS + FOREVER, gpus=1))
    assert cluster.get("victim") == after  # what ran once is not run again


def test_a_paused_program_dies_with_its_shim(cluster: LocalCluster) -> None:
    cluster.create(python_spec("victim", DAEMONS + FOREVER))
    eventually(lambda: lines(cluster, "victim") == ["ready"])
    cluster.pause("victim")
    eventually(lambda: cluster.get("victim").phase == "Paused")
    shim = _shim(cluster, "victim")
    family = [shim, *_children(shim)]
    os.kill(shim, signal.SIGKILL)
    assert finished(cluster, "victim").reason == "Killed"
    assert not [pid for pid in family if is_alive(pid)]


def test_shim_and_guard_killed_at_once_are_settled_by_the_next_look(
    cluster: LocalCluster, freeze: Callable[[int], None]
) -> None:
    stray = "import os\nif not os.fork():\n  os.setsid()\nelif not os.fork():\n  os.setpgid(0, 0)\n"
    cluster.create(python_spec("victim", stray + "print(1, flush=True)\n" + FOREVER, gpus=1))
    eventually(lambda: len(lines(cluster, "victim")) == 3)
    shim = _shim(cluster, "victim")
    program = cluster.get("victim").pid
    strays = _children(program)
    guard = _guard(shim)
    freeze(guard)
    os.kill(shim, signal.SIGKILL)
    os.kill(guard, signal.SIGKILL)
    assert len(strays) == 2
    assert finished(cluster, "victim").reason == "Killed"
    assert not [pid for pid in [program, *strays] if is_alive(pid)]


def test_a_slot_waits_for_the_guard_of_its_dead_holder(
    cluster: LocalCluster, freeze: Callable[[int], None]
) -> None:
    cluster.create(python_spec("first", DAEMONS + FOREVER, gpus=1))
    eventually(lambda: lines(cluster, "first") == ["ready"])
    shim = _shim(cluster, "first")
    program, guard = cluster.get("first").pid, _guard(shim)
    daemons = [pid for pid in _children(shim) if pid != program]
    assert len(daemons) == 5
    cluster.create(python_spec("second", "print('mine')", gpus=1))
    eventually(lambda: "gpu-0 by first" in cluster.get("second").message)
    freeze(guard)
    os.kill(shim, signal.SIGKILL)
    eventually(lambda: not is_alive(program))
    time.sleep(0.3)  # six tries for the slot, which only the guard keeps from being free
    assert all(is_alive(pid) for pid in daemons)
    assert cluster.get("second").phase == "Pending"
    os.kill(guard, signal.SIGCONT)
    assert finished(cluster, "second").phase == "Succeeded"
    assert not [pid for pid in daemons if is_alive(pid)]


def test_a_slot_of_the_dead_is_cleared_before_it_is_used(
    cluster: LocalCluster, freeze: Callable[[int], None]
) -> None:
    stray = "import os\nif not os.fork(): os.setpgid(0, 0)\nprint(1, flush=True)\n"
    cluster.create(python_spec("first", stray + FOREVER, gpus=1))
    eventually(lambda: len(lines(cluster, "first")) == 2)
    program, shim = cluster.get("first").pid, _shim(cluster, "first")
    strays = _children(program)
    assert len(strays) == 1
    cluster.create(python_spec("second", "print('mine')", gpus=1))
    eventually(lambda: "gpu-0 by first" in cluster.get("second").message)
    guard = _guard(shim)
    freeze(guard)
    os.kill(shim, signal.SIGKILL)
    os.kill(guard, signal.SIGKILL)
    # Nobody looks at the first any more: the second clears the slot by itself.
    assert finished(cluster, "second").phase == "Succeeded"
    assert not [pid for pid in [program, *strays] if is_alive(pid)]


def test_a_late_shim_runs_nothing_a_second_time(cluster: LocalCluster) -> None:
    cluster.create(python_spec("once", _once(cluster)))
    eventually(lambda: len(_runs(cluster)) == 1)
    cluster.delete("once", grace_seconds=0)
    before = finished(cluster, "once")
    path = cluster.directory / "workloads" / "once"
    eventually(lambda: not is_locked(path / "lock"))
    start_shim(path)
    assert not is_locked(path / "lock")
    assert cluster.get("once") == before
    assert len(_runs(cluster)) == 1


def test_a_shim_killed_while_waiting_is_started_again(cluster: LocalCluster) -> None:
    cluster.create(python_spec("first", FOREVER, gpus=1))
    running(cluster, "first")
    cluster.create(python_spec("second", "print('mine')", gpus=1))
    eventually(lambda: cluster.get("second").reason == "Unschedulable")
    shim = _shim(cluster, "second")
    os.kill(shim, signal.SIGKILL)
    eventually(lambda: not is_alive(shim))
    cluster.delete("first", grace_seconds=0)
    assert finished(cluster, "second").phase == "Succeeded"
    assert lines(cluster, "second") == ["mine"]


def test_a_killed_guard_changes_nothing(cluster: LocalCluster) -> None:
    cluster.create(python_spec("calm", FOREVER))
    status = running(cluster, "calm")
    os.kill(_guard(_shim(cluster, "calm")), signal.SIGKILL)
    cluster.pause("calm")
    eventually(lambda: cluster.get("calm").phase == "Paused")
    cluster.resume("calm")
    assert running(cluster, "calm").pid == status.pid


def test_a_creator_killed_before_the_start(cluster: LocalCluster) -> None:
    creator = subprocess.run(
        _creator(cluster, then="", launcher="die"), cwd=ROOT, check=False, timeout=30
    )
    assert creator.returncode == -signal.SIGKILL
    assert (cluster.directory / "workloads" / "once" / "spec.json").exists()
    assert _runs(cluster) == []
    cluster.create(python_spec("once", _once(cluster)))
    running(cluster, "once")
    eventually(lambda: len(_runs(cluster)) == 1)


def test_a_creator_killed_before_the_start_and_the_workload_deleted(cluster: LocalCluster) -> None:
    directory = WorkloadDirectory(cluster.directory / "workloads" / "once")
    subprocess.run(_creator(cluster, then="", launcher="die"), cwd=ROOT, check=False, timeout=30)
    with directory.change_desired() as desired:  # a delete() killed before its next line
        desired.delete_grace_seconds = 0.0
    assert cluster.get("once").reason == "Deleted"
    assert _runs(cluster) == []


def test_a_workload_outlives_whoever_created_it(cluster: LocalCluster) -> None:
    creator = subprocess.Popen(
        _creator(cluster, then="time.sleep(60)"), cwd=ROOT, start_new_session=True
    )
    eventually(lambda: len(_runs(cluster)) == 3)
    os.killpg(creator.pid, signal.SIGKILL)
    creator.wait()
    status = cluster.get("once")
    eventually(lambda: cluster.get("once").running_ms > status.running_ms)
    assert cluster.get("once").phase == "Running"


def test_creators_killed_at_random_moments_run_nothing_twice(cluster: LocalCluster) -> None:
    chance = random.Random(7)
    for _ in range(12):
        creators = [
            subprocess.Popen(_creator(cluster, then=""), cwd=ROOT, start_new_session=True)
            for _ in range(2)
        ]
        # An interpreter starts in some 0.2 s; the kill falls before, within and after the work.
        time.sleep(chance.uniform(0.05, 0.5))
        for creator in creators:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(creator.pid, signal.SIGKILL)
            creator.wait()
    names = ("once", "once-more", "once-again")
    for name in names:
        cluster.create(python_spec(name, _once(cluster)))
        running(cluster, name)
    eventually(lambda: len(_runs(cluster)) >= 3)
    assert sorted(Path(run).parent.name for run in _runs(cluster)) == sorted(names)


def test_many_creators_at_once_make_one_run(cluster: LocalCluster) -> None:
    creators = [subprocess.Popen(_creator(cluster, then=""), cwd=ROOT) for _ in range(6)]
    assert {creator.wait(timeout=60) for creator in creators} == {0}
    eventually(lambda: len(_runs(cluster)) >= 3)
    assert len(_runs(cluster)) == 3


def test_a_reused_process_id_is_left_alone(tmp_path: Path) -> None:
    innocent = subprocess.Popen(["sleep", "60"], start_new_session=True)
    try:
        process = read_process(innocent.pid)
        ours = Record(pid=innocent.pid, pid_started_ticks=process.started_ticks, boot_id=boot_id())
        assert [each.pid for each in orphans(ours, tmp_path)] == [innocent.pid]
        ours.pid_started_ticks -= 1
        assert orphans(ours, tmp_path) == []
        ours.pid_started_ticks += 1
        ours.boot_id = "another boot"
        assert orphans(ours, tmp_path) == []
    finally:
        innocent.kill()
        innocent.wait()


def _hold(path: Path) -> int:
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT)
    fcntl.flock(descriptor, fcntl.LOCK_EX)
    return descriptor


def test_a_stopped_control_plane_leaves_nothing_behind(tmp_path: Path) -> None:
    tower = tmp_path / "run" / "tower.lock"
    cluster = LocalCluster(
        tmp_path / "cluster", control_plane_lock=tower, control_plane_grace_seconds=1.5
    )
    before = _hold(tower)
    cluster.create(python_spec("calm", FOREVER))
    cluster.create(python_spec("stopped", FOREVER))
    cluster.pause("stopped")
    pids = [running(cluster, "calm").pid]
    os.close(before)
    time.sleep(0.7)  # a tower that comes back within the grace finds its workloads
    back = _hold(tower)
    time.sleep(2.2)  # longer than the grace, had it counted on
    assert cluster.get("calm").phase == "Running"
    closed_at = time.time()
    os.close(back)
    for name in ("calm", "stopped"):
        status = finished(cluster, name)
        assert (status.phase, status.reason) == ("Failed", "ControlPlaneGone")
        assert status.finished_at.timestamp() >= closed_at + 1.5
    assert not [pid for pid in pids if is_alive(pid)]
    assert not is_locked(tower)


def test_without_a_control_plane_workloads_run_on(tmp_path: Path) -> None:
    cluster = LocalCluster(
        tmp_path / "cluster",
        control_plane_lock=tmp_path / "tower.lock",
        control_plane_grace_seconds=0.2,
    )
    cluster.create(python_spec("calm", FOREVER))
    eventually(lambda: cluster.get("calm").running_ms > 2000)
    assert cluster.get("calm").phase == "Running"
    end_all(tmp_path / "cluster")

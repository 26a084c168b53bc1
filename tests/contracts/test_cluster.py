"""What every cluster does: run on the twin and on real processes of this machine."""

import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from agents.cluster.base import (
    Cluster,
    ClusterError,
    WorkloadConflict,
    WorkloadInvalid,
    WorkloadPhase,
    WorkloadSpec,
    WorkloadStatus,
)
from agents.cluster.local import LocalCluster
from agents.cluster.memory import MemoryCluster

pytestmark = pytest.mark.contract

PATIENCE_SECONDS = 30.0
# Runs until a file `exit` appears in its working directory, then ends with the code in there.
OBEDIENT = """
import pathlib, sys, time
while not pathlib.Path("exit").exists():
    time.sleep(0.01)
sys.exit(int(pathlib.Path("exit").read_text()))
"""


class MemoryHarness:
    """Moves the twin: waiting is letting its clock run."""

    def __init__(self) -> None:
        self.cluster = MemoryCluster(gpus=2)

    def end(self, name: str, code: int) -> None:
        self.cluster.finish(name, code)

    def wait(self) -> bool:
        self.cluster.advance(10)
        return self.cluster.now.hour < 1

    def left_behind(self) -> list[str]:
        return []

    def close(self) -> None:
        pass


class LocalHarness:
    """Moves real processes: waiting is waiting."""

    def __init__(self, directory: Path) -> None:
        self.cluster = LocalCluster(directory, declared_gpus=2)
        self.workloads = directory / "workloads"
        self.give_up_at = time.monotonic() + PATIENCE_SECONDS

    def end(self, name: str, code: int) -> None:
        draft = self.workloads / name / "workdir" / "draft"
        draft.write_text(str(code))
        draft.rename(draft.with_name("exit"))

    def wait(self) -> bool:
        time.sleep(0.01)
        return time.monotonic() < self.give_up_at

    def left_behind(self) -> list[str]:
        return sorted(os.listdir(self.workloads))

    def close(self) -> None:
        for status in self.cluster.list():
            self.cluster.delete(status.name, grace_seconds=0)
        while not all(status.is_finished for status in self.cluster.list()):
            assert self.wait()


Harness = MemoryHarness | LocalHarness


@pytest.fixture(params=["memory", "local"])
def harness(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Harness]:
    chosen = MemoryHarness() if request.param == "memory" else LocalHarness(tmp_path / "cluster")
    yield chosen
    chosen.close()


@pytest.fixture
def cluster(harness: Harness) -> Cluster:
    return harness.cluster


def spec(name: str = "goal-tune-1", **changes: object) -> WorkloadSpec:
    fields = {
        "name": name,
        "namespace": "shop",
        "goal_uid": "g",
        "task": "tune",
        "attempt_uid": f"attempt-{name}",
        "agent": "optimizer",
        "service_account": "optimizer",
        "image": "sha256:0",
        "command": ("python", "-S", "-c", OBEDIENT),
    }
    return WorkloadSpec(**{**fields, **changes})


def until(
    harness: Harness, name: str, predicate: Callable[[WorkloadStatus], bool]
) -> WorkloadStatus:
    while True:
        status = harness.cluster.get(name)
        assert status is not None
        if predicate(status):
            return status
        assert harness.wait(), f"{name} stayed {status}"


def until_phase(harness: Harness, name: str, phase: WorkloadPhase) -> WorkloadStatus:
    return until(harness, name, lambda status: status.phase == phase)


def test_a_workload_runs_and_succeeds(harness: Harness, cluster: Cluster) -> None:
    cluster.create(spec(gpus=1))
    running = until_phase(harness, "goal-tune-1", WorkloadPhase.RUNNING)
    assert (running.namespace, running.attempt_uid) == ("shop", "attempt-goal-tune-1")
    assert running.pid is not None
    assert running.gpu_ids == ("gpu-0",)
    assert [gpu.held_by for gpu in cluster.gpus()] == ["goal-tune-1", ""]
    until(harness, "goal-tune-1", lambda status: status.gpu_ms > 0)
    harness.end("goal-tune-1", 0)
    done = until_phase(harness, "goal-tune-1", WorkloadPhase.SUCCEEDED)
    assert (done.exit_code, done.reason, done.is_finished) == (0, "", True)
    assert done.gpu_ms == done.running_ms > 0
    assert done.created_at <= done.started_at <= done.finished_at
    assert [gpu.held_by for gpu in cluster.gpus()] == ["", ""]


def test_a_failing_program_tells_its_exit_code(harness: Harness, cluster: Cluster) -> None:
    cluster.create(spec())
    until_phase(harness, "goal-tune-1", WorkloadPhase.RUNNING)
    harness.end("goal-tune-1", 7)
    done = until_phase(harness, "goal-tune-1", WorkloadPhase.FAILED)
    assert (done.exit_code, done.reason) == (7, "NonZeroExit")


def test_every_call_may_be_repeated(harness: Harness, cluster: Cluster) -> None:
    for _ in range(2):
        cluster.create(spec())
    first = until_phase(harness, "goal-tune-1", WorkloadPhase.RUNNING)
    cluster.create(spec())
    for _ in range(2):
        cluster.pause("goal-tune-1")
    until_phase(harness, "goal-tune-1", WorkloadPhase.PAUSED)
    cluster.create(spec())
    for _ in range(2):
        cluster.resume("goal-tune-1")
    assert until_phase(harness, "goal-tune-1", WorkloadPhase.RUNNING).pid == first.pid
    for _ in range(2):
        cluster.delete("goal-tune-1", grace_seconds=0)
    until_phase(harness, "goal-tune-1", WorkloadPhase.FAILED)
    for call in (cluster.create, lambda _: cluster.pause("goal-tune-1")):
        call(spec())
    cluster.resume("goal-tune-1")
    cluster.delete("goal-tune-1")
    assert cluster.get("goal-tune-1").reason == "Deleted"
    for _ in range(2):
        cluster.forget("goal-tune-1")
    assert cluster.get("goal-tune-1") is None
    assert cluster.output("goal-tune-1") == b""
    assert list(cluster.list()) == []
    assert harness.left_behind() == []


def test_an_unknown_name_is_success_or_nothing(cluster: Cluster) -> None:
    cluster.pause("nobody")
    cluster.resume("nobody")
    cluster.delete("nobody")
    cluster.forget("nobody")
    cluster.set_gpu_allowance("nobody", 5)
    assert cluster.get("nobody") is None
    assert cluster.output("nobody") == b""


def test_a_name_means_one_specification(cluster: Cluster) -> None:
    cluster.create(spec())
    with pytest.raises(WorkloadConflict, match="goal-tune-1 exists"):
        cluster.create(spec(gpus=1))
    with pytest.raises(WorkloadConflict):
        cluster.create(spec(environment={"A": "1"}))
    assert len(cluster.list()) == 1


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"name": "../up"}, "name"),
        ({"name": "Upper"}, "name"),
        ({"command": ()}, "command"),
        ({"command": ("no-such-program",)}, "command"),
        ({"command": ("python", "a\0b")}, "command"),
        ({"environment": {"A=B": "1"}}, "environment"),
        ({"gpus": 3}, "gpus"),
        ({"gpus": -1}, "gpus"),
        ({"memory_bytes": 0}, "memory_bytes"),
        ({"deadline_seconds": float("nan")}, "deadline_seconds"),
        ({"output_bytes_max": -1}, "output_bytes_max"),
        ({"gpu_allowance_ms": -1}, "gpu_allowance_ms"),
    ],
)
def test_what_can_never_run_is_refused(
    cluster: Cluster, changes: dict[str, object], field: str
) -> None:
    with pytest.raises(WorkloadInvalid, match=field):
        cluster.create(spec(**changes))
    assert list(cluster.list()) == []


@pytest.mark.parametrize("name", ["../up", "", "a" * 64])
def test_a_name_is_never_a_path(cluster: Cluster, name: str) -> None:
    with pytest.raises(ClusterError, match="DNS-1123"):
        cluster.get(name)


def test_a_pause_stops_the_meter_and_gives_the_gpu_back(harness: Harness, cluster: Cluster) -> None:
    cluster.create(spec(gpus=1))
    until_phase(harness, "goal-tune-1", WorkloadPhase.RUNNING)
    cluster.pause("goal-tune-1")
    paused = until_phase(harness, "goal-tune-1", WorkloadPhase.PAUSED)
    assert paused.reason == "Paused"
    for _ in range(20):
        assert harness.wait()
    assert cluster.get("goal-tune-1").running_ms == paused.running_ms
    assert cluster.get("goal-tune-1").gpu_idle_held_ms == 0
    assert all(not gpu.held_by for gpu in cluster.gpus())


def test_a_pause_may_hold_the_gpu_and_counts_it(harness: Harness, cluster: Cluster) -> None:
    cluster.create(spec(gpus=2, hold_gpus_on_pause=True))
    until_phase(harness, "goal-tune-1", WorkloadPhase.RUNNING)
    cluster.pause("goal-tune-1")
    paused = until_phase(harness, "goal-tune-1", WorkloadPhase.PAUSED)
    held = until(harness, "goal-tune-1", lambda status: status.gpu_idle_held_ms > 0)
    assert held.gpu_ms == paused.gpu_ms
    assert [gpu.held_by for gpu in cluster.gpus()] == ["goal-tune-1", "goal-tune-1"]
    cluster.delete("goal-tune-1", grace_seconds=0)
    until_phase(harness, "goal-tune-1", WorkloadPhase.FAILED)
    assert all(not gpu.held_by for gpu in cluster.gpus())


def test_a_workload_created_and_paused_at_once_does_not_finish(
    harness: Harness, cluster: Cluster
) -> None:
    cluster.create(spec())
    cluster.pause("goal-tune-1")
    until_phase(harness, "goal-tune-1", WorkloadPhase.PAUSED)
    cluster.resume("goal-tune-1")
    until_phase(harness, "goal-tune-1", WorkloadPhase.RUNNING)


def test_the_allowance_stops_the_workload_by_itself(harness: Harness, cluster: Cluster) -> None:
    cluster.create(spec(gpus=2, gpu_allowance_ms=300))
    spent = until(harness, "goal-tune-1", lambda status: status.reason == "AllowanceExhausted")
    assert spent.phase == WorkloadPhase.PAUSED
    assert 200 <= spent.gpu_ms <= 300
    cluster.resume("goal-tune-1")
    cluster.set_gpu_allowance("goal-tune-1", 100)
    for _ in range(30):
        assert harness.wait()
    assert cluster.get("goal-tune-1").reason == "AllowanceExhausted"
    assert cluster.get("goal-tune-1").gpu_allowance_ms == 300
    cluster.set_gpu_allowance("goal-tune-1", 600)
    again = until(
        harness,
        "goal-tune-1",
        lambda status: status.gpu_ms > 300 and status.reason == "AllowanceExhausted",
    )
    assert again.pid == spent.pid
    assert 500 <= again.gpu_ms <= again.gpu_allowance_ms == 600


def test_an_allowance_of_nothing_never_runs(harness: Harness, cluster: Cluster) -> None:
    cluster.create(spec(gpus=1, gpu_allowance_ms=0))
    spent = until(harness, "goal-tune-1", lambda status: status.reason == "AllowanceExhausted")
    assert (spent.phase, spent.pid, spent.gpu_ms) == (WorkloadPhase.PAUSED, None, 0)


def test_a_grant_does_not_undo_a_pause(harness: Harness, cluster: Cluster) -> None:
    cluster.create(spec(gpus=1, gpu_allowance_ms=100))
    until(harness, "goal-tune-1", lambda status: status.reason == "AllowanceExhausted")
    cluster.pause("goal-tune-1")
    cluster.set_gpu_allowance("goal-tune-1", 100_000)
    until(harness, "goal-tune-1", lambda status: status.reason == "Paused")
    cluster.resume("goal-tune-1")
    until_phase(harness, "goal-tune-1", WorkloadPhase.RUNNING)


def test_two_workloads_take_turns_on_a_slot(harness: Harness, cluster: Cluster) -> None:
    cluster.create(spec("first", gpus=2))
    until_phase(harness, "first", WorkloadPhase.RUNNING)
    cluster.create(spec("second", gpus=1))
    waiting = until(harness, "second", lambda status: status.reason == "Unschedulable")
    assert waiting.phase == WorkloadPhase.PENDING
    assert "gpu-0" in waiting.message or "first" in waiting.message
    cluster.pause("first")
    until_phase(harness, "second", WorkloadPhase.RUNNING)
    cluster.resume("first")
    until(harness, "first", lambda status: status.reason == "WaitingForGpu")
    assert cluster.get("first").phase == WorkloadPhase.PAUSED
    harness.end("second", 0)
    until_phase(harness, "first", WorkloadPhase.RUNNING)
    assert cluster.get("first").gpu_ids == ("gpu-0", "gpu-1")


def test_a_started_workload_keeps_its_cards(harness: Harness, cluster: Cluster) -> None:
    cluster.create(spec("first", gpus=1))
    until_phase(harness, "first", WorkloadPhase.RUNNING)
    cluster.pause("first")
    until_phase(harness, "first", WorkloadPhase.PAUSED)
    cluster.create(spec("second", gpus=1))
    assert until_phase(harness, "second", WorkloadPhase.RUNNING).gpu_ids == ("gpu-0",)
    cluster.resume("first")
    until(harness, "first", lambda status: status.reason == "WaitingForGpu")
    assert [gpu.held_by for gpu in cluster.gpus()] == ["second", ""]
    cluster.delete("second", grace_seconds=0)
    assert until_phase(harness, "first", WorkloadPhase.RUNNING).gpu_ids == ("gpu-0",)


def test_a_waiting_workload_can_be_deleted(harness: Harness, cluster: Cluster) -> None:
    cluster.create(spec("first", gpus=2))
    cluster.create(spec("second", gpus=1))
    until(harness, "second", lambda status: status.reason == "Unschedulable")
    cluster.delete("second")
    done = until_phase(harness, "second", WorkloadPhase.FAILED)
    assert (done.reason, done.pid, done.running_ms) == ("Deleted", None, 0)


def test_the_deadline_counts_running_time_only(harness: Harness, cluster: Cluster) -> None:
    cluster.create(spec(deadline_seconds=0.5))
    until_phase(harness, "goal-tune-1", WorkloadPhase.RUNNING)
    cluster.pause("goal-tune-1")
    until_phase(harness, "goal-tune-1", WorkloadPhase.PAUSED)
    for _ in range(80):
        assert harness.wait()
    assert cluster.get("goal-tune-1").phase == WorkloadPhase.PAUSED
    cluster.resume("goal-tune-1")
    done = until_phase(harness, "goal-tune-1", WorkloadPhase.FAILED)
    assert done.reason == "DeadlineExceeded"
    assert done.running_ms >= 500


def test_an_unfinished_workload_is_not_forgotten(harness: Harness, cluster: Cluster) -> None:
    cluster.create(spec())
    with pytest.raises(ClusterError, match="delete it before"):
        cluster.forget("goal-tune-1")
    assert cluster.get("goal-tune-1") is not None


def test_nonsense_arguments_are_refused(cluster: Cluster) -> None:
    with pytest.raises(ClusterError):
        cluster.set_gpu_allowance("goal-tune-1", -1)
    with pytest.raises(ClusterError):
        cluster.delete("goal-tune-1", grace_seconds=float("nan"))
    with pytest.raises(ClusterError):
        cluster.output("goal-tune-1", offset=-1)


def test_twenty_workloads_at_once(harness: Harness, cluster: Cluster) -> None:
    names = [f"many-{index}" for index in range(20)]
    for name in names:
        cluster.create(spec(name))
    for name in names:
        until_phase(harness, name, WorkloadPhase.RUNNING)
    assert [status.name for status in cluster.list()] == sorted(names)
    assert len({status.pid for status in cluster.list()}) == 20
    for name in names:
        harness.end(name, 0)
    for name in names:
        until_phase(harness, name, WorkloadPhase.SUCCEEDED)

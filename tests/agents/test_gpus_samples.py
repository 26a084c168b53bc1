"""What is kept of samples: latest state, holds and idleness, losses and errors, in the journal."""

import datetime as dt
import os
import subprocess
import sys
from dataclasses import replace
from typing import Any

import pytest
from django.db import OperationalError

from agents.cluster.base import ClusterUnavailable, WorkloadPhase
from agents.cluster.memory import MemoryCluster
from agents.cluster.nvml import DriverReplaced
from agents.gpus.domain import (
    ComputeProcess,
    DeviceKind,
    NodeReading,
    Owner,
    Reading,
    Sample,
    Throttle,
)
from agents.gpus.processes import named
from agents.gpus.sampler import Sampler
from agents.models import GpuDevice, GpuNode
from agents.services.gpus import record_sample
from governance.models import JournalRecord
from tests.agents.cluster_workloads import python_spec

AT = dt.datetime(2026, 3, 1, 12, 0, tzinfo=dt.UTC)
GIB = 1 << 30
CARD = Reading(
    id="GPU-a", kind=DeviceKind.CARD, name="H100", memory_total_bytes=80 * GIB,
    memory_used_bytes=8 * GIB, utilisation=0.5, throttles=(), processes=(), hears_xids=True,
)  # fmt: skip


def _sample(*devices: Reading, after: float = 0, **fields: Any) -> Sample:
    at = AT + dt.timedelta(seconds=after)
    return Sample(node="n1", at=at, devices=devices or (CARD,), **fields)


def _row(device: str = "GPU-a") -> GpuDevice:
    return GpuDevice.objects.get(device_id=device)


def _said() -> list[tuple[str, str]]:
    records = JournalRecord.objects.order_by("seq")
    return [(record.action, record.object_id) for record in records]


class Script:
    """Cards that say what the test has them say; an exception is raised."""

    def __init__(self, *said: NodeReading | Exception) -> None:
        self.said = list(said)
        self.is_closed = False

    def read(self) -> NodeReading:
        one = self.said.pop(0) if len(self.said) > 1 else self.said[0]
        if isinstance(one, Exception):
            raise one
        return one

    def close(self) -> None:
        self.is_closed = True


# --- what is kept ---------------------------------------------------------------------------------


@pytest.mark.django_db
def test_a_sample_is_the_latest_state_and_repeating_it_changes_nothing() -> None:
    sample = _sample(replace(CARD, throttles=(Throttle.SW_THERMAL,), xids=(79,)))
    record_sample(sample)
    record_sample(sample)
    row = _row()
    assert (row.utilisation, row.is_hot, row.throttles) == (0.5, True, ["sw-thermal"])
    assert [error["code"] for error in row.xids] == [79]
    assert row.series == [[int(AT.timestamp()), 50, 10]]
    assert _said() == [("gpu.xid", "GPU-a")]
    node = GpuNode.objects.get()
    assert (node.name, node.is_measured, node.sampled_at) == ("n1", True, AT)


@pytest.mark.django_db
def test_unknown_stays_unknown() -> None:
    record_sample(_sample(Reading(id="gpu-0", kind=DeviceKind.SLOT, name="declared slot")))
    row = _row("gpu-0")
    assert (row.utilisation, row.memory_used_bytes, row.processes, row.series) == (
        None, None, None, [],
    )  # fmt: skip
    assert GpuNode.objects.get().is_measured is False


@pytest.mark.django_db
def test_idleness_counts_from_when_it_began_within_a_hold() -> None:
    busy, idle = CARD, replace(CARD, utilisation=0.01)
    record_sample(_sample(idle))
    assert (_row().idle_since, _row().held_since) == (AT, None)
    record_sample(_sample(idle, after=100, held_by={"GPU-a": "w1"}))
    held = AT + dt.timedelta(seconds=100)
    assert (_row().held_by, _row().held_since, _row().idle_since) == ("w1", held, held)
    record_sample(_sample(idle, after=200, held_by={"GPU-a": "w1"}))
    assert _row().idle_since == held
    record_sample(_sample(idle, after=250, held_by=None))  # the cluster cannot say: still held
    assert (_row().held_by, _row().idle_since) == ("w1", held)
    record_sample(_sample(busy, after=300, held_by={"GPU-a": "w1"}))
    assert (_row().held_since, _row().idle_since) == (held, None)
    record_sample(_sample(busy, after=400, held_by={}))
    assert (_row().held_by, _row().held_since) == ("", None)


@pytest.mark.parametrize(
    ("reading", "expected"),
    [
        (replace(CARD, utilisation=0.0), True),
        (replace(CARD, utilisation=0.05), False),
        (replace(CARD, utilisation=None, processes=()), True),
        (replace(CARD, utilisation=None, processes=(ComputeProcess(pid=1, memory_bytes=1),)), None),
        (replace(CARD, utilisation=None, processes=None), None),
        (replace(CARD, utilisation=0.0, trouble="lost"), None),
    ],
)
def test_idle_is_said_only_where_it_is_known(reading: Reading, expected: bool | None) -> None:
    assert reading.is_idle is expected


@pytest.mark.django_db
def test_a_lost_card_is_lost_once_and_returns() -> None:
    record_sample(_sample())
    lost = Reading(id="GPU-a", kind=DeviceKind.CARD, name="", trouble="It fell off the bus.")
    record_sample(_sample(lost, after=2))
    record_sample(_sample(lost, after=4))
    row = _row()
    assert (row.name, row.utilisation, row.trouble) == ("H100", None, "It fell off the bus.")
    assert row.lost_at == AT + dt.timedelta(seconds=2)
    record_sample(_sample(after=6))
    assert (_row().lost_at, _row().trouble, _row().utilisation) == (None, "", 0.5)
    assert _said() == [("gpu.lost", "GPU-a"), ("gpu.returned", "GPU-a")]


@pytest.mark.django_db
def test_a_card_that_is_gone_is_missed_for_a_week() -> None:
    other = replace(CARD, id="GPU-b")
    record_sample(_sample(CARD, other))
    record_sample(_sample(other, after=2))
    record_sample(_sample(other, after=4))
    assert _row().trouble == "The card is not there any more."
    assert _said() == [("gpu.lost", "GPU-a")]
    record_sample(_sample(other, after=8 * 24 * 3600))
    assert [row.device_id for row in GpuDevice.objects.all()] == ["GPU-b"]


@pytest.mark.django_db
def test_slices_and_slots_come_and_go_with_what_makes_them() -> None:
    part = Reading(id="MIG-1", kind=DeviceKind.SLICE, name="H100 MIG 1g.10gb", parent="GPU-a")
    record_sample(_sample(CARD, part))
    record_sample(_sample(replace(CARD, trouble="lost"), after=2))
    assert _row("MIG-1").parent_id == "GPU-a"  # nobody knows while the card is lost
    record_sample(_sample(CARD, after=4))
    assert not GpuDevice.objects.filter(device_id="MIG-1").exists()
    record_sample(_sample(Reading(id="gpu-0", kind=DeviceKind.SLOT, name="slot"), after=6))
    record_sample(_sample(CARD, after=8))
    assert [row.device_id for row in GpuDevice.objects.all()] == ["GPU-a"]


@pytest.mark.django_db
def test_cards_that_do_not_answer_keep_their_last_figures_and_say_so() -> None:
    record_sample(_sample())
    record_sample(Sample(node="n1", at=AT + dt.timedelta(seconds=2), trouble="NVML is busy."))
    record_sample(Sample(node="n1", at=AT + dt.timedelta(seconds=4), trouble="NVML is busy."))
    node = GpuNode.objects.get()
    assert (node.sampled_at, node.heard_at) == (AT, AT + dt.timedelta(seconds=4))
    assert node.trouble == "NVML is busy."
    assert _row().utilisation == 0.5
    record_sample(_sample(after=6))
    assert GpuNode.objects.get().trouble == ""
    assert _said() == [("node.gpus_unreadable", "n1"), ("node.gpus_readable", "n1")]


@pytest.mark.django_db
def test_what_is_kept_is_bounded() -> None:
    crowd = tuple(ComputeProcess(pid=pid, memory_bytes=1) for pid in range(200))
    for step in range(70):
        noisy = replace(CARD, xids=(79, 79), processes=crowd)
        record_sample(_sample(noisy, after=10.0 * step))
    row = _row()
    assert (len(row.series), len(row.xids), len(row.processes)) == (60, 16, 64)
    assert _said() == [("gpu.xid", "GPU-a")]  # and not seventy times


@pytest.mark.django_db
def test_a_steady_node_costs_one_row_a_look(django_assert_max_num_queries: Any) -> None:
    cards = [replace(CARD, id=f"GPU-{index}", position=index) for index in range(16)]
    record_sample(_sample(*cards))
    with django_assert_max_num_queries(5):
        record_sample(_sample(*cards, after=2))


# --- the sampler ----------------------------------------------------------------------------------


def _sampler(cards: Script, cluster: Any = None, **options: Any) -> Sampler:
    moments = iter(AT + dt.timedelta(seconds=2 * step) for step in range(1000))
    return Sampler(
        "memory", cards=cards, cluster=cluster or MemoryCluster(gpus=2),
        clock=lambda: next(moments), **options,
    )  # fmt: skip


@pytest.mark.django_db
def test_declared_slots_and_who_holds_them() -> None:
    cluster = MemoryCluster(gpus=2)
    cluster.create(python_spec("w1", "pass", gpus=1))
    status = cluster.get("w1")
    assert status is not None
    assert status.phase is WorkloadPhase.RUNNING
    assert _sampler(Script(NodeReading()), cluster).step()
    rows = GpuDevice.objects.order_by("position")
    assert [(row.kind, row.held_by) for row in rows] == [("slot", "w1"), ("slot", "")]


@pytest.mark.django_db
def test_cards_that_fail_are_reported_and_read_again() -> None:
    reading = NodeReading(driver_version="575", devices=(CARD,))
    sampler = _sampler(Script(reading, ClusterUnavailable("NVML does not answer."), reading))
    assert [sampler.step() for _ in range(2)] == [True, True]
    assert GpuNode.objects.get().trouble == "NVML does not answer."
    sampler.step()
    assert GpuNode.objects.get().trouble == ""


@pytest.mark.django_db
def test_a_replaced_driver_is_reported_and_ends_the_process() -> None:
    sampler = _sampler(Script(DriverReplaced("The driver was replaced.")))
    with pytest.raises(DriverReplaced):
        sampler.step()
    assert GpuNode.objects.get().trouble == "The driver was replaced."


def test_while_the_database_is_down_errors_are_kept_but_not_without_bound(db: None) -> None:
    kept: list[Sample] = []
    is_down = True

    def record(sample: Sample) -> None:
        if is_down:
            raise OperationalError("no database")
        kept.append(sample)

    storm = NodeReading(devices=(replace(CARD, xids=(1, 2, 3)),))
    quiet = NodeReading(devices=(CARD,))
    sampler = _sampler(Script(*[storm] * 10, quiet), record=record)
    assert not any(sampler.step() for _ in range(10))
    is_down = False
    assert sampler.step()
    assert sampler.step()
    assert kept[0].devices[0].xids == (3, *(1, 2, 3) * 5)
    assert kept[1].devices[0].xids == ()


# --- whose a process is ---------------------------------------------------------------------------


def test_a_process_is_ours_by_descent_or_session() -> None:
    code = "import subprocess, sys; subprocess.run([sys.executable, '-c', 'input()'])"
    with subprocess.Popen(
        [sys.executable, "-c", f"{code}"], stdin=subprocess.PIPE, start_new_session=True
    ) as process:
        try:
            asked = ComputeProcess(pid=process.pid, memory_bytes=1)
            assert named(asked, {process.pid: "w1"}).workload == "w1"
            assert named(asked, {os.getpid(): "w2"}).workload == "w2"
            assert named(asked, {}).owner is Owner.FOREIGN
            assert named(asked, {}).program.startswith("python")
        finally:
            assert process.stdin is not None
            process.stdin.close()
            process.wait(30)
    assert named(asked, {}).owner is Owner.UNKNOWN

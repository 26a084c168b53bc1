"""The twin's levers: failures on demand, a clock, programs that end when told."""

import datetime as dt

import pytest

from agents.cluster.base import ClusterUnavailable
from agents.cluster.memory import EPOCH, MemoryCluster
from tests.agents.cluster_workloads import python_spec


def test_a_failure_is_raised_once_and_changes_nothing() -> None:
    cluster = MemoryCluster()
    cluster.fail_next(ClusterUnavailable("down"))
    with pytest.raises(ClusterUnavailable, match="down"):
        cluster.create(python_spec("one", ""))
    assert list(cluster.list()) == []


@pytest.mark.parametrize(
    "call",
    [
        lambda cluster: cluster.create(python_spec("one", "")),
        lambda cluster: cluster.pause("one"),
        lambda cluster: cluster.resume("one"),
        lambda cluster: cluster.set_gpu_allowance("one", 1),
        lambda cluster: cluster.delete("one"),
        lambda cluster: cluster.forget("one"),
        lambda cluster: cluster.get("one"),
        lambda cluster: cluster.list(),
        lambda cluster: cluster.output("one"),
        lambda cluster: cluster.gpus(),
    ],
)
def test_every_call_can_be_told_to_fail(call: object) -> None:
    cluster = MemoryCluster()
    cluster.fail_next(ClusterUnavailable("down"))
    with pytest.raises(ClusterUnavailable):
        call(cluster)


def test_time_passes_only_when_told_and_acts_at_the_exact_moment() -> None:
    cluster = MemoryCluster(gpus=1)
    cluster.create(python_spec("one", "", gpus=1, gpu_allowance_ms=300))
    cluster.create(python_spec("two", "", gpus=1, deadline_seconds=0.5))
    cluster.advance(1000)
    assert cluster.now == EPOCH + dt.timedelta(seconds=1)
    one, two = cluster.get("one"), cluster.get("two")
    assert (one.reason, one.gpu_ms) == ("AllowanceExhausted", 300)
    assert (two.reason, two.running_ms) == ("DeadlineExceeded", 500)
    assert two.started_at == EPOCH + dt.timedelta(milliseconds=300)
    assert two.finished_at == EPOCH + dt.timedelta(milliseconds=800)


def test_what_falls_on_the_last_moment_has_happened() -> None:
    cluster = MemoryCluster(gpus=1)
    cluster.create(python_spec("one", "", gpus=1, gpu_allowance_ms=300))
    cluster.advance(299)
    assert cluster.get("one").phase == "Running"
    cluster.advance(1)
    assert cluster.get("one").reason == "AllowanceExhausted"


def test_output_is_capped() -> None:
    cluster = MemoryCluster()
    cluster.create(python_spec("one", "", output_bytes_max=5))
    cluster.write_output("one", b"abc")
    assert not cluster.get("one").output_truncated
    cluster.write_output("one", b"defg")
    assert cluster.output("one", offset=1) == b"bcde"
    assert cluster.get("one").output_truncated


def test_only_a_running_program_ends() -> None:
    cluster = MemoryCluster()
    cluster.create(python_spec("one", ""))
    cluster.pause("one")
    with pytest.raises(ValueError, match="only a running program"):
        cluster.finish("one", 0)

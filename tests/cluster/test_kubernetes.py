"""Attempts as Jobs of a real API server, real controllers and a real scheduler."""

import datetime as dt
import json
from typing import Any

import pytest

from agents.cluster.base import ClusterUnavailable, WorkloadConflict, WorkloadInvalid, WorkloadPhase
from agents.cluster.kubernetes.api import KubernetesApi
from agents.cluster.kubernetes.cluster import KubernetesCluster
from agents.cluster.kubernetes.objects import Terms
from tests.cluster.conftest import Stand, enforce_level

pytestmark = [pytest.mark.slow, pytest.mark.contract]


def test_an_attempt_runs_is_metered_and_succeeds(stand: Stand) -> None:
    spec = stand.spec(gpus=1)
    stand.cluster.create(spec)
    running = stand.until_phase("tune-1", WorkloadPhase.RUNNING)
    assert (running.namespace, running.attempt_uid) == (stand.namespace, "attempt-tune-1")
    assert [gpu.held_by for gpu in stand.cluster.gpus()].count(spec.name) == 1
    assert len(running.gpu_ids) == 1
    assert running.gpu_ids[0] in {gpu.id for gpu in stand.cluster.gpus() if gpu.held_by}
    stand.until("tune-1", lambda status: status.gpu_ms >= 1000)
    stand.end("tune-1", 0)
    done = stand.until_phase("tune-1", WorkloadPhase.SUCCEEDED)
    assert (done.exit_code, done.reason) == (0, "")
    assert done.gpu_ms == done.running_ms >= 1000
    assert done.created_at <= done.started_at <= done.finished_at
    assert not any(gpu.held_by for gpu in stand.cluster.gpus())


def test_a_secret_environment_is_not_on_the_job(stand: Stand) -> None:
    stand.cluster.create(stand.spec())
    job = stand.job("tune-1")
    assert "a-secret" not in json.dumps(job)
    path = f"/api/v1/namespaces/{stand.namespace}/secrets/{stand.spec().name}"
    kept = stand.plane.request("GET", path)
    assert kept["metadata"]["ownerReferences"][0]["uid"] == job["metadata"]["uid"]


@pytest.mark.parametrize(("code", "reason"), [(7, "NonZeroExit"), (137, "OutOfMemory")])
def test_a_failing_program_says_how(stand: Stand, code: int, reason: str) -> None:
    stand.cluster.create(stand.spec())
    stand.until_phase("tune-1", WorkloadPhase.RUNNING)
    stand.end("tune-1", code)
    done = stand.until_phase("tune-1", WorkloadPhase.FAILED)
    assert (done.exit_code, done.reason) == (code, reason)


def test_a_pause_suspends_the_job_and_keeps_what_ran(stand: Stand) -> None:
    stand.cluster.create(stand.spec(gpus=1))
    stand.until("tune-1", lambda status: status.running_ms >= 1000)
    for _ in range(2):
        stand.cluster.pause(stand.spec().name)
    paused = stand.until_phase("tune-1", WorkloadPhase.PAUSED)
    assert paused.reason == "Paused"
    assert stand.job("tune-1")["spec"]["suspend"] is True
    stand.until("tune-1", lambda _: stand.pods() == [])
    assert paused.running_ms >= 1000
    assert not any(gpu.held_by for gpu in stand.cluster.gpus())
    for _ in range(2):
        stand.cluster.resume(stand.spec().name)
    again = stand.until(
        "tune-1",
        lambda status: (
            status.phase == WorkloadPhase.RUNNING and status.running_ms > paused.running_ms
        ),
    )
    assert again.started_at == paused.started_at


def test_a_pause_ends_the_pod_itself(stand: Stand) -> None:
    """The Job controller has few requests a second for all Jobs of a cluster."""
    stand.cluster.create(stand.spec(gpus=1))
    stand.until_phase("tune-1", WorkloadPhase.RUNNING)
    writes: list[str] = []

    def may_write() -> bool:
        writes.append("")
        return True

    KubernetesCluster(stand.api.fenced(may_write)).pause(stand.spec().name)
    assert len(writes) > 1, "the Job and, whoever was first to untrack it, the pod"
    assert all(pod["metadata"].get("deletionTimestamp") for pod in stand.pods())
    stand.until("tune-1", lambda _: stand.pods() == [])
    assert "failed" not in stand.job("tune-1")["status"]
    stand.cluster.resume(stand.spec().name)
    stand.until_phase("tune-1", WorkloadPhase.RUNNING)


def test_the_allowance_suspends_and_a_grant_lets_it_run_on(stand: Stand) -> None:
    stand.cluster.create(stand.spec(gpus=2, gpu_allowance_ms=6_000))
    spent = stand.until("tune-1", lambda status: status.reason == "AllowanceExhausted")
    assert spent.phase == WorkloadPhase.PAUSED
    assert spent.gpu_ms <= 6_000
    stand.cluster.resume(stand.spec().name)
    assert stand.cluster.get(stand.spec().name).reason == "AllowanceExhausted"
    stand.cluster.set_gpu_allowance(stand.spec().name, 60_000)
    running = stand.until_phase("tune-1", WorkloadPhase.RUNNING)
    assert running.gpu_allowance_ms == 60_000


def test_the_cluster_ends_it_when_nobody_looks(stand: Stand) -> None:
    stand.cluster.create(stand.spec(gpus=1, gpu_allowance_ms=4_000))
    job = stand.job("tune-1")
    assert job["spec"]["activeDeadlineSeconds"] > 4
    stand.until_phase("tune-1", WorkloadPhase.RUNNING)
    assert stand.job("tune-1")["spec"]["activeDeadlineSeconds"] <= 12


def test_a_program_that_ended_well_is_not_failed_for_its_time(stand: Stand) -> None:
    stand.cluster.create(stand.spec(gpus=1, gpu_allowance_ms=60_000))
    stand.until("tune-1", lambda status: status.gpu_ms >= 3_000)
    before = stand.job("tune-1")["spec"]["activeDeadlineSeconds"]
    stand.end("tune-1", 0)
    stand.until("tune-1", lambda status: status.is_finished or status.reason == "Ending")
    assert stand.job("tune-1")["spec"]["activeDeadlineSeconds"] >= min(before, 60)
    stand.until_phase("tune-1", WorkloadPhase.SUCCEEDED)


def test_a_deleted_attempt_stays_readable_until_it_is_forgotten(stand: Stand) -> None:
    name = stand.spec().name
    stand.cluster.create(stand.spec())
    stand.until_phase("tune-1", WorkloadPhase.RUNNING)
    for _ in range(2):
        stand.cluster.delete(name, grace_seconds=0)
    done = stand.until_phase("tune-1", WorkloadPhase.FAILED)
    assert done.reason == "Deleted"
    secrets = stand.plane.request("GET", f"/api/v1/namespaces/{stand.namespace}/secrets")
    assert secrets["items"] == []
    stand.cluster.create(stand.spec())
    assert stand.cluster.get(name).reason == "Deleted"
    for _ in range(2):
        stand.cluster.forget(name)
    gone = stand.cluster.get(name)
    assert gone is None or gone.is_finished  # until the Job's own deletion has ended


def test_what_was_deleted_a_day_ago_leaves_the_cluster(stand: Stand) -> None:
    name = stand.spec().name
    stand.cluster.create(stand.spec())
    stand.until_phase("tune-1", WorkloadPhase.RUNNING)
    stand.cluster.delete(name, grace_seconds=0)
    stand.until_phase("tune-1", WorkloadPhase.FAILED)
    assert name in [status.name for status in stand.cluster.list()]
    tomorrow = dt.datetime.now(dt.UTC) + dt.timedelta(hours=25)
    later = KubernetesCluster(stand.api, clock=lambda: tomorrow)
    assert name not in [status.name for status in later.list()]
    stand.until_gone("tune-1")


def test_a_name_means_one_specification(stand: Stand) -> None:
    stand.cluster.create(stand.spec())
    stand.cluster.create(stand.spec())
    with pytest.raises(WorkloadConflict, match="another specification"):
        stand.cluster.create(stand.spec(gpus=1))


def test_what_waits_for_a_gpu_says_so(stand: Stand) -> None:
    for name in ("one", "two"):
        stand.cluster.create(stand.spec(name, gpus=2))
        stand.until_phase(name, WorkloadPhase.RUNNING)
    stand.cluster.create(stand.spec("three", gpus=1))
    waiting = stand.until("three", lambda status: status.reason == "Unschedulable")
    assert "nvidia.com/gpu" in waiting.message
    stand.end("one", 0)
    stand.until_phase("three", WorkloadPhase.RUNNING)


def test_a_quota_says_which(stand: Stand) -> None:
    quota = {
        "apiVersion": "v1", "kind": "ResourceQuota", "metadata": {"name": "gpus"},
        "spec": {"hard": {"requests.nvidia.com/gpu": "0"}},
    }  # fmt: skip
    stand.plane.request("POST", f"/api/v1/namespaces/{stand.namespace}/resourcequotas", quota)
    stand.cluster.create(stand.spec(gpus=1))
    refused = stand.until("tune-1", lambda status: status.reason == "QuotaExceeded")
    assert "gpus" in refused.message


def test_only_whoever_runs_the_cluster_lets_agents_be_root(stand: Stand) -> None:
    rooted = KubernetesCluster(stand.api, terms=Terms(root_namespaces=frozenset({stand.namespace})))
    rooted.create(stand.spec("one"))
    refused = stand.until("one", lambda status: status.reason == "PodRefused")
    assert 'violates PodSecurity "restricted' in refused.message
    enforce_level(stand.plane, stand.namespace, "baseline")
    rooted.create(stand.spec("two"))
    stand.until_phase("two", WorkloadPhase.RUNNING)
    (pod,) = stand.pods()
    assert "runAsNonRoot" not in pod["spec"]["securityContext"]


@pytest.mark.parametrize(
    ("changes", "said"),
    [({"namespace": "no-such-place"}, "no-such-place"), ({"gpus": 100}, "gpus")],
)
def test_what_can_never_run_is_refused(stand: Stand, changes: dict[str, Any], said: str) -> None:
    with pytest.raises(WorkloadInvalid, match=said):
        stand.cluster.create(stand.spec(**changes))


def test_a_cluster_that_cannot_be_reached_is_not_an_empty_one(stand: Stand, tmp_path: Any) -> None:
    config = json.loads(stand.plane.kubeconfig.read_text())
    config["clusters"][0]["cluster"]["server"] = "https://127.0.0.1:1"
    (tmp_path / "kubeconfig").write_text(json.dumps(config))
    api = KubernetesApi("tests", config_file=str(tmp_path / "kubeconfig"))
    with pytest.raises(ClusterUnavailable, match="cannot be reached"):
        KubernetesCluster(api).list()
    unknown = KubernetesApi("nowhere", config_file=str(stand.plane.kubeconfig))
    with pytest.raises(ClusterUnavailable, match="nowhere"):
        KubernetesCluster(unknown).list()

"""What keeps an attempt from running, as a real API server, scheduler and controllers tell it."""

import contextlib
import json
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from agents.cluster.base import Blockage, WorkloadBlocked, WorkloadPhase, WorkloadStatus
from agents.cluster.kubernetes.api import KubernetesApi, ObjectAbsent, object_path
from agents.services.blocked import blockage_words
from goals.models import Goal
from goals.operator.mirror import GOALS, Mirror
from governance.models import JournalRecord
from tests.cluster.conftest import (
    MERGE,
    PATIENCE_SECONDS,
    Stand,
    confined,
    install_resources,
)
from tests.cluster.control_plane import ControlPlane, Refusal
from tests.cluster.floor import Floor, standing_floor
from tests.towers import Tower

pytestmark = [pytest.mark.slow, pytest.mark.contract]


def blockage(status: WorkloadStatus) -> Blockage:
    assert status.blockage is not None
    return status.blockage


def make_quota(plane: ControlPlane, namespace: str, **hard: str) -> None:
    """A ResourceQuota called gpus, in force."""
    body = {
        "apiVersion": "v1", "kind": "ResourceQuota", "metadata": {"name": "gpus"},
        "spec": {"hard": {key.replace("_", "/"): value for key, value in hard.items()}},
    }  # fmt: skip
    path = f"/api/v1/namespaces/{namespace}/resourcequotas"
    plane.request("POST", path, body)
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not (plane.request("GET", f"{path}/gpus").get("status") or {}).get("hard"):
        assert time.monotonic() < deadline
        time.sleep(0.1)


def make_pod(plane: ControlPlane, namespace: str, name: str, *, gpus: int, **spec: Any) -> None:
    """A pod of somebody else."""
    amounts = {"nvidia.com/gpu": str(gpus)}
    container = {
        "name": "main", "image": "others/train:1", "resources": {"limits": amounts}
    }  # fmt: skip
    body = {
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": name},
        "spec": confined({"containers": [container], "restartPolicy": "Never", **spec}),
    }  # fmt: skip
    path = f"/api/v1/namespaces/{namespace}/pods"
    deadline = time.monotonic() + PATIENCE_SECONDS
    while True:
        try:
            plane.request("POST", path, body)
            break
        except Refusal:  # its namespace has no default account yet
            assert time.monotonic() < deadline
            time.sleep(0.1)
    while plane.request("GET", f"{path}/{name}")["status"].get("phase") != "Running":
        assert time.monotonic() < deadline
        time.sleep(0.1)


def end_pod(plane: ControlPlane, namespace: str, name: str) -> None:
    body = {"kind": "DeleteOptions", "apiVersion": "v1", "gracePeriodSeconds": 0}
    with contextlib.suppress(Refusal):
        plane.request("DELETE", f"/api/v1/namespaces/{namespace}/pods/{name}", body)


def until_nothing_is_placed(plane: ControlPlane) -> None:
    """Until the scheduler has heard of what was just changed, which no object tells."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    path = "/api/v1/namespaces/default/pods"
    body = {
        "apiVersion": "v1", "kind": "Pod", "metadata": {"generateName": "probe-"},
        "spec": {"containers": [{"name": "main", "image": "others/probe:1"}]},
    }  # fmt: skip
    while time.monotonic() < deadline:
        with contextlib.suppress(Refusal):  # the namespace has no default account yet
            name = plane.request("POST", path, body)["metadata"]["name"]
            while "conditions" not in (pod := plane.request("GET", f"{path}/{name}"))["status"]:
                time.sleep(0.05)
            end_pod(plane, "default", name)
            if not pod["spec"].get("nodeName"):
                return
        time.sleep(0.1)
    raise AssertionError("the scheduler does not hear of the nodes")


@contextlib.contextmanager
def nodes_changed(plane: ControlPlane, change: dict[str, Any], undo: dict[str, Any]) -> Any:
    """Both nodes, with a spec of this kind meanwhile."""
    for name in ("node-a", "node-b"):
        plane.request("PATCH", f"/api/v1/nodes/{name}", {"spec": change}, content_type=MERGE)
    try:
        until_nothing_is_placed(plane)
        yield
    finally:
        for name in ("node-a", "node-b"):
            plane.request("PATCH", f"/api/v1/nodes/{name}", {"spec": undo}, content_type=MERGE)


# --- The adapter ---------------------------------------------------------------------------------


@pytest.mark.usefixtures("lost")  # goes while the other tests run
def test_a_quota_tells_how_much_of_it_is_used_and_by_whom(stand: Stand) -> None:
    make_quota(stand.plane, stand.namespace, **{"requests.nvidia.com_gpu": "2"})
    stand.cluster.create(stand.spec("one", gpus=2))
    stand.until_phase("one", WorkloadPhase.RUNNING)
    stand.cluster.create(stand.spec("two", gpus=1))
    waits = stand.until("two", lambda status: status.reason == "QuotaExceeded")
    found = blockage(waits)
    assert found.what == (
        f"quota gpus of namespace {stand.namespace} (requests.nvidia.com/gpu: 2 of 2 used, 1 asked)"
    )
    (holder,) = found.holders
    assert (holder.name, holder.is_workload, holder.amount) == (stand.spec("one").name, True, 2)
    assert holder.since is not None


def test_a_quota_of_jobs_keeps_an_attempt_waiting_instead_of_failing_it(stand: Stand) -> None:
    make_quota(stand.plane, stand.namespace, **{"count_jobs.batch": "0"})
    with pytest.raises(WorkloadBlocked) as caught:
        stand.cluster.create(stand.spec())
    assert caught.value.reason == "QuotaExceeded"
    assert "(count/jobs.batch: 0 of 0 used, 1 asked)" in caught.value.blockage.what
    path = f"/api/v1/namespaces/{stand.namespace}/resourcequotas/gpus"
    stand.plane.request(
        "PATCH", path, {"spec": {"hard": {"count/jobs.batch": "5"}}}, content_type=MERGE
    )
    deadline = time.monotonic() + PATIENCE_SECONDS
    while True:
        with contextlib.suppress(WorkloadBlocked):
            stand.cluster.create(stand.spec())
            break
        assert time.monotonic() < deadline
        time.sleep(0.1)
    stand.until_phase("tune-1", WorkloadPhase.RUNNING)


def test_gpus_that_others_hold_are_counted_for_each(stand: Stand) -> None:
    make_pod(stand.plane, stand.namespace, "train-7", gpus=2)
    try:
        stand.cluster.create(stand.spec("one", gpus=1))
        stand.until_phase("one", WorkloadPhase.RUNNING)
        stand.cluster.create(stand.spec("two", gpus=2))
        found = blockage(stand.until("two", lambda status: status.reason == "Unschedulable"))
        assert found.what == "no node with 2 free GPUs"
        held = [(one.name, one.is_workload, one.amount) for one in found.holders]
        assert held == [("train-7", False, 2), (stand.spec("one").name, True, 1)]
    finally:
        end_pod(stand.plane, stand.namespace, "train-7")


def test_more_than_any_node_has_is_said_so(stand: Stand) -> None:
    stand.cluster.create(stand.spec(gpus=3))
    found = blockage(stand.until("tune-1", lambda status: status.reason == "Unschedulable"))
    assert found == Blockage("no node with 3 GPUs (the largest offers 2 GPUs)")


def test_memory_that_no_node_has_is_said_so(stand: Stand) -> None:
    stand.cluster.create(stand.spec(memory_bytes=256 << 30))
    found = blockage(stand.until("tune-1", lambda status: status.reason == "Unschedulable"))
    assert found == Blockage("no node with 256Gi of memory (the largest offers 128Gi of memory)")


TAINT = {"key": "maintenance", "value": "disks", "effect": "NoSchedule"}


@pytest.mark.parametrize(
    ("change", "undo", "said"),
    [
        ({"unschedulable": True}, {"unschedulable": None}, "of 2, 2 cordoned"),
        ({"taints": [TAINT]}, {"taints": None}, "of 2, 2 with taint maintenance=disks:NoSchedule"),
    ],
    ids=["cordoned", "tainted"],
)
def test_nodes_that_take_nothing_say_why(
    stand: Stand, change: dict[str, Any], undo: dict[str, Any], said: str
) -> None:
    with nodes_changed(stand.plane, change, undo):
        stand.cluster.create(stand.spec(gpus=1))
        found = blockage(stand.until("tune-1", lambda status: status.reason == "Unschedulable"))
        assert found == Blockage(f"no node takes it: {said}")
    stand.until_phase("tune-1", WorkloadPhase.RUNNING)


def test_an_image_that_cannot_be_pulled_is_named(stand: Stand) -> None:
    with nodes_changed(stand.plane, {"unschedulable": True}, {"unschedulable": None}):
        stand.cluster.create(stand.spec())
        stand.until("tune-1", lambda status: status.reason == "Unschedulable")
        (pod,) = stand.pods()
        stand.plane.request(
            "PATCH", f"/api/v1/namespaces/{stand.namespace}/pods/{pod['metadata']['name']}",
            {"metadata": {"annotations": {"clearance.test/cannot-pull": "1"}}}, content_type=MERGE,
        )  # fmt: skip
    found = blockage(stand.until("tune-1", lambda status: status.reason == "ImagePull"))
    assert found.what.startswith(f"image {stand.spec().image}: Back-off pulling image")


def test_a_pod_that_the_cluster_refuses_says_why(stand: Stand) -> None:
    body = {
        "apiVersion": "v1", "kind": "LimitRange", "metadata": {"name": "small"},
        "spec": {"limits": [{"type": "Pod", "max": {"memory": "1Gi"}}]},
    }  # fmt: skip
    stand.plane.request("POST", f"/api/v1/namespaces/{stand.namespace}/limitranges", body)
    stand.cluster.create(stand.spec(memory_bytes=2 << 30))
    found = blockage(stand.until("tune-1", lambda status: status.reason == "PodRefused"))
    assert found.what.startswith("the cluster refuses its pod: ")
    assert "maximum memory usage per Pod is 1Gi" in found.what


@contextlib.contextmanager
def priority_class(plane: ControlPlane, name: str, value: int) -> Iterator[None]:
    path = "/apis/scheduling.k8s.io/v1/priorityclasses"
    body = {
        "apiVersion": "scheduling.k8s.io/v1", "kind": "PriorityClass",
        "metadata": {"name": name}, "value": value,
    }  # fmt: skip
    plane.request("POST", path, body)
    try:
        yield
    finally:
        plane.request("DELETE", f"{path}/{name}")


def test_a_preempted_attempt_names_what_took_its_place(stand: Stand) -> None:
    with priority_class(stand.plane, f"{stand.namespace}-urgent", 1000):
        for name in ("one", "two"):
            stand.cluster.create(stand.spec(name, gpus=2))
            stand.until_phase(name, WorkloadPhase.RUNNING)
        urgent = stand.spec("urgent", gpus=2, priority_class=f"{stand.namespace}-urgent")
        stand.cluster.create(urgent)
        stand.until_phase("urgent", WorkloadPhase.RUNNING)
        ended = first_ended(stand, "one", "two")
        assert ended.reason == "PreemptionByScheduler"
        found = blockage(ended)
        assert found.what.startswith("preempted on node-")
        assert (found.verb, [one.name for one in found.holders]) == (
            "its place went to",
            [urgent.name],
        )


def test_a_priority_class_that_the_cluster_has_not_keeps_nothing_from_running(
    stand: Stand,
) -> None:
    stand.cluster.create(stand.spec(priority_class="nobody-made-this"))
    stand.until_phase("tune-1", WorkloadPhase.RUNNING)
    assert "priorityClassName" not in stand.job("tune-1")["spec"]["template"]["spec"]


def first_ended(stand: Stand, *names: str) -> WorkloadStatus:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while True:
        for status in (stand.cluster.get(stand.spec(name).name) for name in names):
            if status is not None and status.is_finished:
                return status
        assert time.monotonic() < deadline
        time.sleep(0.1)


def test_an_eviction_says_so(stand: Stand) -> None:
    stand.cluster.create(stand.spec())
    stand.until_phase("tune-1", WorkloadPhase.RUNNING)
    evict(stand.plane, stand.namespace)
    ended = stand.until_phase("tune-1", WorkloadPhase.FAILED)
    assert ended.reason == "EvictionByEvictionAPI"
    assert blockage(ended).what.startswith("evicted from node-")


def evict(plane: ControlPlane, namespace: str) -> None:
    """As `kubectl drain` does with each pod."""
    for pod in plane.request("GET", f"/api/v1/namespaces/{namespace}/pods")["items"]:
        name = pod["metadata"]["name"]
        body = {"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": name}}
        plane.request("POST", f"/api/v1/namespaces/{namespace}/pods/{name}/eviction", body)


@pytest.fixture(scope="module")
def lost(plane: ControlPlane) -> Iterator[Stand]:
    """An attempt whose node has gone: the controllers take up to a minute to say so."""
    plane.add_namespace("lost", "optimizer")
    plane.add_node("node-lost", gpus=4)
    standing = Stand(plane, "lost")
    try:
        standing.cluster.create(standing.spec(gpus=3))
        standing.until_phase("tune-1", WorkloadPhase.RUNNING)
    finally:
        plane.request("DELETE", "/api/v1/nodes/node-lost")
    yield standing
    standing.close()


# --- The Goal ------------------------------------------------------------------------------------


@pytest.fixture
def floor(
    plane: ControlPlane, tower: Tower, settings: Any, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Floor]:
    with standing_floor(plane, tower, settings, monkeypatch) as standing:
        yield standing


@pytest.fixture
def kubectl(plane: ControlPlane, api: KubernetesApi) -> Iterator[Callable[[Goal], dict[str, Any]]]:
    """Conditions of a Goal's resource, as the operator has just written them."""
    install_resources(plane)
    made: set[str] = set()

    def resource(path: str) -> dict[str, Any] | None:
        try:
            return api.get(path)
        except ObjectAbsent:
            return None

    def conditions(goal: Goal) -> dict[str, Any]:
        path = object_path(GOALS, goal.namespace, goal.name)
        made.add(path)
        mirror = Mirror(api, get=lambda _: resource(path), put=lambda _: None)
        mirror.sync((goal.namespace, goal.name))
        found = resource(path)
        assert found is not None
        return {one["type"]: one for one in found["status"]["conditions"]}

    yield conditions
    for path in made:
        plane.request("PATCH", path, {"metadata": {"finalizers": []}}, content_type=MERGE)
        api.delete(path)


@pytest.mark.django_db(transaction=True)
def test_a_goal_says_which_goal_holds_its_gpus(
    floor: Floor, stand: Stand, kubectl: Callable[[Goal], dict[str, Any]]
) -> None:
    first = floor.start("first")
    holding = floor.until_running(first)
    make_pod(floor.plane, stand.namespace, "secret-project", gpus=1)
    make_pod(floor.plane, "default", "train-7", gpus=1)
    try:
        second = floor.start("second")
        said = floor.until_said(second, "Scheduled", "False")
        assert said["reason"] == "Unschedulable"
        start = "blocked by: no node with 2 free GPUs; held by Goal first 2 (attempt profiler"
        assert f"{start} {holding.number}, since " in said["message"]
        assert said["message"].endswith("foreign workload default/train-7 1, another namespace 1")
        assert "secret" not in said["message"]
        assert stand.namespace not in said["message"]
        (waiting,) = floor.tower.attempts(second)
        assert (waiting.state, waiting.reason) == ("pending", "Unschedulable")
        assert waiting.message in said["message"]
        told = kubectl(second)["Scheduled"]
        assert (told["status"], told["reason"], told["message"]) == (
            "False",
            said["reason"],
            said["message"],
        )
        end_pod(floor.plane, stand.namespace, "secret-project")
        end_pod(floor.plane, "default", "train-7")
        assert floor.until_said(second, "Scheduled", "True")["reason"] == "NothingWaits"
    finally:
        end_pod(floor.plane, stand.namespace, "secret-project")
        end_pod(floor.plane, "default", "train-7")


@pytest.mark.django_db(transaction=True)
def test_a_critical_agent_gets_the_class_of_its_role(floor: Floor) -> None:
    with priority_class(floor.plane, "revenue-critical", 1000):
        attempt = floor.until_running(floor.start("critical"))
        path = f"/apis/batch/v1/namespaces/default/jobs/{attempt.workload}"
        template = floor.plane.request("GET", path)["spec"]["template"]["spec"]
        assert template["priorityClassName"] == "revenue-critical"


@pytest.mark.django_db(transaction=True)
def test_an_eviction_is_a_condition_until_the_attempt_runs_again(floor: Floor) -> None:
    goal = floor.start("evicted")
    first = floor.until_running(goal)
    evict(floor.plane, "default")
    said = floor.until_said(goal, "Disrupted", "False")
    assert said["message"] == "profiler runs again, as attempt 2."
    first.refresh_from_db()
    assert (first.state, first.reason) == ("lost", "EvictionByEvictionAPI")
    records = JournalRecord.objects.filter(goal_uid=goal.uid, action="goal.condition")
    told = [json.loads(one.canonical)["body"]["condition"] for one in records.order_by("seq")]
    (said,) = [one for one in told if (one["type"], one["status"]) == ("Disrupted", "True")]
    assert said["reason"] == "EvictionByEvictionAPI"
    assert said["message"].startswith("profiler, attempt 1: evicted from node-")
    assert goal.phase == "Running"


@pytest.mark.django_db
def test_a_label_alone_makes_no_goal(stand: Stand) -> None:
    """Anyone may put our label on a pod; only a row makes it an attempt."""
    for name in ("one", "two"):
        stand.cluster.create(stand.spec(name, gpus=2))
        stand.until_phase(name, WorkloadPhase.RUNNING)
    stand.cluster.create(stand.spec("three", gpus=2))
    # A node that joined just now may still carry the taint of one that is not ready.
    found = blockage(
        stand.until("three", lambda status: bool(status.blockage and status.blockage.holders))
    )
    words = blockage_words(found, namespace=stand.namespace)
    assert "Goal" not in words
    assert f"foreign workload {stand.namespace}/{stand.spec('one').name} 2" in words
    assert blockage_words(found, namespace="elsewhere").endswith("held by another namespace 4")


@pytest.mark.timeout(300)  # pods are collected 40 s after their node is missed
def test_a_node_that_is_gone_is_named(lost: Stand) -> None:
    ended = lost.until_phase("tune-1", WorkloadPhase.FAILED)
    assert ended.reason == "DeletionByPodGC"
    assert blockage(ended).what.startswith("its node node-lost is gone")

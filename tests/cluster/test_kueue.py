"""Attempts in the queues of the real Kueue controller, on a control plane of its own."""

import itertools
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest
import yaml
from django.utils import timezone

from agents.cluster.base import WorkloadBlocked, WorkloadPhase, WorkloadStatus
from agents.cluster.kubernetes.kueue import CONTROLLER, PICKED, QUEUE, keep_checks_active
from agents.models import Attempt
from goals.models import Goal
from goals.operator.checks import CheckKeeper
from goals.services.apply import cancel_goal
from governance.models import Approval
from governance.services.approvals import decide_approval
from tests.cluster.conftest import APPLY, MERGE, PATIENCE_SECONDS, ROOT, Stand
from tests.cluster.control_plane import ControlPlane, MissingControlPlane, control_plane
from tests.cluster.floor import Floor, standing_floor
from tests.cluster.kueue_controller import MissingKueue, find_kueue, kueue_controller
from tests.towers import Tower

pytestmark = [
    pytest.mark.slow,
    pytest.mark.contract,
    # All of them, so that they run in one go: tests with a database are run before others.
    pytest.mark.django_db(transaction=True),
]

API = "kueue.x-k8s.io/v1beta2"
GPU = "nvidia.com/gpu"
numbers = itertools.count(1)


@pytest.fixture(scope="module")
def kueue_plane(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ControlPlane]:
    """A control plane with one node of eight GPUs, and Kueue."""
    try:
        find_kueue()
        with control_plane(tmp_path_factory.mktemp("kueue-plane")) as plane:
            plane.add_node("node-a", gpus=8)
            with kueue_controller(plane):
                yield plane
    except (MissingControlPlane, MissingKueue) as missing:
        pytest.skip(str(missing))


class Hall(Stand):
    """A namespace with a queue for two GPUs, in which nothing runs without our check."""

    def __init__(self, plane: ControlPlane, namespace: str) -> None:
        super().__init__(plane, namespace)
        if namespace != "default":
            plane.add_namespace(namespace, "optimizer")
        self.make("resourceflavors", "ResourceFlavor", namespace, {})
        self.make("admissionchecks", "AdmissionCheck", namespace, {"controllerName": CONTROLLER})
        self.make_queue("default")

    def make(self, plural: str, kind: str, name: str, spec: Any, *, at: str = "") -> None:
        body = {"apiVersion": API, "kind": kind, "metadata": {"name": name}, "spec": spec}
        self.plane.request("POST", f"/apis/{API}/{at}{plural}", body)

    def make_queue(self, name: str) -> None:
        """A LocalQueue, and the ClusterQueue behind it."""
        owner = f"{self.namespace}-{name}"
        group = {
            "coveredResources": [GPU],
            "flavors": [
                {"name": self.namespace, "resources": [{"name": GPU, "nominalQuota": "2"}]},
            ],
        }
        spec = {
            "namespaceSelector": {},
            "resourceGroups": [group],
            "admissionChecksStrategy": {"admissionChecks": [{"name": self.namespace}]},
            "preemption": {"withinClusterQueue": "LowerPriority"},
        }
        self.make("clusterqueues", "ClusterQueue", owner, spec)
        place = f"namespaces/{self.namespace}/"
        self.make("localqueues", "LocalQueue", name, {"clusterQueue": owner}, at=place)

    def workload(self, name: str) -> dict[str, Any]:
        """The Workload that Kueue made of an attempt's Job."""
        uid = self.job(name)["metadata"]["uid"]
        path = f"/apis/{API}/namespaces/{self.namespace}/workloads"
        items = self.plane.request("GET", path)["items"]
        return next(one for one in items if one["metadata"]["ownerReferences"][0]["uid"] == uid)

    def check(self, name: str) -> dict[str, Any]:
        """What stands in our check of it."""
        (found,) = self.workload(name)["status"]["admissionChecks"]
        return dict(found)

    def set_active(self, name: str, is_active: bool) -> None:
        """As somebody else does with kubectl."""
        found = self.workload(name)["metadata"]["name"]
        path = f"/apis/{API}/namespaces/{self.namespace}/workloads/{found}"
        self.plane.request("PATCH", path, {"spec": {"active": is_active}}, content_type=MERGE)

    def until_evicted(self, name: str) -> WorkloadStatus:
        """Until it is paused, its pod has gone and it reserves nothing."""
        deadline = time.monotonic() + PATIENCE_SECONDS
        while True:
            status = self.until_phase(name, WorkloadPhase.PAUSED)
            spec, told = self.workload(name)["spec"], self.workload(name)["status"]
            if not self.pods_of(name) and "admission" not in told and not spec["active"]:
                return status
            assert time.monotonic() < deadline, told
            time.sleep(0.1)

    def pods_of(self, name: str) -> list[dict[str, Any]]:
        label = "orchestration.ai/workload"
        full = self.spec(name).name
        return [pod for pod in self.pods() if pod["metadata"]["labels"][label] == full]


@pytest.fixture
def hall(kueue_plane: ControlPlane) -> Iterator[Hall]:
    standing = Hall(kueue_plane, f"hall{next(numbers)}")
    keep_checks_active(standing.api, now=timezone.now())
    yield standing
    standing.close()


def test_nothing_is_admitted_before_our_check_is_active(kueue_plane: ControlPlane) -> None:
    hall = Hall(kueue_plane, f"hall{next(numbers)}")
    try:
        hall.cluster.create(hall.spec(gpus=1))
        waits = hall.until("tune-1", lambda status: status.reason == "QueuedForQuota")
        assert f"ClusterQueue {hall.namespace}-default is inactive" in waits.message
        assert keep_checks_active(hall.api, now=timezone.now()) == 1
        hall.until_phase("tune-1", WorkloadPhase.RUNNING)
        assert keep_checks_active(hall.api, now=timezone.now()) == 0
        assert hall.job("tune-1")["metadata"]["labels"][QUEUE] == "default"
        said = hall.check("tune-1")
        assert (said["state"], said["message"]) == ("Ready", "It is approved; it uses no GPU.")
    finally:
        hall.close()


def test_what_waits_behind_a_quota_names_who_holds_it(hall: Hall) -> None:
    hall.cluster.create(hall.spec("one", gpus=2, gpu_allowance_ms=600_000))
    hall.until_phase("one", WorkloadPhase.RUNNING)
    assert hall.check("one")["message"].startswith("It is approved, with ")
    hall.cluster.create(hall.spec("two", gpus=1))
    waits = hall.until("two", lambda status: status.reason == "QueuedForQuota")
    assert waits.phase is WorkloadPhase.PENDING
    assert waits.blockage is not None
    start = f"queue default of namespace {hall.namespace} (ClusterQueue {hall.namespace}-default: "
    assert waits.blockage.what.startswith(start)
    assert "insufficient unused quota for nvidia.com/gpu" in waits.blockage.what
    (holder,) = waits.blockage.holders
    assert (holder.name, holder.is_workload, holder.amount) == (hall.spec("one").name, True, 2)
    assert hall.job("two")["spec"]["suspend"] is True
    hall.end("one", 0)
    hall.until_phase("one", WorkloadPhase.SUCCEEDED)
    hall.until_phase("two", WorkloadPhase.RUNNING)


def test_the_limit_evicts_and_more_of_it_lets_it_queue_again(hall: Hall) -> None:
    hall.cluster.create(hall.spec("one", gpus=2, gpu_allowance_ms=6_000))
    spent = hall.until("one", lambda status: status.reason == "AllowanceExhausted")
    assert spent.gpu_ms <= 6_000
    stopped = hall.until_evicted("one")
    assert stopped.reason == "AllowanceExhausted"
    assert hall.check("one")["message"].endswith("Previously: Retry")
    hall.cluster.create(hall.spec("two", gpus=2))  # the quota is not kept by what waits
    hall.until_phase("two", WorkloadPhase.RUNNING)
    hall.end("two", 0)
    hall.cluster.set_gpu_allowance(hall.spec("one").name, 60_000)
    again = hall.until_phase("one", WorkloadPhase.RUNNING)
    assert (again.started_at, again.gpu_allowance_ms) == (spent.started_at, 60_000)
    assert hall.check("one")["state"] == "Ready"


def test_a_pause_gives_the_place_back_and_a_resume_asks_for_it_again(hall: Hall) -> None:
    name = hall.spec("one").name
    hall.cluster.create(hall.spec("one", gpus=2))
    hall.until("one", lambda status: status.running_ms >= 1000)
    hall.cluster.pause(name)
    paused = hall.until_evicted("one")
    assert (paused.reason, paused.running_ms >= 1000) == ("Paused", True)
    hall.cluster.resume(name)
    began = time.monotonic()
    hall.until_phase("one", WorkloadPhase.RUNNING)
    assert time.monotonic() - began < 30
    hall.cluster.pause(name)
    hall.until_phase("one", WorkloadPhase.PAUSED)
    hall.cluster.resume(name)  # at once, before it was set inactive
    began = time.monotonic()
    hall.until_phase("one", WorkloadPhase.RUNNING)
    assert time.monotonic() - began < 30


def test_what_is_denied_is_rejected(hall: Hall) -> None:
    hall.cluster.create(hall.spec("one", gpus=1))
    hall.until_phase("one", WorkloadPhase.RUNNING)
    hall.cluster.delete(hall.spec("one").name, grace_seconds=0)
    ended = hall.until_phase("one", WorkloadPhase.FAILED)
    assert ended.reason == "Deleted"
    deadline = time.monotonic() + PATIENCE_SECONDS
    while "admission" in hall.workload("one")["status"] and not finished(hall, "one"):
        assert time.monotonic() < deadline
        time.sleep(0.1)
    assert "Rejected" in str(hall.check("one"))
    hall.cluster.create(hall.spec("two", gpus=2))
    hall.until_phase("two", WorkloadPhase.RUNNING)


def finished(hall: Hall, name: str) -> bool:
    conditions = hall.workload(name)["status"].get("conditions") or []
    return any(one["type"] == "Finished" and one["status"] == "True" for one in conditions)


def test_one_that_was_preempted_says_so_and_runs_on_later(hall: Hall) -> None:
    urgent = f"{hall.namespace}-urgent"
    body = {
        "apiVersion": "scheduling.k8s.io/v1", "kind": "PriorityClass",
        "metadata": {"name": urgent}, "value": 1000,
    }  # fmt: skip
    hall.plane.request("POST", "/apis/scheduling.k8s.io/v1/priorityclasses", body)
    hall.cluster.create(hall.spec("one", gpus=2))
    first = hall.until("one", lambda status: status.running_ms >= 1000)
    hall.cluster.create(hall.spec("urgent", gpus=2, priority_class=urgent))
    hall.until_phase("urgent", WorkloadPhase.RUNNING)
    waits = hall.until("one", lambda status: bool(status.blockage and status.blockage.holders))
    assert (waits.phase, waits.reason) == (WorkloadPhase.PENDING, "Preempted")
    assert waits.blockage is not None
    assert [one.name for one in waits.blockage.holders] == [hall.spec("urgent").name]
    assert "preempted due to prioritization in the ClusterQueue" in waits.blockage.what
    assert "UID" not in waits.blockage.what
    hall.end("urgent", 0)
    again = hall.until(
        "one",
        lambda status: (
            status.phase is WorkloadPhase.RUNNING and status.running_ms > waits.running_ms
        ),
    )
    assert again.started_at == first.started_at


def test_one_that_somebody_else_set_inactive_stays_so(hall: Hall) -> None:
    hall.cluster.create(hall.spec("one", gpus=1))
    hall.until_phase("one", WorkloadPhase.RUNNING)
    hall.set_active("one", False)
    waits = hall.until("one", lambda status: status.reason == "Inactive")
    assert waits.blockage is not None
    assert waits.blockage.what == "its Workload was set inactive in Kueue"
    hall.cluster.resume(hall.spec("one").name)
    assert hall.until("one", lambda _: True).reason == "Inactive"
    hall.set_active("one", True)
    hall.until_phase("one", WorkloadPhase.RUNNING)


def test_among_several_queues_one_must_be_picked(kueue_plane: ControlPlane) -> None:
    hall = Hall(kueue_plane, f"hall{next(numbers)}")
    place = f"/apis/{API}/namespaces/{hall.namespace}/localqueues/default"
    keep_checks_active(hall.api, now=timezone.now())
    hall.make_queue("day")
    hall.make_queue("night")
    try:
        hall.cluster.create(hall.spec("one"))
        assert hall.job("one")["metadata"]["labels"][QUEUE] == "default"
        hall.plane.request("DELETE", place)
        with pytest.raises(WorkloadBlocked, match="among day, night"):
            hall.cluster.create(hall.spec("two"))
        hall.plane.request(
            "PATCH", f"/api/v1/namespaces/{hall.namespace}",
            {"metadata": {"annotations": {PICKED: "night"}}}, content_type=MERGE,
        )  # fmt: skip
        hall.cluster.create(hall.spec("two"))
        assert hall.job("two")["metadata"]["labels"][QUEUE] == "night"
        hall.cluster.create(hall.spec("three", labels={QUEUE: "day"}))
        assert hall.job("three")["metadata"]["labels"][QUEUE] == "day"
        hall.until_phase("three", WorkloadPhase.RUNNING)
    finally:
        hall.close()


def test_a_namespace_without_a_queue_is_left_to_suspension(kueue_plane: ControlPlane) -> None:
    namespace = f"hall{next(numbers)}"
    kueue_plane.add_namespace(namespace, "optimizer")
    stand = Stand(kueue_plane, namespace)
    try:
        stand.cluster.create(stand.spec(gpus=1))
        stand.until_phase("tune-1", WorkloadPhase.RUNNING)
        assert QUEUE not in stand.job("tune-1")["metadata"]["labels"]
        stand.cluster.pause(stand.spec().name)
        stand.until_phase("tune-1", WorkloadPhase.PAUSED)
        assert stand.job("tune-1")["spec"]["suspend"] is True
    finally:
        stand.close()


# --- Goals ---------------------------------------------------------------------------------------


@pytest.fixture
def floor(
    kueue_plane: ControlPlane, tower: Tower, settings: Any, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Floor]:
    with standing_floor(kueue_plane, tower, settings, monkeypatch) as standing:
        yield standing


@pytest.fixture(scope="module")
def front(kueue_plane: ControlPlane) -> Iterator[Hall]:
    """The queue of namespace `default`, where the Goals are."""
    standing = Hall(kueue_plane, "default")
    keep_checks_active(standing.api, now=timezone.now())
    yield standing
    standing.close()


def answer(floor: Floor, goal: Goal, *, approve: bool) -> None:
    approval = Approval.objects.get(goal_uid=goal.uid, state="pending")
    decide_approval(
        approval,
        principal=floor.tower.approver,
        approve=approve,
        reason="Considered.",
        request_digest=approval.request_digest,
        answer={},
    )


def workloads(hall: Hall, attempt: Attempt) -> list[dict[str, Any]]:
    path = f"/apis/{API}/namespaces/default/workloads"
    items = hall.plane.request("GET", path)["items"]
    return [
        one for one in items if one["metadata"]["ownerReferences"][0]["name"] == attempt.workload
    ]


def test_a_goal_at_its_limit_gives_its_place_back_until_it_is_approved(
    floor: Floor, front: Hall
) -> None:
    goal = floor.start("limited", budget="8 GPU-seconds")
    attempt = floor.until_running(goal)
    floor.until(goal, lambda _: Approval.objects.filter(goal_uid=goal.uid).exists())
    floor.until(goal, lambda _: goal.phase == "Paused")
    floor.until(goal, lambda _: "admission" not in workloads(front, attempt)[0]["status"])
    other = floor.start("other")
    floor.until_running(other)
    cancel_goal(other, principal=floor.tower.operator, reason="It has shown that there is room.")
    floor.until(other, lambda _: other.phase == "Cancelled")
    answer(floor, goal, approve=True)
    again = floor.until_running(goal)
    assert (again.pk, again.number, goal.phase) == (attempt.pk, 1, "Running")
    (found,) = workloads(front, attempt)
    assert found["status"]["admissionChecks"][0]["state"] == "Ready"


def test_a_goal_that_waits_in_its_queue_says_behind_whom(floor: Floor, front: Hall) -> None:
    first = floor.start("ahead")
    holding = floor.until_running(first)
    second = floor.start("behind")
    said = floor.until_said(second, "Scheduled", "False")
    assert said["reason"] == "QueuedForQuota"
    start = "profiler: blocked by: queue default of namespace default (ClusterQueue default-default"
    assert said["message"].startswith(start)
    assert f"; held by Goal ahead 2 (attempt profiler {holding.number}, since " in said["message"]
    cancel_goal(first, principal=floor.tower.operator, reason="Let the other one run.")
    floor.until(first, lambda _: first.phase == "Cancelled")
    floor.until_running(second)
    assert floor.until_said(second, "Scheduled", "True")["reason"] == "NothingWaits"


def test_a_denied_goal_is_rejected(floor: Floor, front: Hall) -> None:
    goal = floor.start("denied", budget="4 GPU-seconds")
    attempt = floor.until_running(goal)
    floor.until(goal, lambda _: Approval.objects.filter(goal_uid=goal.uid).exists())
    answer(floor, goal, approve=False)
    floor.until(goal, lambda _: goal.is_landed)
    attempt.refresh_from_db()
    assert attempt.state == "stopped"
    (found,) = workloads(front, attempt)
    assert found["spec"]["active"] is False


# --- What is shipped -----------------------------------------------------------------------------


def test_the_queue_that_is_shipped_is_accepted(kueue_plane: ControlPlane) -> None:
    for document in yaml.safe_load_all((ROOT / "deploy" / "kueue" / "queue.yaml").read_text()):
        metadata = document["metadata"]
        place = f"namespaces/{metadata['namespace']}/" if "namespace" in metadata else ""
        if place:
            kueue_plane.add_namespace(metadata["namespace"])
        path = f"/apis/{API}/{place}{document['kind'].lower()}s/{metadata['name']}"
        query = "?fieldManager=tests&fieldValidation=Strict&dryRun=All"
        made = kueue_plane.request("PATCH", path + query, document, content_type=APPLY)
        assert made["metadata"]["name"] == metadata["name"]


def test_the_operator_that_leads_keeps_the_checks_active(kueue_plane: ControlPlane) -> None:
    hall = Hall(kueue_plane, f"hall{next(numbers)}")
    stop, leads = threading.Event(), threading.Event()
    keeper = CheckKeeper(hall.api, is_leader=leads.is_set, stop=stop, every_seconds=0.1)
    thread = threading.Thread(target=keeper.run)
    thread.start()
    path = f"/apis/{API}/admissionchecks/{hall.namespace}"
    try:
        time.sleep(0.5)  # long enough for several looks
        assert "conditions" not in kueue_plane.request("GET", path).get("status", {})
        leads.set()
        deadline = time.monotonic() + PATIENCE_SECONDS
        while "conditions" not in kueue_plane.request("GET", path).get("status", {}):
            assert time.monotonic() < deadline
            time.sleep(0.1)
    finally:
        stop.set()
        thread.join()
        hall.close()

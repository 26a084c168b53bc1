"""The webhooks as a real API server asks them: what is refused, changed, kept and survived."""

import contextlib
import http.client
import signal
import ssl
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from agents.admission.persons import REQUESTED_BY
from agents.cluster.kubernetes.api import KubernetesApi, ObjectConflict, object_path
from goals.domain.states import Phase
from goals.models import Goal
from goals.operator.mirror import GOALS, Mirror
from governance.access import principal_of
from governance.domain import ApprovalForbidden, ApprovalState, Role
from governance.models import Approval, Membership
from governance.services.approvals import decide_approval
from tests.authorities import PrivateAuthority
from tests.cluster.conftest import MERGE, PATIENCE_SECONDS, install_resources, numbers
from tests.cluster.control_plane import ControlPlane, Refusal
from tests.cluster.guard import Guard, guard, said
from tests.towers import Tower
from tests.with_servers import MissingServer, servers

pytestmark = [pytest.mark.slow, pytest.mark.contract]

KEY = "a key of the tests alone, long enough for Django's checks to be content"
IMAGE = "registry.example/agents/optimizer:1.0"
STRATEGIC = "application/strategic-merge-patch+json"


@pytest.fixture(scope="module")
def watch(plane: ControlPlane, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Guard]:
    """Admission on a PostgreSQL of its own."""
    install_resources(plane)
    try:
        with (
            servers() as urls,
            guard(
                plane, tmp_path_factory.mktemp("admission"), database=urls["DATABASE_URL"], key=KEY
            ) as made,
        ):
            yield made
    except MissingServer as missing:
        pytest.skip(str(missing))


@pytest.fixture
def shop(plane: ControlPlane, watch: Guard) -> Iterator[str]:
    """A governed namespace; its pods are gone afterwards."""
    name = governed(plane)
    if watch.process is None:
        watch.start()
    yield name
    # Whatever stands in it may go: nothing is asked about a namespace that is not governed.
    plane.request(
        "PATCH", f"/api/v1/namespaces/{name}",
        {"metadata": {"labels": {"orchestration.ai/governed": None}}}, content_type=MERGE,
    )  # fmt: skip
    plane.request("DELETE", f"/api/v1/namespaces/{name}/pods?gracePeriodSeconds=0")


def governed(plane: ControlPlane) -> str:
    name = f"governed-{next(numbers)}"
    plane.add_namespace(name, "optimizer")
    labels = {"metadata": {"labels": {"orchestration.ai/governed": "true"}}}
    plane.request("PATCH", f"/api/v1/namespaces/{name}", labels, content_type=MERGE)
    return name


def pod(name: str = "agent", **changes: Any) -> dict[str, Any]:
    labels = changes.pop("labels", {})
    gpus = changes.pop("gpus", 0)
    limits = {"nvidia.com/gpu": str(gpus)} if gpus else {}
    container = {
        "name": "agent", "image": changes.pop("image", IMAGE), "resources": {"limits": limits},
    }  # fmt: skip
    spec = {"serviceAccountName": "optimizer", "containers": [container], **changes}
    metadata = {"name": name, "labels": labels}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec}


def pods(namespace: str, name: str = "", query: str = "") -> str:
    return f"/api/v1/namespaces/{namespace}/pods{'/' if name else ''}{name}{query}"


def refusal(plane: ControlPlane, path: str, found: dict[str, Any]) -> str:
    with pytest.raises(Refusal) as caught:
        plane.request("POST", path, found)
    return said(caught.value)


def test_nobody_but_the_api_server_is_answered(
    watch: Guard, shop: str, tmp_path: Path
) -> None:  # all other tests here ask through it
    status, said = watch.review(shown=None)
    assert status == 403
    assert "--client-ca-file" in said
    assert watch.plane.callers is not None
    known = watch.plane.callers.client("somebody-of-the-same")
    assert watch.review(shown=known)[0] == 400  # heard: `{}` is no review
    with pytest.raises((ssl.SSLError, ConnectionError, http.client.RemoteDisconnected)):
        watch.review(shown=PrivateAuthority(tmp_path, name="Foreign").client("kube-apiserver"))
    assert watch.page("/healthz")[0] == 200  # kubelets show no certificate


def test_what_policy_denies_never_gets_in(plane: ControlPlane, watch: Guard, shop: str) -> None:
    latest = refusal(plane, pods(shop), pod(image="optimizer:latest"))
    assert "uses the tag latest: pin it by digest (rule clearance.workload.deny, image" in latest
    three = pod(gpus=3, labels={"agent_role": "experimental"})
    assert "limited to 2 GPUs: this pod asks for 3" in refusal(plane, pods(shop), three)
    template = {"metadata": {"labels": {"app": "a"}}, "spec": pod(image="a:latest")["spec"]}
    template["spec"]["containers"][0]["resources"] = {}
    deployment = {
        "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "shop"},
        "spec": {"selector": {"matchLabels": {"app": "a"}}, "template": template},
    }  # fmt: skip
    deployments = f"/apis/apps/v1/namespaces/{shop}/deployments"
    assert "uses the tag latest" in refusal(plane, deployments, deployment)
    made = watch.until(lambda: len(found := watch.decisions(shop)) == 3 and found, "recorded")
    assert [(one["subject_kind"], one["outcome"]) for one in made] == [
        ("pod", "deny"), ("pod", "deny"), ("deployment", "deny"),
    ]  # fmt: skip


def test_the_agent_is_whom_its_account_says(plane: ControlPlane, shop: str) -> None:
    made = plane.request("POST", pods(shop), pod(labels={"agent_id": "profiler"}))
    assert made["metadata"]["labels"]["agent_id"] == "optimizer"
    change = {"metadata": {"labels": {"agent_id": "profiler"}}}
    changed = plane.request("PATCH", pods(shop, "agent"), change, content_type=MERGE)
    assert changed["metadata"]["labels"]["agent_id"] == "optimizer"


def test_a_container_that_is_added_later_is_judged(plane: ControlPlane, shop: str) -> None:
    """What `kubectl debug` does."""
    plane.request("POST", pods(shop), pod())
    path = pods(shop, "agent", "/ephemeralcontainers")
    for image, is_refused in (("busybox:latest", True), ("busybox:1.37", False)):
        added = {"name": "debugger", "image": image, "targetContainerName": "agent"}
        change = {"spec": {"ephemeralContainers": [added]}}
        if not is_refused:
            assert plane.request("PATCH", path, change, content_type=STRATEGIC)
            continue
        with pytest.raises(Refusal, match='container \\\\"debugger\\\\": image'):
            plane.request("PATCH", path, change, content_type=STRATEGIC)


def test_a_dry_run_is_answered_and_leaves_nothing(
    plane: ControlPlane, watch: Guard, shop: str
) -> None:
    assert "latest" in refusal(plane, pods(shop, query="?dryRun=All"), pod(image="a:latest"))
    plane.request("POST", pods(shop, query="?dryRun=All"), pod())
    plane.request("POST", pods(shop), pod("real"))
    (only,) = watch.until(lambda: watch.decisions(shop), "recorded")
    assert only["subject_id"] == f"{shop}/real"


def test_without_us_governed_namespaces_are_shut_and_no_others(
    plane: ControlPlane, watch: Guard, shop: str
) -> None:
    free = f"free-{next(numbers)}"
    plane.add_namespace(free, "optimizer")
    assert watch.end() == 0
    assert "failed calling webhook" in refusal(plane, pods(shop), pod())
    made = plane.request("POST", pods(free), pod(image="a:latest", labels={"agent_id": "who"}))
    assert made["metadata"]["labels"]["agent_id"] == "who"
    plane.request("DELETE", pods(free, "agent", "?gracePeriodSeconds=0"))
    watch.start()
    plane.request("POST", pods(shop), pod())


def test_killed_at_any_moment_no_answer_is_lost(
    plane: ControlPlane, watch: Guard, shop: str
) -> None:
    answered: list[str] = []

    def ask(first: int) -> None:
        for number in range(first, 1000, 4):
            try:
                plane.request("POST", pods(shop), pod(f"agent-{number}"))
            except (Refusal, OSError):
                return
            answered.append(f"{shop}/agent-{number}")

    threads = [threading.Thread(target=ask, args=[first]) for first in range(4)]
    for thread in threads:
        thread.start()
    deadline = time.monotonic() + PATIENCE_SECONDS
    while len(answered) < 30:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    watch.end(signal.SIGKILL)
    for thread in threads:
        thread.join(PATIENCE_SECONDS)
    watch.start()

    def missing() -> set[str]:
        return set(answered) - {one["subject_id"] for one in watch.decisions(shop)}

    watch.until(lambda: not missing(), "recorded")
    uids = [one["uid"] for one in watch.decisions(shop)]
    assert len(uids) == len(set(uids))
    assert len({one["subject_id"] for one in watch.decisions(shop)}) == len(uids)


def test_the_last_policy_judges_on_while_the_database_is_away(
    plane: ControlPlane, watch: Guard, shop: str
) -> None:
    watch.relay.cut()
    try:
        watch.until(lambda: "age_seconds 0" not in watch.page("/metrics")[1], "aged")
        assert watch.page("/readyz")[0] == 200
        plane.request("POST", pods(shop), pod())
        assert "latest" in refusal(plane, pods(shop), pod("other", image="a:latest"))
        assert watch.decisions(shop) == []
    finally:
        watch.relay.mend()
    made = watch.until(lambda: len(found := watch.decisions(shop)) == 2 and found, "recorded")
    assert [one["outcome"] for one in made] == ["allow", "deny"]


def test_a_job_starts_and_stops_under_guard(plane: ControlPlane, shop: str) -> None:
    """Its pods are judged when the Job controller makes them; its bookkeeping is let through."""
    spec = {**pod()["spec"], "restartPolicy": "Never"}
    job = {
        "apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": "tune"},
        "spec": {"suspend": True, "template": {"spec": spec}},
    }  # fmt: skip
    jobs = f"/apis/batch/v1/namespaces/{shop}/jobs"
    made = plane.request("POST", jobs, job)
    assert made["spec"]["template"]["metadata"]["labels"]["agent_id"] == "optimizer"
    plane.request("PATCH", f"{jobs}/tune", {"spec": {"suspend": False}}, content_type=MERGE)
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not (found := plane.request("GET", pods(shop))["items"]):
        assert time.monotonic() < deadline
        time.sleep(0.1)
    assert found[0]["metadata"]["labels"]["agent_id"] == "optimizer"
    plane.request("PATCH", f"{jobs}/tune", {"spec": {"suspend": True}}, content_type=MERGE)
    while plane.request("GET", pods(shop))["items"]:  # the tracking finalizer is taken off
        assert time.monotonic() < deadline
        time.sleep(0.1)


def test_no_secret_of_the_webhooks_is_on_the_disk(watch: Guard) -> None:
    keys = [
        path for path in (watch.data / "admission").rglob("*")
        if path.is_file() and b"PRIVATE KEY" in path.read_bytes()
    ]  # fmt: skip
    assert keys == []


# --- Persons -------------------------------------------------------------------------------------


@pytest.mark.django_db(transaction=True)
@pytest.mark.usefixtures("twins")
def test_who_asks_with_kubectl_cannot_approve_in_the_console(
    plane: ControlPlane, api: KubernetesApi, watch: Guard, shop: str, tower: Tower
) -> None:
    agent = tower.register("profiler", produces="report").agent
    type(agent).objects.update(namespace=shop)
    goals = f"/apis/orchestration.ai/v1/namespaces/{shop}/goals"
    spec = {
        "objective": "p99 latency < 120 ms for /checkout", "budget": "50 GPU-minutes",
        "agents": ["profiler"], "requireApproval": True,
    }  # fmt: skip
    asked = {
        "apiVersion": "orchestration.ai/v1", "kind": "Goal",
        "metadata": {"name": "faster", "annotations": {REQUESTED_BY: "somebody-else"}},
        "spec": spec,
    }  # fmt: skip
    vague = refusal(plane, goals, {**asked, "spec": {**spec, "objective": "make it nicer"}})
    assert "denied the request: spec.objective: " in vague
    made = plane.request("POST", goals, asked, user="approver")
    assert made["metadata"]["annotations"][REQUESTED_BY] == "approver"
    mirror = Mirror(api, get=lambda key: api.get(object_path(GOALS, *key)), put=lambda _: None)
    row = synced(mirror, shop)
    assert (row.requested_by, row.editors) == ("approver", [])
    change = {"spec": {"budget": "60 GPU-minutes"}}
    plane.request("PATCH", f"{goals}/faster", change, content_type=MERGE, user="admin")
    row = tower.reconcile(synced(mirror, shop))
    assert (row.requested_by, row.editors) == ("approver", ["admin"])
    assert row.phase == Phase.AWAITING_APPROVAL
    (approval,) = Approval.objects.filter(goal_uid=row.uid, state=ApprovalState.PENDING)
    approver = tower.people["approver"]
    Membership.objects.create(user=approver, namespace=shop, role=Role.APPROVER)
    for person in (approver, tower.people["admin"]):
        with pytest.raises(ApprovalForbidden, match="four eyes"):
            decide_approval(
                approval, principal=principal_of(person), approve=True, reason="Mine.",
                request_digest=approval.request_digest,
            )  # fmt: skip


def synced(mirror: Mirror, namespace: str) -> Goal:
    """The row of a Goal, once it says what the resource does."""
    for _ in range(10):
        with contextlib.suppress(ObjectConflict):
            if mirror.sync((namespace, "faster")) is None:
                break
    return Goal.objects.get(namespace=namespace)

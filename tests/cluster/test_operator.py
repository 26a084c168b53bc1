"""Rows and resources kept the same on a real API server, in both directions."""

import itertools
import json
from collections.abc import Iterator
from typing import Any

import pytest

from agents.cluster.base import ClusterError
from agents.cluster.kubernetes.api import KubernetesApi, ObjectAbsent, ObjectConflict, object_path
from goals.models import Goal
from goals.operator.agents import AGENTS, AgentMirror
from goals.operator.election import TERM_SECONDS, Election
from goals.operator.mirror import GOALS, Mirror
from goals.operator.resources import AGREED, FINALIZER
from goals.services.apply import delete_goal
from tests.cluster.conftest import MERGE, install_resources
from tests.cluster.control_plane import CONTEXT, ControlPlane, Refusal

pytestmark = [
    pytest.mark.slow,
    pytest.mark.contract,
    pytest.mark.django_db(transaction=True),
    pytest.mark.usefixtures("twins"),
]

LOOKS = 40  # more than any change needs
numbers = itertools.count(1)


class Killed(BaseException):
    """The operator was killed here."""


class CountingApi(KubernetesApi):
    """Counts what it writes, and dies before or after the n-th write when told to."""

    writes = 0
    dies_at = 0
    dies_after = False

    def _call(self, method: str, path: str, **more: Any) -> Any:
        if method == "GET":
            return super()._call(method, path, **more)
        self.writes += 1
        if self.writes == self.dies_at and not self.dies_after:
            raise Killed
        answer = super()._call(method, path, **more)
        if self.writes == self.dies_at:
            answer.read()
            raise Killed
        return answer


class Desk:
    """kubectl on one side, the console on the other, and the mirror between them."""

    def __init__(self, plane: ControlPlane, tower: Any, name: str) -> None:
        self.plane, self.tower, self.name = plane, tower, name
        self.api = CountingApi(CONTEXT, config_file=str(plane.kubeconfig))
        self.path = object_path(GOALS, "default", name)
        self.mirror = Mirror(self.api, get=lambda _: self.resource(), put=lambda _: None)

    def resource(self) -> dict[str, Any] | None:
        try:
            return self.api.get(self.path)
        except ObjectAbsent:
            return None

    def found(self) -> dict[str, Any]:
        resource = self.resource()
        assert resource is not None
        return resource

    def row(self) -> Goal | None:
        return Goal.objects.filter(name=self.name, deleted_at__isnull=True).first()

    def kubectl(self, **spec: Any) -> None:
        """`kubectl apply` of a Goal, as a field manager of its own."""
        asked = {
            "objective": "p99 latency < 120 ms for /checkout",
            "budget": "50 GPU-minutes",
            "agents": ["profiler"],
            **spec,
        }
        document = {
            "apiVersion": "orchestration.ai/v1", "kind": "Goal",
            "metadata": {"name": self.name, "namespace": "default"}, "spec": asked,
        }  # fmt: skip
        self.plane.request(
            "PATCH", f"{self.path}?fieldManager=kubectl&force=true", document,
            content_type="application/apply-patch+yaml",
        )  # fmt: skip

    def look(self) -> None:
        """Let the operator look until nothing changes any more."""
        for _ in range(LOOKS):
            before = self._state()
            try:
                self.mirror.sync(("default", self.name))
            except ObjectConflict:
                continue
            row = self.row()
            if row is not None and row.deletion_requested_at is not None:
                self.tower.reconcile(row)
            if self._state() == before:
                return
        raise AssertionError(f"never quiet: {self._state()}")

    def _state(self) -> Any:
        resource, row = self.resource(), self.row()
        return (
            resource and resource["metadata"]["resourceVersion"],
            row and (row.pk, row.generation, row.deletion_requested_at, row.phase),
        )

    def conditions(self) -> dict[str, dict[str, Any]]:
        status = self.found().get("status") or {}
        return {one["type"]: one for one in status.get("conditions") or []}

    def events(self) -> list[str]:
        uid = self.found()["metadata"]["uid"]
        found = self.api.items("/api/v1/events", fieldSelector=f"involvedObject.uid={uid}")
        return sorted(one["reason"] for one in found)


@pytest.fixture
def desk(plane: ControlPlane, tower: Any) -> Iterator[Desk]:
    install_resources(plane)
    tower.register("profiler")
    desk = Desk(plane, tower, f"goal-{next(numbers)}")
    yield desk
    if desk.resource() is not None:
        desk.plane.request("PATCH", desk.path, {"metadata": {"finalizers": []}}, content_type=MERGE)
        desk.api.delete(desk.path)
    desk.api.close()


def test_a_goal_of_kubectl_becomes_a_row_and_tells_where_it_stands(desk: Desk) -> None:
    desk.kubectl()
    desk.look()
    row = desk.row()
    assert row is not None
    assert (row.requested_by, row.spec["budget"]) == ("kubernetes", "50 GPU-minutes")
    found = desk.found()
    assert found["metadata"]["finalizers"] == [FINALIZER]
    assert found["status"]["uid"] == str(row.uid)
    assert (found["status"]["phase"], found["status"]["limit"]) == ("Draft", "50 GPU-minutes")
    assert desk.conditions()["Accepted"]["status"] == "True"
    assert desk.conditions()["Synced"]["status"] == "True"
    assert desk.events() == ["Draft"]
    desk.tower.reconcile(row)
    desk.look()
    assert desk.found()["status"]["phase"] == row.phase != "Draft"
    writes = desk.api.writes
    desk.kubectl()
    desk.look()
    assert (desk.row().generation, desk.api.writes) == (1, writes)


def test_a_goal_of_the_console_appears_in_kubectl(desk: Desk) -> None:
    goal = desk.tower.apply(desk.name, budget="30 GPU-seconds", more="requireApproval: true").goal
    desk.look()
    found = desk.found()
    assert found["spec"]["budget"] == "30 GPU-seconds"
    assert found["spec"]["requireApproval"] is True
    assert found["status"]["uid"] == str(goal.uid)
    desk.look()
    assert Goal.objects.filter(name=desk.name).count() == 1


def test_a_change_on_either_side_reaches_the_other(desk: Desk) -> None:
    desk.kubectl()
    desk.look()
    desk.plane.request(
        "PATCH", desk.path, {"metadata": {"labels": {"team": "shop"}}}, content_type=MERGE
    )
    desk.kubectl(budget="40 GPU-minutes")
    desk.look()
    row = desk.row()
    assert (row.generation, row.spec["budget"], row.labels) == (
        2,
        "40 GPU-minutes",
        {"team": "shop"},
    )
    desk.tower.apply(desk.name, budget="45 GPU-minutes", by=desk.tower.operator)
    desk.look()
    assert desk.found()["spec"]["budget"] == "45 GPU-minutes"
    assert desk.row().generation == 3
    assert desk.found()["status"]["rowGeneration"] == 3


def test_a_change_on_both_sides_is_settled_and_said(desk: Desk) -> None:
    desk.kubectl()
    desk.look()
    desk.tower.apply(desk.name, budget="45 GPU-minutes")
    desk.kubectl(budget="20 GPU-minutes")
    desk.look()
    assert desk.row().spec["budget"] == desk.found()["spec"]["budget"] == "45 GPU-minutes"
    said = desk.conditions()["Synced"]
    assert (said["status"], said["reason"]) == ("False", "Conflict")
    assert "budget '20 GPU-minutes'" in said["message"]
    assert "Conflict" in desk.events()
    desk.kubectl(budget="20 GPU-minutes")
    desk.look()
    assert desk.row().spec["budget"] == "20 GPU-minutes"
    assert desk.conditions()["Synced"]["status"] == "True"


def test_one_deleted_with_kubectl_lands_first(desk: Desk) -> None:
    desk.kubectl()
    desk.look()
    row = desk.row()
    desk.tower.reconcile(row)
    desk.plane.request("DELETE", desk.path)
    assert desk.mirror.sync(("default", desk.name)) is not None  # it waits
    assert desk.conditions()["Deleting"]["status"] == "True"
    desk.look()
    assert desk.resource() is None
    row.refresh_from_db()
    assert (row.phase, row.deleted_at is not None) == ("Cancelled", True)
    assert all(status.is_finished for status in desk.tower.twins.cluster.list())


def test_a_resource_that_never_agreed_takes_no_goal_of_the_console_with_it(desk: Desk) -> None:
    goal = desk.tower.apply(desk.name).goal
    desk.kubectl(budget="20 GPU-minutes")
    desk.plane.request(
        "PATCH", desk.path, {"metadata": {"finalizers": [FINALIZER]}}, content_type=MERGE
    )
    desk.plane.request("DELETE", desk.path)
    desk.mirror.sync(("default", desk.name))
    goal.refresh_from_db()
    assert goal.deletion_requested_at is None
    desk.look()
    assert desk.found()["spec"]["budget"] == "50 GPU-minutes"


def test_one_deleted_in_the_console_leaves_kubectl(desk: Desk) -> None:
    desk.kubectl()
    desk.look()
    delete_goal(desk.row(), principal=desk.tower.operator)
    desk.look()
    assert (desk.resource(), desk.row()) == (None, None)


def test_one_made_again_from_a_copy_is_a_new_goal(desk: Desk) -> None:
    desk.kubectl()
    desk.look()
    agreed = desk.found()["metadata"]["annotations"][AGREED]
    delete_goal(desk.row(), principal=desk.tower.operator)
    desk.look()
    desk.kubectl()
    desk.plane.request(
        "PATCH", desk.path, {"metadata": {"annotations": {AGREED: agreed}}}, content_type=MERGE
    )
    desk.look()
    assert desk.row() is not None
    assert desk.conditions()["Synced"]["status"] == "True"


@pytest.mark.parametrize(
    ("spec", "said"),
    [({"budget": "50 bananas"}, "spec.budget"), ({"agents": ["nobody"]}, "no agent 'nobody'")],
)
def test_what_is_wrong_is_said_in_a_condition(desk: Desk, spec: dict[str, Any], said: str) -> None:
    desk.kubectl(**spec)
    desk.look()
    assert desk.row() is None
    accepted = desk.conditions()["Accepted"]
    assert (accepted["status"], accepted["reason"]) == ("False", "Invalid")
    assert said in accepted["message"]
    assert desk.events() == ["Invalid"]
    desk.kubectl()
    desk.look()
    assert desk.row() is not None


def test_an_agent_of_kubectl_is_registered(desk: Desk) -> None:
    from agents.models import Agent

    path = object_path(AGENTS, "default")
    spec = {"name": "canary_deployer", "image": "examples/canary:1.0", "role": "worker"}
    document = {
        "apiVersion": "orchestration.ai/v1", "kind": "Agent",
        "metadata": {"name": "canary-deployer"}, "spec": spec,
    }  # fmt: skip
    desk.api.create(path, document)
    one = f"{path}/canary-deployer"
    mirror = AgentMirror(desk.api, get=lambda _: desk.api.get(one), put=lambda _: None)
    try:
        for _ in range(2):
            mirror.sync(("default", "canary-deployer"))
        (agent,) = Agent.objects.filter(name="canary_deployer")
        assert desk.api.get(one)["status"]["uid"] == str(agent.uid)
    finally:
        desk.api.delete(one)


STORIES = ("applied", "changed", "both", "deleted", "console")


def tell(desk: Desk, story: str) -> None:
    """What people do before the operator looks."""
    if story == "console":
        desk.tower.apply(desk.name)
        return
    desk.kubectl()
    if story == "applied":
        return
    desk.look()
    if story in ("changed", "both"):
        desk.kubectl(budget="20 GPU-minutes")
    if story == "both":
        desk.tower.apply(desk.name, budget="45 GPU-minutes")
    if story == "deleted":
        desk.plane.request("DELETE", desk.path)


def outcome(desk: Desk) -> Any:
    """What must be the same however often the operator was killed."""
    resource, row = desk.resource(), desk.row()
    conditions = desk.conditions() if resource else {}
    return (
        resource and (resource["spec"], resource["metadata"]["finalizers"]),
        row and (row.generation, row.spec),
        {kind: one["status"] for kind, one in conditions.items()},
        Goal.objects.filter(name=desk.name).count(),
    )


@pytest.mark.parametrize("story", STORIES)
def test_killed_between_any_two_writes_it_ends_the_same(
    plane: ControlPlane, desk: Desk, story: str
) -> None:
    tell(desk, story)
    before = desk.api.writes
    desk.look()
    writes, expected = desk.api.writes - before, outcome(desk)
    assert writes > 0
    for number, is_after in itertools.product(range(1, writes + 1), (False, True)):
        other = Desk(plane, desk.tower, f"{desk.name}-{number}-{is_after}".lower())
        tell(other, story)
        other.api.dies_at, other.api.dies_after = other.api.writes + number, is_after
        with pytest.raises(Killed):
            other.look()
        other.look()
        assert outcome(other) == expected, (number, is_after)
        if other.resource() is not None:
            plane.request("PATCH", other.path, {"metadata": {"finalizers": []}}, content_type=MERGE)
            other.api.delete(other.path)
        other.api.close()


def test_one_operator_leads_and_another_takes_over(api: KubernetesApi) -> None:
    now = [0.0]
    name = f"election-{next(numbers)}"
    first, second = (
        Election(api, identity=who, namespace="default", name=name, monotonic=lambda: now[0])
        for who in ("first", "second")
    )
    assert first.campaign()
    assert first.is_leader()
    assert not second.campaign()
    now[0] += TERM_SECONDS - 1  # the first was stopped meanwhile
    assert not first.is_leader()
    assert not second.campaign()
    now[0] += 2
    assert second.campaign()
    assert not first.campaign()
    second.resign()
    assert first.campaign()


def test_a_leader_that_cannot_renew_stops_with_its_term(
    plane: ControlPlane, api: KubernetesApi, tmp_path: Any
) -> None:
    now = [0.0]
    broken = json.loads(plane.kubeconfig.read_text())
    election = Election(
        api, identity="one", namespace="default", name=f"election-{next(numbers)}",
        monotonic=lambda: now[0],
    )  # fmt: skip
    assert election.campaign()
    broken["clusters"][0]["cluster"]["server"] = "https://127.0.0.1:1"
    (tmp_path / "kubeconfig").write_text(json.dumps(broken))
    election._api = KubernetesApi(CONTEXT, config_file=str(tmp_path / "kubeconfig"))
    assert election.campaign()  # until the term ends
    now[0] += TERM_SECONDS
    assert not election.campaign()
    with pytest.raises(ClusterError):
        election._api.get("/api")


def test_deleted_goals_are_404_for_kubectl(desk: Desk) -> None:
    desk.kubectl()
    desk.look()
    desk.plane.request("DELETE", desk.path)
    desk.look()
    with pytest.raises(Refusal) as caught:
        desk.plane.request("GET", desk.path)
    assert caught.value.status == 404

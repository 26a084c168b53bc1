"""What is read of a cluster that is not ours: whose pods there are, how they stand and hold."""

import datetime as dt

import pytest

from agents.gpus.domain import ComputeProcess, DeviceKind, Sample, Source
from agents.models import ClusterSurvey, ClusterWorkload, GpuDevice, GpuNode
from agents.services.gpus import record_sample
from agents.services.survey import (
    GpuRecorder,
    note_heard,
    record_foreign,
    record_holders,
    reported_processes,
)
from agents.survey.devices import by_node, declared, held_cards
from agents.survey.domain import Holder, NodeFact, PodState, fleet_of, foreign_workloads
from agents.survey.reading import read_node, read_pod
from tests.agents.cluster_objects import pod, pods
from tests.goals.gpu_fleet import card

AT = dt.datetime(2026, 3, 1, 2, 0, tzinfo=dt.UTC)
LATER = AT + dt.timedelta(seconds=2)
OURS = {"orchestration.ai/workload": "goal-tune-1"}
db = pytest.mark.django_db


@pytest.mark.parametrize(
    ("name", "owner", "labels", "expected"),
    [
        ("train-7", None, {}, Holder("Pod", "team-b", "train-7")),
        (
            "web-6d5f7c9b44-x2x7p",
            ("ReplicaSet", "web-6d5f7c9b44"),
            {"pod-template-hash": "6d5f7c9b44"},
            Holder("Deployment", "team-b", "web"),
        ),
        ("bare-abc", ("ReplicaSet", "bare"), {}, Holder("ReplicaSet", "team-b", "bare")),
        ("db-0", ("StatefulSet", "db"), {}, Holder("StatefulSet", "team-b", "db")),
        ("bot-29061240-z", ("Job", "bot-29061240"), {}, Holder("CronJob", "team-b", "bot")),
        ("train-1-z", ("Job", "train-1"), {}, Holder("Job", "team-b", "train-1")),
        ("lab-0", ("Notebook", "lab"), {}, Holder("Notebook", "team-b", "lab")),
    ],
)  # fmt: skip
def test_a_pod_is_its_workloads(name: str, owner: object, labels: object, expected: Holder) -> None:
    assert read_pod(pod(name, owner=owner, labels=labels)).holder == expected  # type: ignore[arg-type]


def test_the_uid_of_a_workload_follows_from_its_name() -> None:
    assert Holder("Job", "a", "b").uid == Holder("Job", "a", "b").uid
    names = [("Job", "a", "b"), ("Job", "ab", "c"), ("Pod", "a", "b")]
    assert len({Holder(*name).uid for name in names}) == 3


@pytest.mark.parametrize(
    ("status", "state", "reason"),
    [
        ({"phase": "Running"}, PodState.RUNNING, ""),
        ({"phase": "Succeeded"}, PodState.SUCCEEDED, ""),
        ({"phase": "Failed", "reason": "Evicted"}, PodState.FAILED, "Evicted"),
        (
            {"phase": "Running", "containerStatuses": [
                {"state": {"waiting": {"reason": "CrashLoopBackOff"}}}]},
            PodState.PENDING, "CrashLoopBackOff",
        ),
        (
            {"phase": "Pending", "conditions": [
                {"type": "PodScheduled", "status": "False", "reason": "Unschedulable"}]},
            PodState.PENDING, "Unschedulable",
        ),
    ],
)  # fmt: skip
def test_how_a_pod_stands(status: dict[str, object], state: PodState, reason: str) -> None:
    found = read_pod(pod("p", **status))  # type: ignore[arg-type]
    assert (found.state, found.reason) == (state, reason)


def test_a_pod_asks_for_the_gpus_of_its_containers_or_of_what_runs_before_them() -> None:
    found = pod("p", gpus=1)
    found["spec"]["containers"].append(
        {
            "resources": {
                "limits": {"nvidia.com/gpu": "2", "nvidia.com/mig-1g.10gb": "1", "cpu": "4"}
            }
        }
    )
    found["spec"]["initContainers"] = [{"resources": {"limits": {"nvidia.com/gpu": "8"}}}]
    assert read_pod(found).gpus == {"nvidia.com/gpu": 8, "nvidia.com/mig-1g.10gb": 1}


def test_a_node_that_says_nothing_offers_nothing() -> None:
    node = read_node({"metadata": {"name": "n"}})
    assert (node.name, dict(node.gpus), node.is_ready) == ("n", {}, False)


def test_pods_of_others_are_told_by_workload_and_ours_and_the_clusters_are_not() -> None:
    found = foreign_workloads(
        pods(
            pod("train-0", owner=("StatefulSet", "train"), gpus=2, node="n1"),
            pod("train-1", owner=("StatefulSet", "train"), gpus=2, phase="Pending"),
            pod("train-2", owner=("StatefulSet", "train"), gpus=2, phase="Failed", node="n2"),
            pod("alone", namespace="team-a"),
            pod("ours", labels=OURS, gpus=1, node="n1"),
            pod("proxy", namespace="kube-system"),
            pod("web", labels={"app.kubernetes.io/part-of": "clearance"}),
        )
    )
    assert [str(live.holder) for live in found] == [
        "StatefulSet team-b/train", "Pod team-a/alone",
    ]  # fmt: skip
    train = found[0]
    assert (train.state, train.pods, train.running, train.gpus) == (PodState.RUNNING, 3, 1, 4)
    assert train.nodes == ("n1",)


def test_a_cluster_of_more_workloads_than_are_kept_says_so() -> None:
    fleet = fleet_of([], pods(pod("a"), pod("b"), pod("c", gpus=1, node="n")), limit=2)
    assert fleet.is_truncated
    assert [live.holder.name for live in fleet.foreign] == ["c", "a"]


def test_slots_are_those_that_pods_have_then_those_that_are_free() -> None:
    node = NodeFact(
        name="n1", gpus={"nvidia.com/gpu": 3, "nvidia.com/mig-1g.10gb": 2}, product="H100"
    )
    held = by_node(
        pods(
            pod("train", gpus=2, node="n1"),
            pod("part", gpus=1, node="n1", resource="nvidia.com/mig-1g.10gb", labels=OURS),
            pod("done", gpus=1, node="n1", phase="Succeeded"),
            pod("waits", gpus=1, phase="Pending"),
        )
    )
    sample = declared(node, held["n1"], at=AT)
    assert sample.held_by is not None
    told = [(one.profile, sample.held_by.get(one.id, "")) for one in sample.devices]
    assert told == [
        ("1g.10gb", "goal-tune-1"), ("", "team-b/train"), ("", "team-b/train"),
        ("", ""), ("1g.10gb", ""),
    ]  # fmt: skip
    assert all(one.kind is DeviceKind.SLOT for one in sample.devices)
    assert len({one.id for one in sample.devices}) == 5
    assert {one.name for one in sample.devices} == {"H100"}


@db
def test_rows_say_what_pods_say_and_the_same_again_changes_nothing() -> None:
    found = foreign_workloads(pods(pod("train", gpus=1, node="n1"), pod("web")))
    assert record_foreign(found, at=AT) == 2
    assert record_foreign(found, at=LATER) == 0
    row = ClusterWorkload.objects.get(name="train")
    assert (row.state, row.gpus, row.nodes, row.changed_at) == ("running", 1, ["n1"], AT)
    assert row.uid == Holder("Pod", "team-b", "train").uid
    assert record_foreign(foreign_workloads(pods(pod("train", phase="Failed"))), at=LATER) == 2
    row.refresh_from_db()
    assert (row.state, row.gpus, row.changed_at) == ("failed", 0, LATER)


@db
def test_what_is_gone_is_kept_until_every_map_has_heard_of_it() -> None:
    record_foreign(foreign_workloads(pods(pod("train"))), at=AT)
    record_foreign([], at=LATER)
    row = ClusterWorkload.objects.get()
    assert (row.state, row.pods, row.gone_at, row.changed_at) == ("", 0, LATER, LATER)
    record_foreign([], at=LATER + dt.timedelta(minutes=9))
    assert ClusterWorkload.objects.exists()
    assert record_foreign([], at=LATER + dt.timedelta(minutes=11)) == 1
    assert not ClusterWorkload.objects.exists()


@db
def test_a_row_that_a_person_marked_outlives_its_pods() -> None:
    found = foreign_workloads(pods(pod("train")))
    record_foreign(found, at=AT)
    ClusterWorkload.objects.update(ignored_at=AT, ignored_by="ada")
    record_foreign([], at=LATER)
    record_foreign([], at=LATER + dt.timedelta(days=1))
    row = ClusterWorkload.objects.get()
    assert (row.state, row.pods, row.gone_at) == ("", 0, LATER)
    record_foreign(found, at=LATER)
    row.refresh_from_db()
    assert (row.state, row.gone_at, row.ignored_by) == ("running", None, "ada")


@db
def test_a_cluster_that_is_not_heard_keeps_its_last_figures() -> None:
    note_heard(cluster="prod", at=AT, fleet=fleet_of([NodeFact(name="n")], pods(pod("a"))))
    note_heard(cluster="prod", at=LATER, trouble="prod cannot be reached.")
    survey = ClusterSurvey.objects.get()
    assert (survey.heard_at, survey.nodes, survey.pods) == (AT, 1, 1)
    assert survey.trouble == "prod cannot be reached."


@db
def test_nodes_that_did_not_change_are_only_touched_and_gone_ones_go() -> None:
    recorder = GpuRecorder()
    nodes = [NodeFact(name=name, gpus={"nvidia.com/gpu": 2}) for name in ("n1", "n2")]
    held = by_node(pods(pod("train", gpus=1, node="n1")))

    def samples(at: dt.datetime, count: int = 2) -> list[Sample]:
        return [declared(node, held.get(node.name, ()), at=at) for node in nodes[:count]]

    assert recorder.record(samples(AT)) == 2
    assert recorder.record(samples(LATER)) == 0
    assert {node.sampled_at for node in GpuNode.objects.all()} == {LATER}
    assert GpuDevice.objects.get(held_by="team-b/train").node.source == Source.CLUSTER
    recorder.record(samples(LATER, count=1))
    assert [node.name for node in GpuNode.objects.all()] == ["n1"]


@db
def test_a_sampler_on_the_node_knows_more_than_what_the_node_offers() -> None:
    record_sample(Sample(node="n1", at=AT, devices=(card(1),)))
    recorder = GpuRecorder()
    node = NodeFact(name="n1", gpus={"nvidia.com/gpu": 1})
    recorder.record([declared(node, (), at=LATER)])
    assert GpuDevice.objects.get().kind == DeviceKind.CARD
    much_later = AT + dt.timedelta(minutes=6)
    recorder.record([declared(node, (), at=much_later)])
    assert GpuDevice.objects.get().kind == DeviceKind.SLOT  # nobody misses the card: it is declared


@db
def test_a_card_is_held_by_the_pod_whose_process_is_on_it() -> None:
    busy = pod("train", gpus=1, node="n1")
    quiet = pod("quiet", gpus=1, node="n1")
    uid = busy["metadata"]["uid"]
    one, two = (
        card(1, processes=(ComputeProcess(pid=7, memory_bytes=None, pod_uid=uid),)),
        card(2, processes=()),
    )
    record_sample(Sample(node="n1", at=AT, devices=(one, two)))
    held = by_node(pods(busy, quiet))
    record_holders(held_cards(reported_processes(), held), at=LATER)
    assert dict(GpuDevice.objects.values_list("device_id", "held_by")) == {
        one.id: "team-b/train", two.id: "team-b/quiet",
    }  # fmt: skip
    record_holders(held_cards(reported_processes(), by_node(pods(busy))), at=LATER)
    assert GpuDevice.objects.get(device_id=two.id).held_by == ""


def test_which_of_two_idle_cards_a_pod_has_nobody_can_say() -> None:
    held = by_node(pods(pod("one", gpus=1, node="n1")))
    devices = [("n1", "a", True, frozenset[str]()), ("n1", "b", True, frozenset[str]())]
    assert held_cards(devices, held) == {}

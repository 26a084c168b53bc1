"""What keeps a pod from running, told from what nodes and pods say, in words for one namespace."""

import datetime as dt
from typing import Any

import pytest

from agents.cluster.base import Blockage, Holder
from agents.cluster.kubernetes.occupancy import diagnose, holders_of
from agents.services.blocked import blockage_words

GPU = "nvidia.com/gpu"


def node(name: str, *, gpus: int = 2, memory: str = "64Gi", **spec: Any) -> dict[str, Any]:
    offered = {GPU: str(gpus), "memory": memory, "cpu": "8"}
    return {"metadata": {"name": name}, "spec": spec, "status": {"allocatable": offered}}


def pod(
    name: str,
    *,
    on: str = "",
    gpus: int = 0,
    memory: str = "",
    namespace: str = "shop",
    **more: Any,
) -> dict[str, Any]:
    asked = {**({GPU: str(gpus)} if gpus else {}), **({"memory": memory} if memory else {})}
    spec = {"containers": [{"name": "main", "resources": {"limits": asked}}], **more}
    metadata = {"name": name, "namespace": namespace, "creationTimestamp": "2026-01-02T03:04:05Z"}
    return {
        "metadata": metadata,
        "spec": {**spec, **({"nodeName": on} if on else {})},
        "status": {"phase": "Running" if on else "Pending"},
    }


TAINT = {"key": "team", "value": "search", "effect": "NoSchedule"}


@pytest.mark.parametrize(
    ("waiting", "nodes", "said"),
    [
        (pod("p", gpus=1), [], "no node"),
        (
            pod("p", gpus=3),
            [node("a"), node("b")],
            "no node with 3 GPUs (the largest offers 2 GPUs)",
        ),
        (
            pod("p", gpus=1),
            [node("a", unschedulable=True), node("b", taints=[TAINT])],
            "no node takes it: of 2, 1 cordoned, 1 with taint team=search:NoSchedule",
        ),
        (
            pod("p", nodeSelector={"zone": "x"}),
            [node("a")],
            "no node takes it: of 1, 1 without the labels it asks for",
        ),
        (
            pod("p", memory="128Gi"),
            [node("a")],
            "no node with 128Gi of memory (the largest offers 64Gi of memory)",
        ),
        (
            pod("p", gpus=2),
            [node("a"), node("b", unschedulable=True)],
            "no node with 2 free GPUs (1 cordoned)",
        ),
    ],
)
def test_why_no_node_takes_a_pod(
    waiting: dict[str, Any], nodes: list[dict[str, Any]], said: str
) -> None:
    held = [pod("other", on="a", gpus=1)]
    found = diagnose(waiting, nodes, held)
    assert found is not None
    assert found.what == said


def test_a_node_with_room_is_no_reason() -> None:
    assert diagnose(pod("p", gpus=1), [node("a")], [pod("other", on="a", gpus=1)]) is None
    tolerated = pod("p", gpus=1, tolerations=[{"key": "team", "operator": "Exists"}])
    assert diagnose(tolerated, [node("a", taints=[TAINT])], []) is None
    for other in ({"key": "team", "value": "ads"}, {"key": "else", "operator": "Exists"}):
        refused = pod("p", gpus=1, tolerations=[other])
        assert diagnose(refused, [node("a", taints=[TAINT])], []) is not None


def test_what_has_one_resource_may_lack_another() -> None:
    """A free GPU on a node without memory is no free GPU."""
    nodes = [node("a"), node("b")]
    held = [pod("one", on="a", gpus=2), pod("two", on="b", gpus=1, memory="60Gi")]
    found = diagnose(pod("p", gpus=1, memory="16Gi"), nodes, held)
    assert found is not None
    assert found.what == "no node with 16Gi of free memory"
    assert found.on == {"b"}


def test_holders_are_what_owns_the_pods() -> None:
    first, second = pod("train-x1", on="a", gpus=1), pod("train-x2", on="b", gpus=1)
    for one in (first, second):
        one["metadata"]["ownerReferences"] = [{"name": "train", "controller": True}]
    ended = pod("done", on="a", gpus=1)
    ended["status"]["phase"] = "Succeeded"
    ours = pod("ours", on="a", gpus=2)
    ours["metadata"]["labels"] = {"orchestration.ai/workload": "tune-1"}
    since = dt.datetime(2026, 1, 2, 3, 4, 5, tzinfo=dt.UTC)
    assert holders_of([first, second, ended, ours], GPU) == (
        Holder("shop", "train", False, 2, since),
        Holder("shop", "tune-1", True, 2, since),
    )
    assert [one.name for one in holders_of([first, second, ours], GPU, on=frozenset("b"))] == [
        "train"
    ]


@pytest.mark.django_db
def test_other_namespaces_are_counted_and_never_named() -> None:
    secret = [Holder("secret", "project", is_ours, 2) for is_ours in (True, False)]
    shop = [Holder("shop", f"train-{number}", False, 1) for number in range(6)]
    words = blockage_words(Blockage("no node", tuple(secret)), namespace="shop")
    assert words == "no node; held by another namespace 4"
    other = Holder("hidden", "thing", False, 1)
    words = blockage_words(Blockage("no node", (*shop, *secret, other)), namespace="shop")
    assert words.endswith(", foreign workload shop/train-4 1, 2 more")
    assert not any(name in words for name in ("secret", "project", "hidden", "thing"))
    words = blockage_words(Blockage("no node", (secret[0], other)), namespace="shop")
    assert words == "no node; held by other namespaces 3"

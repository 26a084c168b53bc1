"""Which nodes would take a pod, what is left on them, and which pods hold the rest."""

import datetime as dt
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any, Final

from agents.cluster.base import Holder
from agents.cluster.kubernetes.reading import instant, is_over
from agents.cluster.kubernetes.record import WORKLOAD
from agents.domain.naming import GPU_RESOURCE
from agents.domain.quantity import bytes_quantity, parse_quantity

Object = Mapping[str, Any]

MEASURED: Final = (GPU_RESOURCE, "memory", "cpu")  # what a node can run out of, dearest first
KEEPS_OUT: Final = ("NoSchedule", "NoExecute")


@dataclass(slots=True)
class Room:
    """One node that would take the pod, and what is left on it."""

    name: str
    offered: Mapping[str, Fraction]
    left: dict[str, Fraction] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """Why no node takes a pod. `on` are the nodes whose pods are in its way, for `resource`."""

    what: str
    resource: str = ""
    on: frozenset[str] = frozenset()


def diagnose(pod: Object, nodes: Sequence[Object], pods: Iterable[Object]) -> Diagnosis | None:
    """Why no node takes the pod, as far as that can be told; None when it cannot."""
    asked = requests_of(pod)
    closed: Counter[str] = Counter()
    rooms: dict[str, Room] = {}
    for node in nodes:
        if why := _keeps_out(node, pod):
            closed[why] += 1
            continue
        name = node["metadata"]["name"]
        offered = _amounts((node.get("status") or {}).get("allocatable") or {})
        rooms[name] = Room(name, offered, dict(offered))
    if not rooms:
        words = ", ".join(f"{count} {why}" for why, count in sorted(closed.items()))
        return Diagnosis(f"no node takes it: of {len(nodes)}, {words}" if words else "no node")
    for other in pods:
        where = (other.get("spec") or {}).get("nodeName")
        if where in rooms and not is_over(other):
            for resource, amount in requests_of(other).items():
                left = rooms[where].left
                left[resource] = left.get(resource, Fraction(0)) - amount
    aside = "".join(f"; {count} {why}" for why, count in sorted(closed.items()))
    return _shortage(asked, list(rooms.values()), aside)


def _shortage(asked: Mapping[str, Fraction], rooms: list[Room], aside: str) -> Diagnosis | None:
    """The first resource that no room has enough of, among those that have enough of the others."""
    for resource in MEASURED:
        wanted = asked.get(resource, Fraction(0))
        if not wanted:
            continue
        large = [room for room in rooms if room.offered.get(resource, Fraction(0)) >= wanted]
        if not large:
            most = max((room.offered.get(resource, Fraction(0)) for room in rooms), default=0)
            said = amount_words(resource, wanted)
            largest = amount_words(resource, Fraction(most))
            return Diagnosis(f"no node with {said} (the largest offers {largest}{aside})")
        rooms_left = [room for room in large if room.left.get(resource, Fraction(0)) >= wanted]
        if not rooms_left:
            said = amount_words(resource, wanted, free=True)
            what = f"no node with {said}" + (f" ({aside.lstrip('; ')})" if aside else "")
            return Diagnosis(what, resource, frozenset(room.name for room in large))
        rooms = rooms_left
    return None


def holders_of(
    pods: Iterable[Object], resource: str, *, on: frozenset[str] | None = None
) -> tuple[Holder, ...]:
    """Who holds how much of a resource, on these nodes or anywhere; the largest first."""
    found: dict[tuple[str, str, bool], list[tuple[int, dt.datetime | None]]] = {}
    for pod in pods:
        if is_over(pod) or (on is not None and pod["spec"].get("nodeName") not in on):
            continue
        amount = Fraction(1) if resource == "pods" else requests_of(pod).get(resource, Fraction(0))
        if not amount:
            continue
        counted = int(amount) if resource in (GPU_RESOURCE, "pods") else 0
        since = instant((pod.get("status") or {}).get("startTime"))
        since = since or instant(pod["metadata"].get("creationTimestamp"))
        found.setdefault(owner_of(pod), []).append((counted, since))
    holders = []
    for (namespace, name, is_workload), parts in found.items():
        began = min((since for _, since in parts if since), default=None)
        total = sum(amount for amount, _ in parts)
        holders.append(Holder(namespace, name, is_workload, total, began))
    return tuple(sorted(holders, key=lambda one: (-one.amount, one.namespace, one.name)))


def owner_of(pod: Object) -> tuple[str, str, bool]:
    """Namespace and name of what a pod belongs to, and whether it says that it is one of ours."""
    metadata = pod["metadata"]
    if ours := (metadata.get("labels") or {}).get(WORKLOAD):
        return metadata["namespace"], ours, True
    owners = metadata.get("ownerReferences") or []
    above = next((one["name"] for one in owners if one.get("controller")), metadata["name"])
    return metadata["namespace"], above, False


def requests_of(pod: Object) -> dict[str, Fraction]:
    """What the pod's containers ask for together; init containers run before, not beside them."""
    total: dict[str, Fraction] = {}
    for container in (pod.get("spec") or {}).get("containers") or []:
        resources = container.get("resources") or {}
        asked = {**(resources.get("limits") or {}), **(resources.get("requests") or {})}
        for resource, amount in _amounts(asked).items():
            total[resource] = total.get(resource, Fraction(0)) + amount
    return total


def amount_words(resource: str, amount: Fraction, *, free: bool = False) -> str:
    """As people say it: "4 free GPUs", "8Gi of free memory"."""
    word = "free " if free else ""
    if resource == GPU_RESOURCE:
        return f"{int(amount)} {word}GPU{'' if amount == 1 else 's'}"
    said = bytes_quantity(int(amount)) if resource == "memory" else f"{float(amount):g}"
    return f"{said} of {word}{resource}"


def _amounts(written: Mapping[str, Any]) -> dict[str, Fraction]:
    found = {}
    for resource, text in written.items():
        try:
            found[resource] = parse_quantity(str(text))
        except ValueError:
            continue
    return found


def _keeps_out(node: Object, pod: Object) -> str:
    """Why the node takes no such pod, as an ending of "2 …"; "" when it would."""
    spec = node.get("spec") or {}
    if spec.get("unschedulable"):
        return "cordoned"
    tolerations = (pod.get("spec") or {}).get("tolerations") or []
    for taint in spec.get("taints") or []:
        if taint.get("effect") in KEEPS_OUT and not any(_tolerates(t, taint) for t in tolerations):
            value = f"={taint['value']}" if taint.get("value") else ""
            return f"with taint {taint['key']}{value}:{taint['effect']}"
    labels = node["metadata"].get("labels") or {}
    selector = (pod.get("spec") or {}).get("nodeSelector") or {}
    if any(labels.get(key) != value for key, value in selector.items()):
        return "without the labels it asks for"
    return ""


def _tolerates(toleration: Object, taint: Object) -> bool:
    """https://kubernetes.io/docs/concepts/scheduling-eviction/taint-and-toleration/"""
    if toleration.get("effect") and toleration["effect"] != taint.get("effect"):
        return False
    if not toleration.get("key"):
        return toleration.get("operator") == "Exists"
    if toleration["key"] != taint["key"]:
        return False
    is_any = toleration.get("operator") == "Exists"
    return is_any or (toleration.get("value") or "") == (taint.get("value") or "")

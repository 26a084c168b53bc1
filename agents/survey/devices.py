"""The GPUs of a cluster's nodes as samples: measured by dcgm-exporter, or slots with holders."""

import datetime as dt
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace

from agents.cluster.kubernetes.nodes import slot_id
from agents.domain.naming import GPU_RESOURCE
from agents.gpus.domain import DeviceKind, Reading, Sample, Source
from agents.survey.dcgm import Measured, Metrics
from agents.survey.domain import NodeFact, PodFact
from agents.survey.reading import MIG_PREFIX


def by_node(pods: Iterable[PodFact]) -> dict[str, list[PodFact]]:
    """Pods that hold GPUs, by the node they hold them on, in a stable order."""
    found: dict[str, list[PodFact]] = {}
    for pod in pods:
        if pod.gpus and pod.node and pod.is_active:
            found.setdefault(pod.node, []).append(pod)
    for held in found.values():
        held.sort(key=lambda pod: (pod.namespace, pod.name))
    return found


def declared(node: NodeFact, pods: Sequence[PodFact], *, at: dt.datetime) -> Sample:
    """What a node offers and pods have of it; which card a pod got, the API does not tell."""
    slots = list(_slots(node, pods))
    return Sample(
        node=node.name,
        at=at,
        devices=tuple(
            Reading(id=name, kind=DeviceKind.SLOT, name=node.product or "GPU", position=position,
                    profile=profile)
            for position, (name, profile, _) in enumerate(slots)
        ),
        held_by={name: holder for name, _, holder in slots if holder},
        source=Source.CLUSTER,
    )  # fmt: skip


def _slots(node: NodeFact, pods: Sequence[PodFact]) -> Iterator[tuple[str, str, str]]:
    """Name, profile and holder of each slot: those that are taken, then those that are free."""
    taken: dict[str, int] = {}
    for pod in pods:
        index = 0
        for resource, count in sorted(pod.gpus.items()):
            for _ in range(count):
                yield slot_id(node.name, pod.uid, index), _profile(resource), pod.held_by
                index += 1
            taken[resource] = taken.get(resource, 0) + count
    for resource, offered in sorted(node.gpus.items()):
        kind = "" if resource == GPU_RESOURCE else f"{_profile(resource)}-"
        for index in range(max(offered - taken.get(resource, 0), 0)):
            yield f"{node.name}/free-{kind}{index}", _profile(resource), ""


def _profile(resource: str) -> str:
    if resource.startswith(MIG_PREFIX):
        return resource.removeprefix(MIG_PREFIX)
    return "" if resource == GPU_RESOURCE else "shared"


def measured(
    node: str, metrics: Metrics, pods: Mapping[tuple[str, str], PodFact], *, at: dt.datetime
) -> Sample:
    """What dcgm-exporter says of a node; `pods` by namespace and name say whose they are."""
    held_by = {}
    for device in metrics.devices:
        namespace, name = device.pod
        if not name:
            continue
        pod = pods.get(device.pod)
        held_by[device.reading.id] = pod.held_by if pod else f"{namespace}/{name}"[:320]
    return Sample(
        node=node,
        at=at,
        driver_version=metrics.driver_version[:80],
        devices=tuple(device.reading for device in metrics.devices),
        held_by=held_by,
        source=Source.DCGM,
    )


class XidMemory:
    """dcgm-exporter keeps telling of the last error for ever: only a change of it is news."""

    def __init__(self) -> None:
        self._last: dict[str, int] = {}

    def knows(self, card: str) -> bool:
        """Whether the card was heard before."""
        return card in self._last

    def recall(self, card: str, code: int) -> None:
        """What was written down of a card before this process began."""
        self._last.setdefault(card, code)

    def news(self, devices: Iterable[Measured]) -> Iterator[Measured]:
        """The devices, each with the error that is new since the last time."""
        for device in devices:
            card = device.reading.id
            before, self._last[card] = self._last.get(card, 0), device.last_xid
            is_new = device.last_xid not in (0, before)
            xids = (device.last_xid,) if is_new else ()
            yield replace(device, reading=replace(device.reading, xids=xids))


def held_cards(
    devices: Iterable[tuple[str, str, bool, frozenset[str]]], held: Mapping[str, Sequence[PodFact]]
) -> dict[tuple[str, str], str]:
    """Who holds the cards that nodes report themselves, as far as it can be known.

    `devices` are node, device id, whether it can be held, and the pods of its processes. A card is
    held by the pod that has a process on it. One without processes is free where no pod of the node
    is left without its cards, and is the only such pod's where it needs all that are left.
    """
    found: dict[tuple[str, str], str] = {}
    idle: dict[str, list[str]] = {}
    for node, device, is_whole, uids in devices:
        if not is_whole:
            continue
        pods = [pod for pod in held.get(node, ()) if pod.uid in uids]
        if pods:
            found[node, device] = pods[0].held_by
        else:
            idle.setdefault(node, []).append(device)
    for node, cards in idle.items():
        seen = [holder for (where, _), holder in found.items() if where == node]
        waiting = [
            (pod, missing)
            for pod in held.get(node, ())
            if (missing := sum(pod.gpus.values()) - seen.count(pod.held_by)) > 0
        ]
        if not waiting:
            found |= {(node, card): "" for card in cards}
        elif len(waiting) == 1 and waiting[0][1] == len(cards):
            found |= {(node, card): waiting[0][0].held_by for card in cards}
    return found

"""What keeps an attempt from running, found in the cluster: quotas, nodes, images, and by whom.

Reads are bounded: nodes and pods are read at most once in `FRESH_SECONDS` for all attempts that
wait, and only while one waits.
"""

import logging
import re
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from agents.cluster.base import Blockage, ClusterError, Holder, WorkloadPhase, WorkloadStatus
from agents.cluster.kubernetes.api import KubernetesApi, object_path
from agents.cluster.kubernetes.nodes import PODS
from agents.cluster.kubernetes.occupancy import diagnose, holders_of
from agents.cluster.kubernetes.reading import DISRUPTED

logger = logging.getLogger(__name__)

Object = Mapping[str, Any]

QUOTAS: Final = "api/v1/resourcequotas"
NODES: Final = "api/v1/nodes"
FRESH_SECONDS: Final = 5.0  # who holds what changes slowly beside how often attempts are looked at
REFUSALS_MAX: Final = 256  # remembered; with more, all are read anew
BUSY: Final = "status.phase!=Succeeded,status.phase!=Failed"
# As the quota admission of the API server writes it.
REFUSED: Final = re.compile(
    r"exceeded quota: (?P<quota>[^,]+), requested: (?P<asked>\S+), used: (?P<used>\S+), "
    r"limited: (?P<limit>\S+)"
)


@dataclass(frozen=True, slots=True)
class Snapshot:
    """Nodes and busy pods, as read at one moment."""

    at: float
    nodes: Sequence[Object]
    pods: Sequence[Object]


class Blockages:
    """Finds what keeps attempts from running. Safe for threads: at worst a read is made twice."""

    def __init__(
        self, api: KubernetesApi, *, monotonic: Callable[[], float] = time.monotonic
    ) -> None:
        self._api = api
        self._monotonic = monotonic
        self._snapshot: Snapshot | None = None
        self._refusals: dict[tuple[str, str], tuple[float, Blockage]] = {}

    def of(
        self, status: WorkloadStatus, pods: Sequence[Object], *, disruption: Mapping[str, str]
    ) -> Blockage | None:
        """What keeps it from running, or what ended it; None when there is nothing to say.

        What may not be read, or cannot be now, is left to the cluster's own words.
        """
        try:
            return self._of(status, pods, disruption)
        except ClusterError as error:
            logger.info("what blocks %s cannot be told: %s", status.name, error)
            return Blockage(_clause(status.message)) if status.message else None

    def _of(
        self, status: WorkloadStatus, pods: Sequence[Object], disruption: Mapping[str, str]
    ) -> Blockage | None:
        if status.phase is WorkloadPhase.FAILED:
            return self._ended(disruption) if disruption.get("reason") in DISRUPTED else None
        if status.phase is not WorkloadPhase.PENDING or not status.reason:
            return None
        match status.reason:
            case "QuotaExceeded":
                return self.of_quota(status.namespace, status.message)
            case "Unschedulable" | "SchedulingGated":
                return self._of_nodes(status, pods)
            case "ImagePull":
                return Blockage(f"image {_image(pods)}: {_clause(status.message)}")
            case "StartFailed":
                return Blockage(f"its container cannot be made: {_clause(status.message)}")
            case "PodRefused":
                return Blockage(f"the cluster refuses its pod: {_clause(status.message)}")
        return None

    def of_quota(self, namespace: str, refusal: str) -> Blockage:
        """The quota that a refusal of the API server names, as it stands now."""
        now = self._monotonic()
        at, known = self._refusals.get((namespace, refusal), (0.0, None))
        if known is None or now - at > FRESH_SECONDS:
            known = self._quota(namespace, refusal)
            if len(self._refusals) >= REFUSALS_MAX:
                self._refusals.clear()
            self._refusals[namespace, refusal] = (now, known)
        return known

    def _quota(self, namespace: str, refusal: str) -> Blockage:
        found = REFUSED.search(refusal)
        if found is None:
            return Blockage(f"a quota of namespace {namespace}: {_clause(refusal)}")
        asked, used, limit = (_pairs(found[part]) for part in ("asked", "used", "limit"))
        quota = found["quota"]
        holders: tuple[Holder, ...] = ()
        resource = next(iter(asked), "").removeprefix("requests.").removeprefix("limits.")
        try:
            status = self._api.get(object_path(QUOTAS, namespace, quota)).get("status") or {}
            used |= {key: str(value) for key, value in (status.get("used") or {}).items()}
            limit |= {key: str(value) for key, value in (status.get("hard") or {}).items()}
            path = object_path(PODS, namespace)
            holders = holders_of(self._api.items(path, fieldSelector=BUSY), resource)
        except ClusterError as error:  # it may have been deleted since, or not be ours to read
            logger.info("quota %s of %s cannot be read: %s", quota, namespace, error)
        parts = [
            f"{one}: {used.get(one, '0')} of {limit.get(one, '0')} used, {wanted} asked"
            for one, wanted in asked.items()
        ]
        return Blockage(f"quota {quota} of namespace {namespace} ({'; '.join(parts)})", holders)

    def _of_nodes(self, status: WorkloadStatus, pods: Sequence[Object]) -> Blockage:
        waiting = next((pod for pod in pods if not pod["spec"].get("nodeName")), None)
        if waiting is None or status.reason == "SchedulingGated":
            return Blockage(_clause(status.message))
        now = self._seen()
        own = waiting["metadata"]["uid"]
        others = [pod for pod in now.pods if pod["metadata"]["uid"] != own]
        found = diagnose(waiting, now.nodes, others)
        if found is None:
            return Blockage(f"the scheduler: {_clause(status.message)}")
        if not found.resource:
            return Blockage(found.what)
        return Blockage(found.what, holders_of(others, found.resource, on=found.on))

    def _ended(self, disruption: Mapping[str, str]) -> Blockage:
        """What ended the attempt's pod from outside, and who has its place where one took it."""
        reason, message, node = (disruption[key] for key in ("reason", "message", "node"))
        what = DISRUPTED[reason].format(node=node or "its node")
        what += f" ({_clause(message)})" if message else ""
        if reason != "PreemptionByScheduler":
            return Blockage(what)
        rank = int(disruption["priority"])
        beside = self._api.items(f"/{PODS}", fieldSelector=f"spec.nodeName={node},{BUSY}")
        above = [one for one in beside if int(one["spec"].get("priority") or 0) > rank]
        return Blockage(what, _uncounted(holders_of(above, "pods")), verb="its place went to")

    def _seen(self) -> Snapshot:
        known = self._snapshot
        now = self._monotonic()
        if known is None or now - known.at > FRESH_SECONDS:
            nodes = list(self._api.items(f"/{NODES}"))
            pods = list(self._api.items(f"/{PODS}", fieldSelector=BUSY))
            known = self._snapshot = Snapshot(now, nodes, pods)
        return known


def is_over_quota(refusal: str) -> bool:
    """Whether the API server refused for a quota: it takes the same again once that is freed."""
    return "exceeded quota" in refusal


def _uncounted(holders: Sequence[Holder]) -> tuple[Holder, ...]:
    return tuple(Holder(one.namespace, one.name, one.is_workload, 0, one.since) for one in holders)


def _pairs(text: str) -> dict[str, str]:
    """`a=1,b=2` as the API server lists amounts."""
    return dict(part.split("=", 1) for part in text.split(",") if "=" in part)


def _image(pods: Sequence[Object]) -> str:
    containers = [one for pod in pods for one in pod["spec"].get("containers") or []]
    return next((str(one["image"]) for one in containers if one.get("name") == "agent"), "")


def _clause(message: str) -> str:
    return message.strip().rstrip(".")

"""Facts of a cluster, reduced to what the maps and the catalogue need; no Django."""

import datetime as dt
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final
from uuid import UUID, uuid5

# Names of workloads become uids by this; it is nobody's but ours and never changes.
WORKLOAD_SPACE: Final = UUID("2f6c4d0e-7f0d-5b1c-9a55-0d5a4c1f7a11")
NODES_KEPT: Final = 4  # names of nodes told of one workload; the count says how many there are
WORKLOADS_MAX: Final = 20_000  # rows kept; a cluster with more says so
# What a cluster runs for itself: nobody's agents, and never steered by anybody here.
SYSTEM_NAMESPACES: Final = frozenset({"kube-system", "kube-public", "kube-node-lease"})


class Kind(StrEnum):
    """What may start pods, and whom they run as."""

    DEPLOYMENT = "Deployment"
    STATEFUL_SET = "StatefulSet"
    DAEMON_SET = "DaemonSet"
    JOB = "Job"
    CRON_JOB = "CronJob"
    POD = "Pod"  # without an owner that we know
    SERVICE_ACCOUNT = "ServiceAccount"


class PodState(StrEnum):
    """How the pods of a workload stand, in the words of attempts; IDLE is no pod at all."""

    RUNNING = "running"
    PENDING = "pending"
    FAILED = "failed"
    SUCCEEDED = "succeeded"
    IDLE = ""


# Of several pods, the liveliest says what the workload does.
STATE_ORDER: Final = (PodState.RUNNING, PodState.PENDING, PodState.FAILED, PodState.SUCCEEDED)


@dataclass(frozen=True, slots=True, order=True)
class Holder:
    """A workload by its name in the cluster."""

    kind: str
    namespace: str
    name: str

    @property
    def uid(self) -> UUID:
        """The same for the same name, in every process and after every restart."""
        return uuid5(WORKLOAD_SPACE, f"{self.kind}/{self.namespace}/{self.name}")

    def __str__(self) -> str:
        return f"{self.kind} {self.namespace}/{self.name}"


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeFact:
    """A node: `gpus` maps its GPU resources (`nvidia.com/gpu`, MIG profiles) to how many."""

    name: str
    gpus: Mapping[str, int] = field(default_factory=dict)
    product: str = ""
    is_ready: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class PodFact:
    """A pod: whose it is, where it is, what it holds. `workload` is our attempt's, else ""."""

    uid: str
    namespace: str
    name: str
    holder: Holder
    workload: str = ""
    is_system: bool = False  # of the cluster itself, or of this product
    node: str = ""
    state: PodState = PodState.PENDING
    reason: str = ""
    gpus: Mapping[str, int] = field(default_factory=dict)
    service_account: str = ""
    images: tuple[str, ...] = ()
    variables: tuple[str, ...] = ()  # names, of a pod without an owner
    started_at: dt.datetime | None = None
    exporter: str = ""  # of a dcgm-exporter: "IP:port" of its metrics
    unmetered: str = ""  # uid of its Goal, once it has ended and until it is metered

    @property
    def is_active(self) -> bool:
        """It uses what it asked for."""
        return self.state in (PodState.RUNNING, PodState.PENDING)

    @property
    def held_by(self) -> str:
        """What a GPU is held by: our workload, or `namespace/pod` of others."""
        return self.workload or f"{self.namespace}/{self.name}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Live:
    """What the pods of one foreign workload say together. `gpus` counts those of active pods."""

    holder: Holder
    state: PodState
    reason: str
    pods: int
    running: int
    gpus: int
    nodes: tuple[str, ...]
    images: tuple[str, ...]
    service_account: str
    started_at: dt.datetime | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Fleet:
    """The cluster at one moment; `is_truncated`: there are more workloads than are kept."""

    nodes: int
    pods: int
    foreign: tuple[Live, ...]
    is_truncated: bool = False


def foreign_workloads(pods: Iterable[PodFact]) -> list[Live]:
    """Workloads that are not ours, those with GPUs first, then by name; without the cluster's."""
    groups: dict[Holder, list[PodFact]] = {}
    for pod in pods:
        if not pod.workload and not pod.is_system:
            groups.setdefault(pod.holder, []).append(pod)
    found = [_live(holder, members) for holder, members in groups.items()]
    return sorted(found, key=lambda live: (-live.gpus, live.holder))


def _live(holder: Holder, pods: Sequence[PodFact]) -> Live:
    state = min((pod.state for pod in pods), key=STATE_ORDER.index)
    telling = [pod for pod in pods if pod.state == state]
    active = [pod for pod in pods if pod.is_active]
    nodes = sorted({pod.node for pod in active if pod.node})
    started = [pod.started_at for pod in pods if pod.started_at]
    return Live(
        holder=holder,
        state=state,
        reason=next((pod.reason for pod in telling if pod.reason), ""),
        pods=len(pods),
        running=sum(pod.state == PodState.RUNNING for pod in pods),
        gpus=sum(sum(pod.gpus.values()) for pod in active),
        nodes=tuple(nodes[:NODES_KEPT]),
        images=tuple(sorted({image for pod in telling for image in pod.images})),
        service_account=telling[0].service_account,
        started_at=min(started, default=None),
    )


def fleet_of(
    nodes: Iterable[NodeFact], pods: Sequence[PodFact], *, limit: int = WORKLOADS_MAX
) -> Fleet:
    """What is kept of a cluster: at most `limit` workloads of others."""
    foreign = foreign_workloads(pods)
    return Fleet(
        nodes=sum(1 for _ in nodes),
        pods=len(pods),
        foreign=tuple(foreign[:limit]),
        is_truncated=len(foreign) > limit,
    )

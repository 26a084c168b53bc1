"""What the product asks of a cluster: workloads that run, pause, resume and end, and GPUs."""

import datetime as dt
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final, Protocol

# Where a workload finds the platform's own token, and the variable that says so.
TOKEN_FILE: Final = "/var/run/secrets/orchestration.ai/token"  # noqa: S105 - a path, no secret
TOKEN_FILE_VARIABLE: Final = "CLEARANCE_IDENTITY_TOKEN_FILE"  # noqa: S105 - a name, no secret


class ClusterError(Exception):
    """The cluster refused or could not answer."""


class ClusterUnavailable(ClusterError):
    """The cluster cannot be reached; never the same as "no workloads"."""


class WorkloadConflict(ClusterError):
    """A workload of that name exists with another specification."""


class WorkloadInvalid(ClusterError):
    """The specification can never run here (no such program, more GPUs than exist)."""


# Reasons of a failure that the cluster brought about: https://kubernetes.io/docs/concepts/
# workloads/pods/disruptions/#pod-disruption-conditions, and what kubelets say of a pod themselves.
DISRUPTIONS: Final = frozenset(
    {
        "DeletionByPodGC",
        "DeletionByTaintManager",
        "EvictionByEvictionAPI",
        "Evicted",
        "NodeLost",
        "NodeShutdown",
        "PreemptionByScheduler",
        "TerminationByKubelet",
    }
)


@dataclass(frozen=True, slots=True)
class Holder:
    """Somebody who has some of what a workload waits for."""

    namespace: str
    name: str  # of the workload, or of the foreign object
    is_workload: bool  # has the label of one of ours: whether it is one, the rows tell
    amount: int = 0  # how much of it, 0 when it is not counted
    since: dt.datetime | None = None


@dataclass(frozen=True, slots=True)
class Blockage:
    """Why a workload does not run: a clause that names no other namespace, and who holds it."""

    what: str
    holders: tuple[Holder, ...] = ()
    verb: str = "held by"  # between the clause and the holders


class WorkloadBlocked(ClusterError):
    """The cluster takes this workload later: a quota is used up."""

    def __init__(self, text: str, *, reason: str, blockage: Blockage) -> None:
        super().__init__(text)
        self.reason = reason
        self.blockage = blockage


class WorkloadPhase(StrEnum):
    """Where a workload stands."""

    PENDING = "Pending"  # accepted, waiting for GPUs or to be started
    RUNNING = "Running"
    PAUSED = "Paused"  # process group stopped, state kept
    SUCCEEDED = "Succeeded"
    FAILED = "Failed"


@dataclass(frozen=True, slots=True)
class WorkloadSpec:
    """One attempt as a workload. `name` is derived from goal, task and attempt (DNS-1123 label)."""

    name: str
    namespace: str
    goal_uid: str
    task: str
    attempt_uid: str
    agent: str
    service_account: str
    image: str
    command: tuple[str, ...]
    environment: Mapping[str, str] = field(default_factory=dict)
    # The workload gets a token of the platform for this audience; "" where it gets none.
    token_audience: str = ""
    labels: Mapping[str, str] = field(default_factory=dict)
    gpus: int = 0
    memory_bytes: int | None = None
    deadline_seconds: float | None = None  # of running time, paused time not counted
    output_bytes_max: int = 4 << 20
    hold_gpus_on_pause: bool = False
    # GPU-milliseconds this workload may use before it stops by itself: running time x GPUs.
    # The cluster enforces it without us, so that a dead control plane cannot overspend.
    gpu_allowance_ms: int | None = None
    priority_class: str = ""  # of the pod; "" leaves it to the cluster


@dataclass(frozen=True, slots=True)
class WorkloadStatus:
    """What is, as last seen by the cluster itself."""

    name: str
    namespace: str
    attempt_uid: str
    phase: WorkloadPhase
    reason: str = ""  # CamelCase: Unschedulable, AllowanceExhausted, Paused, DeadlineExceeded,
    #                   OutOfMemory, NonZeroExit, Killed, StartFailed, Deleted, ControlPlaneGone
    message: str = ""
    exit_code: int | None = None
    pid: int | None = None
    created_at: dt.datetime | None = None
    started_at: dt.datetime | None = None
    finished_at: dt.datetime | None = None
    running_ms: int = 0  # wall time in phase Running
    gpu_ms: int = 0  # running_ms x GPUs, what the ledger settles
    gpu_idle_held_ms: int = 0  # GPUs held while paused
    gpu_ids: tuple[str, ...] = ()
    gpu_allowance_ms: int | None = None
    output_bytes: int = 0
    output_truncated: bool = False
    blockage: Blockage | None = None  # while it waits, where the cluster tells more than `message`

    @property
    def is_finished(self) -> bool:
        return self.phase in (WorkloadPhase.SUCCEEDED, WorkloadPhase.FAILED)


@dataclass(frozen=True, slots=True)
class Gpu:
    """One GPU or declared slot. `is_measured` is False for slots that are only declared."""

    id: str
    node: str
    name: str
    is_measured: bool
    held_by: str = ""  # workload name
    memory_total_bytes: int | None = None
    memory_used_bytes: int | None = None
    utilisation: float | None = None  # 0..1, None when unknown


class Cluster(Protocol):
    """Runs workloads. Every call may be repeated; every method raises only `ClusterError`s."""

    @property
    def keeps_paused(self) -> bool:
        """Whether a paused workload goes on where it was, or starts anew when it is resumed."""

    def create(self, spec: WorkloadSpec) -> None:
        """Accept a workload; the same spec again is success. Raises `WorkloadConflict`."""

    def pause(self, name: str) -> None:
        """Stop the process group, keeping its state. Absent or finished is success."""

    def resume(self, name: str) -> None:
        """Let a paused workload run on once its GPUs are free. Absent or finished is success."""

    def set_gpu_allowance(self, name: str, gpu_ms: int) -> None:
        """Raise the GPU-milliseconds a workload may use in all; never lowers it.

        A workload paused with reason AllowanceExhausted runs on when the new allowance is larger.
        """

    def delete(self, name: str, *, grace_seconds: float = 5.0) -> None:
        """SIGTERM, then SIGKILL after the grace; the status stays readable. Absent is success."""

    def forget(self, name: str) -> None:
        """Remove what is kept of a finished workload (status, working directory, output)."""

    def get(self, name: str) -> WorkloadStatus | None:
        """The workload's status, or None when the cluster has never heard of it."""

    def list(self) -> Sequence[WorkloadStatus]:
        """Every workload the cluster knows."""

    def output(self, name: str, *, offset: int = 0, limit: int = 65536) -> bytes:
        """Captured stdout and stderr, interleaved as written."""

    def gpus(self) -> Sequence[Gpu]:
        """Every GPU or slot and who holds it."""

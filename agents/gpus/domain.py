"""What one look at a node's GPUs says: figures a card does not tell are None, never zero."""

import datetime as dt
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

IDLE_UTILISATION: Final = 0.05  # below this share of its time a card does nothing worth its price
IDLE_HELD_SECONDS: Final = 300.0  # shorter pauses are loading, checkpointing, thinking
STALE_SECONDS: Final = 5.0  # the console greys out what nobody has looked at for longer
XIDS_KEPT: Final = 16  # newest errors of one card
XID_RECENT_SECONDS: Final = 24 * 3600.0  # an error counts as trouble for a day
PROCESSES_KEPT: Final = 64  # of one device; NVML knows no bound
SERIES_STEP_SECONDS: Final = 10.0
SERIES_POINTS: Final = 60  # ten minutes: what a person wants to see of "now"


# Of NVIDIA's list (docs.nvidia.com/deploy/xid-errors): what the commonest ones say.
XID_WORDS: Final = {
    13: "graphics engine exception",
    31: "memory page fault",
    43: "a program's channel stopped",
    45: "a program was cleaned up",
    48: "double bit ECC error",
    63: "a memory row was remapped",
    64: "a memory row could not be remapped",
    74: "NVLink error",
    79: "the card fell off the bus",
    92: "many single bit ECC errors",
    94: "contained ECC error",
    95: "uncontained ECC error",
    119: "the card's processor does not answer",
    120: "the card's processor failed",
}
PROGRAM_XIDS: Final = frozenset({13, 31, 43, 45})  # as a rule a program's fault, not the card's


class DeviceKind(StrEnum):
    """What a row of the GPU page stands for."""

    CARD = "card"
    SLICE = "slice"  # a MIG device of a card
    SLOT = "slot"  # declared in CLUSTER_URL; nothing is measured of it


class Source(StrEnum):
    """What tells of a node's GPUs."""

    NODE = "node"  # our own sampler, through NVML
    DCGM = "dcgm"  # NVIDIA's dcgm-exporter, read over HTTP
    CLUSTER = "cluster"  # what the node offers and pods ask for; nothing is measured


class Throttle(StrEnum):
    """Why a card runs slower than it could (NVML's clocks event reasons)."""

    HW_THERMAL = "hw-thermal"
    SW_THERMAL = "sw-thermal"
    HW_SLOWDOWN = "hw-slowdown"
    POWER_BRAKE = "power-brake"
    POWER_CAP = "power-cap"


HOT: Final = frozenset({Throttle.HW_THERMAL, Throttle.SW_THERMAL, Throttle.HW_SLOWDOWN})


class Owner(StrEnum):
    """Whose a process on a card is."""

    OURS = "ours"
    FOREIGN = "foreign"
    UNKNOWN = "unknown"  # of another pid namespace, or gone before it could be looked at


@dataclass(frozen=True, slots=True, kw_only=True)
class ComputeProcess:
    """A process that NVML sees on a device; `workload` names ours."""

    pid: int
    memory_bytes: int | None
    owner: Owner = Owner.UNKNOWN
    workload: str = ""
    program: str = ""  # the kernel's short name of it, at most 15 characters
    pod_uid: str = ""  # of the Kubernetes pod it runs in, where the kernel shows that


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """One device in one look. `xids` are the errors since the look before.

    `hears_xids` is False where the driver reports no such events: then nothing is known of them.
    ECC counts are of the time since the driver was loaded. `trouble` says why a card does not
    answer; the other figures are then None.
    """

    id: str
    kind: DeviceKind
    name: str
    position: int = 0
    parent: str = ""  # of a slice: its card
    profile: str = ""  # of a slice, e.g. 1g.10gb
    memory_total_bytes: int | None = None
    memory_used_bytes: int | None = None
    utilisation: float | None = None  # 0..1
    temperature_c: int | None = None
    temperature_limit_c: int | None = None  # where the card slows itself down
    power_mw: int | None = None
    power_limit_mw: int | None = None
    throttles: tuple[Throttle, ...] | None = None
    is_ecc_on: bool | None = None
    ecc_corrected: int | None = None
    ecc_uncorrected: int | None = None
    is_mig_on: bool | None = None
    hears_xids: bool = False
    xids: tuple[int, ...] = ()
    processes: tuple[ComputeProcess, ...] | None = None
    trouble: str = ""

    @property
    def is_idle(self) -> bool | None:
        """Whether it does next to nothing; None when the device does not tell.

        NVML tells no utilisation of a MIG device: without a process it is idle, with one nobody
        can say.
        """
        if self.trouble:
            return None
        if self.utilisation is not None:
            return self.utilisation < IDLE_UTILISATION
        return True if self.processes == () else None

    @property
    def memory_share(self) -> float | None:
        """Memory in use, 0..1."""
        if self.memory_used_bytes is None or not self.memory_total_bytes:
            return None
        return self.memory_used_bytes / self.memory_total_bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeReading:
    """One look at all devices of a node; no devices on a machine without cards or driver."""

    driver_version: str = ""
    devices: tuple[Reading, ...] = ()
    notes: tuple[str, ...] = ()  # cards that do not answer and were never seen to


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """What a sampler reports of its node at `at`.

    `trouble` says why nothing could be read; then `devices` says nothing. `held_by` maps device
    ids to workload names; None when the cluster could not say who holds what.
    """

    node: str
    at: dt.datetime
    driver_version: str = ""
    devices: tuple[Reading, ...] = ()
    held_by: dict[str, str] | None = None
    trouble: str = ""
    source: Source = Source.NODE

    @property
    def is_measured(self) -> bool:
        return any(device.kind is not DeviceKind.SLOT for device in self.devices)

"""Nodes with GPUs in the states a page must tell apart, as samplers would have reported them."""

import datetime as dt
from dataclasses import replace
from typing import Any

from django.utils import timezone

from agents.gpus.domain import (
    ComputeProcess,
    DeviceKind,
    Owner,
    Reading,
    Sample,
    Throttle,
)
from agents.services.gpus import record_sample

GIB = 1 << 30
H100 = "NVIDIA H100 80GB HBM3"


def card(number: int, **figures: Any) -> Reading:
    """One busy card in good health."""
    told: dict[str, Any] = {
        "memory_total_bytes": 80 * GIB, "memory_used_bytes": 31 * GIB, "utilisation": 0.63,
        "temperature_c": 61, "temperature_limit_c": 90, "power_mw": 310_000,
        "power_limit_mw": 700_000, "throttles": (), "is_ecc_on": True, "ecc_corrected": 0,
        "ecc_uncorrected": 0, "is_mig_on": False, "hears_xids": True, "processes": (),
    }  # fmt: skip
    return Reading(
        id=f"GPU-{number:08x}-0000-4000-8000-000000000000", kind=DeviceKind.CARD, name=H100,
        position=number % 8, **{**told, **figures},
    )  # fmt: skip


def part(whole: Reading, position: int, **figures: Any) -> Reading:
    """One MIG slice of a card."""
    told: dict[str, Any] = {
        "memory_total_bytes": 10 * GIB, "memory_used_bytes": 2 * GIB, "processes": (),
    }  # fmt: skip
    return Reading(
        id=f"MIG-{whole.id[4:12]}-0000-4000-8000-{position:012d}", kind=DeviceKind.SLICE,
        name=f"{H100} MIG 1g.10gb", profile="1g.10gb", parent=whole.id, position=position,
        **{**told, **figures},
    )  # fmt: skip


def slot(number: int) -> Reading:
    """One slot that is only declared."""
    return Reading(id=f"gpu-{number}", kind=DeviceKind.SLOT, name="declared slot", position=number)


def report(
    node: str, *devices: Reading, held_by: dict[str, str] | None = None, ago: float = 0, **more: Any
) -> None:
    """What the sampler of a node saw `ago` seconds ago."""
    at = timezone.now() - dt.timedelta(seconds=ago)
    record_sample(
        Sample(node=node, at=at, devices=devices, held_by=held_by or {},
               driver_version="" if devices[0].kind is DeviceKind.SLOT else "575.57.08", **more)
    )  # fmt: skip


def foreign(pid: int = 4711) -> ComputeProcess:
    """A process that nobody knows."""
    return ComputeProcess(pid=pid, memory_bytes=6 * GIB, owner=Owner.FOREIGN, program="xmrig")


def troubled(number: int) -> Reading:
    """A card with all that may be wrong with one."""
    return card(
        number, temperature_c=92, throttles=(Throttle.HW_THERMAL, Throttle.POWER_CAP),
        ecc_corrected=12, ecc_uncorrected=2, xids=(79, 31, 31), processes=(foreign(),),
    )  # fmt: skip


def divided(number: int) -> Reading:
    """A card in MIG mode: NVML tells no utilisation of it."""
    return replace(card(number), is_mig_on=True, utilisation=None)

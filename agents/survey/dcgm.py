"""What dcgm-exporter says of a node's GPUs, in Prometheus' text format, as readings.

The format: prometheus.io/docs/instrumenting/exposition_formats. The fields and labels:
docs.nvidia.com/datacenter/dcgm (field identifiers) and dcgm-exporter's default counters.
"""

import math
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Final

from agents.gpus.domain import DeviceKind, Reading

PREFIX: Final = "DCGM_FI_"
MIB: Final = 1 << 20
CARDS_MAX: Final = 1024  # of one node, slices and all; nothing real comes near
_LINE: Final = re.compile(r"(?P<name>[A-Z0-9_]+)(?:\{(?P<labels>.*)\})? +(?P<value>\S+)(?: +\S+)?")
_LABEL: Final = re.compile(r'(?P<name>[A-Za-z_][A-Za-z0-9_]*)="(?P<value>(?:[^"\\]|\\.)*)"')
_ESCAPES: Final = {r"\\": "\\", r"\"": '"', r"\n": "\n"}
_ESCAPED: Final = re.compile(r"\\.")
UTILISATION: Final = "DCGM_FI_DEV_GPU_UTIL"
# Of a MIG slice there is only this: the share of time its graphics engine was active.
ENGINE_ACTIVE: Final = "DCGM_FI_PROF_GR_ENGINE_ACTIVE"
USED: Final = "DCGM_FI_DEV_FB_USED"
FREE: Final = "DCGM_FI_DEV_FB_FREE"
RESERVED: Final = "DCGM_FI_DEV_FB_RESERVED"
XID: Final = "DCGM_FI_DEV_XID_ERRORS"
TEMPERATURE: Final = "DCGM_FI_DEV_GPU_TEMP"
POWER: Final = "DCGM_FI_DEV_POWER_USAGE"
CORRECTED: Final = "DCGM_FI_DEV_ECC_SBE_VOL_TOTAL"
UNCORRECTED: Final = "DCGM_FI_DEV_ECC_DBE_VOL_TOTAL"


class MetricsUnreadable(Exception):
    """The text is not what dcgm-exporter writes; the message says where."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """A reading, the last XID error the card told of (0: none), and the pod that holds it."""

    reading: Reading
    last_xid: int = 0
    pod: tuple[str, str] = ("", "")  # namespace, name


@dataclass(frozen=True, slots=True)
class Metrics:
    """One page of metrics. `hosts`: the node names it was labelled with."""

    devices: tuple[Measured, ...]
    driver_version: str = ""
    hosts: frozenset[str] = frozenset()


@dataclass(slots=True)
class _Device:
    labels: Mapping[str, str]
    values: dict[str, float] = field(default_factory=dict)


def read_metrics(text: str) -> Metrics:
    """The GPUs of one exporter. Raises MetricsUnreadable."""
    devices: dict[tuple[str, str], _Device] = {}
    for name, labels, value in _samples(text.splitlines()):
        card = labels.get("UUID") or labels.get("uuid") or ""
        if not card:
            continue
        key = card, labels.get("GPU_I_ID", "")
        known = devices.setdefault(key, _Device(labels))
        known.values[name] = value
        if _pod(labels) != ("", ""):
            known.labels = labels
        if len(devices) > CARDS_MAX:
            raise MetricsUnreadable(f"more than {CARDS_MAX} GPUs in one answer")
    found = sorted(devices.items(), key=lambda one: (_position(one[1].labels), one[0]))
    split = {card for card, part in devices if part}
    every = [device.labels for _, device in found]
    return Metrics(
        devices=tuple(
            _measured(card, part, device, is_split=card in split)
            for (card, part), device in found
        ),
        driver_version=next((v for one in every if (v := one.get("DCGM_FI_DRIVER_VERSION"))), ""),
        hosts=frozenset(host for one in every if (host := one.get("Hostname"))),
    )  # fmt: skip


def _samples(lines: Iterable[str]) -> Iterator[tuple[str, dict[str, str], float]]:
    for number, line in enumerate(lines, start=1):
        if not line.startswith(PREFIX):
            continue
        found = _LINE.fullmatch(line.strip())
        if found is None:
            raise MetricsUnreadable(f"line {number} is no sample")
        labels = {
            one["name"]: _ESCAPED.sub(lambda m: _ESCAPES.get(m[0], m[0]), one["value"])
            for one in _LABEL.finditer(found["labels"] or "")
        }
        try:
            value = float(found["value"])
        except ValueError as error:
            raise MetricsUnreadable(f"line {number} has no number") from error
        if math.isfinite(value):
            yield found["name"], labels, value


def _measured(card: str, part: str, device: _Device, *, is_split: bool) -> Measured:
    labels, values = device.labels, device.values
    used = _bytes(values.get(USED))
    free, reserved = _bytes(values.get(FREE)), _bytes(values.get(RESERVED))
    total = None if used is None or free is None else used + free + (reserved or 0)
    reading = Reading(
        id=f"{card}/{part}" if part else card,
        kind=DeviceKind.SLICE if part else DeviceKind.CARD,
        name=labels.get("modelName", "")[:128],
        position=_position(labels) if not part else _whole(part),
        parent=card if part else "",
        profile=labels.get("GPU_I_PROFILE", "")[:64] if part else "",
        memory_total_bytes=total,
        memory_used_bytes=used,
        utilisation=_utilisation(values, is_slice=bool(part)),
        temperature_c=None if part else _rounded(values.get(TEMPERATURE)),
        power_mw=None if part else _rounded(values.get(POWER), times=1000),
        ecc_corrected=_rounded(values.get(CORRECTED)),
        ecc_uncorrected=_rounded(values.get(UNCORRECTED)),
        is_mig_on=None if part else (True if is_split else None),
        hears_xids=XID in values,
    )
    return Measured(
        reading=reading, last_xid=0 if part else int(values.get(XID, 0)), pod=_pod(labels)
    )


def _utilisation(values: Mapping[str, float], *, is_slice: bool) -> float | None:
    """0..1. Of a slice, GPU_UTIL is that of the whole card."""
    if not is_slice and UTILISATION in values:
        return min(max(values[UTILISATION] / 100, 0.0), 1.0)
    if ENGINE_ACTIVE in values:
        return min(max(values[ENGINE_ACTIVE], 0.0), 1.0)
    return None


def _pod(labels: Mapping[str, str]) -> tuple[str, str]:
    """The pod that the kubelet gave the device to; `exported_` where a scraper renamed it."""
    namespace = labels.get("exported_namespace") or labels.get("namespace") or ""
    return namespace, labels.get("exported_pod") or labels.get("pod") or ""


def _position(labels: Mapping[str, str]) -> int:
    return _whole(labels.get("gpu", ""))


def _whole(text: str) -> int:
    return int(text) if text.isascii() and text.isdigit() and len(text) < 6 else 0


def _bytes(mebibytes: float | None) -> int | None:
    return None if mebibytes is None or mebibytes < 0 else int(mebibytes * MIB)


def _rounded(value: float | None, *, times: int = 1) -> int | None:
    return None if value is None or not 0 <= value < 1e12 else round(value * times)

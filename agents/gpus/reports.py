"""A sample as JSON: what a node's sampler sends to the API, and how it is read there."""

import datetime as dt
from dataclasses import asdict
from typing import Any, Final

from ninja import Schema
from pydantic import ConfigDict, Field

from agents.gpus.domain import (
    PROCESSES_KEPT,
    XIDS_KEPT,
    ComputeProcess,
    DeviceKind,
    Owner,
    Reading,
    Sample,
    Source,
    Throttle,
)

DEVICES_MAX: Final = 256  # 16 cards in 7 slices each, and more; of one node
ID_MAX: Final = 96  # the column's
BIG: Final = 1 << 60


class ProcessIn(Schema):
    """A process on a card; whose it is, the control plane finds out."""

    model_config = ConfigDict(extra="forbid")

    pid: int = Field(ge=0, le=1 << 31)
    memory_bytes: int | None = Field(None, ge=0, le=BIG)
    program: str = Field("", max_length=15)
    pod_uid: str = Field("", max_length=36, pattern=r"^[0-9a-f-]*$")


class ReadingIn(Schema):
    """One card or MIG slice; what a card does not tell is null."""

    model_config = ConfigDict(extra="forbid")

    id: str = Field(min_length=1, max_length=ID_MAX)
    kind: DeviceKind
    name: str = Field("", max_length=128)
    position: int = Field(0, ge=0, le=1 << 16)
    parent: str = Field("", max_length=ID_MAX)
    profile: str = Field("", max_length=64)
    memory_total_bytes: int | None = Field(None, ge=0, le=BIG)
    memory_used_bytes: int | None = Field(None, ge=0, le=BIG)
    utilisation: float | None = Field(None, ge=0, le=1)
    temperature_c: int | None = Field(None, ge=-300, le=10_000)
    temperature_limit_c: int | None = Field(None, ge=-300, le=10_000)
    power_mw: int | None = Field(None, ge=0, le=BIG)
    power_limit_mw: int | None = Field(None, ge=0, le=BIG)
    throttles: list[Throttle] | None = Field(None, max_length=len(Throttle))
    is_ecc_on: bool | None = None
    ecc_corrected: int | None = Field(None, ge=0, le=BIG)
    ecc_uncorrected: int | None = Field(None, ge=0, le=BIG)
    is_mig_on: bool | None = None
    hears_xids: bool = False
    xids: list[int] = Field(default_factory=list, max_length=XIDS_KEPT)
    processes: list[ProcessIn] | None = Field(None, max_length=PROCESSES_KEPT)
    trouble: str = Field("", max_length=500)


class SampleIn(Schema):
    """One look at a node's cards. `at` is the node's clock; `trouble` says why none was read."""

    model_config = ConfigDict(extra="forbid")

    at: dt.datetime
    driver_version: str = Field("", max_length=80)
    devices: list[ReadingIn] = Field(default_factory=list, max_length=DEVICES_MAX)
    trouble: str = Field("", max_length=500)

    def sample(self, *, node: str, at: dt.datetime) -> Sample:
        """As the services take it; who holds what is not the node's to say."""
        return Sample(
            node=node,
            at=at,
            driver_version=self.driver_version,
            devices=tuple(_reading(one) for one in self.devices),
            trouble=self.trouble,
            source=Source.NODE,
        )


def _reading(told: ReadingIn) -> Reading:
    fields = told.model_dump(exclude={"processes", "throttles", "xids"})
    processes = told.processes
    return Reading(
        **fields,
        throttles=None if told.throttles is None else tuple(told.throttles),
        xids=tuple(told.xids),
        processes=None
        if processes is None
        else tuple(ComputeProcess(**one.model_dump(), owner=Owner.UNKNOWN) for one in processes),
    )


def report_of(sample: Sample) -> dict[str, Any]:
    """The sample as `SampleIn` reads it; what is beyond its bounds is cut."""
    return {
        "at": sample.at.isoformat(),
        "driver_version": sample.driver_version[:80],
        "devices": [_document(one) for one in sample.devices[:DEVICES_MAX]],
        "trouble": sample.trouble[:500],
    }


def _document(reading: Reading) -> dict[str, Any]:
    told = asdict(reading)
    told["kind"] = reading.kind.value
    told["trouble"] = reading.trouble[:500]
    told["throttles"] = None if reading.throttles is None else [str(t) for t in reading.throttles]
    told["xids"] = list(reading.xids)[-XIDS_KEPT:]
    processes = reading.processes
    told["processes"] = None if processes is None else [
        {
            "pid": one.pid, "memory_bytes": one.memory_bytes, "program": one.program[:15],
            "pod_uid": one.pod_uid,
        }
        for one in processes[:PROCESSES_KEPT]
    ]  # fmt: skip
    return told

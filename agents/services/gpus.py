"""Samples of GPUs: the latest state of each device is kept, and what went wrong is journaled."""

import datetime as dt
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from typing import Any, Final

from django.db import transaction

from agents.gpus.domain import (
    HOT,
    PROCESSES_KEPT,
    SERIES_POINTS,
    SERIES_STEP_SECONDS,
    XIDS_KEPT,
    DeviceKind,
    Owner,
    Reading,
    Sample,
)
from agents.models import GpuDevice, GpuNode
from governance.services.journal import News, append_records, journaled
from lineage.domain import Actor, ActorKind

SAMPLER: Final = Actor(ActorKind.SYSTEM, "node")
ABSENT = "The card is not there any more."
LOST_KEPT = dt.timedelta(days=7)  # a card that was taken out is shown for a week
XID_QUIET = dt.timedelta(minutes=10)  # a card that repeats itself is not journaled each time
FIGURES: Final = (
    "kind", "position", "profile", "memory_total_bytes", "memory_used_bytes",
    "utilisation", "temperature_c", "temperature_limit_c", "power_mw", "power_limit_mw",
    "is_ecc_on", "ecc_corrected", "ecc_uncorrected", "is_mig_on", "hears_xids",
)  # fmt: skip


def record_sample(sample: Sample) -> None:
    """Keep what a sampler saw of its node; the newest word on a device is the one that counts.

    Safe to repeat: figures are set, not added; an error is journaled with the row that lists it; a
    card is lost once. The very same sample again changes nothing.
    """
    node = GpuNode.objects.filter(pk=sample.node).first()
    if node is not None and node.heard_at == sample.at:
        return
    rows = {row.device_id: row for row in GpuDevice.objects.filter(node_id=sample.node)}
    changes = _Changes(sample, rows)
    if node is not None and node.source != sample.source and not sample.trouble:
        changes.replace_all()
    if not sample.trouble:
        changes.compare()
    news = [*_node_news(node, sample), *changes.news]
    with journaled() if news else transaction.atomic():
        _write_node(sample)
        changes.write()
        append_records(news)


def _write_node(sample: Sample) -> None:
    told: dict[str, Any] = {"heard_at": sample.at, "trouble": sample.trouble}
    if not sample.trouble:
        told["source"] = sample.source
        told["sampled_at"] = sample.at
        told["driver_version"] = sample.driver_version
        told["is_measured"] = sample.is_measured
    if not GpuNode.objects.filter(pk=sample.node).update(**told):
        GpuNode.objects.update_or_create(name=sample.node, defaults=told)


def _node_news(node: GpuNode | None, sample: Sample) -> Iterable[News]:
    """Whether the cards as a whole stopped or began to answer."""
    was, now = ("" if node is None else node.trouble), sample.trouble
    if bool(was) != bool(now):
        action = "node.gpus_unreadable" if now else "node.gpus_readable"
        yield News(action, SAMPLER, "node", sample.node, "", body={"why": now or was})


class _Changes:
    """What a sample changes in the rows of its node, worked out before anything is locked."""

    def __init__(self, sample: Sample, rows: Mapping[str, GpuDevice]) -> None:
        self.sample = sample
        self.rows = rows
        self.news: list[News] = []
        self.updates: list[tuple[int, dict[str, Any]]] = []
        self.inserts: list[GpuDevice] = []
        self.gone: list[int] = []

    def replace_all(self) -> None:
        """Another source tells of the node from now on: what the old one told is not missed."""
        self.gone += [row.pk for row in self.rows.values()]
        self.rows = {}

    def compare(self) -> None:
        seen = {reading.id for reading in self.sample.devices}
        for reading in self.sample.devices:
            self._compare_device(reading, self.rows.get(reading.id))
        for row in self.rows.values():
            if row.device_id not in seen:
                self._compare_absent(row)

    def write(self) -> None:
        """In the caller's transaction."""
        GpuDevice.objects.filter(pk__in=self.gone).delete()
        for pk, changed in self.updates:
            GpuDevice.objects.filter(pk=pk).update(**changed)
        GpuDevice.objects.bulk_create(self.inserts, ignore_conflicts=True)

    def _compare_device(self, reading: Reading, row: GpuDevice | None) -> None:
        at = self.sample.at
        known = row or GpuDevice(node_id=self.sample.node, device_id=reading.id, changed_at=at)
        told = self._lost(known, reading) if reading.trouble else self._figures(known, reading)
        told |= self._holding(known, reading)
        if reading.xids:
            told |= self._errors(known, reading)
        told |= self._series(known, reading)
        changed = {name: value for name, value in told.items() if getattr(known, name) != value}
        if row is None:
            for name, value in changed.items():
                setattr(known, name, value)
            self.inserts.append(known)
        elif changed:
            self.updates.append((row.pk, {**changed, "changed_at": at}))

    def _figures(self, known: GpuDevice, reading: Reading) -> dict[str, Any]:
        if known.lost_at is not None:
            self._say("gpu.returned", reading.id, lost_at=known.lost_at.isoformat())
        processes = reading.processes
        return {
            **{name: getattr(reading, name) for name in FIGURES},
            "parent_id": reading.parent,
            "name": reading.name,
            "throttles": None if reading.throttles is None else [str(t) for t in reading.throttles],
            "is_hot": bool(HOT.intersection(reading.throttles or ())),
            "processes": None
            if processes is None
            else [{**asdict(p), "owner": str(p.owner)} for p in processes[:PROCESSES_KEPT]],
            "has_foreign": any(p.owner is Owner.FOREIGN for p in processes or ()),
            "lost_at": None,
            "trouble": "",
        }

    def _lost(self, known: GpuDevice, reading: Reading) -> dict[str, Any]:
        """A card that does not answer keeps its name; what it did a moment ago is not known now."""
        if known.lost_at is None:
            self._say("gpu.lost", reading.id, why=reading.trouble)
        unknown = ("memory_used_bytes", "utilisation", "temperature_c", "power_mw", "processes")
        return {
            **dict.fromkeys((*unknown, "throttles")),
            "kind": known.kind or reading.kind,
            "position": reading.position,
            "is_hot": False,
            "has_foreign": False,
            "lost_at": known.lost_at or self.sample.at,
            "trouble": reading.trouble,
        }

    def _holding(self, known: GpuDevice, reading: Reading) -> dict[str, Any]:
        """Who holds it since when, and since when it idles in that hold."""
        told: dict[str, Any] = {}
        holder = known.held_by
        if self.sample.held_by is not None:
            holder = self.sample.held_by.get(reading.id, "")
        is_new = holder != known.held_by
        if is_new:
            told = {"held_by": holder, "held_since": self.sample.at if holder else None}
        if not reading.is_idle:
            told["idle_since"] = None
        elif known.idle_since is None or is_new:
            told["idle_since"] = self.sample.at
        return told

    def _errors(self, known: GpuDevice, reading: Reading) -> dict[str, Any]:
        at = self.sample.at
        counts = {code: reading.xids.count(code) for code in dict.fromkeys(reading.xids)}
        quiet = {
            one["code"]
            for one in known.xids
            if at - dt.datetime.fromisoformat(one["at"]) < XID_QUIET
        }
        for code, count in counts.items():
            if code in quiet:
                continue
            self._say("gpu.xid", reading.id, code=code, count=count, held_by=known.held_by)
        new = [{"code": code, "at": at.isoformat()} for code in reading.xids]
        return {"xids": [*known.xids, *new][-XIDS_KEPT:], "xid_at": at}

    def _series(self, known: GpuDevice, reading: Reading) -> dict[str, Any]:
        if reading.kind is DeviceKind.SLOT:
            return {}
        now = self.sample.at.timestamp()
        if known.series and now - known.series[-1][0] < SERIES_STEP_SECONDS:
            return {}
        point = [int(now), _percent(reading.utilisation), _percent(reading.memory_share)]
        return {"series": [*known.series, point][-SERIES_POINTS:]}

    def _compare_absent(self, row: GpuDevice) -> None:
        """Slots and slices are made and unmade by people; a card that is gone is missed."""
        at = self.sample.at
        if row.kind != DeviceKind.CARD:
            parent = next((d for d in self.sample.devices if d.id == row.parent_id), None)
            # While its card does not answer, nobody knows what became of a slice.
            if row.kind == DeviceKind.SLOT or (parent is not None and not parent.trouble):
                self.gone.append(row.pk)
            return
        if row.lost_at is not None and at - row.lost_at > LOST_KEPT:
            self.gone.append(row.pk)
        elif row.lost_at is None:
            gone = Reading(
                id=row.device_id, kind=DeviceKind.CARD, name=row.name, position=row.position,
                trouble=ABSENT,
            )  # fmt: skip
            self._compare_device(gone, row)

    def _say(self, action: str, device: str, **body: Any) -> None:
        told = {"node": self.sample.node, **body}
        self.news.append(News(action, SAMPLER, "gpu", device, "", body=told))


def _percent(share: float | None) -> int | None:
    return None if share is None else round(100 * share)

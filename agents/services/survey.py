"""What a look at the cluster changes in our rows: foreign workloads, GPUs, when it was heard."""

import datetime as dt
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any, Final, TypeVar

from django.db import transaction

from agents.gpus.domain import DeviceKind, Sample, Source
from agents.models import ClusterSurvey, ClusterWorkload, GpuDevice, GpuNode
from agents.services.gpus import record_sample
from agents.survey.domain import Fleet, Live

ROWS_AT_ONCE: Final = 400  # names in one statement; SQLite may allow no more than 999 variables
SURVEY: Final = 1  # the row of ClusterSurvey
# A sampler on the node itself knows more than what the node offers; it may be away so long.
SAMPLER_KEPT: Final = dt.timedelta(minutes=5)
GONE_KEPT: Final = dt.timedelta(minutes=10)  # so that every open map has heard of it
NO_PODS: Final[Mapping[str, Any]] = {
    "state": "", "reason": "", "pods": 0, "running": 0, "gpus": 0, "nodes": [], "started_at": None,
}  # fmt: skip


def note_heard(
    *, cluster: str, at: dt.datetime, fleet: Fleet | None = None, trouble: str = ""
) -> None:
    """Say when the cluster was heard, or why it is not: then the last figures stand."""
    told: dict[str, Any] = {"cluster": cluster[:253], "trouble": trouble}
    if fleet is not None and not trouble:
        told |= {
            "heard_at": at,
            "nodes": fleet.nodes,
            "pods": fleet.pods,
            "is_truncated": fleet.is_truncated,
        }
    ClusterSurvey.objects.update_or_create(pk=SURVEY, defaults=told)


def record_foreign(found: Sequence[Live], *, at: dt.datetime) -> int:
    """Make the rows say what the pods of others say; how many rows changed.

    Safe to repeat: rows are compared first, and the very same facts change nothing. A workload
    without pods stays while its template is in the catalogue or a person marked it, others for
    ten minutes.
    """
    rows = {row.uid: row for row in ClusterWorkload.objects.all()}
    now = {live.holder.uid: live for live in found}
    inserts: list[ClusterWorkload] = []
    changed: list[ClusterWorkload] = []
    for uid, live in now.items():
        row = rows.get(uid)
        if row is None:
            inserts.append(_new_row(live, at=at))
        elif _is_changed(row, {**_live_fields(live, row), "gone_at": None}, at=at):
            changed.append(row)
    absent = [row for uid, row in rows.items() if uid not in now]
    dropped = {row.pk for row in absent if _is_forgotten(row, at=at)}
    for row in (row for row in absent if row.pk not in dropped):
        gone_at = row.gone_at or (None if row.is_listed else at)
        if _is_changed(row, {**NO_PODS, "gone_at": gone_at}, at=at):
            changed.append(row)
    with transaction.atomic():
        ClusterWorkload.objects.bulk_create(inserts, batch_size=ROWS_AT_ONCE, ignore_conflicts=True)
        _update(changed, fields=(*NO_PODS, "images", "service_account", "gone_at", "changed_at"))
        for part in _parts([*dropped]):
            ClusterWorkload.objects.filter(pk__in=part).delete()
    return len(inserts) + len(changed) + len(dropped)


def _update(rows: Sequence[ClusterWorkload], *, fields: Collection[str]) -> None:
    """One statement a row: a CASE over twenty columns of hundreds of rows is slower by far."""
    for row in rows:
        values = {name: getattr(row, name) for name in fields}
        ClusterWorkload.objects.filter(pk=row.pk).update(**values)


def _new_row(live: Live, *, at: dt.datetime) -> ClusterWorkload:
    holder = live.holder
    return ClusterWorkload(
        uid=holder.uid, kind=holder.kind[:63], namespace=holder.namespace, name=holder.name,
        first_seen_at=at, changed_at=at, **_live_fields(live),
    )  # fmt: skip


def _live_fields(live: Live, row: ClusterWorkload | None = None) -> dict[str, Any]:
    """What pods tell; what their template tells is the catalogue's word, once it was read."""
    told = {} if row is not None and row.is_listed else {
        "images": list(live.images), "service_account": live.service_account,
    }  # fmt: skip
    return {
        **told,
        "state": live.state.value,
        "reason": live.reason,
        "pods": live.pods,
        "running": live.running,
        "gpus": live.gpus,
        "nodes": list(live.nodes),
        "started_at": live.started_at,
    }


def _is_changed(row: ClusterWorkload, told: Mapping[str, Any], *, at: dt.datetime) -> bool:
    """Put what is told into the row; whether anything of it is new."""
    new = {name: value for name, value in told.items() if getattr(row, name) != value}
    for name, value in new.items():
        setattr(row, name, value)
    if new:
        row.changed_at = at
    return bool(new)


def _is_forgotten(row: ClusterWorkload, *, at: dt.datetime) -> bool:
    """Gone for long, and nobody has said what it was."""
    is_marked = row.ignored_at is not None or row.agent_id is not None
    is_gone = row.gone_at is not None and at - row.gone_at > GONE_KEPT
    return is_gone and not is_marked and not row.is_listed


ItemT = TypeVar("ItemT")


def _parts(items: Sequence[ItemT]) -> Iterator[Sequence[ItemT]]:
    return (items[start : start + ROWS_AT_ONCE] for start in range(0, len(items), ROWS_AT_ONCE))


class GpuRecorder:
    """Records the GPUs of all nodes: those that changed one by one, the others all at once."""

    def __init__(self) -> None:
        self._last: dict[str, Sample] = {}

    def record(self, samples: Iterable[Sample]) -> int:
        """Keep the samples; nodes left out are no longer there. How many had changed.

        A node whose own sampler reports is left to it. Safe to repeat.
        """
        samples = list(samples)
        sampled = self._with_sampler(samples)
        same: list[Sample] = []
        news = 0
        for sample in samples:
            if sample.node in sampled:
                continue
            before = self._last.get(sample.node)
            if before is not None and _content(before) == _content(sample):
                same.append(sample)
                continue
            record_sample(sample)
            self._last[sample.node] = sample
            news += 1
        self._touch(same)
        self._forget({sample.node for sample in samples})
        return news

    def _with_sampler(self, samples: Sequence[Sample]) -> set[str]:
        if not samples:
            return set()
        found = GpuNode.objects.filter(
            source=Source.NODE, is_measured=True, heard_at__gte=samples[0].at - SAMPLER_KEPT
        )
        return set(found.values_list("name", flat=True))

    def _touch(self, samples: Sequence[Sample]) -> None:
        """Nothing changed on these: only the time of the look did."""
        for part in _parts(samples):
            at, names = part[0].at, [sample.node for sample in part]
            GpuNode.objects.filter(name__in=names, trouble="").update(heard_at=at, sampled_at=at)
            GpuNode.objects.filter(name__in=names).exclude(trouble="").update(heard_at=at)

    def _forget(self, there: set[str]) -> None:
        """Nodes that the cluster took away, as far as the cluster told of them."""
        told = GpuNode.objects.exclude(source=Source.NODE).values_list("name", flat=True)
        gone = [name for name in told if name not in there]
        for part in _parts(gone):
            GpuNode.objects.filter(name__in=part).exclude(source=Source.NODE).delete()
        for name in gone:
            self._last.pop(name, None)


def _content(sample: Sample) -> tuple[Any, ...]:
    """All but the time. What is measured moves, and its ten minutes are drawn: always news."""
    is_moving = any(one.kind is not DeviceKind.SLOT for one in sample.devices)
    return sample.devices, sample.held_by, sample.trouble, sample.at if is_moving else None


def record_holders(holders: Mapping[tuple[str, str], str], *, at: dt.datetime) -> int:
    """Who holds the cards that nodes report themselves: node and device to holder, "" for nobody.

    A device that is left out keeps its holder: nobody can say. How many changed.
    """
    changed = 0
    rows = GpuDevice.objects.filter(node__source=Source.NODE).exclude(kind=DeviceKind.SLOT)
    for row in rows.only("node_id", "device_id", "held_by"):
        holder = holders.get((row.node_id, row.device_id))
        if holder is None or holder == row.held_by:
            continue
        changed += GpuDevice.objects.filter(pk=row.pk).update(
            held_by=holder[:320], held_since=at if holder else None, changed_at=at
        )
    return changed


def last_xids(node: str) -> dict[str, int]:
    """The newest XID error written down of each card of a node."""
    rows = GpuDevice.objects.filter(node_id=node).values_list("device_id", "xids")
    return {device: int(xids[-1]["code"]) for device, xids in rows if xids}


def reported_processes() -> list[tuple[str, str, bool, frozenset[str]]]:
    """Cards that nodes report themselves: node, device, whether it can be held, pods on it."""
    rows = GpuDevice.objects.filter(node__source=Source.NODE, lost_at=None)
    return [
        (
            row.node_id,
            row.device_id,
            row.kind != DeviceKind.SLOT and not row.is_mig_on,
            frozenset(one.get("pod_uid", "") for one in row.processes or ()) - {""},
        )
        for row in rows.only("node_id", "device_id", "kind", "is_mig_on", "processes")
    ]

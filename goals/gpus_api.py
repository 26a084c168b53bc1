"""API of the GPUs: what each is, how it is, and who holds it, as far as the caller may see."""

import datetime as dt
from typing import Any

from django.db.models import QuerySet
from django.http import HttpRequest
from ninja import Router, Schema
from ninja.errors import HttpError
from ninja.pagination import CursorPagination, paginate

from agents.authentication import caller_of
from agents.models import GpuDevice
from goals.gpus.facts import SHOWN, DeviceView, device_views, matching_devices
from governance.row_filter import FilterInvalid

router = Router(tags=["gpus"])


class GpuModelOut(Schema):
    """A model that the holder works with."""

    digest: str
    name: str


class GpuHolderOut(Schema):
    """The attempt that holds a GPU."""

    attempt_uid: str
    agent: str
    task: str
    state: str
    namespace: str
    goal_uid: str
    goal: str
    models: list[GpuModelOut]


class GpuWasteOut(Schema):
    """Held and doing nothing; money is null where no price is set."""

    why: str
    seconds: float
    micro_usd_per_minute: int | None
    micro_usd: int | None


class GpuMarkOut(Schema):
    """Something worth knowing of a GPU: `level` is danger, warning or idle."""

    level: str
    word: str
    detail: str


class GpuForeignHolderOut(Schema):
    """A pod that is not ours and holds a GPU."""

    namespace: str
    pod: str
    workload: str


class GpuOut(Schema):
    """One card, MIG slice or declared slot. What is not told is null; a slot tells nothing.

    `is_held` with no holder of either sort is held in a namespace that the caller may not see.
    `source` is node, dcgm or cluster: our sampler, dcgm-exporter, or what the cluster declares.
    """

    id: str
    node: str
    kind: str
    is_measured: bool
    name: str
    profile: str
    card: str
    memory_total_bytes: int | None
    memory_used_bytes: int | None
    utilisation: float | None
    temperature_c: int | None
    power_mw: int | None
    throttles: list[str] | None
    is_ecc_on: bool | None
    ecc_corrected: int | None
    ecc_uncorrected: int | None
    is_mig_on: bool | None
    state: str
    marks: list[GpuMarkOut]
    is_held: bool
    held_since: dt.datetime | None
    holder: GpuHolderOut | None
    is_held_by_others: bool
    foreign_holder: GpuForeignHolderOut | None
    source: str
    waste: GpuWasteOut | None
    lost_at: dt.datetime | None
    is_stale: bool
    sampled_at: dt.datetime | None


class _DevicePagination(CursorPagination):
    """A page of devices, each with its holder, looked up for the page as a whole."""

    def paginate_queryset(
        self,
        queryset: QuerySet[GpuDevice],
        pagination: CursorPagination.Input,
        request: HttpRequest,
        **params: Any,
    ) -> Any:
        """The page as the API answers it."""
        page = super().paginate_queryset(queryset, pagination, request, **params)
        views = device_views(page[self.items_attribute], caller_of(request).person)
        page[self.items_attribute] = [gpu_out(view) for view in views]
        return page


@router.get("/gpus", response=list[GpuOut])
@paginate(_DevicePagination, ordering=("pk",))
def list_gpus(
    request: HttpRequest, q: str = "", show: str = "", node: str = ""
) -> QuerySet[GpuDevice]:
    """GPUs by the page's filter: `q` as k9s writes it, `show` one of its choices."""
    if show not in SHOWN:
        raise HttpError(422, f"show: one of {', '.join(name for name in SHOWN if name)}.")
    try:
        return matching_devices(caller_of(request).person, text=q, shown=show, node=node)
    except FilterInvalid as error:
        raise HttpError(422, f"q: {error}") from error


def gpu_out(view: DeviceView) -> dict[str, Any]:
    """One device as the API writes it."""
    row, holder, waste = view.row, view.holder, view.waste
    told = (
        "kind", "name", "profile", "memory_total_bytes", "memory_used_bytes", "utilisation",
        "temperature_c", "power_mw", "throttles", "is_ecc_on", "ecc_corrected", "ecc_uncorrected",
        "is_mig_on", "held_since", "lost_at",
    )  # fmt: skip
    return {
        **{name: getattr(row, name) for name in told},
        "id": row.device_id,
        "node": row.node_id,
        "card": row.parent_id,
        "is_measured": not view.is_declared,
        "is_held": view.is_held,
        "is_stale": view.is_stale,
        "sampled_at": row.node.sampled_at,
        "state": view.state,
        "marks": [
            {"level": mark.tone, "word": mark.word, "detail": mark.detail} for mark in view.marks
        ],
        "holder": holder
        and {
            "attempt_uid": str(holder.attempt_uid),
            "agent": holder.agent,
            "task": holder.task,
            "state": holder.state,
            "namespace": holder.namespace,
            "goal_uid": str(holder.goal_uid),
            "goal": holder.goal,
            "models": [{"digest": digest, "name": name} for digest, name in holder.models],
        },
        "source": row.node.source,
        "is_held_by_others": view.is_held_by_others,
        "foreign_holder": view.foreign_holder
        and {
            "namespace": view.foreign_holder.namespace,
            "pod": view.foreign_holder.pod,
            "workload": view.foreign_holder.workload,
        },
        "waste": waste
        and {
            "why": waste.why,
            "seconds": waste.seconds,
            "micro_usd_per_minute": waste.micro_usd_per_minute,
            "micro_usd": waste.micro_usd,
        },
    }

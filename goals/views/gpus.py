"""Pages of the GPUs: all of them by node, as a drawing or a table, and each by itself."""

import datetime as dt
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from django.core.paginator import Page, Paginator
from django.db.models import Q, QuerySet
from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.views.decorators.http import require_GET
from django.views.decorators.vary import vary_on_headers

from agents.gpus.domain import XID_WORDS
from agents.models import GpuDevice, GpuNode
from goals.gpus.facts import (
    SHOWN,
    DeviceView,
    card_views,
    device_views,
    get_device,
    matching_devices,
    may_see_gpus,
    node_views,
    totals,
    visible_devices,
)
from goals.gpus.overview import overview
from governance.access import Principal
from governance.export import table_export
from governance.row_filter import FilterInvalid
from governance.sessions import session_principal

CARDS_SHOWN: Final = 32  # of one page of the drawing: four machines, 50 ms to render
ROWS_SHOWN: Final = 100
NODES_OFFERED: Final = 200  # in the choice of nodes; beyond that the filter finds them
COLUMNS: Final = {
    "node": "node_id",
    "id": "device_id",
    **{
        name: name
        for name in (
            "kind", "name", "profile", "parent_id", "utilisation", "memory_used_bytes",
            "memory_total_bytes", "temperature_c", "power_mw", "is_ecc_on", "ecc_corrected",
            "ecc_uncorrected", "is_mig_on", "xids", "throttles", "has_foreign", "held_since",
            "idle_since", "lost_at", "trouble", "agent", "namespace", "goal",
        )
    },
    "is_measured": lambda row: row.kind != "slot",
    "is_held": lambda row: bool(row.held_by),
    "sampled_at": "node.sampled_at",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Filter:
    """What the page was asked to show."""

    text: str
    shown: str
    node: str
    is_table: bool

    @classmethod
    def of(cls, request: HttpRequest) -> "Filter":
        shown = request.GET.get("show", "")
        return cls(
            text=request.GET.get("q", ""),
            shown=shown if shown in SHOWN else "",
            node=request.GET.get("node", ""),
            is_table=request.GET.get("view") == "table",
        )

    @property
    def is_narrow(self) -> bool:
        return bool(self.text.strip() or self.shown or self.node)


@require_GET
@vary_on_headers("HX-Request")
def gpu_list(request: HttpRequest) -> HttpResponse:
    """Node, card and MIG slice, each with who holds it, and what idles while it is held."""
    principal = session_principal(request)
    wanted = Filter.of(request)
    problem = ""
    try:
        rows = matching_devices(principal, text=wanted.text, shown=wanted.shown, node=wanted.node)
    except FilterInvalid as error:
        problem = str(error)
        rows = visible_devices(principal).none()
    if export := table_export(request, name="gpus", columns=COLUMNS, rows=rows):
        return export
    page = _page(rows, request, is_table=wanted.is_table)
    views = (device_views if wanted.is_table else card_views)(list(page.object_list), principal)
    context = {
        "filter": wanted,
        "problem": problem,
        "page": page,
        "nodes": node_views(views),
        "totals": totals(principal),
        "blocks": _blocks(principal, wanted),
        "shown_choices": list(SHOWN.items()),
        "node_names": _node_names(principal),
        "may_see": may_see_gpus(principal),
        "nav": "gpus",
    }
    part = "#live" if request.headers.get("HX-Request") else ""
    return render(request, f"goals/gpu_list.html{part}", context)


@require_GET
@vary_on_headers("HX-Request")
def gpu_detail(request: HttpRequest, node: str, device: str) -> HttpResponse:
    """One GPU: its figures, the last ten minutes, its processes, errors and holder."""
    view = get_device(session_principal(request), node=node, device_id=device)
    context = {
        "device": view,
        "node": node_views([view])[0],
        "card": _card_of(view),
        "charts": _charts(view.row.series),
        "xids": [
            {
                "code": one["code"],
                "at": dt.datetime.fromisoformat(one["at"]),
                "word": XID_WORDS.get(one["code"], ""),
            }
            for one in reversed(view.row.xids)
        ],
        "nav": "gpus",
    }
    part = "#live" if request.headers.get("HX-Request") else ""
    return render(request, f"goals/gpu_detail.html{part}", context)


def _page(rows: QuerySet[GpuDevice], request: HttpRequest, *, is_table: bool) -> "Page[GpuDevice]":
    """A page of rows; of the drawing a page of cards, each found by itself or by a slice."""
    if is_table:
        return Paginator(rows, ROWS_SHOWN).get_page(request.GET.get("page"))
    found = rows.order_by().values("pk")
    holding = rows.order_by().exclude(parent_id="").values("parent_id")
    principal = session_principal(request)
    cards = visible_devices(principal).filter(
        Q(pk__in=found) | Q(device_id__in=holding), parent_id=""
    )
    return Paginator(cards, CARDS_SHOWN).get_page(request.GET.get("page"))


def _blocks(principal: Principal, wanted: Filter) -> Any:
    """The overview, where there is more than one node to look over."""
    if wanted.is_narrow or wanted.is_table:
        return []
    blocks = overview(principal)
    return blocks if len(blocks) > 1 else []


def _node_names(principal: Principal) -> list[str]:
    if not may_see_gpus(principal):
        return []
    return list(GpuNode.objects.values_list("name", flat=True)[:NODES_OFFERED])


def _card_of(view: DeviceView) -> GpuDevice | None:
    """Of a slice: its card."""
    row = view.row
    if not row.parent_id:
        return None
    return GpuDevice.objects.filter(node_id=row.node_id, device_id=row.parent_id).first()


def _charts(series: Sequence[Sequence[int | None]]) -> list[dict[str, str]]:
    """The last ten minutes as paths in a box of 100 x 40 units; gaps where nothing was told."""
    if len(series) < 2:
        return []
    charts = []
    for column, name in ((1, "Utilisation"), (2, "Memory")):
        points = [(one[0], one[column]) for one in series]
        known = [value for _, value in points if value is not None]
        if known:
            words = f"{name}: {known[-1]} % now, {min(known)} to {max(known)} %"
            charts.append({"name": name, "path": _line(points), "words": words})
    return charts


def _line(points: Sequence[tuple[int | None, int | None]]) -> str:
    start, end = points[0][0] or 0, points[-1][0] or 0
    width = max(end - start, 1)
    path, pen = [], "M"
    for at, value in points:
        if value is None:
            pen = "M"
            continue
        path.append(f"{pen}{100 * ((at or 0) - start) / width:.1f},{40 - 0.4 * value:.1f}")
        pen = "L"
    return "".join(path)

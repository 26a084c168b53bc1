"""The whole fleet in one drawing: a small square for each GPU, a few paths for each node."""

import datetime as dt
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Final

from django.db.models import Q
from django.utils import timezone

from agents.gpus.domain import STALE_SECONDS, DeviceKind
from agents.models import GpuDevice
from goals.gpus.facts import may_see_gpus, shown_query
from governance.access import Principal

DRAWN_MAX: Final = 4096  # squares; more are counted in words
PITCH: Final = 12  # units from square to square
SIDE: Final = 10
COLUMNS: Final = 8  # as many cards as a machine has as a rule
WIDE_COLUMNS: Final = 32  # of a node with more than NARROW_MAX devices
NARROW_MAX: Final = 32


@dataclass(frozen=True, slots=True)
class Block:
    """One node: squares (all), how busy each is, and crosses, triangles and dots over some."""

    node: str
    words: str
    is_stale: bool
    width: int
    height: int
    boxes: str
    busy: str
    held: str  # held, how busy is not known
    wasted: str
    trouble: str


@dataclass(frozen=True, slots=True)
class _Square:
    is_held: bool
    is_wasted: bool
    is_trouble: bool
    utilisation: float | None


def overview(principal: Principal) -> list[Block]:
    """Every node with its GPUs; a card in MIG mode is drawn as its slices."""
    if not may_see_gpus(principal):
        return []
    now = timezone.now()
    rows = GpuDevice.objects.filter(~Q(is_mig_on=True)).order_by("node", "parent_id", "position")
    trouble = _pks(rows.filter(shown_query("trouble", now=now)))
    wasted = _pks(rows.filter(shown_query("wasted", now=now)))
    nodes: dict[str, list[_Square]] = {}
    sampled: dict[str, dt.datetime | None] = {}
    for pk, node, at, held_by, utilisation, kind in rows.values_list(
        "pk", "node", "node__sampled_at", "held_by", "utilisation", "kind"
    )[:DRAWN_MAX]:
        square = _Square(
            bool(held_by), pk in wasted, pk in trouble,
            None if kind == DeviceKind.SLOT else utilisation,
        )  # fmt: skip
        nodes.setdefault(node, []).append(square)
        sampled[node] = at
    oldest = now - dt.timedelta(seconds=STALE_SECONDS)
    return [
        _block(node, squares, is_stale=(at := sampled[node]) is None or at < oldest)
        for node, squares in nodes.items()
    ]


def _pks(rows: Any) -> set[int]:
    return set(rows.order_by().values_list("pk", flat=True))


def _block(node: str, squares: list[_Square], *, is_stale: bool) -> Block:
    columns = COLUMNS if len(squares) <= NARROW_MAX else WIDE_COLUMNS
    places = [
        (index % columns * PITCH + 1, index // columns * PITCH + 1, square)
        for index, square in enumerate(squares)
    ]
    return Block(
        node=node,
        words=_words(squares, is_stale=is_stale),
        is_stale=is_stale,
        width=min(columns, len(squares)) * PITCH,
        height=-(-len(squares) // columns) * PITCH,
        boxes=_path(f"M{x},{y}h{SIDE}v{SIDE}h-{SIDE}z" for x, y, _ in places),
        busy=_path(
            _bar(x, y, s.utilisation)
            for x, y, s in places
            if s.utilisation is not None and not s.is_trouble  # or the cross could not be seen
        ),
        held=_path(
            f"M{x + 3},{y + 3}h4v4h-4z"
            for x, y, s in places
            if s.is_held and s.utilisation is None and not s.is_wasted
        ),
        wasted=_path(f"M{x + 5},{y + 1}l4,8h-8z" for x, y, s in places if s.is_wasted),
        trouble=_path(f"M{x + 2},{y + 2}l6,6m0,-6l-6,6" for x, y, s in places if s.is_trouble),
    )


def _bar(x: int, y: int, share: float) -> str:
    height = round(SIDE * min(max(share, 0.0), 1.0))
    return f"M{x},{y + SIDE - height}h{SIDE}v{height}h-{SIDE}z" if height else ""


def _path(parts: Iterable[str]) -> str:
    return "".join(parts)


def _words(squares: list[_Square], *, is_stale: bool) -> str:
    counts = {
        "held": sum(s.is_held for s in squares),
        "idle but held": sum(s.is_wasted for s in squares),
        "in trouble": sum(s.is_trouble for s in squares),
    }
    told = [f"{len(squares)} GPUs", *(f"{count} {word}" for word, count in counts.items() if count)]
    return ", ".join([*told, *(["stale"] if is_stale else [])])

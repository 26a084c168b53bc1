"""Positions of a task graph's nodes and edges for a drawing; plain geometry, no Django."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

NODE_WIDTH = 236
NODE_HEIGHT = 104
GAP_X = 64  # room for an edge's bend
GAP_Y = 20
MARGIN = 8
DRAWN_MAX = 120  # beyond it a drawing is a hairball; the table has every task


@dataclass(frozen=True, slots=True)
class PlacedNode:
    """One task at its place; `facts` are what is written into the box."""

    name: str
    x: int
    y: int
    facts: Any
    width: int = NODE_WIDTH
    height: int = NODE_HEIGHT


@dataclass(frozen=True, slots=True)
class PlacedEdge:
    """An edge as an SVG path from the right side of one node to the left side of another."""

    source: str
    target: str
    path: str


@dataclass(frozen=True, slots=True)
class Drawing:
    """A laid-out graph in CSS pixels; `left_out` tasks were too many to draw."""

    width: int
    height: int
    nodes: tuple[PlacedNode, ...]
    edges: tuple[PlacedEdge, ...]
    left_out: int = 0


def draw_graph(depends_on: Mapping[str, Sequence[str]], facts: Mapping[str, Any]) -> Drawing:
    """Lay out tasks in columns by the longest chain before them.

    `depends_on` is in topological order: every task after those it waits for.
    """
    names = list(depends_on)[:DRAWN_MAX]
    depth: dict[str, int] = {}
    for name in names:
        depth[name] = max((depth[n] + 1 for n in depends_on[name] if n in depth), default=0)
    rows: dict[int, int] = {}
    places: dict[str, tuple[int, int]] = {}
    for name in sorted(names, key=lambda n: (depth[n], _row_of_causes(n, depends_on, places))):
        row = rows.get(depth[name], 0)
        rows[depth[name]] = row + 1
        x = MARGIN + depth[name] * (NODE_WIDTH + GAP_X)
        places[name] = (x, MARGIN + row * (NODE_HEIGHT + GAP_Y))
    columns, tallest = max(depth.values(), default=0) + 1, max(rows.values(), default=1)
    return Drawing(
        width=2 * MARGIN + columns * NODE_WIDTH + (columns - 1) * GAP_X,
        height=2 * MARGIN + tallest * NODE_HEIGHT + (tallest - 1) * GAP_Y,
        nodes=tuple(PlacedNode(name, *places[name], facts.get(name)) for name in names),
        edges=tuple(
            PlacedEdge(cause, name, _curve(places[cause], places[name]))
            for name in names
            for cause in depends_on[name]
            if cause in places
        ),
        left_out=len(depends_on) - len(names),
    )


def _row_of_causes(
    name: str, depends_on: Mapping[str, Sequence[str]], places: Mapping[str, tuple[int, int]]
) -> float:
    """Mean height of what a task waits for, so that edges cross little."""
    heights = [places[cause][1] for cause in depends_on[name] if cause in places]
    return sum(heights) / len(heights) if heights else 0.0


def _curve(source: tuple[int, int], target: tuple[int, int]) -> str:
    x1, y1 = source[0] + NODE_WIDTH, source[1] + NODE_HEIGHT // 2
    x2, y2 = target[0], target[1] + NODE_HEIGHT // 2
    bend = (x1 + x2) // 2
    return f"M{x1},{y1} C{bend},{y1} {bend},{y2} {x2},{y2}"


@dataclass(frozen=True, slots=True)
class Chart:
    """A series of measured values against a threshold, in a box of 100 x 40 units."""

    points: str  # of an SVG polyline
    threshold_y: float
    last_x: float
    last_y: float
    low: float
    high: float


def draw_series(values: Sequence[float], *, threshold: float) -> Chart | None:
    """Values oldest first; None when there is nothing to draw."""
    if not values:
        return None
    low, high = min(*values, threshold), max(*values, threshold)
    pad = (high - low) * 0.1 or abs(high) * 0.1 or 1.0
    low, high = low - pad, high + pad
    step = 100 / max(len(values) - 1, 1)

    def y(value: float) -> float:
        return round(40 - (value - low) / (high - low) * 40, 2)

    xs = [round(index * step, 2) for index in range(len(values))]
    if len(values) == 1:
        xs = [50.0]
    return Chart(
        points=" ".join(f"{x},{y(v)}" for x, v in zip(xs, values, strict=True)),
        threshold_y=y(threshold),
        last_x=xs[-1],
        last_y=y(values[-1]),
        low=low,
        high=high,
    )

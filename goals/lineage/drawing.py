"""The provenance graph as a drawing: boxes and curves with positions made on the server."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from goals.lineage.nodes import Described, Node
from lineage.domain import NodeRef
from lineage.layering import Place, lay_out
from lineage.models import Edge
from lineage.selectors import Neighbourhood, ends

BOX_WIDTH = 196
BOX_HEIGHT = 58
GAP_X = 92  # room for the word on the curve
GAP_Y = 30  # room for "12 more" below a box
MARGIN = 24
TITLE_SHOWN = 24  # characters that fit a box at the drawing's size of text
LINE_SHOWN = 30
WORD_AT_LONG = 0.72  # of the last stretch: in the gap before the effect
WORDED_MAX = 80  # edges; with more of them the words on the curves overlap


@dataclass(frozen=True, slots=True)
class Box:
    """One node of the drawing; `hidden` edges are not drawn, `can_open` when there may be more."""

    node: Node
    x: float
    y: float
    title: str
    line: str
    hidden: int
    can_open: bool
    is_start: bool
    open_query: str
    focus_query: str


@dataclass(frozen=True, slots=True)
class Curve:
    """One edge of the drawing, from what influences to what is influenced."""

    path: str
    word: str
    word_x: float
    word_y: float
    label: str
    is_signed: bool


@dataclass(frozen=True, slots=True)
class Drawing:
    """Everything the template needs; sizes in pixels."""

    width: int
    height: int
    boxes: tuple[Box, ...]
    curves: tuple[Curve, ...]
    box_width: int = BOX_WIDTH
    box_height: int = BOX_HEIGHT


def draw(
    found: Neighbourhood,
    described: Described,
    *,
    starts: frozenset[NodeRef],
    open_queries: Mapping[NodeRef, str],
    focus_queries: Mapping[NodeRef, str],
) -> Drawing:
    """Place every node of a neighbourhood and route its edges."""
    order = sorted(found.steps, key=lambda ref: (found.steps[ref], ref.kind, ref.id))
    pairs = [ends(edge) for edge in found.edges.values()]
    layout = lay_out(order, pairs)
    corners = {
        ref: (
            MARGIN + place.layer * (BOX_WIDTH + GAP_X),
            MARGIN + place.row * (BOX_HEIGHT + GAP_Y),
        )
        for ref, place in layout.places.items()
    }
    boxes = tuple(
        Box(
            node=described.nodes[ref],
            x=round(x, 1),
            y=round(y, 1),
            title=_clipped(described.nodes[ref].title, TITLE_SHOWN),
            line=_clipped(described.nodes[ref].line, LINE_SHOWN),
            hidden=found.hidden.get(ref, 0),
            can_open=ref in found.unexplored or ref in found.hidden,
            is_start=ref in starts,
            open_query=open_queries.get(ref, ""),
            focus_query=focus_queries.get(ref, ""),
        )
        for ref, (x, y) in corners.items()
    )
    is_worded = len(found.edges) <= WORDED_MAX
    curves = tuple(
        _curve(
            edge,
            corners,
            [_passing(place) for place in layout.waypoints.get(ends(edge), ())],
            described,
            is_worded=is_worded,
        )
        for edge in found.edges.values()
    )
    return Drawing(
        width=2 * MARGIN + max(layout.layers, 1) * (BOX_WIDTH + GAP_X) - GAP_X,
        height=int(2 * MARGIN + max(layout.rows, 1.0) * (BOX_HEIGHT + GAP_Y)),
        boxes=boxes,
        curves=curves,
    )


def _curve(
    edge: Edge,
    corners: Mapping[NodeRef, tuple[float, float]],
    passing: Sequence[tuple[float, float]],
    described: Described,
    *,
    is_worded: bool,
) -> Curve:
    cause, effect = ends(edge)
    (ax, ay), (bx, by) = corners[cause], corners[effect]
    middle = BOX_HEIGHT / 2
    stops = [(ax + BOX_WIDTH, ay + middle), *passing, (bx, by + middle)]
    path = _smooth(stops)
    word_x, word_y = _along(stops[-2], stops[-1], share=WORD_AT_LONG if passing else 0.5)
    source = described.nodes[cause if _reads_forward(edge, cause) else effect]
    target = described.nodes[effect if _reads_forward(edge, cause) else cause]
    word = edge.relation.replace("_", " ")
    signed = "signed" if edge.is_signed else "unsigned"
    return Curve(
        path=path,
        word=word if is_worded else "",
        word_x=round(word_x, 1),
        word_y=round(word_y - 5, 1),
        label=f"{source.kind} {source.title} {word} {target.kind} {target.title}, {signed}",
        is_signed=edge.is_signed,
    )


def _passing(place: Place) -> tuple[float, float]:
    """Where an edge passes a layer that none of its ends is in: the middle of a box's place."""
    x = MARGIN + place.layer * (BOX_WIDTH + GAP_X) + BOX_WIDTH / 2
    return x, MARGIN + place.row * (BOX_HEIGHT + GAP_Y) + BOX_HEIGHT / 2


def _along(
    start: tuple[float, float], end: tuple[float, float], *, share: float
) -> tuple[float, float]:
    """A point of the curve that `_smooth` draws from one stop to the next."""
    (x, y), (nx, ny) = start, end
    bend, left = max((nx - x) / 2, GAP_X / 2), 1 - share
    first, second, third, last = left**3, 3 * left**2 * share, 3 * left * share**2, share**3
    return (
        first * x + second * (x + bend) + third * (nx - bend) + last * nx,
        (first + second) * y + (third + last) * ny,
    )


def _smooth(stops: Sequence[tuple[float, float]]) -> str:
    """A curve through the stops that leaves and enters each of them level."""
    (x, y), *rest = stops
    path = f"M{x:.1f},{y:.1f}"
    for nx, ny in rest:
        bend = max((nx - x) / 2, GAP_X / 2)
        path += f" C{x + bend:.1f},{y:.1f} {nx - bend:.1f},{ny:.1f} {nx:.1f},{ny:.1f}"
        x, y = nx, ny
    return path


def _reads_forward(edge: Edge, cause: NodeRef) -> bool:
    return (edge.source_kind, edge.source_id) == (cause.kind, cause.id)


def _clipped(text: str, length: int) -> str:
    return text if len(text) <= length else f"{text[: length - 1]}…"

"""Layered positions for a directed graph: causes left, effects right, few crossings."""

from collections import deque
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Generic, TypeVar

SWEEPS = 4  # passes of barycentre ordering; more gain little (Sugiyama et al. 1981, 5.2)
SETTLING_PASSES = 6  # passes that pull nodes towards their neighbours' mean height
WAYPOINTS_MAX = 4_000  # beyond it long edges are drawn straight: nobody follows them by eye

Node = TypeVar("Node", bound=Hashable)


@dataclass(frozen=True, slots=True)
class Place:
    """Where a node stands: its layer from 0, and its height in rows (1.0 apart at least)."""

    layer: int
    row: float


@dataclass(frozen=True, slots=True)
class Layout(Generic[Node]):
    """Positions of every node; `layers` columns and `rows` rows hold all of them.

    `waypoints` are where an edge (cause, effect) passes the layers between its ends, left to right.
    """

    places: Mapping[Node, Place]
    waypoints: Mapping[tuple[Node, Node], tuple[Place, ...]]
    layers: int
    rows: float


def lay_out(nodes: Sequence[Node], edges: Sequence[tuple[Node, Node]]) -> Layout[Node]:
    """Positions by layer and row, in time linear in nodes and edges but for sorting.

    Each edge (cause, effect) between known nodes leads to a later layer, unless it closes a cycle.
    Equal input gives equal output.
    """
    number = {node: index for index, node in enumerate(nodes)}
    pairs = {(number[a], number[b]) for a, b in edges if a in number and b in number and a != b}
    after: list[list[int]] = [[] for _ in nodes]
    before: list[list[int]] = [[] for _ in nodes]
    for a, b in sorted(pairs):
        after[a].append(b)
        before[b].append(a)
    layer = _layers(after, before)
    chains = _chains(sorted(pairs), layer, after, before)
    columns = _ordered(layer, after, before)
    rows = _settled(columns, after, before)
    top = min(rows, default=0.0)
    places = [Place(one, row - top) for one, row in zip(layer, rows, strict=True)]
    height = max(rows, default=0.0) - top + 1 if nodes else 0.0
    return Layout(
        {node: places[index] for node, index in number.items()},
        {
            (nodes[a], nodes[b]): tuple(places[one] for one in chain)
            for (a, b), chain in chains.items()
        },
        len(columns),
        height,
    )


def _chains(
    pairs: Sequence[tuple[int, int]],
    layer: list[int],
    after: list[list[int]],
    before: list[list[int]],
) -> dict[tuple[int, int], range]:
    """Stand-ins for long edges, one in each layer they pass, so that they pass between nodes."""
    long = [(a, b) for a, b in pairs if layer[b] - layer[a] > 1]
    if sum(layer[b] - layer[a] - 1 for a, b in long) > WAYPOINTS_MAX:
        return {}
    chains = {}
    for a, b in long:
        first = len(layer)
        chains[a, b] = range(first, first + layer[b] - layer[a] - 1)
        layer += range(layer[a] + 1, layer[b])
        after[a].remove(b)
        before[b].remove(a)
        stops = [a, *chains[a, b], b]
        for _ in chains[a, b]:
            after.append([])
            before.append([])
        for left, right in pairwise(stops):
            after[left].append(right)
            before[right].append(left)
    return chains


def _layers(after: Sequence[list[int]], before: Sequence[list[int]]) -> list[int]:
    """Longest path from a source; a cycle is cut at its first node in the order given."""
    waiting = [len(causes) for causes in before]
    layer = [0] * len(after)
    ready = deque(index for index, count in enumerate(waiting) if count == 0)
    is_placed = [False] * len(after)
    unplaced = iter(range(len(after)))
    while True:
        while ready:
            index = ready.popleft()
            if is_placed[index]:
                continue
            is_placed[index] = True
            for effect in after[index]:
                if is_placed[effect]:
                    continue
                layer[effect] = max(layer[effect], layer[index] + 1)
                waiting[effect] -= 1
                if waiting[effect] == 0:
                    ready.append(effect)
        stuck = next((index for index in unplaced if not is_placed[index]), None)
        if stuck is None:
            break
        ready.append(stuck)
    return _near_their_effects(layer, after, before)


def _near_their_effects(
    layer: list[int], after: Sequence[list[int]], before: Sequence[list[int]]
) -> list[int]:
    """Sources stand right before their first effect rather than all in the first layer."""
    for index, effects in enumerate(after):
        later = [layer[effect] for effect in effects if layer[effect] > layer[index]]
        if not before[index] and later:
            layer[index] = min(later) - 1
    lowest = min(layer, default=0)
    return [one - lowest for one in layer]


def _ordered(
    layer: Sequence[int], after: Sequence[list[int]], before: Sequence[list[int]]
) -> list[list[int]]:
    columns: list[list[int]] = [[] for _ in range(max(layer, default=-1) + 1)]
    for index, one in enumerate(layer):
        columns[one].append(index)
    rank = [0.0] * len(layer)
    for column in columns:
        _rank(column, rank)
    for sweep in range(SWEEPS):
        is_forward = sweep % 2 == 0
        neighbours = before if is_forward else after
        for column in columns if is_forward else reversed(columns):
            column.sort(key=lambda index: (_mean(neighbours[index], rank, rank[index]), index))
            _rank(column, rank)
    return columns


def _rank(column: Sequence[int], rank: list[float]) -> None:
    """Ranks centred on 0, so that columns of different lengths compare."""
    middle = (len(column) - 1) / 2
    for position, index in enumerate(column):
        rank[index] = position - middle


def _mean(neighbours: Sequence[int], of: Sequence[float], otherwise: float) -> float:
    return sum(of[one] for one in neighbours) / len(neighbours) if neighbours else otherwise


def _settled(
    columns: Sequence[Sequence[int]], after: Sequence[list[int]], before: Sequence[list[int]]
) -> list[float]:
    """Heights: each node near its neighbours' mean, order kept, one row apart at least."""
    rows = [0.0] * len(after)
    for column in columns:
        _rank(column, rows)
    for step in range(SETTLING_PASSES):
        neighbours = before if step % 2 == 0 else after
        for column in columns if step % 2 == 0 else reversed(columns):
            _settle(column, rows, neighbours)
    return rows


def _settle(column: Sequence[int], rows: list[float], neighbours: Sequence[list[int]]) -> None:
    wanted = [_mean(neighbours[index], rows, rows[index]) for index in column]
    low, high = list(wanted), list(wanted)
    for position in range(1, len(column)):
        low[position] = max(low[position], low[position - 1] + 1)
    for position in range(len(column) - 2, -1, -1):
        high[position] = min(high[position], high[position + 1] - 1)
    # The mean of both packings keeps the distance, since each of them does.
    for position, index in enumerate(column):
        rows[index] = (low[position] + high[position]) / 2

"""Walks from effect to cause and back over the slim edges of spans."""

from collections import defaultdict, deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

# Longer chains are cut here: nobody reads them, and a walk must end.
MAX_CHAIN = 10_000


@dataclass(frozen=True, slots=True)
class Edge:
    """What one span says about its causes. Ids are 16 hex characters, "" when there is none."""

    span_id: str
    goal_uid: str
    parent_observation: str
    parent_span_id: str
    is_observation: bool

    @property
    def cause(self) -> str:
        """The span this one came from: the observation it names, else its parent span."""
        if self.parent_observation and self.parent_observation != self.span_id:
            return self.parent_observation
        return self.parent_span_id if self.parent_span_id != self.span_id else ""


def cause_chain(start: Edge, find: Callable[[str], Edge | None]) -> list[str]:
    """Ids from a span up to the observation everything began with, nearest first.

    `find` looks a span up and may cross into another Goal. A circle ends the walk where it
    closes. Spans above the topmost observation are left out; without any observation the whole
    ancestry stays, as that is what an orphan action looks like.
    """
    chain: list[Edge] = []
    seen: set[str] = set()
    edge: Edge | None = start
    while edge is not None and edge.span_id not in seen and len(chain) < MAX_CHAIN:
        seen.add(edge.span_id)
        chain.append(edge)
        cause = edge.cause
        # The named observation may not have arrived; its parent span is the next best witness.
        edge = find(cause) if cause else None
        if edge is None and cause and cause != chain[-1].parent_span_id:
            parent = chain[-1].parent_span_id
            edge = find(parent) if parent else None
    last = max((i for i, edge in enumerate(chain) if edge.is_observation), default=len(chain) - 1)
    return [edge.span_id for edge in chain[: last + 1]]


def children_of(
    edges: Iterable[Edge], causes: Iterable[str] | None = None
) -> defaultdict[str, list[str]]:
    """Ids of what came directly from each span (or from each of `causes`), in the edges' order."""
    wanted = None if causes is None else set(causes)
    children: defaultdict[str, list[str]] = defaultdict(list)
    for edge in edges:
        for cause in {edge.parent_observation, edge.parent_span_id} - {"", edge.span_id}:
            if wanted is None or cause in wanted:
                children[cause].append(edge.span_id)
    return children


def effect_ids(edges: Iterable[Edge], start: str, *, limit: int) -> Sequence[str]:
    """Ids of everything downstream of a span, breadth first, each once, without the span itself."""
    children = children_of(edges)
    found: dict[str, None] = {}
    queue = deque([start])
    while queue and len(found) < limit:
        for child in children[queue.popleft()]:
            if child != start and child not in found and len(found) < limit:
                found[child] = None
                queue.append(child)
    return list(found)

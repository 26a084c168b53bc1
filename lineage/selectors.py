"""Reads of the provenance graph: what lies around some nodes, bounded whatever its size."""

import datetime as dt
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum

from django.db.models import QuerySet

from lineage.domain import NodeKind, NodeRef, Relation
from lineage.models import Edge

FAN_OUT = 6  # edges of one relation drawn from one node; the rest is counted
FAN_OUT_OPENED = 40  # more of them, for each time a person opens the node
COUNTED_MAX = 1000  # "more" is counted up to here
COUNTS_MAX = 24  # groups that are counted for one page
NODES_MAX = 300  # drawn at once: beyond it a drawing tells nobody anything
SELECTS_PER_QUERY = 120  # SQLite takes 500 terms in one compound select

# From what influences to what is influenced; the other relations are read backwards.
FORWARD = frozenset(
    {
        Relation.PLANNED,
        Relation.RAN,
        Relation.IDENTIFIED_BY,
        Relation.PRODUCED,
        Relation.RELEASED,
    }
)
# The relations along which what is wrong with an artifact spreads.
SPREADING = frozenset(
    {
        Relation.USED,
        Relation.PRODUCED,
        Relation.RELEASED,
        Relation.SERVES,
        Relation.ABOUT,
        Relation.SUPPORTED_BY,
    }
)
# Which relations a node of each kind can have, as their source and as their target.
_AS_SOURCE: dict[NodeKind, tuple[Relation, ...]] = {
    NodeKind.GOAL: (Relation.PLANNED, Relation.RAN, Relation.JUDGED_BY, Relation.APPROVED_BY),
    NodeKind.ATTEMPT: (
        Relation.IDENTIFIED_BY,
        Relation.PRODUCED,
        Relation.USED,
        Relation.RELEASED,
    ),
    NodeKind.ARTIFACT: (Relation.ABOUT,),
    NodeKind.RELEASE: (
        Relation.SERVES,
        Relation.REPLACED,
        Relation.SUPPORTED_BY,
        Relation.JUDGED_BY,
        Relation.APPROVED_BY,
    ),
    NodeKind.HUMAN: (Relation.RELEASED,),
}
_AS_TARGET: dict[NodeKind, tuple[Relation, ...]] = {
    NodeKind.GRAPH: (Relation.PLANNED,),
    NodeKind.ATTEMPT: (Relation.RAN,),
    NodeKind.SVID: (Relation.IDENTIFIED_BY,),
    NodeKind.DECISION: (Relation.JUDGED_BY,),
    NodeKind.APPROVAL: (Relation.APPROVED_BY,),
    NodeKind.ARTIFACT: (
        Relation.PRODUCED,
        Relation.USED,
        Relation.ABOUT,
        Relation.SERVES,
        Relation.SUPPORTED_BY,
    ),
    NodeKind.RELEASE: (Relation.RELEASED, Relation.REPLACED),
}


class Direction(StrEnum):
    """Which way a walk goes from a node."""

    BOTH = "both"
    CAUSES = "causes"
    EFFECTS = "effects"


@dataclass(frozen=True, slots=True)
class Window:
    """The time in which an edge must have been recorded; None is open."""

    since: dt.datetime | None = None
    until: dt.datetime | None = None


@dataclass(frozen=True, slots=True)
class Walk:
    """How far to go: `depth` steps, further where a person opened a node (and how often)."""

    namespace: str
    depth: int = 2
    direction: Direction = Direction.BOTH
    relations: frozenset[Relation] = frozenset(Relation)
    opened: Mapping[NodeRef, int] = field(default_factory=dict)
    window: Window = Window()
    fan_out: int = FAN_OUT
    nodes_max: int = NODES_MAX


@dataclass(slots=True)
class Neighbourhood:
    """What a walk found: nodes with their distance, edges, and how many edges each node hides."""

    steps: dict[NodeRef, int] = field(default_factory=dict)
    edges: dict[int, Edge] = field(default_factory=dict)
    hidden: dict[NodeRef, int] = field(default_factory=dict)
    unexplored: set[NodeRef] = field(default_factory=set)  # they have edges beyond the depth
    is_cut: bool = False  # the limit on nodes was reached


@dataclass(frozen=True, slots=True)
class _Group:
    """The edges of one relation at one side of one node."""

    node: NodeRef
    relation: Relation
    is_source: bool

    def rows(self, walk: Walk) -> QuerySet[Edge]:
        """Newest first, through an index whatever the node's degree."""
        side = "source" if self.is_source else "target"
        found = Edge.objects.filter(
            namespace=walk.namespace,
            relation=self.relation,
            **{f"{side}_kind": self.node.kind, f"{side}_id": self.node.id},
        )
        if walk.window.since is not None:
            found = found.filter(created_at__gte=walk.window.since)
        if walk.window.until is not None:
            found = found.filter(created_at__lte=walk.window.until)
        return found.order_by("-pk")

    def limit(self, walk: Walk) -> int:
        return walk.fan_out + walk.opened.get(self.node, 0) * FAN_OUT_OPENED


def ends(edge: Edge) -> tuple[NodeRef, NodeRef]:
    """What influences and what is influenced, whichever way the relation is worded."""
    source = NodeRef(NodeKind(edge.source_kind), edge.source_id)
    target = NodeRef(NodeKind(edge.target_kind), edge.target_id)
    return (source, target) if Relation(edge.relation) in FORWARD else (target, source)


def neighbourhood(starts: Sequence[NodeRef], walk: Walk) -> Neighbourhood:
    """Breadth first from the starts: at most `nodes_max` nodes, `fan_out` edges a group."""
    found = Neighbourhood(steps=dict.fromkeys(starts, 0))
    frontier = list(starts)
    while frontier:
        asked = [one for one in frontier if _is_expanded(one, found, walk)]
        found.unexplored |= set(frontier) - set(asked)
        frontier = _step(asked, found, walk)
    _join(found, walk)
    return found


def _is_expanded(node: NodeRef, found: Neighbourhood, walk: Walk) -> bool:
    return found.steps[node] < walk.depth or node in walk.opened


def _step(asked: Sequence[NodeRef], found: Neighbourhood, walk: Walk) -> list[NodeRef]:
    groups = [group for node in asked for group in _groups(node, walk)]
    fresh: list[NodeRef] = []
    crowded: list[_Group] = []
    for group, edges in _read(groups, walk):
        limit = group.limit(walk)
        if len(edges) > limit:
            crowded.append(group)
        for edge in edges[:limit]:
            other = _other(edge, group)
            if other not in found.steps:
                if len(found.steps) >= walk.nodes_max:
                    found.is_cut = True
                    continue
                found.steps[other] = found.steps[group.node] + 1
                fresh.append(other)
            found.edges[edge.pk] = edge
    for place, group in enumerate(crowded):
        total = _count(group, walk) if place < COUNTS_MAX else group.limit(walk) + 1
        hidden = total - group.limit(walk)
        found.hidden[group.node] = found.hidden.get(group.node, 0) + hidden
    return fresh


def _groups(node: NodeRef, walk: Walk) -> Iterator[_Group]:
    for is_source, table in ((True, _AS_SOURCE), (False, _AS_TARGET)):
        for relation in table.get(node.kind, ()):
            leads_to_effects = is_source == (relation in FORWARD)
            is_wanted = walk.direction is Direction.BOTH or leads_to_effects == (
                walk.direction is Direction.EFFECTS
            )
            if is_wanted and relation in walk.relations:
                yield _Group(node, relation, is_source)


def _other(edge: Edge, group: _Group) -> NodeRef:
    if group.is_source:
        return NodeRef(NodeKind(edge.target_kind), edge.target_id)
    return NodeRef(NodeKind(edge.source_kind), edge.source_id)


def _read(groups: Iterable[_Group], walk: Walk) -> Iterator[tuple[_Group, list[Edge]]]:
    """The newest edges of each group, one more than its limit where there are more."""
    waiting = list(groups)
    for start in range(0, len(waiting), SELECTS_PER_QUERY):
        batch = waiting[start : start + SELECTS_PER_QUERY]
        texts: list[str] = []
        values: list[object] = []
        for group in batch:
            rows = group.rows(walk)[: group.limit(walk) + 1]
            text, parameters = rows.query.sql_with_params()
            texts.append(f"SELECT * FROM ({text}) AS part")  # noqa: S608 - Django wrote `text`
            values += parameters
        by_group: dict[tuple[NodeRef, str, bool], list[Edge]] = {}
        for edge in Edge.objects.raw(" UNION ALL ".join(texts), values):
            source = NodeRef(NodeKind(edge.source_kind), edge.source_id)
            target = NodeRef(NodeKind(edge.target_kind), edge.target_id)
            by_group.setdefault((source, edge.relation, True), []).append(edge)
            by_group.setdefault((target, edge.relation, False), []).append(edge)
        for group in batch:
            mine = by_group.get((group.node, group.relation.value, group.is_source), [])
            unique = {edge.pk: edge for edge in mine}
            yield group, [unique[pk] for pk in sorted(unique, reverse=True)]


def _count(group: _Group, walk: Walk) -> int:
    return group.rows(walk)[:COUNTED_MAX].count()


def _join(found: Neighbourhood, walk: Walk) -> None:
    """Edges between nodes at the rim, and which of these have others that are not drawn."""
    groups = [group for node in found.unexplored for group in _groups(node, walk)]
    found.unexplored = set()
    for group, edges in _read(groups, walk):
        for edge in edges:
            if _other(edge, group) in found.steps:
                found.edges[edge.pk] = edge
            else:
                found.unexplored.add(group.node)

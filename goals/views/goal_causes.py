"""The causal explorer: a span's chain up to its root and what followed, with the facts of each."""

import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

from django.db.models import Q, Sum

from agents.models import Attempt
from goals.domain.states import EntryKind
from goals.drawing import Drawing, draw_graph
from goals.models import Goal, LedgerEntry, Release
from governance.models import Decision
from lineage.models import Artifact
from lineage.telemetry import get_telemetry
from lineage.telemetry.base import Span

READ_MAX = 1000  # spans downstream that are read at once, the store's own limit
CHILDREN = 12  # of one span that are listed before "N more"
DRAWN_BEFORE = 8  # causes drawn, the nearest; the list has all of them
DRAWN_AFTER = 24  # effects drawn, the nearest
ROWS_MAX = 50  # effects in the table twin, the nearest


@dataclass(frozen=True, slots=True)
class SpanView:
    """One span with what a page says of it."""

    span: Span
    kind: str  # "observation" | "action" | "span"
    value: str  # what an observation saw, "" for others
    milliseconds: float

    @property
    def attributes(self) -> str:
        """What the agent wrote of it, as JSON."""
        return json.dumps(dict(self.span.attributes), indent=1, ensure_ascii=False, default=str)

    @property
    def cause(self) -> str:
        """The span it came of: the observation it names, else the span it ran in."""
        return cause_of(self.span)


def cause_of(span: Span) -> str:
    """The id of the span that another came of, "" for a root."""
    return span.parent_observation or span.parent_span_id


def span_view(span: Span) -> SpanView:
    """The span as the page names it."""
    seen: Any = span.attributes.get("observation.value")
    text = ""
    if seen is not None:
        name = span.attributes.get("observation.metric", "")
        aggregate = span.attributes.get("observation.aggregate", "")
        unit = span.attributes.get("observation.unit", "")
        text = f"{aggregate} {name} {seen:.4g} {unit}" if isinstance(seen, int | float) else ""
    kind = "observation" if span.is_observation else "action" if span.is_action else "span"
    spent = (span.end_at - span.start_at).total_seconds() * 1000
    return SpanView(span, kind, text.strip(), spent)


@dataclass(slots=True)
class Facts:
    """What else is recorded of one span: who ran it, what it cost, what it left behind."""

    attempt: Attempt | None = None
    costs: list[tuple[str, int]] = field(default_factory=list)  # unit, amount settled
    artifacts: list[Artifact] = field(default_factory=list)
    releases: list[Release] = field(default_factory=list)
    decision: Decision | None = None  # that let its attempt run


@dataclass(frozen=True, slots=True)
class Step:
    """One node of the explorer. `depth` is negative for causes, 0 for the picked span."""

    one: SpanView
    facts: Facts
    depth: int
    children: int  # known to be downstream of it directly
    is_own: bool  # of the Goal whose page this is

    @property
    def short(self) -> str:
        """Its name as far as it fits a box."""
        return self.one.span.name[:28] + ("…" if len(self.one.span.name) > 28 else "")

    @property
    def line(self) -> str:
        """What it saw, or how sure it was."""
        confidence = self.one.span.confidence
        if self.one.value:
            return self.one.value
        if confidence is not None:
            return f"confidence {confidence:.3g}"
        return "" if self.one.kind == "span" else "confidence unknown"


@dataclass(frozen=True, slots=True)
class Branch:
    """The direct effects of a span from the `offset`-th on."""

    span_id: str
    steps: tuple[Step, ...]
    more: int
    next_offset: int


@dataclass(frozen=True, slots=True)
class Exploration:
    """The chain of a picked span and what followed from it."""

    picked: Step
    causes: tuple[Step, ...]  # from the root down
    effects: Branch  # its own
    downstream: int  # spans downstream in all, at most `READ_MAX`
    is_complete: bool  # is that all of them
    drawing: Drawing
    rows: tuple[Step, ...]  # the table twin

    @property
    def is_cut(self) -> bool:
        """Does the table lack effects that are far away?"""
        return len(self.rows) < len(self.causes) + 1 + self.downstream


def explore(goal: Goal, span: Span) -> Exploration:
    """Read the chain and the effects of a span. Raises `TelemetryError`s."""
    store = get_telemetry()
    chain = [one for one in store.causes(goal.namespace, span.span_id) if one != span]
    below = _downstream(goal, span.span_id)
    children = _by_cause(span.span_id, below)
    depths = _depths(span.span_id, chain, below)
    shown = [*chain[::-1], span, *below][: ROWS_MAX + len(chain)]
    facts = facts_of(goal, shown)

    def step(one: Span) -> Step:
        return Step(
            span_view(one),
            facts.get(one.span_id, Facts()),
            depths.get(one.span_id, 0),
            len(children.get(one.span_id, ())),
            one.owner.goal_uid == str(goal.uid),
        )

    direct = children.get(span.span_id, [])
    opened = tuple(step(one) for one in direct[:CHILDREN])
    steps = {one.span_id: step(one) for one in shown}
    near = [*chain[:DRAWN_BEFORE][::-1], span, *below[:DRAWN_AFTER]]
    return Exploration(
        picked=steps[span.span_id],
        causes=tuple(steps[one.span_id] for one in chain[::-1]),
        effects=Branch(span.span_id, opened, len(direct) - len(opened), len(opened)),
        downstream=len(below),
        is_complete=len(below) < READ_MAX - 1,
        drawing=_drawn(near, steps),
        rows=tuple(steps[one.span_id] for one in shown),
    )


def branch(goal: Goal, span_id: str, *, offset: int) -> Branch:
    """The next direct effects of a span, for opening a node. Raises `TelemetryError`s."""
    children = _by_cause(span_id, _downstream(goal, span_id))
    direct = children.get(span_id, [])
    listed = direct[offset : offset + CHILDREN]
    facts = facts_of(goal, listed)
    steps = tuple(
        Step(
            span_view(one),
            facts.get(one.span_id, Facts()),
            1,
            len(children.get(one.span_id, ())),
            one.owner.goal_uid == str(goal.uid),
        )
        for one in listed
    )
    end = offset + len(listed)
    return Branch(span_id, steps, max(len(direct) - end, 0), end)


def _downstream(goal: Goal, span_id: str) -> list[Span]:
    found = get_telemetry().effects(goal.namespace, span_id, limit=READ_MAX)
    return [one for one in found if one.span_id != span_id]


def _by_cause(start: str, spans: Sequence[Span]) -> dict[str, list[Span]]:
    """Direct effects by the span they came of; one that names both parents is listed once."""
    listed = {start, *(one.span_id for one in spans)}
    found: dict[str, list[Span]] = {}
    for one in spans:
        found.setdefault(_cause_among(listed, one), []).append(one)
    return found


def _cause_among(listed: Collection[str], span: Span) -> str:
    """The observation acted on when it is one of these, else the span it ran in."""
    return span.parent_observation if span.parent_observation in listed else span.parent_span_id


def _depths(span_id: str, chain: Sequence[Span], below: Sequence[Span]) -> dict[str, int]:
    depths = {one.span_id: -index for index, one in enumerate(chain, start=1)}
    depths[span_id] = 0
    listed = {span_id, *(one.span_id for one in below)}
    for one in below:  # breadth first: a cause comes before its effects
        depths.setdefault(one.span_id, depths.get(_cause_among(listed, one), 0) + 1)
    return depths


def _drawn(spans: Sequence[Span], steps: Mapping[str, Step]) -> Drawing:
    listed = {one.span_id for one in spans}
    waits = {}
    before = ""
    for one in spans:
        cause = _cause_among(listed, one)
        is_chain = steps[one.span_id].depth <= 0
        # In the chain each stands on the one before it, however the store found the way.
        waits[one.span_id] = [cause] if cause in listed else [before] if is_chain and before else []
        before = one.span_id
    return draw_graph(waits, {one.span_id: steps[one.span_id] for one in spans})


def facts_of(goal: Goal, spans: Sequence[Span]) -> dict[str, Facts]:
    """What the other stores know of these spans, by span id, in a handful of queries."""
    found = {one.span_id: Facts() for one in spans}
    attempts = _attempts(spans)
    decisions = _decisions(attempts.values())
    for one in spans:
        attempt = attempts.get(one.owner.attempt_uid)
        found[one.span_id].attempt = attempt
        if attempt is not None:
            found[one.span_id].decision = decisions.get((attempt.graph_digest, attempt.task))
    ids = list(found)
    _add_costs(found, ids, goal)
    for artifact in Artifact.objects.filter(goal_uid=goal.uid, span_id__in=ids).defer(
        "blob_bundle", "statement_bundle"
    ):
        found[artifact.span_id].artifacts.append(artifact)
    for release in Release.objects.filter(goal_uid=goal.uid, span_id__in=ids):
        found[release.span_id].releases.append(release)
    return found


def _add_costs(found: Mapping[str, Facts], ids: Sequence[str], goal: Goal) -> None:
    entries = LedgerEntry.objects.filter(account__goal=goal, span_id__in=ids)
    sums = entries.filter(kind=EntryKind.SETTLE).order_by().values_list("span_id", "account__unit")
    for span_id, unit, amount in sums.annotate(Sum("amount")):
        found[span_id].costs.append((unit, int(amount)))


def _attempts(spans: Sequence[Span]) -> dict[str, Attempt]:
    uids = {one.owner.attempt_uid for one in spans if one.owner.attempt_uid}
    rows = Attempt.objects.filter(uid__in=[uid for uid in uids if _is_uuid(uid)])
    return {str(row.uid): row for row in rows.defer("specification", "message")}


def _is_uuid(text: str) -> bool:
    try:
        UUID(text)
    except ValueError:
        return False
    return True


def _decisions(attempts: Any) -> dict[tuple[str, str], Decision]:
    """The verdict on the workload of each task, by graph and task; the newest of several."""
    which = Q()
    for goal_uid, digest in {(one.goal_uid, one.graph_digest) for one in attempts}:
        which |= Q(goal_uid=goal_uid, graph_digest=digest)
    if not which:
        return {}
    names = {one.task for one in attempts}
    rows = Decision.objects.filter(which, subject_kind="task", subject_id__in=names)
    return {
        (row.graph_digest, row.subject_id): row
        for row in rows.defer("input_canonical").order_by("at")
    }

"""Impact of a draft: recorded decisions judged again by it, and what would have come out else."""

import hashlib
import json
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

from django.db.models import QuerySet

from governance.access import Principal, visible_decisions
from governance.domain import Stage
from governance.models import Decision
from governance.policy.base import Outcome, PolicyEngine, PolicyPoint, Verdict
from governance.services.drafts import Draft, get_editing_engine
from governance.signals import spend_asked

MAX_DECISIONS = 5000  # of each point
DEFAULT_DECISIONS = 1000
# Of all points together; the sandbox judges some thousand a second, and a person waits.
TIME_LIMIT_SECONDS = 8.0
FIRST_CHUNK = 1  # a draft that hangs costs one time limit, not a chunk of them
MAX_CHUNK = 128
MAX_FLIPS_KEPT = 500  # of each direction; all are counted
FATAL_ERRORS = frozenset({"timeout", "crash", "memory"})

Spend = Mapping[str, int]  # amount by unit of the ledger
Pricer = Callable[[Iterable[UUID]], Mapping[UUID, Spend]]


@dataclass(frozen=True, slots=True)
class Flip:
    """One recorded decision that the draft would take otherwise, and what its Goal has spent."""

    decision: Decision  # without its input
    verdict: Verdict
    spent: Spend = field(default_factory=dict)  # empty: unknown


@dataclass
class PointImpact:
    """What the draft would have said at one point. `changes` counts (recorded, now) outcomes."""

    point: PolicyPoint
    recorded: int = 0  # decisions looked at
    judged: int = 0
    changed_records: int = 0  # whose input is not what was digested: not judged
    undecided: int = 0  # denied for want of an answer
    changes: Counter[tuple[str, str]] = field(default_factory=Counter)
    stopped: str = ""

    @property
    def change_rows(self) -> list[tuple[str, str, int]]:
        """(recorded, now, number), most frequent first."""
        return [(before, now, number) for (before, now), number in self.changes.most_common()]


@dataclass
class Impact:
    """The replay of all points. Each list of flips is the newest first and may be cut short."""

    points: list[PointImpact] = field(default_factory=list)
    newly_denied: list[Flip] = field(default_factory=list)
    newly_allowed: list[Flip] = field(default_factory=list)
    other_changes: list[Flip] = field(default_factory=list)
    counts: Counter[str] = field(default_factory=Counter)
    seconds: float = 0.0

    @property
    def judged(self) -> int:
        """Decisions judged at all points."""
        return sum(point.judged for point in self.points)

    @property
    def recorded(self) -> int:
        """Decisions that were to be judged."""
        return sum(point.recorded for point in self.points)


def settled_spend(goal_uids: Iterable[UUID]) -> Mapping[UUID, Spend]:
    """What each Goal has settled, as the apps to the left know it."""
    found: dict[UUID, Spend] = {}
    wanted = frozenset(goal_uids)
    answers: list[tuple[Any, Any]] = spend_asked.send(sender=Impact, goal_uids=wanted)
    for _, answer in answers:
        found.update(answer)
    return found


def replay_history(
    name: str,
    draft: Draft,
    *,
    principal: Principal,
    limit: int = DEFAULT_DECISIONS,
    engine: PolicyEngine | None = None,
    pricer: Pricer = settled_spend,
    clock: Callable[[], float] = time.monotonic,
) -> Impact:
    """Judge the last `limit` decisions of each point that this person may see; records nothing.

    Compared are decisions that counted: of the bundle of this name in force, or of every bundle
    in force when this one never was. Ends within `TIME_LIMIT_SECONDS` and one answer of the
    sandbox, and says how far it came.
    """
    started = clock()
    judge = engine or get_editing_engine()
    impact = Impact()
    for point in PolicyPoint:
        decisions = list(_history(name, point, principal)[: min(limit, MAX_DECISIONS)])
        outcome = PointImpact(point, recorded=len(decisions))
        impact.points.append(outcome)
        deadline = started + TIME_LIMIT_SECONDS
        for decision, verdict in _judged(outcome, decisions, draft, judge, deadline, clock):
            _note(impact, outcome, decision, verdict)
    _price(impact, pricer)
    impact.seconds = clock() - started
    return impact


def _history(name: str, point: PolicyPoint, principal: Principal) -> QuerySet[Decision]:
    in_force = (
        visible_decisions(principal)
        .filter(point=point, stage=Stage.ENFORCE)
        .exclude(bundle_digest="")
        .defer("input_canonical")
        .order_by("-at")
    )
    own = in_force.filter(bundle_name=name)
    return own if own.exists() else in_force


def _judged(
    outcome: PointImpact,
    decisions: Sequence[Decision],
    draft: Draft,
    engine: PolicyEngine,
    deadline: float,
    clock: Callable[[], float],
) -> Iterator[tuple[Decision, Verdict]]:
    """Each decision with the draft's verdict; each distinct input is judged once."""
    bundle = draft.bundle
    by_input: dict[str, list[Decision]] = {}
    for decision in decisions:
        by_input.setdefault(decision.input_digest, []).append(decision)
    waiting = list(by_input.values())
    size = FIRST_CHUNK
    while waiting:
        if clock() >= deadline:
            outcome.stopped = f"The time of {TIME_LIMIT_SECONDS:g} s was over."
            return
        chunk, waiting = waiting[:size], waiting[size:]
        size = min(size * 4, MAX_CHUNK)
        documents = _documents(outcome, chunk)
        verdicts = engine.evaluate(bundle, outcome.point, [given for _, given in documents])
        for (group, _), verdict in zip(documents, verdicts, strict=True):
            outcome.judged += len(group)
            for decision in group:
                yield decision, verdict
        if lost := next((v for v in verdicts if v.error in FATAL_ERRORS), None):
            outcome.stopped = lost.messages[0].text
            return


def _documents(
    outcome: PointImpact, groups: Sequence[list[Decision]]
) -> list[tuple[list[Decision], dict[str, object]]]:
    """Each group with its input, read now; one whose record was changed is left out."""
    uids = [group[0].pk for group in groups]
    texts = dict(Decision.objects.filter(pk__in=uids).values_list("pk", "input_canonical"))
    found = []
    for group in groups:
        text = texts.get(group[0].pk, "")
        digest = hashlib.sha256(text.encode("utf-8")).hexdigest()
        if f"sha256:{digest}" != group[0].input_digest:
            outcome.changed_records += len(group)
            continue
        found.append((group, json.loads(text)))
    return found


def _note(impact: Impact, outcome: PointImpact, decision: Decision, verdict: Verdict) -> None:
    before, now = Outcome(decision.outcome), verdict.outcome
    outcome.undecided += bool(verdict.error)
    if before == now:
        return
    outcome.changes[before.value, now.value] += 1
    if now is Outcome.DENY:
        kind, flips = "newly_denied", impact.newly_denied
    elif before is Outcome.DENY:
        kind, flips = "newly_allowed", impact.newly_allowed
    else:
        kind, flips = "other_changes", impact.other_changes
    impact.counts[kind] += 1
    if len(flips) < MAX_FLIPS_KEPT:
        flips.append(Flip(decision, verdict))


def _price(impact: Impact, pricer: Pricer) -> None:
    kept = (impact.newly_denied, impact.newly_allowed, impact.other_changes)
    goals = {flip.decision.goal_uid for flips in kept for flip in flips if flip.decision.goal_uid}
    spent = pricer(goals) if goals else {}
    for flips in kept:
        flips[:] = [
            Flip(flip.decision, flip.verdict, spent.get(flip.decision.goal_uid, {}))
            if flip.decision.goal_uid
            else flip
            for flip in flips
        ]


def total_spent(flips: Sequence[Flip]) -> Spend:
    """What the distinct Goals behind flips settled, by unit; empty when nothing is known."""
    total: Counter[str] = Counter()
    for spend in {flip.decision.goal_uid: flip.spent for flip in flips}.values():
        total.update(spend)
    return dict(total)

"""What an attempt did lately, read from its newest actions: causes, repetitions, confidence."""

import datetime as dt
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import fmean
from typing import Final

RECENT_ACTIONS: Final = 200  # the newest of an attempt that are looked at
CONFIDENCE_NEWEST: Final = 20  # of them, those whose confidence is compared with what came before
REPEAT_SECONDS: Final = 60.0  # the window in which the same thing over and over is counted
# An agent may name what it likes: more than these are counted and not listed (I12).
TARGETS_MAX: Final = 1000  # as many as a scope may name
KINDS_MAX: Final = 100
MODELS_MAX: Final = 100
GOALS_MAX: Final = 20
TEXT_MAX: Final = 512  # characters of a name
# OTLP keeps no order: an observation may be stored this much later than what names it.
GRACE_SECONDS: Final = 10.0
# Of an attempt with more spans than this, what was stored lately is read, and what is new.
WHOLE_MAX: Final = 20_000
LATELY_SECONDS: Final = 15.0


@dataclass(frozen=True, slots=True)
class Witness:
    """A span that shows something. `stored_at` is when the store had it, by no agent's clock."""

    span_id: str
    stored_at: dt.datetime


@dataclass(frozen=True, slots=True)
class Repeats:
    """The thing done most often without anything new.

    `in_row`: changes of `target` by `name` upon the same observation, one after the other.
    `in_window`: changes of the same target by the same name within REPEAT_SECONDS.
    `steps_in_row`: the same of `step`, which changes nothing that it names.
    """

    name: str = ""
    target: str = ""
    in_row: int = 0
    in_window: int = 0
    step: str = ""
    steps_in_row: int = 0


@dataclass(frozen=True, slots=True)
class Confidence:
    """Mean confidence of the newest actions and of those before; None where there are none."""

    recent: float | None = None
    earlier: float | None = None
    recent_samples: int = 0
    earlier_samples: int = 0


@dataclass(frozen=True, slots=True)
class Conduct:
    """What one attempt did lately; numbers are of its newest RECENT_ACTIONS actions.

    `mark` changes whenever a span of the attempt was stored. `awaited` actions name an
    observation that may still arrive; an orphan names none, or one that did not. `targets` are
    what it changed, `models` the language models it named, `foreign` the other Goals whose spans
    it acted on, each with a span that shows it. `targets_unlisted` is 1 when there are more than
    TARGETS_MAX, else 0.
    """

    attempt_uid: str
    mark: str
    actions: int = 0
    orphans: int = 0
    awaited: int = 0
    kinds: tuple[str, ...] = ()
    targets: Mapping[str, Witness] = field(default_factory=dict)
    targets_unlisted: int = 0
    models: Mapping[str, Witness] = field(default_factory=dict)
    foreign: Mapping[str, Witness] = field(default_factory=dict)
    repeats: Repeats = Repeats()
    confidence: Confidence = Confidence()
    orphan: Witness | None = None
    repeated: Witness | None = None
    newest: Witness | None = None  # of the actions


@dataclass(frozen=True, slots=True)
class Act:
    """The slim row of one action."""

    span_id: str
    name: str
    target: str
    parent_observation: str
    confidence: float | None
    start_at: dt.datetime
    stored_at: dt.datetime

    @property
    def witness(self) -> Witness:
        return Witness(self.span_id, self.stored_at)


def named_observations(acts: Iterable[Act]) -> list[str]:
    """Ids that these actions name as their cause, each once; nobody is a cause of itself."""
    named = (act.parent_observation for act in acts if act.parent_observation != act.span_id)
    return list(dict.fromkeys(id_ for id_ in named if id_))


def conduct_of(
    attempt_uid: str,
    mark: str,
    newest_stored: Sequence[Act],
    *,
    goal_uid: str,
    homes: Mapping[str, str],
    settled_before: dt.datetime,
) -> Conduct:
    """The conduct that the newest stored actions show, without targets and models.

    `homes` says in which Goal each named observation lies, its own before another. What was
    stored before `settled_before` has waited long enough for what it names.
    """
    acts = sorted(newest_stored, key=lambda act: (act.start_at, act.span_id))
    orphans: list[Act] = []
    awaited = 0
    foreign: dict[str, Witness] = {}
    for act in acts:
        cause = act.parent_observation
        if not cause or cause == act.span_id:
            orphans.append(act)
        elif cause not in homes:
            if act.stored_at < settled_before:
                orphans.append(act)
            else:
                awaited += 1
        elif homes[cause] != goal_uid and len(foreign) < GOALS_MAX:
            foreign.setdefault(homes[cause], act.witness)
    repeats, repeated = repeats_of(acts)
    return Conduct(
        attempt_uid=attempt_uid,
        mark=mark,
        actions=len(acts),
        orphans=len(orphans),
        awaited=awaited,
        kinds=tuple(sorted({act.name for act in acts})[:KINDS_MAX]),
        foreign=foreign,
        repeats=repeats,
        confidence=confidence_of(acts),
        orphan=orphans[-1].witness if orphans else None,
        repeated=repeated,
        newest=acts[-1].witness if acts else None,
    )


def confidence_of(acts: Sequence[Act]) -> Confidence:
    """Confidence of the newest of these actions, in start order, against those before."""
    said = [act.confidence for act in acts if act.confidence is not None]
    recent, earlier = said[-CONFIDENCE_NEWEST:], said[:-CONFIDENCE_NEWEST]
    return Confidence(
        recent=fmean(recent) if recent else None,
        earlier=fmean(earlier) if earlier else None,
        recent_samples=len(recent),
        earlier_samples=len(earlier),
    )


def repeats_of(acts: Sequence[Act]) -> tuple[Repeats, Witness | None]:
    """The worst repetition among actions in start order, and its last span."""
    row, row_end = _longest_row(acts, of_changes=True)
    steps, step = _longest_row(acts, of_changes=False)
    often, often_end = _most_in_window(acts)
    worst = row_end if row >= often else often_end
    repeats = Repeats(
        name=worst.name if worst else "",
        target=worst.target if worst else "",
        in_row=row,
        in_window=often,
        step=step.name if step else "",
        steps_in_row=steps,
    )
    shown = worst or step
    return repeats, shown.witness if shown else None


def _longest_row(acts: Sequence[Act], *, of_changes: bool) -> tuple[int, Act | None]:
    longest, end, length = 0, None, 0
    before: Act | None = None
    for act in acts:
        is_same = before is not None and (
            (before.name, before.target, before.parent_observation)
            == (act.name, act.target, act.parent_observation)
        )
        length = length + 1 if is_same else 1
        if length > longest and bool(act.target) == of_changes:
            longest, end = length, act
        before = act
    return longest, end


def _most_in_window(acts: Sequence[Act]) -> tuple[int, Act | None]:
    """Changes only: what looks again and learns may do the same step many times a minute."""
    most, end = 0, None
    changes = [act for act in acts if act.target]
    inside: Counter[tuple[str, str]] = Counter()
    first = 0
    for act in changes:
        inside[act.name, act.target] += 1
        while (act.start_at - changes[first].start_at).total_seconds() > REPEAT_SECONDS:
            inside[changes[first].name, changes[first].target] -= 1
            first += 1
        if inside[act.name, act.target] > most:
            most, end = inside[act.name, act.target], act
    return most, end

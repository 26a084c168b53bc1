"""When each attempt waited and ran, and when people were asked: bars on one axis of time."""

import datetime as dt
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple
from uuid import UUID

from django.urls import reverse
from django.utils import timezone

from agents.models import Attempt
from goals.models import Goal
from governance.models import Approval

ATTEMPTS_MAX = 300  # newest that are drawn
ROWS_MAX = 40
WIDTH = 960
LABEL = 190  # of the width, for the names
ROW = 26
AXIS = 24
TICKS = 5
HALF_LETTER = 3.5  # of a tick's word, which stands about its place
LEAST = 3.0  # a bar that can be seen and pressed
NAME_SHOWN = 24
SCALES = (1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 14400, 43200, 86400)


class Run(NamedTuple):
    """What is drawn of one attempt."""

    uid: UUID
    task: str
    number: int
    iteration: int
    state: str
    created_at: dt.datetime
    started_at: dt.datetime | None
    finished_at: dt.datetime | None


COLUMNS = Run._fields


@dataclass(frozen=True, slots=True)
class Bar:
    """One stretch of time; `kind` is a state, or "waiting"."""

    x: float
    width: float
    kind: str
    title: str
    url: str = ""

    @property
    def text_x(self) -> float:
        """Where a word in it begins."""
        return self.x + 6


@dataclass(frozen=True, slots=True)
class Row:
    """One task, or the humans."""

    label: str
    y: int
    bars: tuple[Bar, ...]


@dataclass(frozen=True, slots=True)
class Timeline:
    """A drawing in CSS pixels."""

    width: int
    height: int
    rows: tuple[Row, ...]
    ticks: tuple[tuple[float, str], ...]
    left_out: int


def timeline(
    goal: Goal, approvals: Sequence[Approval], *, order: Sequence[str] = ()
) -> Timeline | None:
    """Attempts of the Goal by task, in the order of the graph; None when nothing ran."""
    newest = Attempt.objects.filter(goal_uid=goal.uid).order_by("-created_at")
    attempts = [Run(*one) for one in newest.values_list(*COLUMNS)[:ATTEMPTS_MAX]][::-1]
    if not attempts:
        return None
    now = timezone.now()
    start = min([goal.started_at or attempts[0].created_at, attempts[0].created_at])
    ends = [one.finished_at or now for one in attempts]
    asked = [one for one in approvals if one.created_at >= start]
    end = max([*ends, *(one.decided_at or now for one in asked)])
    axis = _Axis(start, max((end - start).total_seconds(), 1.0))
    places = {name: index for index, name in enumerate(order)}
    tasks: dict[str, list[Run]] = {}
    for attempt in sorted(attempts, key=lambda one: places.get(one.task, len(places))):
        tasks.setdefault(attempt.task, []).append(attempt)
    bars = [(name, tuple(_bars(axis, some, now))) for name, some in list(tasks.items())[:ROWS_MAX]]
    if asked:
        bars.append(("a human decides", tuple(_asked(axis, asked, now))))
    rows = tuple(Row(_short(n), AXIS + i * ROW, some) for i, (n, some) in enumerate(bars))
    left_out = max(len(tasks) - ROWS_MAX, 0)
    return Timeline(WIDTH, AXIS + len(rows) * ROW + 4, rows, axis.ticks(), left_out)


@dataclass(frozen=True, slots=True)
class _Axis:
    start: dt.datetime
    seconds: float

    def x(self, at: dt.datetime) -> float:
        share = min(max((at - self.start).total_seconds() / self.seconds, 0.0), 1.0)
        return round(LABEL + share * (WIDTH - LABEL - 8), 1)

    def bar(
        self, since: dt.datetime, until: dt.datetime, kind: str, title: str, url: str = ""
    ) -> Bar:
        x = self.x(since)
        return Bar(x, max(round(self.x(until) - x, 1), LEAST), kind, title, url)

    def ticks(self) -> tuple[tuple[float, str], ...]:
        step = next((s for s in SCALES if self.seconds / s <= TICKS), SCALES[-1])
        step = max(step, -(-int(self.seconds) // (TICKS * step)) * step)
        moments = range(0, int(self.seconds) + 1, step)
        places = [(self.x(self.start + dt.timedelta(seconds=s)), _clock(s)) for s in moments]
        return tuple((x, word) for x, word in places if x + len(word) * HALF_LETTER <= WIDTH)


def _clock(seconds: int) -> str:
    minutes, second = divmod(seconds, 60)
    hours, minute = divmod(minutes, 60)
    return f"+{hours}:{minute:02}:{second:02}" if hours else f"+{minute}:{second:02}"


def _short(name: str) -> str:
    return name if len(name) <= NAME_SHOWN else name[: NAME_SHOWN - 1] + "…"


def _bars(axis: _Axis, attempts: Iterable[Run], now: dt.datetime) -> Iterable[Bar]:
    for one in attempts:
        began = one.started_at or one.finished_at or now
        name = f"{one.task} #{one.number}, pass {one.iteration}"
        if (began - one.created_at).total_seconds() > axis.seconds / 400:
            title = f"{name} waited {_span(began - one.created_at)}"
            yield axis.bar(one.created_at, began, "waiting", title)
        if one.started_at:
            ended = one.finished_at or now
            title = f"{name}: {one.state}, ran {_span(ended - one.started_at)}"
            url = reverse("attempt_detail", args=[one.uid])
            yield axis.bar(one.started_at, ended, one.state, title, url)


def _asked(axis: _Axis, approvals: Iterable[Approval], now: dt.datetime) -> Iterable[Bar]:
    for one in approvals:
        until = one.decided_at or now
        title = f"{one.title}: {one.state} after {_span(until - one.created_at)}"
        url = reverse("approval_detail", args=[one.uid])
        yield axis.bar(one.created_at, until, "asked", title, url)


def _span(length: dt.timedelta) -> str:
    seconds = length.total_seconds()
    return f"{seconds:.1f} s" if seconds < 60 else f"{int(seconds // 60)} min {int(seconds % 60)} s"

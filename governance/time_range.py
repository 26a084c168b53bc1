"""The time range of a page, as its permalink carries it."""

import datetime as dt
from dataclasses import dataclass
from typing import Final

from django.db.models import Q
from django.http import QueryDict
from django.utils import timezone

PRESETS: Final = {
    "15m": ("15 min", dt.timedelta(minutes=15)),
    "1h": ("1 h", dt.timedelta(hours=1)),
    "24h": ("24 h", dt.timedelta(hours=24)),
    "7d": ("7 d", dt.timedelta(days=7)),
}
EXAMPLE: Final = "2026-01-31..2026-02-01T12:00"


@dataclass(frozen=True, slots=True)
class TimeRange:
    """From `since` (inclusive) to `until` (exclusive), in UTC; None is open.

    `text` is what stands in the URL, "" for all time; `problem` says what is wrong with it, and
    then nothing is in the range.
    """

    text: str = ""
    since: dt.datetime | None = None
    until: dt.datetime | None = None
    problem: str = ""

    @property
    def is_custom(self) -> bool:
        return bool(self.text) and self.text not in PRESETS

    def q(self, column: str) -> Q:
        """A filter on a column of moments."""
        if self.problem:
            return Q(pk__in=[])
        query = Q()
        if self.since is not None:
            query &= Q(**{f"{column}__gte": self.since})
        if self.until is not None:
            query &= Q(**{f"{column}__lt": self.until})
        return query


def time_range(asked: QueryDict, *, now: dt.datetime | None = None) -> TimeRange:
    """The range that `?time=` names: `15m`, `1h`, `24h`, `7d` or `a..b`, either end left out.

    A form that has no script sends `from` and `until` in its place.
    """
    text = asked.get("time", "").strip()
    if asked.get("from") or asked.get("until"):
        text = f"{asked.get('from', '').strip()}..{asked.get('until', '').strip()}"
    if not text:
        return TimeRange()
    if text in PRESETS:
        return TimeRange(text=text, since=(now or timezone.now()) - PRESETS[text][1])
    start, separator, end = text.partition("..")
    try:
        since, until = _moment(start), _moment(end, is_end=True)
    except ValueError:
        separator = ""
        since = until = None
    if not separator or (since is None and until is None):
        presets = ", ".join(PRESETS)
        return TimeRange(text=text, problem=f"time: one of {presets}, or from..to as {EXAMPLE}.")
    if since is not None and until is not None and since >= until:
        return TimeRange(text=text, problem="time: the range ends before it begins.")
    return TimeRange(text=text, since=since, until=until)


def _moment(text: str, *, is_end: bool = False) -> dt.datetime | None:
    """A date or a moment; without a zone it is UTC, and a day that ends a range is in it."""
    if not text:
        return None
    moment = dt.datetime.fromisoformat(text)
    if is_end and "T" not in text and " " not in text:
        moment += dt.timedelta(days=1)
    return moment if moment.tzinfo else moment.replace(tzinfo=dt.UTC)

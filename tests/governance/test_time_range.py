"""The time range of a page: presets, from..to, and what is neither."""

import datetime as dt

import pytest
from django.http import QueryDict

from governance.time_range import time_range

NOW = dt.datetime(2026, 2, 3, 12, tzinfo=dt.UTC)


def test_a_preset_counts_back_from_now() -> None:
    found = time_range(QueryDict("time=24h"), now=NOW)
    assert (found.since, found.until) == (NOW - dt.timedelta(days=1), None)
    assert not found.is_custom


def test_no_range_is_all_time() -> None:
    found = time_range(QueryDict(""))
    assert (found.since, found.until, found.text, found.problem) == (None, None, "", "")


def test_days_include_their_last_and_may_be_left_open() -> None:
    found = time_range(QueryDict("time=2026-01-31..2026-02-01"))
    assert found.since == dt.datetime(2026, 1, 31, tzinfo=dt.UTC)
    assert found.until == dt.datetime(2026, 2, 2, tzinfo=dt.UTC)
    assert found.is_custom
    assert time_range(QueryDict("time=2026-01-31..")).until is None
    assert time_range(QueryDict("time=..2026-01-31")).since is None


def test_the_form_without_a_script_says_the_same() -> None:
    found = time_range(QueryDict("from=2026-01-31T10:00&until=2026-01-31T11:00"))
    assert found.text == "2026-01-31T10:00..2026-01-31T11:00"
    assert found.until == dt.datetime(2026, 1, 31, 11, tzinfo=dt.UTC)


@pytest.mark.parametrize(
    "text", ["yesterday", "2026-13-01..", "..", "2026-02-02..2026-02-01", "2026-02-01", "999d"]
)
def test_what_is_no_range_is_said_and_shows_nothing(text: str) -> None:
    found = time_range(QueryDict(f"time={text}"))
    assert found.problem.startswith("time: ")
    assert found.q("created_at").children == [("pk__in", [])]

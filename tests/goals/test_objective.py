"""Objectives: the grammar, its errors, comparison across units, progress."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from goals.domain.objective import (
    Aggregate,
    Comparator,
    Objective,
    ObjectiveSyntaxError,
    number_text,
    parse_objective,
)
from goals.domain.units import UNITS, UnitMismatch

SEED = "p99 latency < 120 ms for /checkout"
WORDS = st.from_regex(r"[A-Za-z_][A-Za-z0-9_.\-]{0,9}", fullmatch=True)


def parsed_or_error(text: str) -> Objective | ObjectiveSyntaxError:
    try:
        return parse_objective(text)
    except ObjectiveSyntaxError as error:
        return error


def test_seed_objective() -> None:
    objective = parse_objective(SEED)
    assert objective == Objective(
        text=SEED,
        aggregate=Aggregate.P99,
        metric="latency",
        comparator=Comparator.LESS,
        threshold=120.0,
        unit="ms",
        selector="/checkout",
        window_seconds=None,
    )
    assert objective.text == SEED
    assert objective.canonical() == SEED


@pytest.mark.parametrize(
    ("text", "canonical"),
    [
        ("accuracy >= 99.9 % for checkout-risk", "last accuracy >= 99.9 % for checkout-risk"),
        ("mean cost <= 0.02 USD over 10 minutes", "mean cost <= 0.02 USD over 10 min"),
        ("mean cost <= $0.02", "mean cost <= 0.02 USD"),
        ("Error Rate < 1 % for /checkout", "last error_rate < 1 % for /checkout"),
        ("P99 latency<120ms over 2 hours for /a", "p99 latency < 120 ms for /a over 2 h"),
        ("count < 5", "last count < 5"),
        ("rate requests \u2265 12.5 rps", "rate requests >= 12.5 req/s"),
        ("max size \u2264 500 kB", "max size <= 500 KB"),
        ("depth = 0", "last depth == 0"),
        ("drift > -0.5", "last drift > -0.5"),
        ('latency < 5 \u00b5s for "GET  /a b"', 'last latency < 5 us for "GET /a b"'),
        ("latency < 5 s for for over 1.5 s", "last latency < 5 s for for over 1.5 s"),
        ("  latency\u00a0<\u00a05 s \n", "last latency < 5 s"),
        ("sum tokens <= 1e6 tokens", "sum tokens <= 1000000 tokens"),
    ],
)
def test_canonical_spelling(text: str, canonical: str) -> None:
    objective = parse_objective(text)
    assert objective.canonical() == canonical
    assert parse_objective(canonical) == objective


@pytest.mark.parametrize(
    ("text", "position", "expected"),
    [
        ("", 0, "a metric"),
        ("< 5", 0, "a metric"),
        ("p99 latency", 11, "a comparator"),
        ("p99 latency 5 ms", 12, "a comparator"),
        ("p99 latency <", 13, "a number"),
        ("latency < fast", 10, "a number"),
        ("latency < NaN", 10, "a number"),
        ("latency < inf", 10, "a number"),
        ("latency < 1.2.3", 10, "a number"),
        ("latency < 1e400 ms", 10, "a number of at most"),
        ("latency < 1e-400 ms", 10, "64-bit float"),
        ("latency < -5 ms", 10, "not negative"),
        ("latency < 5 mz", 12, 'the unit "ms"'),
        ("size < 5 Mb", 9, 'the unit "MB"'),
        ("latency < 5 ms /checkout", 15, '"for" or "over" or the end'),
        ("latency < 5 for", 15, "what to measure"),
        ('latency < 5 for "open', 16, "what to measure"),
        ("latency < 5 for a for b", 18, '"over" or the end'),
        ("latency < 5 over 5 tokens", 19, "a unit of time"),
        ("latency < 5 over 5", 18, "a unit of time"),
        ("latency < 5 over 0 s", 17, "a window"),
        ("latency < 5 over -1 s", 17, "a window"),
        ("latency < 5 over 9000 h", 17, "a window"),
        ("latency\t< 5", 7, "printable text"),
        ("lat\u202eency < 5", 3, "printable text"),
        ("latency < 5\nlatency < 6", 11, "printable text"),
        ("a" * 501, 500, "at most 500 characters"),
        ("a" * 200 + " < 1", 0, "a metric of at most"),
        ("a < 1 for " + "b" * 201, 10, "a selector of at most"),
    ],
)
def test_error_points_at_the_place(text: str, position: int, expected: str) -> None:
    with pytest.raises(ObjectiveSyntaxError) as caught:
        parse_objective(text)
    error = caught.value
    assert error.position == position
    assert expected in error.expected
    assert f"at character {position + 1}, found" in str(error)
    line, caret = error.pointer().split("\n")
    assert caret == " " * position + "^"
    assert len(line) >= position


@given(st.text(max_size=60))
def test_any_text_parses_or_says_where(text: str) -> None:
    outcome = parsed_or_error(text)
    if isinstance(outcome, Objective):
        assert parse_objective(outcome.canonical()) == outcome
    else:
        assert 0 <= outcome.position <= len(text)
        assert "\n" not in str(outcome)


@given(
    st.sampled_from(["", *Aggregate]),
    st.lists(WORDS, min_size=1, max_size=3),
    st.sampled_from(["<", "<=", ">", ">=", "==", "="]),
    st.floats(0, 1e15),
    st.sampled_from(list(UNITS)),
    st.sampled_from(["", "for /checkout", 'for "two words"', "for for"]),
    st.sampled_from(["", "over 10 minutes", "over 0.1 s", "over 90 ms", "over 36 h"]),
)
def test_round_trip(
    aggregate: str,
    words: list[str],
    comparator: str,
    threshold: float,
    unit: str,
    selector: str,
    window: str,
) -> None:
    parts = [aggregate, *words, comparator, number_text(threshold), unit, selector, window]
    objective = parse_objective(" ".join(filter(None, parts)))
    assert objective.threshold == threshold
    assert parse_objective(objective.canonical()) == objective


def test_converts_compatible_units() -> None:
    objective = parse_objective(SEED)
    assert objective.is_met_by(0.119, "s")
    assert objective.is_met_by(119_000, "microseconds")
    assert not objective.is_met_by(0.121, "s")
    assert not objective.is_met_by(120, "ms")
    assert parse_objective("accuracy >= 99.9 %").is_met_by(0.999, "ratio")
    assert parse_objective("size <= 1 MiB").is_met_by(1_048_576, "By")
    assert not parse_objective("size <= 1 MB").is_met_by(1_000_001, "B")


@pytest.mark.parametrize(
    ("text", "unit", "named"),
    [
        (SEED, "tokens", "tokens"),
        (SEED, "", "no unit"),
        ("error rate < 5", "ratio", "ratio"),
        ("accuracy >= 99.9 %", "", "no unit"),
        (SEED, "furlongs", "furlongs"),
    ],
)
def test_refuses_other_units(text: str, unit: str, named: str) -> None:
    with pytest.raises(UnitMismatch, match=named):
        parse_objective(text).is_met_by(1.0, unit)


@pytest.mark.parametrize(
    ("comparator", "below", "at", "above"),
    [
        ("<", True, False, False),
        ("<=", True, True, False),
        (">", False, False, True),
        (">=", False, True, True),
        ("==", False, True, False),
    ],
)
def test_comparators(comparator: str, below: bool, at: bool, above: bool) -> None:
    objective = parse_objective(f"x {comparator} 0.3 s")
    assert objective.is_met_by(0.2, "s") is below
    assert objective.is_met_by(300, "ms") is at
    assert objective.is_met_by(0.4, "s") is above
    for value in (math.nan, math.inf, -math.inf):
        assert objective.is_met_by(value, "s") is False


def test_progress() -> None:
    objective = parse_objective(SEED)
    assert objective.progress(300, "ms") is None
    assert objective.progress(100, "ms") == 1.0
    assert objective.progress(210, "ms", 300) == pytest.approx(0.5)
    assert objective.progress(0.210, "s", 0.300) == pytest.approx(0.5)
    assert objective.progress(400, "ms", 300) == 0.0
    assert objective.progress(300, "ms", 100) == 0.0
    assert objective.progress(math.nan, "ms", 300) is None
    edge = objective.progress(120, "ms", 300)
    assert edge is not None
    assert 0.99 < edge < 1.0


@given(
    st.sampled_from(["<", "<=", ">", ">=", "=="]),
    st.floats(allow_nan=True, allow_infinity=True),
    st.floats(allow_nan=True, allow_infinity=True),
)
def test_progress_is_a_fraction_and_one_only_when_met(
    comparator: str, value: float, first: float
) -> None:
    objective = parse_objective(f"x {comparator} 12.5 s")
    progress = objective.progress(value, "s", first)
    if objective.is_met_by(value, "s"):
        assert progress == 1.0
    else:
        assert progress is None or 0.0 <= progress < 1.0

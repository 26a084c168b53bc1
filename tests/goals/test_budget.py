"""Budgets: the grammar, exact amounts, limits, narrowing."""

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from goals.domain.budget import (
    GPU_MS_MAX,
    MICRO_USD_MAX,
    TOKENS_MAX,
    Budget,
    BudgetSyntaxError,
    parse_budget,
)


def amounts(limit: int) -> st.SearchStrategy[int | None]:
    return st.none() | st.integers(1, limit)


def parsed_or_error(text: str) -> Budget | BudgetSyntaxError:
    try:
        return parse_budget(text)
    except BudgetSyntaxError as error:
        return error


@st.composite
def budgets(draw: st.DrawFn) -> Budget:
    fields = (draw(amounts(GPU_MS_MAX)), draw(amounts(TOKENS_MAX)), draw(amounts(MICRO_USD_MAX)))
    assume(any(fields))
    return Budget(*fields)


@pytest.mark.parametrize(
    ("text", "budget", "canonical"),
    [
        ("50 GPU-minutes", Budget(gpu_ms=3_000_000), "50 GPU-minutes"),
        (
            "50 GPU-minutes, 200k tokens, 5 USD",
            Budget(3_000_000, 200_000, 5_000_000),
            "50 GPU-minutes, 200k tokens, 5 USD",
        ),
        ("5 usd,1 gpu-hour", Budget(3_600_000, None, 5_000_000), "1 GPU-hour, 5 USD"),
        ("0.5 gpu seconds", Budget(gpu_ms=500), "0.5 GPU-seconds"),
        ("0.1 GPU-hours", Budget(gpu_ms=360_000), "6 GPU-minutes"),
        ("$0.000001", Budget(micro_usd=1), "0.000001 USD"),
        ("75 cents", Budget(micro_usd=750_000), "0.75 USD"),
        ("1.5K tokens", Budget(tokens=1_500), "1500 tokens"),
        ("2M tokens", Budget(tokens=2_000_000), "2M tokens"),
        ("1 token", Budget(tokens=1), "1 token"),
        ("1000000 GPU-hours", Budget(gpu_ms=GPU_MS_MAX), "1000000 GPU-hours"),
        ("1.00000000000000000000000000000000000000 USD", Budget(micro_usd=1_000_000), "1 USD"),
    ],
)
def test_spellings(text: str, budget: Budget, canonical: str) -> None:
    assert parse_budget(text) == budget
    assert budget.as_text() == canonical


@pytest.mark.parametrize(
    ("text", "position", "expected"),
    [
        ("", 0, "an amount"),
        ("lots", 0, "an amount"),
        ("NaN USD", 0, "an amount"),
        ("50", 2, "a unit"),
        ("50 GPUs", 3, "a unit"),
        ("5 EUR", 2, "a unit"),
        ("1e6 tokens", 1, "a unit"),
        ("200,000 tokens", 3, "write 200000 or 200k"),
        ("5m tokens", 1, "M (million)"),
        ("-5 USD", 0, "a positive number"),
        ("0 USD", 0, "above zero"),
        ("1.5 tokens", 0, "whole number of tokens"),
        ("0.0000001 USD", 0, "whole number of micro-USD"),
        ("1 GPU-hour, 0.0001 GPU-seconds", 12, "whole number of GPU-milliseconds"),
        ("0." + "0" * 60 + "1 USD", 0, "whole number of micro-USD"),
        ("1.000000" + "0" * 40 + "1 USD", 0, "whole number of micro-USD"),
        ("1000001 GPU-hours", 0, "at most 1,000,000 GPU-hours"),
        ("9" * 150 + " USD", 0, "at most 1,000,000,000 USD"),
        ("1 USD, 2 cents", 7, "money only once"),
        ("1 USD 2 tokens", 6, "a comma or the end"),
        ("1 USD,", 6, "an amount"),
        ("1\tUSD", 1, "printable text"),
        ("1" * 201, 200, "at most 200 characters"),
    ],
)
def test_error_points_at_the_place(text: str, position: int, expected: str) -> None:
    with pytest.raises(BudgetSyntaxError) as caught:
        parse_budget(text)
    error = caught.value
    assert error.position == position
    assert expected in error.expected
    assert error.pointer().split("\n")[1] == " " * position + "^"


@given(budgets())
def test_round_trip(budget: Budget) -> None:
    assert parse_budget(budget.as_text()) == budget


@given(st.text(alphabet="0123456789.,$ -kMGPUSDtokensminutehrc\x00\u00a0", max_size=40))
def test_any_text_parses_or_says_where(text: str) -> None:
    outcome = parsed_or_error(text)
    if isinstance(outcome, Budget):
        assert parse_budget(outcome.as_text()) == outcome
    else:
        assert 0 <= outcome.position <= len(text)


@pytest.mark.parametrize(
    ("child", "parent", "is_narrower"),
    [
        ("50 GPU-minutes", "50 GPU-minutes", True),
        ("49 GPU-minutes, 1 USD", "50 GPU-minutes", True),
        ("51 GPU-minutes", "50 GPU-minutes", False),
        ("50 GPU-minutes", "50 GPU-minutes, 1 USD", False),
        ("1 USD", "2 USD", True),
    ],
)
def test_narrowing(child: str, parent: str, is_narrower: bool) -> None:
    assert parse_budget(child).narrower_or_equal(parse_budget(parent)) is is_narrower


@given(budgets(), budgets(), budgets())
def test_narrowing_is_a_partial_order(a: Budget, b: Budget, c: Budget) -> None:
    assert a.narrower_or_equal(a)
    if a.narrower_or_equal(b) and b.narrower_or_equal(a):
        assert a == b
    if a.narrower_or_equal(b) and b.narrower_or_equal(c):
        assert a.narrower_or_equal(c)


@pytest.mark.parametrize("fields", [{}, {"tokens": 0}, {"gpu_ms": -1}, {"tokens": TOKENS_MAX + 1}])
def test_a_budget_cannot_be_empty_or_out_of_bounds(fields: dict[str, int]) -> None:
    with pytest.raises(ValueError, match=r"at least one|must be 1 to"):
        Budget(**fields)

"""Budgets: what a Goal may spend, such as `50 GPU-minutes, 200k tokens, 5 USD`.

budget    = dimension {"," dimension}            each dimension at most once
dimension = number GPU-seconds | GPU-minutes | GPU-hours
          | number [k|M] tokens
          | number USD | "$" number | number cents
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from fractions import Fraction

from goals.domain.syntax import Cursor, TextSyntaxError

TEXT_MAX = 200  # characters of a budget; the longest sensible one is about 60

# Far above any real budget and far below 2**53, so that sums stay exact wherever JSON goes.
GPU_MS_MAX = 1_000_000 * 3_600_000  # a million GPU-hours
TOKENS_MAX = 1_000_000_000_000
MICRO_USD_MAX = 1_000_000_000 * 1_000_000  # a billion USD

_MICRO_USD_PER_USD = 1_000_000
_NUMBER = re.compile(r"\d+(?:\.\d+)?", re.ASCII)
_CHUNK = re.compile(r"[^ ,]+")
_UNIT = re.compile(r"GPU(?:-| +)[A-Za-z]+|[A-Za-z]+", re.IGNORECASE)
_MULTIPLIER = re.compile(r"[kKM](?= *tokens?\b)", re.IGNORECASE)
_EXAMPLE = '"50 GPU-minutes", "200k tokens" or "5 USD"'


@dataclass(frozen=True, slots=True)
class _Measure:
    """One unit of one dimension; `scale` is how many of the dimension's whole steps it is."""

    dimension: str
    scale: int


_MEASURES: Mapping[str, _Measure] = {
    **dict.fromkeys(("gpu-second", "gpu-seconds", "gpu-sec", "gpu-s"), _Measure("gpu_ms", 1_000)),
    **dict.fromkeys(("gpu-minute", "gpu-minutes", "gpu-min"), _Measure("gpu_ms", 60_000)),
    **dict.fromkeys(("gpu-hour", "gpu-hours", "gpu-h"), _Measure("gpu_ms", 3_600_000)),
    **dict.fromkeys(("token", "tokens"), _Measure("tokens", 1)),
    **dict.fromkeys(("usd", "dollar", "dollars"), _Measure("micro_usd", _MICRO_USD_PER_USD)),
    **dict.fromkeys(("cent", "cents"), _Measure("micro_usd", _MICRO_USD_PER_USD // 100)),
}
_LIMITS: Mapping[str, tuple[int, str, str]] = {
    "gpu_ms": (GPU_MS_MAX, "1,000,000 GPU-hours", "a whole number of GPU-milliseconds"),
    "tokens": (TOKENS_MAX, "1,000,000M tokens", "a whole number of tokens"),
    "micro_usd": (MICRO_USD_MAX, "1,000,000,000 USD", "a whole number of micro-USD"),
}
_MULTIPLIERS: Mapping[str, int] = {"k": 1_000, "K": 1_000, "M": 1_000_000}


class BudgetSyntaxError(TextSyntaxError):
    """A budget that the grammar refuses, with the place where it does."""

    noun = "budget"


@dataclass(frozen=True, slots=True)
class Budget:
    """Upper limits in whole steps; None means that this budget does not limit the dimension."""

    gpu_ms: int | None = None  # GPU-milliseconds
    tokens: int | None = None
    micro_usd: int | None = None

    def __post_init__(self) -> None:
        amounts = self.amounts()
        if not amounts:
            raise ValueError("A budget limits at least one of gpu_ms, tokens and micro_usd.")
        for dimension, amount in amounts.items():
            if not 0 < amount <= _LIMITS[dimension][0]:
                raise ValueError(f"{dimension} must be 1 to {_LIMITS[dimension][0]}, not {amount}.")

    def amounts(self) -> dict[str, int]:
        """The limited dimensions (`gpu_ms`, `tokens`, `micro_usd`) and their limits."""
        every = {"gpu_ms": self.gpu_ms, "tokens": self.tokens, "micro_usd": self.micro_usd}
        return {dimension: amount for dimension, amount in every.items() if amount is not None}

    def as_text(self) -> str:
        """The one spelling of this budget; parsing it gives an equal budget."""
        parts = []
        if self.gpu_ms is not None:
            parts.append(_gpu_text(self.gpu_ms))
        if self.tokens is not None:
            parts.append(_token_text(self.tokens))
        if self.micro_usd is not None:
            parts.append(f"{_decimal_text(Decimal(self.micro_usd) / _MICRO_USD_PER_USD)} USD")
        return ", ".join(parts)

    def narrower_or_equal(self, parent: "Budget") -> bool:
        """Is every dimension the parent limits limited here too, and no higher?"""
        mine = self.amounts()
        return all(
            dimension in mine and mine[dimension] <= limit
            for dimension, limit in parent.amounts().items()
        )


def parse_budget(text: str) -> Budget:
    """The budget a text states. Raises `BudgetSyntaxError`, which points at the place."""
    return _Parser(text).budget()


class _Parser(Cursor):
    """Each method consumes what it names or raises."""

    error = BudgetSyntaxError
    text_max = TEXT_MAX
    chunk = _CHUNK

    def budget(self) -> Budget:
        self.start()
        amounts: dict[str, int] = {}
        while True:
            start = self.position
            dimension, amount = self._dimension()
            if dimension in amounts:
                self.fail(start, f"{_noun(dimension)} only once", self.text[start:])
            amounts[dimension] = amount
            if self.position == len(self.text):
                return Budget(**amounts)
            if self.text[self.position] != ",":
                self.fail(self.position, "a comma or the end", self.rest())
            self.position += 1
            self.skip_space()

    def _dimension(self) -> tuple[str, int]:
        start = self.position
        has_dollar = self.take(re.compile(r"\$")) is not None
        digits = self.take(_NUMBER)
        if digits is None:
            expected = "a positive number" if self.rest()[:1] == "-" else f"an amount: {_EXAMPLE}"
            self.fail(self.position, expected, self.rest())
        multiplier = self._multiplier()
        measure = _MEASURES["usd"] if has_dollar else self._measure()
        exact = Fraction(digits) * multiplier * measure.scale  # Decimal would round
        return measure.dimension, self._whole(start, exact, measure.dimension)

    def _multiplier(self) -> int:
        start = self.position
        letter = self.take(_MULTIPLIER)
        if letter is None:
            return 1
        if letter not in _MULTIPLIERS:
            self.fail(start, "k (thousand) or M (million)", letter)
        return _MULTIPLIERS[letter]

    def _measure(self) -> _Measure:
        start = self.position
        spelling = self.take(_UNIT)
        folded = re.sub(r" +", "-", (spelling or "").lower())
        measure = _MEASURES.get(folded)
        if measure is None:
            units = "a unit: GPU-seconds, GPU-minutes, GPU-hours, tokens, USD or cents"
            if re.match(r",\d{3}", self.text[start:]):
                units += " (a comma separates amounts; write 200000 or 200k)"
            self.fail(start, units, spelling or self.rest())
        return measure

    def _whole(self, start: int, exact: Fraction, dimension: str) -> int:
        limit, limit_text, step = _LIMITS[dimension]
        amount_text = self.text[start : self.position]
        if exact == 0:
            self.fail(start, "an amount above zero", amount_text)
        if exact > limit:
            self.fail(start, f"at most {limit_text}", amount_text)
        if exact.denominator != 1:
            self.fail(start, step, amount_text)
        return int(exact)


def _noun(dimension: str) -> str:
    return {"gpu_ms": "GPU time", "tokens": "tokens", "micro_usd": "money"}[dimension]


def gpu_unit(gpu_ms: int) -> tuple[str, int]:
    """The largest unit that says this much GPU time in a whole number: noun, milliseconds."""
    for noun, length in (("GPU-hour", 3_600_000), ("GPU-minute", 60_000)):
        if gpu_ms % length == 0:
            return noun, length
    return "GPU-second", 1_000


def _gpu_text(gpu_ms: int) -> str:
    noun, length = gpu_unit(gpu_ms)
    return _counted(Decimal(gpu_ms) / length, noun)


def _token_text(tokens: int) -> str:
    for letter in ("M", "k"):
        if tokens % _MULTIPLIERS[letter] == 0:
            return f"{tokens // _MULTIPLIERS[letter]}{letter} tokens"
    return _counted(Decimal(tokens), "token")


def _counted(count: Decimal, noun: str) -> str:
    return f"{_decimal_text(count)} {noun}{'' if count == 1 else 's'}"


def _decimal_text(value: Decimal) -> str:
    text = format(value, "f")
    return text.rstrip("0").rstrip(".") if "." in text else text

"""Objectives: measurable predicates such as `p99 latency < 120 ms for /checkout`.

    objective  = [aggregate] metric comparator number [unit] [for selector] [over window]
    metric     = word {word}              several words are joined with "_", in lower case
    selector   = word | '"' text '"'
    window     = number time-unit

The two tails may come in either order. A single word before the comparator is always the metric,
so `count < 5` measures the metric `count`; the aggregate is then `last`.
"""

import math
import re
from dataclasses import dataclass, field
from decimal import Decimal
from enum import StrEnum

from goals.domain.syntax import Cursor, TextSyntaxError
from goals.domain.units import (
    NO_UNIT,
    UNITS,
    Unit,
    closest_unit,
    convert,
    find_unit,
    known_units,
)

TEXT_MAX = 500  # characters of an objective; the longest sensible one is about 120
METRIC_MAX = 120  # characters of a metric's name
SELECTOR_MAX = 200  # characters; a URL path with room to spare
THRESHOLD_MAX = 1e15  # below 2**53, so that every whole threshold is exact as a float
WINDOW_SECONDS_MAX = 366 * 86_400.0  # a year: longer than any telemetry is kept hot
EQUALITY_TOLERANCE = 1e-9  # relative; unit conversion may cost the last bits of a float

_WORD = re.compile(r"[A-Za-z_][A-Za-z0-9_.\-]*")
_COMPARATOR = re.compile(r"<=|>=|==|<|>|=|\u2264|\u2265")
_NUMBER = re.compile(r"[+-]?(?:\d+(?:\.\d+)?|\.\d+)(?:[eE][+-]?\d{1,4})?(?![\d.])", re.ASCII)
_CHUNK = re.compile(r"[^ ]+")  # up to the next space
_QUOTED = re.compile(r'"([^"]*)"')


class Aggregate(StrEnum):
    """How the samples of a metric become the one number that is compared."""

    P50 = "p50"
    P90 = "p90"
    P95 = "p95"
    P99 = "p99"
    P999 = "p999"
    MEAN = "mean"
    MIN = "min"
    MAX = "max"
    SUM = "sum"
    RATE = "rate"
    LAST = "last"
    COUNT = "count"


_AGGREGATES = frozenset(aggregate.value for aggregate in Aggregate)


class Comparator(StrEnum):
    """How the measured value must stand to the threshold."""

    LESS = "<"
    AT_MOST = "<="
    MORE = ">"
    AT_LEAST = ">="
    EQUAL = "=="


_COMPARATOR_SPELLINGS = {"=": "==", "\u2264": "<=", "\u2265": ">="}


class ObjectiveSyntaxError(TextSyntaxError):
    """An objective that the grammar refuses, with the place where it does."""

    noun = "objective"


@dataclass(frozen=True, slots=True)
class Objective:
    """A predicate over one measurement. Two objectives are equal when they ask the same.

    `threshold` is in `unit` (a symbol of `goals.domain.units`, "" for a bare number); an empty
    `selector` means the metric as a whole; `window_seconds` None means no window.
    """

    text: str = field(compare=False)  # as it was written
    aggregate: Aggregate
    metric: str
    comparator: Comparator
    threshold: float
    unit: str
    selector: str = ""
    window_seconds: float | None = None

    def is_met_by(self, value: float, unit: str) -> bool:
        """Does `value`, measured in `unit`, satisfy this? A value that is not finite never does.

        Raises `UnitMismatch` when the two units measure different things.
        """
        measured = convert(value, unit=unit, into=UNITS[self.unit])
        if not math.isfinite(measured):
            return False
        equal = math.isclose(measured, self.threshold, rel_tol=EQUALITY_TOLERANCE)
        match self.comparator:
            case Comparator.LESS:
                return measured < self.threshold and not equal
            case Comparator.AT_MOST:
                return measured < self.threshold or equal
            case Comparator.MORE:
                return measured > self.threshold and not equal
            case Comparator.AT_LEAST:
                return measured > self.threshold or equal
            case Comparator.EQUAL:
                return equal

    def progress(self, value: float, unit: str, first_value: float | None = None) -> float | None:
        """How much of the way from `first_value` to the threshold is done, 0.0 to 1.0.

        Both values are in `unit`. 1.0 exactly when the objective is met; None when unknown: no
        first value, or a value that is not finite. Raises `UnitMismatch`.
        """
        if self.is_met_by(value, unit):
            return 1.0
        target = UNITS[self.unit]
        measured = convert(value, unit=unit, into=target)
        if first_value is None or not math.isfinite(measured):
            return None
        first = convert(first_value, unit=unit, into=target)
        if not math.isfinite(first):
            return None
        distance = abs(first - self.threshold)
        if self.is_met_by(first_value, unit) or distance == 0.0:
            return 0.0  # it was there once and went away again
        done = 1.0 - abs(measured - self.threshold) / distance
        # Not met, so never 1.0: a strict comparator exactly on its threshold is only nearly there.
        return min(max(done, 0.0), math.nextafter(1.0, 0.0))

    def canonical(self) -> str:
        """The one spelling of this objective; parsing it gives an equal objective."""
        words = [self.aggregate.value, self.metric, self.comparator.value]
        words.append(number_text(self.threshold))
        if self.unit:
            words.append(self.unit)
        if self.selector:
            words += ["for", f'"{self.selector}"' if " " in self.selector else self.selector]
        if self.window_seconds is not None:
            words += ["over", _window_text(self.window_seconds)]
        return " ".join(words)


def parse_objective(text: str) -> Objective:
    """The objective a text states. Raises `ObjectiveSyntaxError`, which points at the place."""
    return _Parser(text).objective()


def number_text(value: float) -> str:
    """The shortest text that reads back as exactly this float; whole numbers without a point."""
    return str(int(value)) if value.is_integer() else repr(value)


class _Parser(Cursor):
    """Each method consumes what it names or raises."""

    error = ObjectiveSyntaxError
    text_max = TEXT_MAX
    chunk = _CHUNK

    def objective(self) -> Objective:
        self.start()
        aggregate, metric = self._measurement()
        comparator = self._comparator()
        number_at = self.position
        threshold, has_dollar = self._number("a number")
        unit = UNITS["USD"] if has_dollar else self._unit()
        if threshold < 0 and not unit.is_signed:
            self.fail(
                number_at,
                f"a number that is not negative ({unit.dimension})",
                number_text(threshold),
            )
        selector, window_seconds = self._tails()
        return Objective(
            text=self.text.strip(),
            aggregate=aggregate,
            metric=metric,
            comparator=comparator,
            threshold=threshold,
            unit=unit.symbol,
            selector=selector,
            window_seconds=window_seconds,
        )

    def _measurement(self) -> tuple[Aggregate, str]:
        start = self.position
        words: list[str] = []
        while word := self.take(_WORD):
            words.append(word.lower())
        if not words:
            self.fail(start, 'a metric such as "p99 latency"', self.rest())
        aggregate = Aggregate.LAST
        if len(words) > 1 and words[0] in _AGGREGATES:
            aggregate = Aggregate(words.pop(0))
        metric = "_".join(words)
        if len(metric) > METRIC_MAX:
            self.fail(start, f"a metric of at most {METRIC_MAX} characters", metric)
        return aggregate, metric

    def _comparator(self) -> Comparator:
        start = self.position
        symbol = self.take(_COMPARATOR)
        if symbol is None:
            self.fail(start, "a comparator (<, <=, >, >= or ==)", self.rest())
        return Comparator(_COMPARATOR_SPELLINGS.get(symbol, symbol))

    def _number(self, expected: str) -> tuple[float, bool]:
        start = self.position
        has_dollar = self.take(re.compile(r"\$")) is not None
        digits = self.take(_NUMBER)
        if digits is None:
            self.fail(self.position, expected, self.rest())
        exact = Decimal(digits)
        value = float(exact)
        if abs(exact) > THRESHOLD_MAX:
            self.fail(start, f"a number of at most {THRESHOLD_MAX:.0e}", digits)
        if exact and not value:
            self.fail(start, "a number that a 64-bit float can hold", digits)
        return value + 0.0, has_dollar  # + 0.0: "-0" is 0

    def _unit(self) -> Unit:
        start = self.position
        chunk = self.rest()
        if not chunk or chunk in ("for", "over"):
            return NO_UNIT
        unit = find_unit(chunk)
        if unit is None or chunk == "1":
            near = closest_unit(chunk)
            hint = f'a unit ({known_units()}), "for", "over" or the end'
            self.fail(start, f'the unit "{near}" or {hint}' if near else hint, chunk)
        self.take(_CHUNK)
        return unit

    def _tails(self) -> tuple[str, float | None]:
        selector, window_seconds = "", None
        while self.position < len(self.text):
            start = self.position
            word = self.take(_CHUNK)
            if word == "for" and not selector:
                selector = self._selector()
            elif word == "over" and window_seconds is None:
                window_seconds = self._window()
            else:
                left = ['"for"'] if not selector else []
                left += ['"over"'] if window_seconds is None else []
                self.fail(start, " or ".join([*left, "the end"]), word or "")
        return selector, window_seconds

    def _selector(self) -> str:
        start = self.position
        quoted = _QUOTED.match(self.text, start)
        if quoted:
            self.take(_QUOTED)
            selector = " ".join(quoted.group(1).split())
        else:
            selector = self.take(_CHUNK) or ""
        if not selector or '"' in selector:
            self.fail(start, 'what to measure, such as /checkout or "two words"', selector)
        if len(selector) > SELECTOR_MAX:
            self.fail(start, f"a selector of at most {SELECTOR_MAX} characters", selector)
        return selector

    def _window(self) -> float:
        start = self.position
        count, has_dollar = self._number('a length of time such as "10 minutes"')
        unit_at = self.position
        unit = NO_UNIT if has_dollar else self._unit()
        if unit.dimension != "time":
            self.fail(unit_at, "a unit of time (s, min or h)", self.text[unit_at:])
        seconds = convert(count, unit=unit.symbol, into=UNITS["s"])
        if not 0 < seconds <= WINDOW_SECONDS_MAX:
            self.fail(
                start, "a window longer than nothing and at most 366 days", number_text(count)
            )
        return seconds


def _window_text(seconds: float) -> str:
    for symbol in ("h", "min"):
        length = UNITS[symbol].numerator
        if seconds % length == 0:
            return f"{int(seconds) // length} {symbol}"
    return f"{number_text(seconds)} s"

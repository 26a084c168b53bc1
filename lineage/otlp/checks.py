"""Decides whether one span can be kept, before anything of it is stored."""

import math
from collections.abc import Callable
from typing import Final

from opentelemetry.proto.common.v1.common_pb2 import KeyValue
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from lineage.telemetry import attributes as names

TRACE_ID_BYTES: Final = 16
SPAN_ID_BYTES: Final = 8
NO_TRACE: Final = bytes(TRACE_ID_BYTES)
NO_SPAN: Final = bytes(SPAN_ID_BYTES)
NANOSECONDS: Final = 1_000_000_000
# Clocks that are stepped back while a span is open make it end before it began by a little.
MAX_BACKWARDS_NANOSECONDS: Final = NANOSECONDS
# The store counts nanoseconds in a signed 64-bit number, which ends in 2262.
MAX_TIME_NANOSECONDS: Final = (1 << 63) - 1
MAX_COUNT: Final = 1_000_000_000_000  # tokens or samples of one span; far above any real one

NUMBER_KINDS: Final = ("double_value", "int_value")


def _finite(number: float) -> bool:
    return math.isfinite(number)


def _confidence(number: float) -> bool:
    return 0 <= number <= 1  # NaN compares false with everything


def _count(number: float) -> bool:
    return 0 <= number <= MAX_COUNT and number == int(number)


TEXTS: Final = frozenset(
    {
        names.PARENT_OBSERVATION,
        names.OBSERVATION_METRIC,
        names.OBSERVATION_NAME,
        names.OBSERVATION_AGGREGATE,
        names.OBSERVATION_SELECTOR,
        names.OBSERVATION_UNIT,
        names.CHANGE_TARGET,
        names.CHANGE_FROM,
        names.CHANGE_TO,
        names.MODEL_DIGEST,
        *names.MODEL,
    }
)
NUMBERS: Final[dict[str, tuple[Callable[[float], bool], str]]] = {
    names.CONFIDENCE: (_confidence, "must be a number from 0 to 1"),
    names.OBSERVATION_VALUE: (_finite, "must be a finite number"),
    **dict.fromkeys(
        (names.OBSERVATION_SAMPLES, *names.INPUT_TOKENS, *names.OUTPUT_TOKENS),
        (_count, f"must be a whole number from 0 to {MAX_COUNT}"),
    ),
}


def _attribute_problem(attribute: KeyValue) -> str:
    # Runs for every attribute of every span: a call or a look-up more here is measurable.
    key = attribute.key
    if key in TEXTS:
        if not attribute.value.HasField("string_value"):
            return f"attribute {key} must be a string"
    elif rule := NUMBERS.get(key):
        value = attribute.value
        kind = value.WhichOneof("value")
        if kind not in NUMBER_KINDS or not rule[0](getattr(value, kind)):
            return f"attribute {key} {rule[1]}"
    return ""


def span_problem(span: Span, *, latest_nanoseconds: int = MAX_TIME_NANOSECONDS) -> str:
    """Why a span cannot be kept, or "" when it can."""
    if len(span.trace_id) != TRACE_ID_BYTES or span.trace_id == NO_TRACE:
        return "trace_id must be 16 bytes, not all zero"
    if len(span.span_id) != SPAN_ID_BYTES or span.span_id == NO_SPAN:
        return "span_id must be 8 bytes, not all zero"
    if len(span.parent_span_id) not in (0, SPAN_ID_BYTES):
        return "parent_span_id must be 8 bytes or absent"
    start, end = span.start_time_unix_nano, span.end_time_unix_nano
    if not 0 < start <= latest_nanoseconds or not 0 < end <= latest_nanoseconds:
        return "start_time_unix_nano and end_time_unix_nano must be set and not in the future"
    if end < start - MAX_BACKWARDS_NANOSECONDS:
        return "end_time_unix_nano must not lie before start_time_unix_nano"
    for attribute in span.attributes:
        if problem := _attribute_problem(attribute):
            return problem
    return ""

"""Decides whether one span can be kept, before anything of it is stored."""

import math
from collections.abc import Callable
from typing import Final

from opentelemetry.proto.common.v1.common_pb2 import AnyValue
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

Check = Callable[[AnyValue], str]


def _number(value: AnyValue) -> float | None:
    kind = value.WhichOneof("value")
    if kind == "double_value":
        return float(value.double_value)
    return float(value.int_value) if kind == "int_value" else None


def _text(value: AnyValue) -> str:
    return "" if value.WhichOneof("value") == "string_value" else "must be a string"


def _finite(value: AnyValue) -> str:
    number = _number(value)
    return "" if number is not None and math.isfinite(number) else "must be a finite number"


def _confidence(value: AnyValue) -> str:
    number = _number(value)
    # NaN compares false with everything, so it fails here too.
    return "" if number is not None and 0 <= number <= 1 else "must be a number from 0 to 1"


def _count(value: AnyValue) -> str:
    number = _number(value)
    if number is not None and 0 <= number <= MAX_COUNT and number == int(number):
        return ""
    return f"must be a whole number from 0 to {MAX_COUNT}"


CHECKS: Final[dict[str, Check]] = {
    names.PARENT_OBSERVATION: _text,
    names.CONFIDENCE: _confidence,
    names.OBSERVATION_METRIC: _text,
    names.OBSERVATION_NAME: _text,
    names.OBSERVATION_AGGREGATE: _text,
    names.OBSERVATION_SELECTOR: _text,
    names.OBSERVATION_UNIT: _text,
    names.OBSERVATION_VALUE: _finite,
    names.OBSERVATION_SAMPLES: _count,
    names.CHANGE_TARGET: _text,
    names.CHANGE_FROM: _text,
    names.CHANGE_TO: _text,
    names.MODEL_DIGEST: _text,
    **dict.fromkeys(names.MODEL, _text),
    **dict.fromkeys(names.INPUT_TOKENS + names.OUTPUT_TOKENS, _count),
}


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
        check = CHECKS.get(attribute.key)
        if check is not None and (problem := check(attribute.value)):
            return f"attribute {attribute.key} {problem}"
    return ""

"""Reads spans out of an OTLP export."""

import datetime as dt
from collections.abc import Iterator

from google.protobuf.message import DecodeError
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span as OtlpSpan

from lineage.telemetry.attributes import (
    CONFIDENCE,
    OBSERVATION_AGGREGATE,
    OBSERVATION_METRIC,
    OBSERVATION_SAMPLES,
    OBSERVATION_SELECTOR,
    OBSERVATION_UNIT,
    OBSERVATION_VALUE,
    PARENT_OBSERVATION,
    attribute_values,
    number_of,
    text_of,
)
from lineage.telemetry.base import (
    Observation,
    Span,
    SpanBatch,
    SpanOwner,
    TelemetryRejected,
)

EPOCH = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)
NANOSECONDS_PER_MICROSECOND = 1000
STATUS_NAMES = {0: "unset", 1: "ok", 2: "error"}
TRACE_ID_BYTES = 16
SPAN_ID_BYTES = 8


def time_of(nanoseconds: int) -> dt.datetime:
    """A UTC time from nanoseconds since 1970, cut to microseconds."""
    return EPOCH + dt.timedelta(microseconds=nanoseconds // NANOSECONDS_PER_MICROSECOND)


def spans_of(batch: SpanBatch) -> Iterator[Span]:
    """Every span of an export, in its order.

    Raises: TelemetryRejected when the body is no export or a span's ids have the wrong length.
    """
    try:
        export = ExportTraceServiceRequest.FromString(batch.body)
    except DecodeError as error:
        raise TelemetryRejected("The body is not an ExportTraceServiceRequest.") from error
    for resource_spans in export.resource_spans:
        for scope_spans in resource_spans.scope_spans:
            for span in scope_spans.spans:
                yield _span(span, batch.owner)


def _span(span: OtlpSpan, owner: SpanOwner) -> Span:
    if len(span.trace_id) != TRACE_ID_BYTES or len(span.span_id) != SPAN_ID_BYTES:
        raise TelemetryRejected("A trace id has 16 bytes and a span id has 8.")
    attributes = attribute_values(span.attributes)
    return Span(
        owner=owner,
        trace_id=span.trace_id.hex(),
        span_id=span.span_id.hex(),
        parent_span_id=span.parent_span_id.hex(),
        name=span.name,
        start_at=time_of(span.start_time_unix_nano),
        end_at=time_of(span.end_time_unix_nano),
        status=STATUS_NAMES.get(span.status.code, "unset"),
        status_message=span.status.message,
        parent_observation=text_of(attributes, PARENT_OBSERVATION).lower(),
        confidence=number_of(attributes, CONFIDENCE),
        attributes=attributes,
    )


def observation_of(span: Span) -> Observation | None:
    """What a span measured, or None when it holds no value."""
    metric = text_of(span.attributes, OBSERVATION_METRIC)
    value = number_of(span.attributes, OBSERVATION_VALUE)
    if not metric or value is None:
        return None
    return Observation(
        span_id=span.span_id,
        attempt_uid=span.owner.attempt_uid,
        metric=metric,
        aggregate=text_of(span.attributes, OBSERVATION_AGGREGATE),
        selector=text_of(span.attributes, OBSERVATION_SELECTOR),
        value=value,
        unit=text_of(span.attributes, OBSERVATION_UNIT),
        samples=int(number_of(span.attributes, OBSERVATION_SAMPLES) or 0),
        at=span.end_at,
    )

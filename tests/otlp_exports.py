"""Builds OTLP exports for tests."""

from collections.abc import Mapping
from typing import Any

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, ArrayValue, KeyValue, KeyValueList
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from lineage.telemetry.base import SpanBatch, SpanOwner

SECOND = 1_000_000_000
START = 1_800_000_000 * SECOND
TRACE = "0af7651916cd43dd8448eb211c80319c"


def owner(**changes: str) -> SpanOwner:
    fields = {
        "namespace": "default", "goal_uid": "goal-1", "agent": "optimizer", "task": "optimizer",
        "attempt_uid": "attempt-1",
    }  # fmt: skip
    return SpanOwner(**{**fields, **changes})


def any_value(value: Any) -> AnyValue:
    match value:
        case None:
            return AnyValue()
        case bool():
            return AnyValue(bool_value=value)
        case str():
            return AnyValue(string_value=value)
        case int():
            return AnyValue(int_value=value)
        case float():
            return AnyValue(double_value=value)
        case bytes():
            return AnyValue(bytes_value=value)
        case list():
            return AnyValue(array_value=ArrayValue(values=map(any_value, value)))
        case dict():
            return AnyValue(kvlist_value=KeyValueList(values=attributes(value)))
    raise TypeError(type(value))


def attributes(values: Mapping[str, Any]) -> list[KeyValue]:
    return [KeyValue(key=key, value=any_value(value)) for key, value in values.items()]


def span(
    span_id: str,
    *,
    parent: str = "",
    because: str = "",
    at: float = 0,
    name: str = "step",
    trace: str = TRACE,
    **values: Any,
) -> Span:
    """`at` in seconds after START; attribute names with __ for dots."""
    found = {key.replace("__", "."): value for key, value in values.items()}
    if because:
        found["action.parent_observation"] = because
    start = START + int(at * SECOND)
    return Span(
        trace_id=bytes.fromhex(trace),
        span_id=bytes.fromhex(span_id),
        parent_span_id=bytes.fromhex(parent),
        name=name,
        start_time_unix_nano=start,
        end_time_unix_nano=start + SECOND // 2,
        attributes=attributes(found),
    )


def export(*spans: Span) -> ExportTraceServiceRequest:
    request = ExportTraceServiceRequest()
    resource = request.resource_spans.add()
    resource.resource.attributes.extend(attributes({"service.name": "agent"}))
    scope = resource.scope_spans.add()
    scope.scope.name = "test"
    scope.spans.extend(spans)
    return request


def batch(*spans: Span, **changes: str) -> SpanBatch:
    return SpanBatch(owner(**changes), export(*spans).SerializeToString())

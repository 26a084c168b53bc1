"""Accepts one OTLP trace export: decodes it once, drops spans that cannot be kept."""

import datetime as dt
from collections import Counter
from dataclasses import dataclass
from typing import Final

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import ScopeSpans

from lineage.otlp.bodies import JSON, decompressed, from_json, from_protobuf, media_type
from lineage.otlp.checks import MAX_TIME_NANOSECONDS, NANOSECONDS, NO_SPAN, span_problem

MAX_AHEAD: Final = dt.timedelta(days=1)  # how far a sender's clock may be ahead of ours
MAX_REASONS: Final = 5  # named in one answer


@dataclass(frozen=True, slots=True)
class AcceptedTraces:
    """An export fit to be stored, and how many of its spans were dropped and why."""

    body: bytes  # serialised ExportTraceServiceRequest with the good spans only
    span_count: int
    rejected: int
    rejection: str


def accept_traces(
    body: bytes, *, content_type: str, content_encoding: str, now: dt.datetime | None = None
) -> AcceptedTraces:
    """Decode and check an export as it came over HTTP.

    The result is written anew from what was checked, never the bytes that came: two readers may
    take odd protobuf (a field given twice) differently, and the store must see what was checked.

    Raises: OtlpError 400 malformed, 413 too large, 415 unknown type or encoding.
    """
    kind = media_type(content_type)
    plain = decompressed(body, content_encoding=content_encoding)
    request = from_json(plain) if kind == JSON else from_protobuf(plain)
    latest = MAX_TIME_NANOSECONDS
    if now is not None:
        latest = min(latest, int((now + MAX_AHEAD).timestamp()) * NANOSECONDS)
    kept, problems = _drop_bad_spans(request, latest_nanoseconds=latest)
    request.DiscardUnknownFields()
    return AcceptedTraces(
        body=request.SerializeToString() if kept else b"",
        span_count=kept,
        rejected=problems.total(),
        rejection=_sentence(problems),
    )


def _drop_bad_spans(
    request: ExportTraceServiceRequest, *, latest_nanoseconds: int
) -> tuple[int, Counter[str]]:
    kept = 0
    problems: Counter[str] = Counter()
    for resource_spans in request.resource_spans:
        for scope_spans in resource_spans.scope_spans:
            found = _problems(scope_spans, latest_nanoseconds=latest_nanoseconds)
            if found:
                good = [s for i, s in enumerate(scope_spans.spans) if i not in found]
                problems.update(found.values())
                replacement = ScopeSpans(spans=good)
                scope_spans.ClearField("spans")
                scope_spans.spans.extend(replacement.spans)
            kept += len(scope_spans.spans)
    return kept, problems


def _problems(scope_spans: ScopeSpans, *, latest_nanoseconds: int) -> dict[int, str]:
    """What is wrong with each bad span, by its place."""
    found = {}
    for place, span in enumerate(scope_spans.spans):
        problem = span_problem(span, latest_nanoseconds=latest_nanoseconds)
        if problem:
            found[place] = problem
        elif span.parent_span_id == NO_SPAN:
            span.ClearField("parent_span_id")  # some exporters write a root's parent as zeros
    return found


def _sentence(problems: Counter[str]) -> str:
    if not problems:
        return ""
    named = [f"{problem} ({count})" for problem, count in problems.most_common(MAX_REASONS)]
    more = len(problems) - len(named)
    return "Dropped: " + "; ".join(named) + (f"; and {more} other reasons." if more else ".")

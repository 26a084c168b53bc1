"""What is kept of an OTLP export, and how bad ones are refused."""

import datetime as dt
import gzip
import json
import time
import tracemalloc
import zlib
from typing import Any

import pytest
from google.protobuf.json_format import MessageToDict
from hypothesis import given, settings
from hypothesis import strategies as st
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from lineage.otlp import AcceptedTraces, OtlpError, accept_traces, partial_success_body
from lineage.otlp.bodies import MAX_BODY_BYTES, MAX_SPANS
from lineage.telemetry.base import SpanBatch
from lineage.telemetry.spans import spans_of
from tests.otlp_exports import START, export, owner, span

PROTOBUF = "application/x-protobuf"
JSON = "application/json"
A, B, C = "a" * 16, "b" * 16, "c" * 16


def accept(
    body: bytes, *, content_type: str = PROTOBUF, content_encoding: str = "", **more: Any
) -> AcceptedTraces:
    return accept_traces(body, content_type=content_type, content_encoding=content_encoding, **more)


def refused(body: bytes, **more: Any) -> OtlpError:
    with pytest.raises(OtlpError) as caught:
        accept(body, **more)
    return caught.value


def status_of(body: bytes, **more: Any) -> int:
    """The HTTP status an export gets; what is accepted must also be readable."""
    try:
        accepted = accept(body, **more)
    except OtlpError as error:
        return error.status
    assert len(list(spans_of(SpanBatch(owner(), accepted.body)))) == accepted.span_count
    return 200


def ids_of(accepted: AcceptedTraces) -> list[str]:
    return [found.span_id for found in spans_of(SpanBatch(owner(), accepted.body))]


def json_of(request: ExportTraceServiceRequest) -> dict[str, Any]:
    """OTLP's JSON, by protobuf's mapping with the ids turned to hex."""
    document: dict[str, Any] = MessageToDict(request)
    for resource_spans in document["resourceSpans"]:
        for scope_spans in resource_spans["scopeSpans"]:
            for one, raw in zip(
                scope_spans["spans"],
                request.resource_spans[0].scope_spans[0].spans,
                strict=True,
            ):
                one["traceId"], one["spanId"] = raw.trace_id.hex(), raw.span_id.hex()
                one["parentSpanId"] = raw.parent_span_id.hex()
    return document


@pytest.mark.parametrize("encoding", ["", "identity", "gzip", "GZIP"])
@pytest.mark.parametrize("kind", [PROTOBUF, JSON, "application/json; charset=utf-8"])
def test_both_encodings_are_stored_alike(kind: str, encoding: str) -> None:
    request = export(span(A, action__confidence=0.5, n=3), span(B, parent=A, because=A))
    plain = request.SerializeToString()
    body = plain if kind == PROTOBUF else json.dumps(json_of(request)).encode()
    if encoding.lower() == "gzip":
        body = gzip.compress(body)
    accepted = accept(body, content_type=kind, content_encoding=encoding)
    assert (accepted.span_count, accepted.rejected, accepted.rejection) == (2, 0, "")
    assert ExportTraceServiceRequest.FromString(accepted.body) == request


def test_json_numbers_may_be_strings_and_unknown_keys_are_ignored() -> None:
    document = {
        "resourceSpans": [{"futureField": {"x": [1]}, "scopeSpans": [{"spans": [{
            "traceId": "0AF7651916CD43DD8448EB211C80319C", "spanId": A.upper(), "name": "n",
            "kind": 1, "startTimeUnixNano": str(START), "endTimeUnixNano": START + 5,
            "status": {"code": 2}, "whatIsThis": True,
            "attributes": [
                {"key": "i", "value": {"intValue": "7"}}, {"key": "j", "value": {"intValue": 8}},
                {"key": "action.confidence", "value": {"doubleValue": 1}},
                {"key": "b", "value": {"bytesValue": "AP8="}},
            ],
            "links": [{"traceId": "f" * 32, "spanId": B}],
        }]}]}]
    }  # fmt: skip
    accepted = accept(json.dumps(document).encode(), content_type=JSON)
    [stored] = spans_of(SpanBatch(owner(), accepted.body))
    assert (stored.span_id, stored.status, stored.confidence) == (A, "error", 1.0)
    assert (stored.attributes["i"], stored.attributes["j"], stored.attributes["b"]) == (
        7,
        8,
        "AP8=",
    )
    raw = ExportTraceServiceRequest.FromString(accepted.body).resource_spans[0].scope_spans[0]
    assert raw.spans[0].links[0].span_id.hex() == B


def test_no_spans_are_fine() -> None:
    empty = AcceptedTraces(b"", 0, 0, "")
    assert accept(b"") == empty
    assert accept(b"{}", content_type=JSON) == empty
    assert accept(export().SerializeToString()) == empty


def bad(change: dict[str, Any]) -> Span:
    found = span(B)
    for name, value in change.items():
        setattr(found, name, value)
    return found


@pytest.mark.parametrize(
    ("span_", "words"),
    [
        (bad({"trace_id": b""}), "trace_id"),
        (bad({"trace_id": bytes(16)}), "trace_id"),
        (bad({"trace_id": b"x" * 17}), "trace_id"),
        (bad({"span_id": b""}), "span_id"),
        (bad({"span_id": bytes(8)}), "span_id"),
        (bad({"span_id": b"x" * 7}), "span_id"),
        (bad({"parent_span_id": b"x"}), "parent_span_id"),
        (bad({"start_time_unix_nano": 0}), "start_time_unix_nano"),
        (bad({"end_time_unix_nano": 0}), "end_time_unix_nano"),
        (bad({"end_time_unix_nano": START - 2_000_000_000}), "must not lie before"),
        (bad({"end_time_unix_nano": (1 << 64) - 1}), "future"),
        (span(B, action__confidence=1.01), "action.confidence"),
        (span(B, action__confidence=-0.1), "action.confidence"),
        (span(B, action__confidence=float("nan")), "action.confidence"),
        (span(B, action__confidence="high"), "action.confidence"),
        (span(B, action__confidence=True), "action.confidence"),
        (span(B, action__parent_observation=7), "action.parent_observation"),
        (span(B, observation__value=float("inf")), "observation.value"),
        (span(B, observation__samples=-1), "observation.samples"),
        (span(B, gen_ai__usage__input_tokens=-1), "gen_ai.usage.input_tokens"),
        (span(B, gen_ai__usage__output_tokens=0.5), "gen_ai.usage.output_tokens"),
        (span(B, llm__token_count__prompt="3"), "llm.token_count.prompt"),
        (span(B, model__digest=["sha256:x"]), "model.digest"),
    ],
)
def test_a_bad_span_is_dropped_and_the_others_stay(span_: Span, words: str) -> None:
    accepted = accept(export(span(A), span_, span(C)).SerializeToString())
    assert ids_of(accepted) == [A, C]
    assert (accepted.span_count, accepted.rejected) == (2, 1)
    assert words in accepted.rejection
    alone = accept(export(span_).SerializeToString())
    assert (alone.body, alone.span_count, alone.rejected) == (b"", 0, 1)


@pytest.mark.parametrize("span_id", ["", "xyz", "a" * 15, "a" * 18, 5, None, "é" * 16])
def test_a_bad_id_in_json_drops_that_span(span_id: object) -> None:
    document = json_of(export(span(A), span(B)))
    document["resourceSpans"][0]["scopeSpans"][0]["spans"][1]["spanId"] = span_id
    accepted = accept(json.dumps(document).encode(), content_type=JSON)
    assert (ids_of(accepted), accepted.rejected) == ([A], 1)


def test_clock_skew_within_reason_is_kept() -> None:
    skewed = bad({"end_time_unix_nano": START - 500_000_000, "parent_span_id": bytes(8)})
    accepted = accept(export(skewed).SerializeToString())
    [stored] = spans_of(SpanBatch(owner(), accepted.body))
    assert stored.parent_span_id == ""
    now = dt.datetime.fromtimestamp(START // 1_000_000_000, dt.UTC)
    body = export(span(A)).SerializeToString()
    assert accept(body, now=now - dt.timedelta(hours=23)).span_count == 1
    assert accept(body, now=now - dt.timedelta(hours=25)).rejected == 1


def test_a_field_given_twice_is_stored_as_it_was_checked() -> None:
    raw = export(span(A)).resource_spans[0].scope_spans[0].spans[0]
    raw.attributes.extend(span(B, action__confidence=0.4).attributes)
    twice = raw.SerializeToString() + Span(span_id=bytes.fromhex(C)).SerializeToString()

    def wrap(field: int, body: bytes) -> bytes:
        length = len(body)
        return bytes([field << 3 | 2, length & 0x7F | 0x80, length >> 7]) + body

    accepted = accept(wrap(1, wrap(2, wrap(2, twice))))
    assert ids_of(accepted) == [C]
    assert bytes.fromhex(A) not in accepted.body


def test_fields_that_nobody_knows_are_not_stored() -> None:
    unknown = b"\xfa\x7f\x06secret"  # field 2047, length-delimited
    accepted = accept(export(span(A)).SerializeToString() + unknown)
    assert accepted.span_count == 1
    assert b"secret" not in accepted.body


@pytest.mark.parametrize(
    "body",
    [
        b"\x0a", b"\xff" * 40, b"\x0a\x05abc", b"not protobuf", b"\x0b\x0c", bytes(9),
        b"\x0a\x02\x12\x05",
    ],
)  # fmt: skip
def test_malformed_protobuf_is_refused(body: bytes) -> None:
    error = refused(body)
    assert (error.status, "protobuf" in error.message) == (400, True)


def test_text_that_is_not_utf8_is_refused() -> None:
    body = export(span(A, name="n?n")).SerializeToString().replace(b"n?n", b"n\xffn")
    assert refused(body).status == 400


@pytest.mark.parametrize(
    "body",
    [
        b"", b"[]", b"null", b"{", b"\xff\xfe", b'{"resourceSpans": 5}', b'{"resourceSpans": [5]}',
        b'{"resourceSpans": [{"scopeSpans": {}}]}',
        b'{"resourceSpans": [{"scopeSpans": [null, 1]}]}',
        b'{"resourceSpans":[{"scopeSpans":[{"spans":["x"]}]}]}',
        b'{"resourceSpans":[{"scopeSpans":[{"spans":[{"name":"\\ud800"}]}]}]}',
        b'{"resourceSpans":[{"scopeSpans":[{"spans":[{"startTimeUnixNano":"-1"}]}]}]}',
        b'{"resourceSpans":[{"scopeSpans":[{"spans":[{"kind":' + b"9" * 5000 + b"}]}]}]}",
        b'{"resourceSpans":[{"scopeSpans":[{"spans":[{"attributes":[{"value":NaN}]}]}]}]}',
        b'{"a":' * 100_000, b"[" * 200_000,
    ],
)  # fmt: skip
def test_malformed_json_is_refused(body: bytes) -> None:
    error = refused(body, content_type=JSON)
    assert (error.status, "JSON" in error.message) == (400, True)


@pytest.mark.parametrize("kind", ["", "text/plain", "application/grpc", "application/xml"])
def test_an_unknown_type_is_refused(kind: str) -> None:
    assert refused(b"", content_type=kind).status == 415


@pytest.mark.parametrize("encoding", ["deflate", "br", "zstd", "gzip, gzip"])
def test_an_unknown_encoding_is_refused(encoding: str) -> None:
    assert refused(b"", content_encoding=encoding).status == 415


def test_damaged_gzip_is_refused() -> None:
    body = gzip.compress(export(span(A)).SerializeToString())
    for damaged in (b"", b"plain", body[:-9], body[:12], body + b"x", body + body):
        assert refused(damaged, content_encoding="gzip").status == 400, damaged


def test_a_gigabyte_of_zeros_stops_at_the_limit() -> None:
    packer = zlib.compressobj(9, zlib.DEFLATED, 31)
    block = bytes(1 << 20)
    bomb = b"".join(packer.compress(block) for _ in range(1024)) + packer.flush()
    assert len(bomb) < 2 << 20
    tracemalloc.start()
    began = time.monotonic()
    assert refused(bomb, content_encoding="gzip").status == 413
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 3 * MAX_BODY_BYTES
    assert time.monotonic() - began < 5


def test_a_body_over_the_limit_is_refused() -> None:
    assert refused(bytes(MAX_BODY_BYTES + 1)).status == 413
    assert refused(b" " * (MAX_BODY_BYTES + 1), content_type=JSON).status == 413


def test_millions_of_empty_spans_are_refused_before_they_are_decoded() -> None:
    spans = b"\x12\x00" * (MAX_SPANS + 1)

    def wrap(field: int, body: bytes) -> bytes:
        out, length = bytearray([field << 3 | 2]), len(body)
        while length > 0x7F:
            out.append(length & 0x7F | 0x80)
            length >>= 7
        return bytes(out) + bytes([length]) + body

    assert refused(wrap(1, wrap(2, spans))).status == 413
    document = {"resourceSpans": [{"scopeSpans": [{"spans": [{}] * (MAX_SPANS + 1)}]}]}
    assert refused(json.dumps(document).encode(), content_type=JSON).status == 413
    assert refused(b"[" + b"{}," * 1_000_001 + b"{}]", content_type=JSON).status == 413


@given(st.binary(max_size=200), st.sampled_from([PROTOBUF, JSON]), st.sampled_from(["", "gzip"]))
@settings(max_examples=300, deadline=None)
def test_no_bytes_make_it_fall_over(body: bytes, kind: str, encoding: str) -> None:
    assert status_of(body, content_type=kind, content_encoding=encoding) in (200, 400, 413)


@given(st.data())
@settings(max_examples=200, deadline=None)
def test_no_damage_makes_it_fall_over(data: st.DataObject) -> None:
    body = bytearray(
        export(span(A, action__confidence=0.5, l=[1, {"k": b"v"}])).SerializeToString()
    )
    for _ in range(data.draw(st.integers(1, 4))):
        body[data.draw(st.integers(0, len(body) - 1))] = data.draw(st.integers(0, 255))
    assert status_of(bytes(body)) in (200, 400)


def test_partial_success_is_told_in_the_request_encoding() -> None:
    answer = partial_success_body(rejected=2, rejection="why", content_type=PROTOBUF)
    told = ExportTraceServiceResponse.FromString(answer).partial_success
    assert (told.rejected_spans, told.error_message) == (2, "why")
    answer = partial_success_body(rejected=2, rejection="why", content_type=JSON)
    assert json.loads(answer) == {"partialSuccess": {"rejectedSpans": "2", "errorMessage": "why"}}
    assert partial_success_body(rejected=0, rejection="", content_type=PROTOBUF) == b""
    assert partial_success_body(rejected=0, rejection="", content_type=JSON) == b"{}"

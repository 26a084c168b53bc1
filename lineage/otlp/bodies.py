"""Turns the bytes of a request into an export message, within limits of size and memory."""

import binascii
import json
import zlib
from collections.abc import Iterator
from typing import Any, Final, NoReturn

from google.protobuf.json_format import ParseDict, ParseError
from google.protobuf.message import DecodeError
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from lineage.otlp.errors import OtlpError

MAX_BODY_BYTES: Final = 20 << 20
MAX_SPANS: Final = 50_000  # of one request; an empty span takes 2 bytes here and 200 once decoded
MAX_JSON_CONTAINERS: Final = 1_000_000  # objects and arrays; each takes up to 230 bytes decoded
GZIP_WINDOW: Final = 16 + zlib.MAX_WBITS
INFLATE_STEP: Final = 1 << 20
MAX_VARINT_BITS: Final = 63  # https://protobuf.dev/programming-guides/encoding/#varints

PROTOBUF: Final = "application/x-protobuf"
JSON: Final = "application/json"

TOO_LARGE: Final = f"The body is over {MAX_BODY_BYTES >> 20} MiB once decompressed; split it."
TOO_MANY: Final = f"The request holds more than {MAX_SPANS} spans; split it."


def media_type(content_type: str) -> str:
    """The request's type.

    Raises: OtlpError 415.
    """
    name = content_type.partition(";")[0].strip().lower()
    if name not in (PROTOBUF, JSON):
        raise OtlpError(415, f"Content-Type must be {PROTOBUF} or {JSON}.")
    return name


def decompressed(body: bytes, *, content_encoding: str) -> bytes:
    """The plain body; stops inflating as soon as the limit is passed.

    Raises: OtlpError 400, 413 or 415.
    """
    match content_encoding.strip().lower():
        case "" | "identity":
            plain = body
        case "gzip":
            plain = _gunzip(body)
        case _:
            raise OtlpError(415, "Content-Encoding must be gzip or identity.")
    if len(plain) > MAX_BODY_BYTES:
        raise OtlpError(413, TOO_LARGE)
    return plain


def _gunzip(body: bytes) -> bytes:
    member = zlib.decompressobj(GZIP_WINDOW)
    out = bytearray()
    pending = body
    try:
        while not member.eof:
            piece = member.decompress(pending, INFLATE_STEP)
            pending = member.unconsumed_tail
            out += piece
            if len(out) > MAX_BODY_BYTES:
                raise OtlpError(413, TOO_LARGE)
            if not piece and not pending and not member.eof:
                raise OtlpError(400, "The gzip body is cut off.")
    except zlib.error as error:
        raise OtlpError(400, "The body is not valid gzip.") from error
    if member.unused_data:
        raise OtlpError(400, "The gzip body goes on after its end.")
    return bytes(out)


def _malformed(what: str) -> NoReturn:
    raise OtlpError(400, f"The body is not {what}.")


def _varint(body: bytes, at: int) -> tuple[int, int]:
    number = shift = 0
    while shift <= MAX_VARINT_BITS:
        byte = body[at]
        at += 1
        number |= (byte & 0x7F) << shift
        if byte < 0x80:
            return number, at
        shift += 7
    raise IndexError


def _submessages(body: bytes, start: int, end: int, wanted: int) -> Iterator[tuple[int, int]]:
    """Where each length-delimited field `wanted` of one message begins and ends."""
    at = start
    while at < end:
        tag, at = _varint(body, at)
        match tag & 7:
            case 0:
                _, at = _varint(body, at)
            case 1:
                at += 8
            case 2:
                length, at = _varint(body, at)
                if at + length > end:
                    raise IndexError
                if tag >> 3 == wanted:
                    yield at, at + length
                at += length
            case 5:
                at += 4
            case _:
                raise IndexError  # groups: OTLP has none


def count_spans(body: bytes) -> int:
    """How many spans a protobuf export holds, told without decoding it.

    Raises: OtlpError 400 when it is no protobuf, 413 when there are too many.
    """
    count = 0
    try:
        for resource_start, resource_end in _submessages(body, 0, len(body), 1):
            for scope_start, scope_end in _submessages(body, resource_start, resource_end, 2):
                for _ in _submessages(body, scope_start, scope_end, 2):
                    count += 1
                    if count > MAX_SPANS:
                        raise OtlpError(413, TOO_MANY)
    except IndexError:
        _malformed("a protobuf ExportTraceServiceRequest")
    return count


def from_protobuf(body: bytes) -> ExportTraceServiceRequest:
    """Decode a protobuf export.

    Raises: OtlpError 400 or 413.
    """
    count_spans(body)
    try:
        request: ExportTraceServiceRequest = ExportTraceServiceRequest.FromString(body)
    except DecodeError:
        _malformed("a protobuf ExportTraceServiceRequest")
    return request


def _no_constant(name: str) -> NoReturn:
    raise ValueError(name)


def from_json(body: bytes) -> ExportTraceServiceRequest:
    """Decode a JSON export: ids are hex, 64-bit numbers may be strings, unknown keys are ignored.

    https://opentelemetry.io/docs/specs/otlp/#json-protobuf-encoding
    Raises: OtlpError 400 or 413.
    """
    if body.count(b"{") + body.count(b"[") > MAX_JSON_CONTAINERS:
        raise OtlpError(413, "The JSON body holds too many objects; split it.")
    try:
        document = json.loads(body.decode("utf-8"), parse_constant=_no_constant)
        if not isinstance(document, dict):
            _malformed("a JSON object")
        _hex_ids_to_base64(document)
        request = ExportTraceServiceRequest()
        ParseDict(document, request, ignore_unknown_fields=True)
    except (ValueError, TypeError, AttributeError, RecursionError, ParseError):
        _malformed("a JSON ExportTraceServiceRequest")
    return request


def _either(found: Any, camel: str, snake: str) -> list[Any]:
    values = (found.get(camel) or found.get(snake) or []) if isinstance(found, dict) else []
    return values if isinstance(values, list) else []


def _hex_ids_to_base64(document: dict[str, Any]) -> None:
    """OTLP's JSON writes ids in hex where protobuf's own JSON mapping has base64."""
    count = 0
    for resource_spans in _either(document, "resourceSpans", "resource_spans"):
        for scope_spans in _either(resource_spans, "scopeSpans", "scope_spans"):
            spans = _either(scope_spans, "spans", "spans")
            count += len(spans)
            if count > MAX_SPANS:
                raise OtlpError(413, TOO_MANY)
            for span in spans:
                _convert_ids(span)
                for link in _either(span, "links", "links"):
                    _convert_ids(link)


def _convert_ids(holder: object) -> None:
    if not isinstance(holder, dict):
        raise TypeError(holder)
    for key in ("traceId", "spanId", "parentSpanId", "trace_id", "span_id", "parent_span_id"):
        if key in holder:
            holder[key] = _base64_of(holder[key])


def _base64_of(text: object) -> str:
    # What is no hex becomes one byte: a wrong length, so that this span alone is dropped.
    try:
        raw = bytes.fromhex(text) if isinstance(text, str) else b"?"
    except ValueError:
        raw = b"?"
    return binascii.b2a_base64(raw, newline=False).decode()

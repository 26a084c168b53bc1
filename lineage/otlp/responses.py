"""Encodes OTLP answers in the encoding of the request."""

import json
from typing import Final

from google.rpc.status_pb2 import Status
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceResponse

from lineage.otlp.bodies import JSON, PROTOBUF

# https://github.com/googleapis/googleapis/blob/master/google/rpc/code.proto
CODE_OF_STATUS: Final = {
    400: 3, 401: 16, 403: 7, 404: 5, 405: 12, 408: 4, 413: 8, 415: 3, 429: 8, 500: 13, 503: 14,
}  # fmt: skip
UNKNOWN_CODE: Final = 2


def answer_type(content_type: str) -> str:
    """The content type of the answer: that of the request, protobuf when it is unknown."""
    return JSON if content_type.partition(";")[0].strip().lower() == JSON else PROTOBUF


def partial_success_body(*, rejected: int, rejection: str, content_type: str) -> bytes:
    """An ExportTraceServiceResponse; `partial_success` is left out when nothing was rejected."""
    if answer_type(content_type) == JSON:
        if not rejected:
            return b"{}"
        success = {"rejectedSpans": str(rejected), "errorMessage": rejection}
        return json.dumps({"partialSuccess": success}).encode()
    response = ExportTraceServiceResponse()
    if rejected:
        response.partial_success.rejected_spans = rejected
        response.partial_success.error_message = rejection
    return bytes(response.SerializeToString())


def error_body(*, status: int, message: str, content_type: str) -> bytes:
    """A google.rpc.Status, as the OTLP specification asks for on 4xx and 5xx."""
    code = CODE_OF_STATUS.get(status, UNKNOWN_CODE)
    if answer_type(content_type) == JSON:
        return json.dumps({"code": code, "message": message}).encode()
    return bytes(Status(code=code, message=message).SerializeToString())

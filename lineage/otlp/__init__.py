"""OTLP/HTTP trace ingest: what arrives, what is kept of it, and how it is answered."""

from lineage.otlp.accept import AcceptedTraces, accept_traces
from lineage.otlp.app import OtlpTraceApp
from lineage.otlp.errors import OtlpError, OtlpUnauthenticated
from lineage.otlp.responses import error_body, partial_success_body
from lineage.otlp.writer import SpanWriter, WriterOverloaded

__all__ = [
    "AcceptedTraces",
    "OtlpError",
    "OtlpTraceApp",
    "OtlpUnauthenticated",
    "SpanWriter",
    "WriterOverloaded",
    "accept_traces",
    "error_body",
    "partial_success_body",
]

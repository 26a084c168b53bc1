"""The topic on which processes tell each other of last spans; a lost message costs nothing."""

import json
import logging
import threading
import time
from collections.abc import Iterable, Sequence
from typing import Any, Final
from uuid import UUID

from google.protobuf.message import DecodeError
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from redis import Redis
from redis.exceptions import RedisError

from agents.fleet.domain import SpanFact, clip
from lineage.otlp.writer import SpanStore
from lineage.telemetry.base import SpanBatch

logger = logging.getLogger(__name__)

TOPIC: Final = "clearance.fleet.spans"
PUBLISH_SECONDS: Final = 0.2  # at most 5 messages a second from each process
SOCKET_SECONDS: Final = 0.5  # a broker that is slower is not worth waiting for
MAX_SPANS: Final = 2000  # of one message: some 200 kB
MAX_WAITING: Final = 50_000  # attempts; beyond it the news of others is dropped
# Decoding costs the ingest 6 ms a megabyte; the last span of a larger export stays untold.
MAX_DECODED_BYTES: Final = 256 << 10
NANOSECONDS_PER_MS: Final = 1_000_000


def encode_spans(spans: Iterable[SpanFact]) -> bytes:
    """A message: `[[attempt uid, name, confidence or null, end in ms since 1970], ...]`."""
    return json.dumps(
        [[span.uid.hex, clip(span.name), span.confidence, span.at_ms] for span in spans],
        separators=(",", ":"),
    ).encode()


def decode_spans(raw: bytes) -> list[SpanFact]:
    """The spans of a message; one that is not ours is worth none."""
    try:
        return [
            SpanFact(UUID(str(uid)), clip(str(name)), _confidence(confidence), float(at_ms))
            for uid, name, confidence, at_ms in json.loads(raw)[:MAX_SPANS]
        ]
    except (ValueError, TypeError, KeyError):
        return []


def _confidence(value: Any) -> float | None:
    return None if value is None else float(value)


def last_span(batch: SpanBatch) -> SpanFact | None:
    """The span of an export that ended last, None when it has none or is too large to look."""
    if len(batch.body) > MAX_DECODED_BYTES:
        return None
    try:
        request = ExportTraceServiceRequest.FromString(batch.body)
        uid = UUID(batch.owner.attempt_uid)
    except (DecodeError, ValueError):
        return None
    spans = [
        span
        for resource in request.resource_spans
        for scope in resource.scope_spans
        for span in scope.spans
    ]
    if not spans:
        return None
    last = max(spans, key=lambda span: span.end_time_unix_nano)
    confidence = None
    for attribute in last.attributes:
        if attribute.key == "action.confidence":
            confidence = _number(attribute.value)
    return SpanFact(uid, last.name, confidence, last.end_time_unix_nano / NANOSECONDS_PER_MS)


def _number(value: Any) -> float | None:
    kind = value.WhichOneof("value")
    return float(getattr(value, kind)) if kind in ("double_value", "int_value") else None


class Publisher:
    """Sends messages to the topic; a broker that is down is logged once and costs 0.5 s at most."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._redis: Redis | None = None
        self._is_down = False

    def publish(self, message: bytes) -> bool:
        """Send one message; False when nobody can have heard it."""
        if self._redis is None:
            self._redis = Redis.from_url(
                self._url, socket_timeout=SOCKET_SECONDS, socket_connect_timeout=SOCKET_SECONDS
            )
        try:
            self._redis.publish(TOPIC, message)
        except (RedisError, OSError) as error:
            if not self._is_down:
                logger.warning("news of spans not sent: %s", type(error).__name__)
            self._is_down = True
            return False
        self._is_down = False
        return True


class SpanNews:
    """A store of spans that also tells the topic the last span of each attempt.

    Told only once stored, from a thread of its own, the last export of an attempt in place of all
    before it, at most 5 times a second. Whatever goes wrong with it, storing goes on.
    """

    def __init__(self, store: SpanStore, publisher: Publisher) -> None:
        self._store = store
        self._publisher = publisher
        self._waiting: dict[str, SpanBatch] = {}
        self._lock = threading.Lock()
        self._has_news = threading.Event()
        self._thread: threading.Thread | None = None

    def write_spans(self, batches: Sequence[SpanBatch]) -> None:
        """Store spans durably, as the store does; raises what it raises."""
        self._store.write_spans(batches)
        with self._lock:
            for batch in batches:
                if batch.owner.attempt_uid in self._waiting or len(self._waiting) < MAX_WAITING:
                    self._waiting[batch.owner.attempt_uid] = batch
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="span-news", daemon=True)
                self._thread.start()
        self._has_news.set()

    def _run(self) -> None:
        while True:
            self._has_news.wait()
            self._has_news.clear()
            try:
                self.flush()
            except Exception:  # a thread that dies would tell nothing more, and nobody would know
                logger.exception("telling of spans failed")
            time.sleep(PUBLISH_SECONDS)

    def flush(self) -> None:
        """Tell what waits now."""
        with self._lock:
            waiting, self._waiting = self._waiting, {}
        spans = [span for batch in waiting.values() if (span := last_span(batch)) is not None]
        for start in range(0, len(spans), MAX_SPANS):
            self._publisher.publish(encode_spans(spans[start : start + MAX_SPANS]))

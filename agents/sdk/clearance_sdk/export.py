"""Sends ended spans in small batches, and can say for certain that they arrived."""

import contextlib
import threading
from collections import deque
from collections.abc import Sequence

from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceResponse
from opentelemetry.sdk.trace import ReadableSpan, SpanProcessor

from .errors import ClearanceError, Revoked, Unavailable
from .http import Call, HttpClient

# A live console shows an action within a second of its end.
EVERY_SECONDS = 0.25
MAX_BATCH = 256
MAX_WAITING = 20_000  # beyond this the oldest are given up, and the next flush says so
FLUSH_SECONDS = 60.0


class SpanSender(SpanProcessor):
    """Keeps ended spans until the server acknowledged them."""

    def __init__(self, *, endpoint: str, http: HttpClient) -> None:
        self._url = f"{endpoint.rstrip('/')}/v1/traces"
        self._http = http
        self._waiting: deque[ReadableSpan] = deque()
        self._lost = 0
        self._refusal: ClearanceError | None = None  # the last one of what was lost
        self._wake = threading.Event()
        self._is_closing = False
        self._sending = threading.Lock()
        self._thread = threading.Thread(target=self._run, name="clearance-spans", daemon=True)
        self._thread.start()

    def on_end(self, span: ReadableSpan) -> None:
        if len(self._waiting) >= MAX_WAITING:
            self._waiting.popleft()
            self._lost += 1
        self._waiting.append(span)
        if len(self._waiting) >= MAX_BATCH:
            self._wake.set()

    def _run(self) -> None:
        while not self._is_closing:
            self._wake.wait(EVERY_SECONDS)
            self._wake.clear()
            # The spans of a failed send wait on; flush() raises what still stands then.
            with contextlib.suppress(ClearanceError):
                self._send_all()

    def _send_all(self) -> None:
        with self._sending:
            while batch := [span for span, _ in zip(self._waiting, range(MAX_BATCH), strict=False)]:
                try:
                    self._send(batch)
                except (Unavailable, Revoked):
                    raise
                except ClearanceError as error:  # the server will never take these
                    self._lost += len(batch)
                    self._refusal = error
                self._forget(batch)

    def _forget(self, batch: Sequence[ReadableSpan]) -> None:
        sent = {id(span) for span in batch}
        while self._waiting and id(self._waiting[0]) in sent:
            self._waiting.popleft()

    def _send(self, batch: Sequence[ReadableSpan]) -> None:
        body = encode_spans(batch).SerializeToString()
        headers = {"Content-Type": "application/x-protobuf"}
        with self._http.open(Call("POST", self._url, body, headers)) as response:
            answer = ExportTraceServiceResponse.FromString(response.read())
        if rejected := answer.partial_success.rejected_spans:
            self._lost += rejected
            self._refusal = ClearanceError(
                f"{rejected} spans were not accepted", detail=answer.partial_success.error_message
            )

    def flush(self) -> None:
        """Return once every ended span is acknowledged.

        Raises: ClearanceError when some cannot be, or were lost earlier; each loss is told once.
        """
        self._send_all()
        lost, self._lost = self._lost, 0
        refusal, self._refusal = self._refusal, None
        if lost:
            raise refusal or ClearanceError(f"{lost} spans were lost while the server was away")

    def force_flush(self, timeout_millis: int = 30000) -> bool:
        try:
            self.flush()
        except ClearanceError:
            return False
        return True

    def shutdown(self) -> None:
        self._is_closing = True
        self._wake.set()
        self._thread.join(timeout=FLUSH_SECONDS)

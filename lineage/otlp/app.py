"""OTLP/HTTP for traces as a plain ASGI application; who may send is decided by its caller."""

import asyncio
import datetime as dt
import logging
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from dataclasses import dataclass
from typing import Any, Final

from lineage.otlp.accept import AcceptedTraces, accept_traces
from lineage.otlp.bodies import MAX_BODY_BYTES, TOO_LARGE, media_type
from lineage.otlp.errors import OtlpError, OtlpUnauthenticated
from lineage.otlp.responses import answer_type, error_body, partial_success_body
from lineage.otlp.writer import SpanWriter, WriterOverloaded
from lineage.telemetry.base import (
    SpanBatch,
    SpanOwner,
    TelemetryRejected,
    TelemetryUnavailable,
)

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
Authenticate = Callable[[str], Awaitable[SpanOwner]]
Clock = Callable[[], dt.datetime]

logger = logging.getLogger(__name__)

TRACES_PATH: Final = "/v1/traces"
HEALTH_PATH: Final = "/healthz"
BODY_SECONDS: Final = 30  # for a whole body to arrive
RETRY_AFTER_SECONDS: Final = 1
# Decoding this much takes some 10 ms; more happens off the loop, so that others are served.
INLINE_BYTES: Final = 1 << 20


@dataclass(frozen=True, slots=True)
class _Answer:
    status: int
    body: bytes
    headers: Mapping[str, str]


class OtlpTraceApp:
    """POST /v1/traces and GET /healthz.

    `authenticate` gets the bearer token ("" when there is none) and returns whose spans they are,
    or raises OtlpUnauthenticated. A 200 means that every span counted as accepted is durable.
    """

    def __init__(self, authenticate: Authenticate, writer: SpanWriter, clock: Clock) -> None:
        self._authenticate = authenticate
        self._writer = writer
        self._clock = clock

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._lifespan(receive, send)
        elif scope["type"] == "http":
            headers = {k.decode("latin-1"): v.decode("latin-1") for k, v in scope["headers"]}
            answer = await self._answer(scope, headers, receive)
            fields = {**answer.headers, "content-length": str(len(answer.body))}
            encoded = [(name.encode(), value.encode("latin-1")) for name, value in fields.items()]
            await send({"type": "http.response.start", "status": answer.status, "headers": encoded})
            await send({"type": "http.response.body", "body": answer.body})

    async def _lifespan(self, receive: Receive, send: Send) -> None:
        await receive()
        self._writer.start()
        await send({"type": "lifespan.startup.complete"})
        await receive()
        await self._writer.close()
        await send({"type": "lifespan.shutdown.complete"})

    async def _answer(self, scope: Scope, headers: Mapping[str, str], receive: Receive) -> _Answer:
        content_type = headers.get("content-type", "")
        extra: dict[str, str] = {}
        try:
            if scope["path"] == HEALTH_PATH and scope["method"] in ("GET", "HEAD"):
                return _Answer(200, b"ok\n", {"content-type": "text/plain"})
            if scope["path"] not in (TRACES_PATH, HEALTH_PATH):
                raise OtlpError(404, f"There is only POST {TRACES_PATH} here.")
            if scope["path"] == HEALTH_PATH or scope["method"] != "POST":
                extra["allow"] = "GET, HEAD" if scope["path"] == HEALTH_PATH else "POST"
                raise OtlpError(405, f"{scope['path']} takes {extra['allow']}.")
            accepted = await self._export(headers, receive)
        except OtlpUnauthenticated as error:
            extra["www-authenticate"] = "Bearer"
            refusal = OtlpError(401, str(error) or "The bearer token is not valid.")
        except OtlpError as error:
            refusal = error
        except Exception:  # a client gets no traceback, whatever went wrong
            logger.exception("An export failed in a way the ingest does not know")
            refusal = OtlpError(500, "The export could not be handled; the log says why.")
        else:
            body = partial_success_body(
                rejected=accepted.rejected,
                rejection=accepted.rejection,
                content_type=content_type,
            )
            return _Answer(200, body, {"content-type": answer_type(content_type)})
        if refusal.retry_after_seconds:
            extra["retry-after"] = str(refusal.retry_after_seconds)
        body = error_body(status=refusal.status, message=refusal.message, content_type=content_type)
        return _Answer(refusal.status, body, {"content-type": answer_type(content_type), **extra})

    async def _export(self, headers: Mapping[str, str], receive: Receive) -> AcceptedTraces:
        scheme, _, token = headers.get("authorization", "").partition(" ")
        # Before a byte of the body is read: strangers cost nothing.
        owner = await self._authenticate(token.strip() if scheme.lower() == "bearer" else "")
        content_type = headers.get("content-type", "")
        media_type(content_type)
        body = await _read(headers, receive)
        encoding, now = headers.get("content-encoding", ""), self._clock()

        def accept() -> AcceptedTraces:
            return accept_traces(
                body, content_type=content_type, content_encoding=encoding, now=now
            )

        inline = len(body) <= INLINE_BYTES and not encoding
        accepted = accept() if inline else await asyncio.to_thread(accept)
        if accepted.span_count:
            await self._write(SpanBatch(owner, accepted.body))
        return accepted

    async def _write(self, batch: SpanBatch) -> None:
        try:
            await self._writer.write(batch)
        except WriterOverloaded as error:
            status = 429 if error.is_sender else 503
            raise OtlpError(status, str(error), retry_after_seconds=RETRY_AFTER_SECONDS) from error
        except TelemetryUnavailable as error:
            raise OtlpError(
                503,
                "Spans cannot be stored right now; send them again.",
                retry_after_seconds=RETRY_AFTER_SECONDS,
            ) from error
        except TelemetryRejected as error:
            logger.exception("The telemetry store refused spans that were checked")
            raise OtlpError(400, "The telemetry store refused these spans.") from error


async def _read(headers: Mapping[str, str], receive: Receive) -> bytes:
    """The body as sent; stops as soon as it is too large.

    Raises: OtlpError 408 or 413.
    """
    declared = headers.get("content-length", "")
    if declared.isdecimal() and int(declared) > MAX_BODY_BYTES:
        raise OtlpError(413, TOO_LARGE)
    chunks, size, more = [], 0, True
    try:
        async with asyncio.timeout(BODY_SECONDS):
            while more:
                message = await receive()
                if message["type"] == "http.disconnect":
                    raise OtlpError(400, "The sender hung up.")
                chunks.append(message.get("body", b""))
                size += len(chunks[-1])
                if size > MAX_BODY_BYTES:
                    raise OtlpError(413, TOO_LARGE)
                more = message.get("more_body", False)
    except TimeoutError:
        raise OtlpError(408, f"The body took longer than {BODY_SECONDS} s.") from None
    return b"".join(chunks)

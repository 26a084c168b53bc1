"""ClickHouse's HTTP protocol as an ASGI application over the engine."""

import base64
import hmac
import json
import logging
import uuid
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from dataclasses import dataclass
from email.message import Message
from email.parser import BytesParser
from email.policy import HTTP as HTTP_POLICY
from typing import Any
from urllib.parse import parse_qsl

from lineage.telemetry.store.compression import (
    ENCODERS,
    BadCompression,
    TooLarge,
    accepted_encoding,
    inflate,
)
from lineage.telemetry.store.engine import Answer, Engine, EngineBusy, EngineError
from lineage.telemetry.store.sql import output_format, parse

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]

logger = logging.getLogger(__name__)

# Parameters of the protocol itself; every other one is an engine setting for this statement.
TRANSPORT_PARAMETERS = frozenset(
    {
        "query", "database", "user", "password", "query_id", "quota_key", "default_format",
        "session_id", "session_timeout", "session_check", "session_timezone", "role",
        "compress", "decompress", "wait_end_of_query", "buffer_size", "client_protocol_version",
        "enable_http_compression", "http_zlib_compression_level", "send_progress_in_http_headers",
        "http_headers_progress_interval_ms", "cancel_http_readonly_queries_on_client_close",
        "http_response_buffer_size", "http_wait_end_of_query",
        "http_write_exception_in_output_format",
    }
)  # fmt: skip
# https://github.com/ClickHouse/ClickHouse/blob/master/src/Server/HTTP/exceptionCodeToHTTPStatus.cpp
STATUS_OF_CODE = {
    6: 400, 26: 400, 27: 400, 36: 400, 38: 400, 41: 400, 43: 400, 44: 400, 47: 404, 48: 501,
    53: 400, 60: 404, 62: 400, 72: 400, 73: 404, 81: 404, 115: 404, 117: 400, 158: 413, 159: 408,
    202: 503, 241: 507, 252: 503, 307: 413, 396: 413, 457: 400, 516: 403,
}  # fmt: skip
RETRY_AFTER_SECONDS = "1"


@dataclass(frozen=True, slots=True)
class Request:
    """One request, with parameters of URL and form merged."""

    parameters: Mapping[str, str]
    headers: Mapping[str, str]
    body: bytes


class Refusal(Exception):
    """A request that is answered without asking the engine."""

    def __init__(self, message: str, *, code: int, name: str) -> None:
        super().__init__(f"Code: {code}. DB::Exception: {message} ({name})")
        self.code = code


class StoreApp:
    """Answers `/ping`, `/` and statements; refuses everything without the token."""

    def __init__(self, engine: Engine, *, token: str, max_body_bytes: int) -> None:
        self._engine = engine
        self._token = token.encode()
        self._max_body_bytes = max_body_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        path, method = scope["path"], scope["method"]
        is_probe = path == "/ping" or (path == "/" and not scope["query_string"])
        if is_probe and method in ("GET", "HEAD"):
            await self._reply(send, 200, b"Ok.\n" if method == "GET" else b"")
            return
        if path != "/":
            await self._reply(send, 404, b"There is no handle " + path.encode() + b"\n")
            return
        try:
            await self._statement(scope, receive, send)
        except (Refusal, EngineError) as error:
            await self._refuse(send, str(error), code=error.code)
        except EngineBusy:
            text = "Code: 202. DB::Exception: Too many statements wait; try again. "
            await self._refuse(send, text + "(TOO_MANY_SIMULTANEOUS_QUERIES)", code=202)
        except Exception:
            logger.exception("A statement failed in a way the store does not know")
            text = "Code: 1002. DB::Exception: The store failed; its log says why. "
            await self._refuse(send, text + "(UNKNOWN_EXCEPTION)", code=1002)

    async def _statement(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers = {k.decode("latin-1"): v.decode("latin-1") for k, v in scope["headers"]}
        url = dict(parse_qsl(scope["query_string"].decode("latin-1"), keep_blank_values=True))
        self._authenticate(url, headers)
        body = await self._read(receive, headers)
        request = _with_form(Request(url, headers, body))
        statement = parse(request.parameters.get("query", "").encode(), request.body)
        fallback = headers.get("x-clickhouse-format", "TabSeparated")
        default_format = request.parameters.get("default_format", fallback)
        answer = await self._engine.run(
            statement,
            settings={
                name: value
                for name, value in request.parameters.items()
                if name not in TRANSPORT_PARAMETERS and not name.startswith("param_")
            },
            params={
                name.removeprefix("param_"): value
                for name, value in request.parameters.items()
                if name.startswith("param_")
            },
            database=request.parameters.get("database")
            or headers.get("x-clickhouse-database")
            or "default",
            default_format=default_format,
        )
        format_name = output_format(statement.sql, default_format) if statement.is_read else ""
        await self._answer(send, request, answer, format_name=format_name)

    def _authenticate(self, url: Mapping[str, str], headers: Mapping[str, str]) -> None:
        presented = headers.get("x-clickhouse-key") or url.get("password") or ""
        scheme, _, credential = headers.get("authorization", "").partition(" ")
        if scheme.lower() == "bearer":
            presented = credential
        elif scheme.lower() == "basic":
            try:
                presented = base64.b64decode(credential).decode().partition(":")[2]
            except ValueError:
                presented = ""
        if not hmac.compare_digest(presented.encode(), self._token):
            raise Refusal(
                "Authentication failed: the key is not this store's token.",
                code=516,
                name="AUTHENTICATION_FAILED",
            )

    async def _read(self, receive: Receive, headers: Mapping[str, str]) -> bytes:
        chunks, size, more = [], 0, True
        try:
            while more:
                message = await receive()
                if message["type"] == "http.disconnect":
                    raise Refusal("The client hung up.", code=210, name="NETWORK_ERROR")
                chunk = message.get("body", b"")
                size += len(chunk)
                if size > self._max_body_bytes:
                    raise TooLarge
                chunks.append(chunk)
                more = message.get("more_body", False)
            encoding = headers.get("content-encoding", "").strip().lower()
            return inflate(b"".join(chunks), encoding=encoding, limit=self._max_body_bytes)
        except TooLarge:
            raise Refusal(
                f"The request is larger than {self._max_body_bytes} bytes; send smaller pieces.",
                code=307,
                name="TOO_MANY_BYTES",
            ) from None
        except BadCompression as error:
            raise Refusal(str(error), code=432, name="UNKNOWN_COMPRESSION_METHOD") from None

    async def _answer(
        self, send: Send, request: Request, answer: Answer, *, format_name: str
    ) -> None:
        summary = {
            "read_rows": str(answer.read_rows),
            "written_rows": str(answer.written_rows),
            "result_rows": str(answer.written_rows or answer.read_rows),
            "elapsed_ns": str(int(answer.elapsed_seconds * 1e9)),
        }
        headers = {
            "x-clickhouse-summary": json.dumps(summary),
            "x-clickhouse-query-id": request.parameters.get("query_id") or str(uuid.uuid4()),
            "x-clickhouse-timezone": self._engine.timezone,
            "x-clickhouse-server-display-name": "clearance-store",
            "content-type": "application/octet-stream",
        }
        if format_name:
            headers["x-clickhouse-format"] = format_name
        body = answer.body
        if request.parameters.get("enable_http_compression") == "1" and body:
            encoding = accepted_encoding(request.headers.get("accept-encoding", ""))
            if encoding:
                body = ENCODERS[encoding](body)
                headers["content-encoding"] = encoding
        await self._reply(send, 200, body, headers)

    async def _refuse(self, send: Send, message: str, *, code: int) -> None:
        status = STATUS_OF_CODE.get(code, 500)
        headers = {
            "x-clickhouse-exception-code": str(code),
            "content-type": "text/plain; charset=UTF-8",
        }
        if status == 503:
            headers["retry-after"] = RETRY_AFTER_SECONDS
        text = f"{message} (version {self._engine.version})\n"
        await self._reply(send, status, text.encode(), headers)

    @staticmethod
    async def _reply(
        send: Send, status: int, body: bytes, headers: Mapping[str, str] | None = None
    ) -> None:
        fields = {"content-type": "text/plain; charset=UTF-8"} | dict(headers or {})
        fields["content-length"] = str(len(body))
        encoded = [(name.encode(), value.encode("latin-1")) for name, value in fields.items()]
        await send({"type": "http.response.start", "status": status, "headers": encoded})
        await send({"type": "http.response.body", "body": body})


def _with_form(request: Request) -> Request:
    """Move the fields of a multipart form into the parameters, as ClickHouse does."""
    content_type = request.headers.get("content-type", "")
    if not content_type.lower().startswith("multipart/form-data"):
        return request
    head = f"Content-Type: {content_type}\r\n\r\n".encode("latin-1")
    form: Message = BytesParser(policy=HTTP_POLICY).parsebytes(head + request.body)
    fields = dict(request.parameters)
    for part in form.iter_parts():  # type: ignore[attr-defined]
        if part.get_filename() is not None:
            raise Refusal(
                "External tables in a form are not supported; insert them first.",
                code=48,
                name="NOT_IMPLEMENTED",
            )
        name = part.get_param("name", header="content-disposition")
        fields[str(name)] = part.get_payload(decode=True).decode("utf-8", "replace")
    return Request(fields, request.headers, b"")

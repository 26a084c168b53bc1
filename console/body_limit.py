"""Bounds request bodies before Django reads a byte of them."""

from collections.abc import Awaitable, Callable, Mapping
from http import HTTPStatus
from typing import Any

from asgiref.sync import sync_to_async
from django.conf import settings

from console.problems import problem_response
from lineage.evidence.inspection import PACK_MAX_BYTES

BODY_MAX_BYTES = 8 << 20  # forms and JSON; twice what Django itself takes into memory
UPLOAD_PATH = "/api/v1/artifacts"
PACK_PATH = "/audit/verify"  # an evidence pack that somebody wants verified

Scope = dict[str, Any]
Message = Mapping[str, Any]
Credential = Callable[[Mapping[bytes, bytes]], bool]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Application = Callable[[Scope, Receive, Send], Awaitable[None]]


class _BodyTooLarge(Exception):
    """The counted bytes passed the limit."""


class BodyLimit:
    """Refuses a body over its limit: by Content-Length at once, else when the count passes it."""

    def __init__(self, application: Application, *, is_held: Credential) -> None:
        """`is_held` says from the headers (lower-case names) whether an upload's credential is."""
        self.application = application
        self.is_held = sync_to_async(is_held)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers = {name.lower(): value for name, value in scope.get("headers", [])}
        is_upload = scope["method"] == "POST" and scope["path"].rstrip("/") == UPLOAD_PATH
        is_pack = scope["method"] == "POST" and scope["path"] == PACK_PATH
        limit = BODY_MAX_BYTES
        if is_upload:
            limit = settings.UPLOAD_MAX_BYTES
        elif is_pack and await self.is_held(headers):
            limit = PACK_MAX_BYTES + BODY_MAX_BYTES  # and what surrounds a file in a form
        if _content_length(headers) > limit:
            await _refuse_size(send, limit)
            return
        if is_upload and not await self.is_held(headers):
            await _refuse(
                send,
                HTTPStatus.UNAUTHORIZED,
                "Not signed in",
                "Send a bearer token or a session cookie that is accepted with the upload.",
            )
            return
        await self._counted(scope, receive, send, limit)

    async def _counted(self, scope: Scope, receive: Receive, send: Send, limit: int) -> None:
        seen = 0
        is_started = False

        async def counting() -> Message:
            nonlocal seen
            message = await receive()
            if message["type"] == "http.request":
                seen += len(message.get("body", b""))
                if seen > limit:
                    raise _BodyTooLarge
            return message

        async def watching(message: Message) -> None:
            nonlocal is_started
            is_started = is_started or message["type"] == "http.response.start"
            await send(message)

        try:
            await self.application(scope, counting, watching)
        except _BodyTooLarge:
            if not is_started:
                await _refuse_size(send, limit)


def _content_length(headers: dict[bytes, bytes]) -> int:
    text = headers.get(b"content-length", b"0")
    return int(text) if text.isdigit() else 0


async def _refuse_size(send: Send, limit: int) -> None:
    await _refuse(
        send,
        HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
        "Too large",
        f"The body is over {limit} bytes.",
    )


async def _refuse(send: Send, status: HTTPStatus, title: str, detail: str) -> None:
    response = problem_response(status, title=title, detail=detail)
    headers = [
        (name.lower().encode("latin-1"), value.encode("latin-1"))
        for name, value in response.items()
    ]
    # The rest of the body is not read: the connection cannot be used again.
    headers += [(b"content-length", str(len(response.content)).encode()), (b"connection", b"close")]
    await send({"type": "http.response.start", "status": int(status), "headers": headers})
    await send({"type": "http.response.body", "body": response.content})

"""The websocket of the map, `/ws/fleet`: a plain ASGI application between a socket and the hub."""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any, Final

from django.db import Error as DatabaseError

from console.live.client import Client
from console.live.hub import SIGNED_OUT, TRY_LATER, Refused, get_hub

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]

ASK_SNAPSHOT: Final = "snapshot"  # all that a client ever says
CLOSE_SECONDS: Final = 1.0  # a reader that takes nothing does not hold its socket open


async def fleet_socket(scope: Scope, receive: Receive, send: Send) -> None:
    """Authorise by session and origin, then send frames until either side has enough."""
    message = await receive()
    if message["type"] != "websocket.connect":
        return
    user = scope.get("user")
    if user is None or not user.is_authenticated or not is_same_origin(scope):
        await send({"type": "websocket.close", "code": SIGNED_OUT})
        return
    await send({"type": "websocket.accept"})
    hub = get_hub()
    try:
        client = await hub.attach(str(scope["session"].session_key))
    except Refused as refused:
        await send({"type": "websocket.close", "code": refused.code})
        return
    except DatabaseError:
        await send({"type": "websocket.close", "code": TRY_LATER})
        return
    try:
        await _serve(client, receive, send)
    finally:
        hub.detach(client)


async def _serve(client: Client, receive: Receive, send: Send) -> None:
    reader = asyncio.create_task(_read(client, receive))
    writer = asyncio.create_task(_write(client, send))
    watcher = asyncio.create_task(client.closed.wait())
    tasks = {reader, writer, watcher}
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    if client.close_code:
        with contextlib.suppress(OSError, TimeoutError):
            close = send({"type": "websocket.close", "code": client.close_code})
            await asyncio.wait_for(close, CLOSE_SECONDS)


async def _read(client: Client, receive: Receive) -> None:
    while True:
        message = await receive()
        if message["type"] == "websocket.disconnect":
            return
        if message.get("text") == ASK_SNAPSHOT:
            client.ask_snapshot()


async def _write(client: Client, send: Send) -> None:
    while (frame := await client.next_frame()) is not None:
        await send({"type": "websocket.send", "bytes": frame})


def is_same_origin(scope: Scope) -> bool:
    """The origin's host and port are those the page was asked at (allowed hosts are wider)."""
    headers = dict(scope.get("headers", []))
    origin: bytes = headers.get(b"origin", b"").partition(b"://")[2]
    return bool(origin) and origin == headers.get(b"host", b"")

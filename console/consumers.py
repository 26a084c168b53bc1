"""Websocket of open pages: forwards hints that something changed, and proves that it is alive."""

import asyncio
import contextlib
import secrets
from typing import Any

from channels.db import database_sync_to_async
from channels.generic.websocket import AsyncJsonWebsocketConsumer

from console.audience import is_session_alive, topics_of

BEAT_SECONDS = 2.0  # a page calls itself stale after 5 s of silence (DESIGN, I10)
ALIVE_BEATS = 2  # a session that was ended hears nothing more after 4 s
REAUTHORISE_BEATS = 5  # a person shut out hears nothing more after 10 s
SIGNED_OUT = 4401  # private close codes, named after the HTTP statuses
FORBIDDEN = 4403


class HintConsumer(AsyncJsonWebsocketConsumer):  # type: ignore[misc]  # ships no types
    """Sends `hello`, then `beat` every two seconds and `hint`s, each with epoch and sequence.

    A client that sees a gap or another epoch re-reads its page; a lost hint costs one poll.
    """

    def __init__(self, *, beat_seconds: float = BEAT_SECONDS) -> None:
        super().__init__()
        self.beat_seconds = beat_seconds

    async def connect(self) -> None:
        """Authorise by the session, join the topics of the person's namespaces."""
        self.topics: frozenset[str] = frozenset()
        self.sequence = 0
        self.epoch = secrets.token_hex(8)
        self.heart: asyncio.Task[None] | None = None
        user = self.scope.get("user")
        if user is None or not user.is_authenticated or not self._is_same_origin():
            await self.close(code=SIGNED_OUT)
            return
        self.user_pk: int = user.pk
        self.session_key = str(self.scope["session"].session_key)
        await self._join(await database_sync_to_async(topics_of)(self.user_pk))
        if not self.topics:
            await self.close(code=FORBIDDEN)
            return
        await self.accept()
        await self._send("hello", beat_seconds=self.beat_seconds)
        self.heart = asyncio.create_task(self._beat())

    async def disconnect(self, code: int) -> None:
        """Leave every topic."""
        if self.heart is not None:
            self.heart.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self.heart
        await self._join(frozenset())

    async def receive(self, *args: Any, **kwargs: Any) -> None:
        """Pages only listen; whatever they send is ignored unread."""

    async def hint(self, message: dict[str, Any]) -> None:
        """Forward one hint of a joined topic."""
        await self._send("hint", topic=message["topic"], goal=message["goal"])

    def _is_same_origin(self) -> bool:
        """The origin's host and port are those the page was asked at (allowed hosts are wider)."""
        headers = dict(self.scope.get("headers", []))
        origin = headers.get(b"origin", b"").partition(b"://")[2]
        return bool(origin) and origin == headers.get(b"host", b"")

    async def _beat(self) -> None:
        beats = 0
        while True:
            await asyncio.sleep(self.beat_seconds)
            beats += 1
            if beats % ALIVE_BEATS == 0 and not await database_sync_to_async(is_session_alive)(
                self.session_key
            ):
                await self.close(code=SIGNED_OUT)
                return
            if beats % REAUTHORISE_BEATS == 0:
                await self._join(await database_sync_to_async(topics_of)(self.user_pk))
                if not self.topics:
                    await self.close(code=FORBIDDEN)
                    return
            await self._send("beat")

    async def _join(self, topics: frozenset[str]) -> None:
        for topic in self.topics - topics:
            await self.channel_layer.group_discard(topic, self.channel_name)
        for topic in topics - self.topics:
            await self.channel_layer.group_add(topic, self.channel_name)
        self.topics = topics

    async def _send(self, kind: str, **members: Any) -> None:
        self.sequence += 1
        await self.send_json({"type": kind, "epoch": self.epoch, "seq": self.sequence, **members})

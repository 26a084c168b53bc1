"""Websocket of open pages: forwards hints that something changed, and proves that it is alive."""

import asyncio
import contextlib
import secrets
from typing import Any

from channels.generic.websocket import AsyncJsonWebsocketConsumer

from console.audience import Topics
from console.live.hub import FORBIDDEN, SIGNED_OUT
from console.live.watch import get_watch

BEAT_SECONDS = 2.0  # a page calls itself stale after 5 s of silence (DESIGN, I10)


class HintConsumer(AsyncJsonWebsocketConsumer):  # type: ignore[misc]  # ships no types
    """Sends `hello`, then `beat` every two seconds and `hint`s, each with epoch and sequence.

    A client that sees a gap or another epoch re-reads its page; a lost hint costs one poll.
    """

    def __init__(self, *, beat_seconds: float = BEAT_SECONDS) -> None:
        super().__init__()
        self.beat_seconds = beat_seconds

    async def connect(self) -> None:
        """Authorise by the session, join the topics of the person's namespaces."""
        self.topics: Topics = frozenset()
        self.sequence = 0
        self.epoch = secrets.token_hex(8)
        self.heart: asyncio.Task[None] | None = None
        user = self.scope.get("user")
        if user is None or not user.is_authenticated or not self._is_same_origin():
            await self.close(code=SIGNED_OUT)
            return
        self.session_key = str(self.scope["session"].session_key)
        topics = await get_watch().topics_of(self.session_key)
        if not topics:
            await self.close(code=SIGNED_OUT if topics is None else FORBIDDEN)
            return
        await self.join(topics)
        await self.accept()
        await self._send("hello", beat_seconds=self.beat_seconds)
        self.heart = asyncio.create_task(self._beat())
        get_watch().follow(self)

    async def disconnect(self, code: int) -> None:
        """Leave every topic."""
        get_watch().leave(self)
        if self.heart is not None:
            self.heart.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self.heart
        await self.join(frozenset())

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

    async def join(self, topics: Topics) -> None:
        """Hear these topics and no others from now on."""
        for topic in self.topics - topics:
            await self.channel_layer.group_discard(topic, self.channel_name)
        for topic in topics - self.topics:
            await self.channel_layer.group_add(topic, self.channel_name)
        self.topics = topics

    async def end(self, code: int) -> None:
        """Say no more and close: the session has ended, or its rights have."""
        if self.heart is not None:
            self.heart.cancel()
        await self.close(code=code)

    async def _beat(self) -> None:
        while True:
            await asyncio.sleep(self.beat_seconds)
            await self._send("beat")

    async def _send(self, kind: str, **members: Any) -> None:
        self.sequence += 1
        await self.send_json({"type": kind, "epoch": self.epoch, "seq": self.sequence, **members})

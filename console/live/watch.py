"""Looks at the sessions of all open hint sockets at once, and closes those that have ended."""

import asyncio
import logging
import time
from collections.abc import Callable, Collection, Mapping
from typing import Final, Protocol
from weakref import WeakKeyDictionary

from channels.db import database_sync_to_async

from console.audience import Topics, topics_by_session
from console.live.hub import (
    FORBIDDEN,
    RIGHTS_GRACE_SECONDS,
    RIGHTS_SECONDS,
    SIGNED_OUT,
    TRY_LATER,
)

logger = logging.getLogger(__name__)

Look = Callable[[Collection[str]], Mapping[str, Topics]]
END_SECONDS: Final = 1.0  # a reader that takes nothing does not keep others from being closed


class Listener(Protocol):
    """One open socket."""

    session_key: str

    async def join(self, topics: Topics) -> None:
        """Hear these topics and no others from now on."""

    async def end(self, code: int) -> None:
        """Close the socket."""


class SessionWatch:
    """One per event loop: a look every two seconds, whatever the number of sockets."""

    def __init__(self, *, look: Look = topics_by_session, seconds: float = RIGHTS_SECONDS) -> None:
        self._look = look
        self._seconds = seconds
        self._listeners: set[Listener] = set()
        self._task: asyncio.Task[None] | None = None
        self._asked_at = 0.0

    async def topics_of(self, session_key: str) -> Topics | None:
        """What a session may hear now; None when it has ended."""
        found: Mapping[str, Topics] = await database_sync_to_async(self._look)([session_key])
        return found.get(session_key)

    def follow(self, listener: Listener) -> None:
        """Watch over this socket until `leave`."""
        self._listeners.add(listener)
        if self._task is None or self._task.done():
            self._asked_at = time.monotonic()
            self._task = asyncio.create_task(self._run(), name="session-watch")

    def leave(self, listener: Listener) -> None:
        """The socket is closed."""
        self._listeners.discard(listener)

    async def _run(self) -> None:
        while self._listeners:
            await asyncio.sleep(self._seconds)
            try:
                await self._check()
            except Exception as error:
                logger.warning("sessions cannot be checked: %s", type(error).__name__)
                if time.monotonic() - self._asked_at > RIGHTS_GRACE_SECONDS:
                    await self._end(dict.fromkeys(self._listeners, TRY_LATER))

    async def _check(self) -> None:
        asked = list(self._listeners)
        keys = {one.session_key for one in asked}
        found = await database_sync_to_async(self._look)(keys)
        self._asked_at = time.monotonic()
        stays = {one: topics for one in asked if (topics := found.get(one.session_key))}
        await self._end(
            {
                one: SIGNED_OUT if one.session_key not in found else FORBIDDEN
                for one in asked
                if one not in stays and one in self._listeners
            }
        )
        for one, topics in stays.items():
            if one in self._listeners:
                await one.join(topics)

    async def _end(self, gone: Mapping[Listener, int]) -> None:
        """All at once: a reader that takes nothing holds up none of the others."""
        self._listeners -= set(gone)
        ends = (asyncio.wait_for(one.end(code), END_SECONDS) for one, code in gone.items())
        await asyncio.gather(*ends, return_exceptions=True)


_watches: WeakKeyDictionary[asyncio.AbstractEventLoop, SessionWatch] = WeakKeyDictionary()


def get_watch() -> SessionWatch:
    """The watch of the running event loop."""
    return _watches.setdefault(asyncio.get_running_loop(), SessionWatch())

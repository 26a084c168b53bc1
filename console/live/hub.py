"""The hub of a web process: keeps the fleet in memory and feeds every open map from it."""

import asyncio
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Final, Protocol, TypeVar
from weakref import WeakKeyDictionary

from django.conf import settings
from django.db import Error as DatabaseError
from django.db import connections

from agents.fleet.columns import FleetColumns
from agents.fleet.domain import Changes, SpanFact
from agents.fleet.frames import UNKNOWN_AGE
from agents.fleet.views import FleetView
from console.live.bus import SpanBus
from console.live.client import Client
from console.live.rights import Namespaces, visible_by_session
from console.live.sources import FINISHED_MINUTES, FleetSource, Tail

logger = logging.getLogger(__name__)
T = TypeVar("T")

TICK_SECONDS: Final = 0.25  # 4 frames a second: the eye wants no more, and each costs every client
BEAT_SECONDS: Final = 1.0  # a map calls itself stale after 5 s
METERS_SECONDS: Final = 5.0
RESYNC_SECONDS: Final = 60.0
RESYNC_SHARE: Final = 20  # a resync may take a twentieth of the time at most
RIGHTS_GRACE_SECONDS: Final = 30.0  # a database that restarts does not close every map
RIGHTS_SECONDS: Final = 2.0  # sockets close within 5 s of a logout
LINGER_SECONDS: Final = 30.0  # the fleet is kept so long for a page that is loaded again
MAX_CLIENTS: Final = 1000  # of one web process
MAX_CLIENTS_PER_SESSION: Final = 16  # tabs of one browser
MAX_SPANS: Final = 50_000  # heard between two ticks
CANCEL_SECONDS: Final = 1.0
SIGNED_OUT: Final = 4401  # private close codes, named after the HTTP statuses
FORBIDDEN: Final = 4403
TOO_MANY: Final = 4429
TRY_LATER: Final = 1013  # RFC 6455's registry: the server cannot now, come back


class Source(Protocol):
    """What the hub asks for the fleet; called in a thread. Raises django.db.Error."""

    def load(self) -> tuple[Changes, int]: ...

    def since(self, seq: int) -> Tail: ...

    def meters(self) -> Changes: ...


class Refused(Exception):
    """The socket may not follow the fleet; `code` is what to close it with."""

    def __init__(self, code: int) -> None:
        super().__init__(str(code))
        self.code = code


class FleetHub:
    """One per event loop. Works from the first client until `LINGER_SECONDS` after the last."""

    def __init__(
        self,
        source: Source,
        *,
        bus_url: str,
        rights: Callable[[Sequence[str]], Mapping[str, Namespaces]] = visible_by_session,
        wall_ms: Callable[[], float] = lambda: time.time() * 1000,
    ) -> None:
        self._source = source
        self._rights = rights
        self._wall_ms = wall_ms
        self._bus = SpanBus(bus_url, self._hear)
        self._columns = FleetColumns()
        self._views: dict[Namespaces, FleetView] = {}
        self._clients: dict[Client, Namespaces] = {}
        self._spans: dict[bytes, SpanFact] = {}
        self._next_seq = 0
        self._read_at: float | None = None
        self._loaded_at: float | None = None
        self._load_seconds = 0.0
        self._metered_at = self._beaten_at = self._used_at = 0.0
        self._is_failing = False
        self._tasks: list[asyncio.Task[None]] = []
        self._thread: ThreadPoolExecutor | None = None

    # --- Clients ---------------------------------------------------------------------------------

    async def attach(self, session_key: str) -> Client:
        """A client that gets a snapshot, then deltas. Raises Refused."""
        if len(self._clients) >= MAX_CLIENTS or self._held_by(session_key) >= (
            MAX_CLIENTS_PER_SESSION
        ):
            raise Refused(TOO_MANY)
        self._start()
        rights = await self._ask(lambda: self._rights([session_key]))
        if session_key not in rights:
            raise Refused(FORBIDDEN)
        namespaces = rights[session_key]
        client = Client(session_key=session_key, snapshot=lambda: self._snapshot(namespaces))
        self._clients[client] = namespaces
        return client

    def detach(self, client: Client) -> None:
        """The socket is closed."""
        self._clients.pop(client, None)
        self._forget_views()
        self._used_at = time.monotonic()

    def _held_by(self, session_key: str) -> int:
        return sum(client.session_key == session_key for client in self._clients)

    def _snapshot(self, namespaces: Namespaces) -> bytes:
        view = self._views.get(namespaces)
        if view is None:
            view = self._views[namespaces] = FleetView(self._columns, namespaces)
        return view.snapshot(at_ms=self._wall_ms(), ages=self.ages())

    def _forget_views(self) -> None:
        for namespaces in set(self._views) - set(self._clients.values()):
            del self._views[namespaces]

    def ages(self) -> tuple[int, int]:
        """Milliseconds since the database and the span topic were last heard."""
        now = time.monotonic()
        return _age_ms(now, self._read_at), _age_ms(now, self._bus.heard_at)

    # --- Running ---------------------------------------------------------------------------------

    def _start(self) -> None:
        self._used_at = time.monotonic()
        if any(not task.done() for task in self._tasks):
            return
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="fleet-source")
        self._tasks = [
            asyncio.create_task(self._feed(), name="fleet-feed"),
            asyncio.create_task(self._guard(), name="fleet-guard"),
            asyncio.create_task(self._bus.run(), name="fleet-bus"),
        ]

    async def close(self) -> None:
        """End everything; the next client starts it again."""
        current = asyncio.current_task()
        tasks, self._tasks = [task for task in self._tasks if task is not current], []
        while tasks:  # a library may swallow a cancellation: it is said until the task has ended
            for task in tasks:
                task.cancel()
            _, pending = await asyncio.wait(tasks, timeout=CANCEL_SECONDS)
            tasks = list(pending)
        if self._thread is not None:
            thread, self._thread = self._thread, None
            await asyncio.get_running_loop().run_in_executor(thread, connections.close_all)
            thread.shutdown(wait=False)

    async def _ask(self, question: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._thread, _asked(question))

    async def _feed(self) -> None:
        while self._clients or time.monotonic() - self._used_at < LINGER_SECONDS:
            began = time.monotonic()
            try:
                is_more = await self._look()
            except Exception:  # a feed that dies is a map that lies
                logger.exception("the fleet could not be told")
                self._loaded_at, is_more = None, False
            spent = time.monotonic() - began
            await asyncio.sleep(0.0 if is_more else max(TICK_SECONDS - spent, TICK_SECONDS / 5))
        await self.close()
        if self._clients:  # one came while we were closing
            self._start()

    async def _look(self) -> bool:
        """Read what is new and tell everybody; whether more waits to be read."""
        is_more = False
        news: list[Changes] = []
        try:
            if self._is_resync_due():
                began = time.monotonic()
                changes, self._next_seq = await self._ask(self._source.load)
                self._loaded_at = time.monotonic()
                self._load_seconds = self._loaded_at - began
            else:
                tail = await self._ask(lambda: self._source.since(self._next_seq))
                changes, self._next_seq, is_more = tail.changes, tail.next_seq, tail.is_more
            news.append(changes)
            if time.monotonic() - self._metered_at >= METERS_SECONDS:
                self._metered_at = time.monotonic()
                news.append(await self._ask(self._source.meters))
            self._read_at = time.monotonic()
            self._is_failing = False
        except DatabaseError as error:
            if not self._is_failing:
                logger.warning("the fleet cannot be read: %s", type(error).__name__)
            self._is_failing = True
        self._tell(news)
        return is_more

    def _is_resync_due(self) -> bool:
        if self._loaded_at is None:
            return True
        pause = max(RESYNC_SECONDS, RESYNC_SHARE * self._load_seconds)
        return time.monotonic() - self._loaded_at >= pause

    def _tell(self, news: Sequence[Changes]) -> None:
        """Apply and encode without a pause in between: no snapshot may see half of it."""
        now_ms = self._wall_ms()
        for changes in news:
            self._columns.apply(changes, now_ms=now_ms)
        spans, self._spans = self._spans, {}
        self._columns.apply_spans(spans.values())
        self._columns.drop_finished(before_ms=now_ms - FINISHED_MINUTES * 60_000)
        ages = self.ages()
        is_beat = time.monotonic() - self._beaten_at >= BEAT_SECONDS
        if is_beat:
            self._beaten_at = time.monotonic()
        frames: dict[Namespaces, bytes] = {}
        for namespaces, view in self._views.items():
            frame = view.delta(at_ms=now_ms, ages=ages)
            if frame is None and is_beat:
                frame = view.heartbeat(at_ms=now_ms, ages=ages)
            if frame is not None:
                frames[namespaces] = frame
        self._columns.settle()
        for client, namespaces in self._clients.items():
            if namespaces in frames:
                client.offer(frames[namespaces])

    def _hear(self, spans: Sequence[SpanFact]) -> None:
        for span in spans:
            if len(self._spans) < MAX_SPANS or span.uid.bytes in self._spans:
                self._spans[span.uid.bytes] = span

    async def _guard(self) -> None:
        """Close the sockets of ended sessions; move those whose rights have changed."""
        checked_at = time.monotonic()
        while True:
            await asyncio.sleep(RIGHTS_SECONDS)
            asked = list(self._clients)
            keys = sorted({client.session_key for client in asked})
            try:
                rights = await self._ask(partial(self._rights, keys))
            except Exception as error:
                logger.warning("rights cannot be checked: %s", type(error).__name__)
                if time.monotonic() - checked_at > RIGHTS_GRACE_SECONDS:
                    for client in asked:
                        client.close(TRY_LATER)
                continue
            checked_at = time.monotonic()
            for client in asked:
                if client not in self._clients:
                    continue
                if client.session_key not in rights:
                    client.close(SIGNED_OUT)
                elif rights[client.session_key] != self._clients[client]:
                    self._move(client, rights[client.session_key])

    def _move(self, client: Client, namespaces: Namespaces) -> None:
        self._clients[client] = namespaces
        client.follow(lambda: self._snapshot(namespaces))
        self._forget_views()


_hubs: WeakKeyDictionary[asyncio.AbstractEventLoop, FleetHub] = WeakKeyDictionary()


def get_hub() -> FleetHub:
    """The hub of the running event loop."""
    loop = asyncio.get_running_loop()
    if loop not in _hubs:
        _hubs[loop] = FleetHub(FleetSource(), bus_url=settings.REDIS_URL)
    return _hubs[loop]


def _asked(question: Callable[[], T]) -> Callable[[], T]:
    """The question, asked on a connection that still works."""

    def ask() -> T:
        for connection in connections.all(initialized_only=True):
            connection.close_if_unusable_or_obsolete()
        return question()

    return ask


def _age_ms(now: float, then: float | None) -> int:
    return UNKNOWN_AGE if then is None else min(int((now - then) * 1000), UNKNOWN_AGE - 1)

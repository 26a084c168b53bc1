"""Group commit: exports that arrive close together share one insert, and one wait for the disk."""

import asyncio
import logging
from collections import Counter, deque
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Final, Protocol

from lineage.telemetry.base import (
    SpanBatch,
    TelemetryError,
    TelemetryRejected,
    TelemetryUnavailable,
)

logger = logging.getLogger(__name__)

# Long enough for concurrent senders to meet, short beside the 20 ms that an insert takes.
GATHER_SECONDS: Final = 0.002
MAX_INSERT_BYTES: Final = 4 << 20  # larger inserts win nothing and take the store's memory
MAX_PENDING_BYTES: Final = 64 << 20
MAX_PENDING_EXPORTS: Final = 2000


class SpanStore(Protocol):
    """The part of `Telemetry` that storing needs."""

    def write_spans(self, batches: Sequence[SpanBatch]) -> None:
        """See `Telemetry.write_spans`."""


class WriterOverloaded(Exception):
    """Too much waits to be stored; `is_sender` says that this sender alone fills the queue."""

    def __init__(self, *, is_sender: bool) -> None:
        super().__init__("Too many spans wait to be stored; send again later.")
        self.is_sender = is_sender


class _Pending:
    """One export that waits, and the caller's future."""

    __slots__ = ("batch", "done", "size")

    def __init__(self, batch: SpanBatch, done: "asyncio.Future[None]") -> None:
        self.batch = batch
        self.done = done
        self.size = len(batch.body)


class SpanWriter:
    """Stores exports durably, many per insert. `start` and `close` belong to one event loop."""

    def __init__(
        self,
        telemetry: SpanStore,
        *,
        gather_seconds: float = GATHER_SECONDS,
        max_pending_bytes: int = MAX_PENDING_BYTES,
        max_pending_exports: int = MAX_PENDING_EXPORTS,
    ) -> None:
        self._telemetry = telemetry
        self._gather_seconds = gather_seconds
        self._max_bytes = max_pending_bytes
        self._max_exports = max_pending_exports
        self._queue: deque[_Pending] = deque()
        self._bytes = self._exports = 0
        self._bytes_of: Counter[str] = Counter()
        self._arrived = asyncio.Event()
        self._is_closing = False
        self._task: asyncio.Task[None] | None = None
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="span-writer")

    def start(self) -> None:
        """Begin storing; called by the first `write` otherwise."""
        if self._task is None:
            self._task = asyncio.create_task(self._run(), name="span-writer")

    async def close(self) -> None:
        """Store what waits, then stop. A write after that is refused."""
        self._is_closing = True
        self._arrived.set()
        if self._task is not None:
            await self._task
        self._thread.shutdown(wait=False)

    async def write(self, batch: SpanBatch) -> None:
        """Return once the export is durable and can be queried.

        Safe to repeat: the store keeps one of equal spans.
        Raises: WriterOverloaded, TelemetryUnavailable, TelemetryRejected.
        """
        if self._is_closing:
            raise TelemetryUnavailable("The span writer is shutting down.")
        self._admit(batch)
        self.start()
        pending = _Pending(batch, asyncio.get_running_loop().create_future())
        self._queue.append(pending)
        self._arrived.set()
        # A sender that hangs up does not take back what it sent.
        await asyncio.shield(pending.done)

    def _admit(self, batch: SpanBatch) -> None:
        size, sender = len(batch.body), batch.owner.attempt_uid
        # One export always fits, however large, when nothing else waits.
        if self._bytes_of[sender] and self._bytes_of[sender] + size > self._max_bytes // 2:
            raise WriterOverloaded(is_sender=True)
        if self._bytes and self._bytes + size > self._max_bytes:
            raise WriterOverloaded(is_sender=False)
        if self._exports >= self._max_exports:
            raise WriterOverloaded(is_sender=False)
        self._bytes += size
        self._exports += 1
        self._bytes_of[sender] += size

    async def _run(self) -> None:
        while not (self._is_closing and not self._queue):
            await self._arrived.wait()
            if not self._is_closing:
                await asyncio.sleep(self._gather_seconds)
            group = self._take()
            if group:
                await self._store(group)

    def _take(self) -> list[_Pending]:
        group: list[_Pending] = []
        size = 0
        while self._queue and (not group or size + self._queue[0].size <= MAX_INSERT_BYTES):
            pending = self._queue.popleft()
            size += pending.size
            group.append(pending)
        if not self._queue and not self._is_closing:
            self._arrived.clear()
        return group

    async def _store(self, group: Sequence[_Pending]) -> None:
        error = await self._insert(group)
        if isinstance(error, TelemetryRejected) and len(group) > 1:
            # One export spoils the insert; each alone shows which.
            for pending in group:
                self._settle(pending, await self._insert([pending]))
            return
        for pending in group:
            self._settle(pending, error)

    async def _insert(self, group: Sequence[_Pending]) -> TelemetryError | None:
        batches = [pending.batch for pending in group]
        loop = asyncio.get_running_loop()
        try:
            await loop.run_in_executor(self._thread, self._telemetry.write_spans, batches)
        except TelemetryError as error:
            return error
        except Exception:
            logger.exception("Storing spans failed in a way the writer does not know")
            return TelemetryUnavailable("The telemetry store failed.")
        return None

    def _settle(self, pending: _Pending, error: TelemetryError | None) -> None:
        self._bytes -= pending.size
        self._exports -= 1
        sender = pending.batch.owner.attempt_uid
        self._bytes_of[sender] -= pending.size
        if not self._bytes_of[sender]:
            del self._bytes_of[sender]
        if pending.done.done():
            return
        if error is None:
            pending.done.set_result(None)
        else:
            pending.done.set_exception(error)
            pending.done.exception()  # mark as seen: the sender may have hung up

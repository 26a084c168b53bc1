"""One connected map: at most two frames wait for it; a slow reader gets the latest state."""

import asyncio
import time
from collections import deque
from collections.abc import Callable
from typing import Final

MAX_WAITING: Final = 2  # half a second of deltas; more is a slow reader, who gets a snapshot
SNAPSHOT_SECONDS: Final = 1.0  # between two snapshots for one reader: each may be a megabyte


class Client:
    """The outbox of one socket. `snapshot` makes the latest state at the moment of sending."""

    def __init__(self, *, session_key: str, snapshot: Callable[[], bytes]) -> None:
        self.session_key = session_key
        self.close_code = 0
        self.closed = asyncio.Event()
        self.snapshots = 0
        self._snapshot = snapshot
        self._frames: deque[bytes] = deque()
        self._wants_snapshot = True
        self._snapshot_at = -SNAPSHOT_SECONDS
        self._wake = asyncio.Event()
        self._wake.set()

    @property
    def waiting(self) -> int:
        """How many frames are kept for this reader."""
        return len(self._frames)

    def offer(self, frame: bytes) -> None:
        """A frame of the feed; dropped when a snapshot will say the same."""
        if self._wants_snapshot:
            return
        if len(self._frames) >= MAX_WAITING:
            self.ask_snapshot()
        else:
            self._frames.append(frame)
            self._wake.set()

    def ask_snapshot(self) -> None:
        """Send the whole state next, in place of what waits."""
        self._frames.clear()
        self._wants_snapshot = True
        self._wake.set()

    def follow(self, snapshot: Callable[[], bytes]) -> None:
        """Another feed from now on: what this reader may see has changed."""
        self._snapshot = snapshot
        self.ask_snapshot()

    def close(self, code: int) -> None:
        """End the socket with this code; what waits is not sent."""
        self.close_code = code
        self._frames.clear()
        self.closed.set()
        self._wake.set()

    async def next_frame(self) -> bytes | None:
        """The next frame to send; None once the socket is to be closed."""
        while True:
            await self._wake.wait()
            if self.close_code:
                return None
            if self._wants_snapshot:
                early = self._snapshot_at + SNAPSHOT_SECONDS - time.monotonic()
                if early > 0:
                    await asyncio.sleep(early)
                    continue
                self._wants_snapshot = False
                self._snapshot_at = time.monotonic()
                self.snapshots += 1
                return self._snapshot()
            if self._frames:
                return self._frames.popleft()
            self._wake.clear()

"""What is to be looked at: each key once, by one worker, later when it failed."""

import heapq
import random
import threading
import time
from collections.abc import Callable, Hashable
from typing import Final, Generic, TypeVar

Key = TypeVar("Key", bound=Hashable)

FIRST_SECONDS: Final = 0.2
LONGEST_SECONDS: Final = 60.0
JITTER: Final = 0.2  # of the wait, so that what failed together is not tried together


class WorkQueue(Generic[Key]):
    """Keys to work on. A key added while it is being worked on is given out again afterwards."""

    def __init__(
        self,
        *,
        first_seconds: float = FIRST_SECONDS,
        longest_seconds: float = LONGEST_SECONDS,
        clock: Callable[[], float] = time.monotonic,
        chance: Callable[[], float] = random.random,
    ) -> None:
        self._first_seconds = first_seconds
        self._longest_seconds = longest_seconds
        self._clock = clock
        self._chance = chance
        self._wake = threading.Condition()
        self._due: dict[Key, float] = {}  # the earliest time wanted
        self._heap: list[tuple[float, int, Key]] = []
        self._working: set[Key] = set()
        self._failures: dict[Key, int] = {}
        self._number = 0
        self._is_closed = False

    def __len__(self) -> int:
        with self._wake:
            return len(self._due)

    def add(self, key: Key, *, after_seconds: float = 0.0) -> None:
        """Look at the key, not before so many seconds; the earliest wish counts."""
        with self._wake:
            when = self._clock() + after_seconds
            if self._due.get(key, float("inf")) <= when:
                return
            self._due[key] = when
            self._number += 1
            heapq.heappush(self._heap, (when, self._number, key))
            self._wake.notify_all()

    def retry(self, key: Key, *, at_least_seconds: float = 0.0) -> float:
        """Look again after a wait that doubles with each failure; gives the wait in seconds."""
        with self._wake:
            failures = self._failures[key] = self._failures.get(key, 0) + 1
        wait = min(self._longest_seconds, self._first_seconds * 2.0 ** min(failures - 1, 20))
        wait = max(at_least_seconds, wait * (1.0 - JITTER + 2 * JITTER * self._chance()))
        self.add(key, after_seconds=wait)
        return wait

    def forget(self, key: Key) -> None:
        """It went well: the next failure begins with a short wait again."""
        with self._wake:
            self._failures.pop(key, None)

    def take(self, *, timeout_seconds: float | None = None) -> Key | None:
        """The next key that is due and that nobody works on; None when closed or timed out."""
        deadline = None if timeout_seconds is None else self._clock() + timeout_seconds
        with self._wake:
            while not self._is_closed:
                key, wait = self._next()
                if key is not None:
                    return key
                if deadline is not None:
                    left = deadline - self._clock()
                    if left <= 0:
                        return None
                    wait = left if wait is None else min(wait, left)
                self._wake.wait(wait)
            return None

    def more(self, count: int) -> list[Key]:
        """Further keys that are due now, so many at most; each of them is to be `done`, too."""
        found: list[Key] = []
        with self._wake:
            while len(found) < count and not self._is_closed:
                key, _ = self._next()
                if key is None:
                    break
                found.append(key)
        return found

    def done(self, key: Key) -> None:
        """The worker has finished with the key."""
        with self._wake:
            self._working.discard(key)
            if key in self._due:
                self._number += 1
                heapq.heappush(self._heap, (self._due[key], self._number, key))
            self._wake.notify_all()

    def close(self) -> None:
        """Nothing is given out any more."""
        with self._wake:
            self._is_closed = True
            self._wake.notify_all()

    def _next(self) -> tuple[Key | None, float | None]:
        """A key to work on, or how long until one may be due."""
        while self._heap:
            when, _, key = self._heap[0]
            if self._due.get(key) != when or key in self._working:
                heapq.heappop(self._heap)  # superseded, or given out again by `done`
                continue
            wait = when - self._clock()
            if wait > 0:
                return None, wait
            heapq.heappop(self._heap)
            del self._due[key]
            self._working.add(key)
            return key, None
        return None, None

"""Rings for Goals whose pods have ended: a watch says so sooner than the next look at the Goal."""

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from agents.survey.domain import PodFact

logger = logging.getLogger(__name__)

# Whoever looks at the Goal at that moment may have read the pod already: it is rung for again. The
# usual look at each Goal, once a second, makes up for what is heard by nobody.
AGAIN_SECONDS: Final = 0.3
RINGS: Final = 3


@dataclass(slots=True)
class _Waiting:
    goal: str
    rings: int
    due: float


class Endings:
    """Pods of ours that have ended and are not metered yet. `see` may be called from any thread."""

    def __init__(
        self,
        ring: Callable[[str], None],
        *,
        is_leader: Callable[[], bool] = lambda: True,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`ring` asks for a look at the Goal of that uid."""
        self._ring = ring
        self._is_leader = is_leader
        self._clock = clock
        self._wake = threading.Condition()
        self._waiting: dict[str, _Waiting] = {}  # by uid of the pod
        self._is_stopped = False

    def see(self, pod: PodFact, is_there: bool) -> None:
        """A pod as the watch tells of it; one that is gone, or metered, is not waited for."""
        with self._wake:
            if not is_there or not pod.unmetered:
                self._waiting.pop(pod.uid, None)
            elif pod.uid not in self._waiting:
                self._waiting[pod.uid] = _Waiting(pod.unmetered, RINGS, self._clock())
                self._wake.notify()

    def stop(self) -> None:
        """End `run`."""
        with self._wake:
            self._is_stopped = True
            self._wake.notify()

    def run(self) -> None:
        """Ring until stopped, in a thread of its own: a broker that hangs delays no watch."""
        while not self._is_stopped:
            for goal in self.due():
                if self._is_leader():
                    self._ring(goal)
            with self._wake:
                times = [one.due for one in self._waiting.values() if one.rings]
                if not self._is_stopped:
                    self._wake.wait(max(0.0, min(times) - self._clock()) if times else None)

    def due(self) -> list[str]:
        """Goals to ring for now, each once."""
        with self._wake:
            now = self._clock()
            found = [one for one in self._waiting.values() if one.rings and one.due <= now]
            for one in found:
                one.rings, one.due = one.rings - 1, now + AGAIN_SECONDS
            return list(dict.fromkeys(one.goal for one in found))

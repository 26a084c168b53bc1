"""A copy of one kind of object, reduced to facts as it comes in, kept by list and watch."""

import logging
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any, Final, Generic, TypeVar

from agents.cluster.base import ClusterError
from agents.cluster.kubernetes.api import KubernetesApi, TooManyRequests, WatchExpired

logger = logging.getLogger(__name__)

Key = tuple[str, str]  # namespace, name
FactT = TypeVar("FactT")

WATCH_SECONDS: Final = 120  # the server ends it then; a dead connection is noticed by then, too
RELIST_SECONDS: Final = 900.0  # whatever a watch lost is found by then
FIRST_PAUSE_SECONDS: Final = 0.5
LONGEST_PAUSE_SECONDS: Final = 20.0


class Shadow(Generic[FactT]):
    """Runs in a thread of its own; the rest may be called from any.

    Whole objects are dropped at once: ten thousand pods are half a gigabyte, their facts eight
    megabytes.
    """

    def __init__(
        self,
        api: KubernetesApi,
        path: str,
        *,
        read: Callable[[Mapping[str, Any]], FactT],
        told: Callable[[FactT, bool], None] = lambda _fact, _is_there: None,
    ) -> None:
        """`told` hears of each object that is listed or changes, and whether it is there."""
        self._api = api
        self._path = path
        self._read = read
        self._told = told
        self._lock = threading.Lock()
        self._facts: dict[Key, FactT] = {}
        self._stop = threading.Event()
        self.trouble = f"{path} has not been listed yet"  # "" while the watch stands

    def facts(self) -> list[FactT]:
        """Everything as last heard."""
        with self._lock:
            return list(self._facts.values())

    def stop(self) -> None:
        """End at the next event, or when the watch times out."""
        self._stop.set()

    def run(self) -> None:
        """List, then watch, for ever; a failure waits longer each time."""
        pause = FIRST_PAUSE_SECONDS
        while not self._stop.is_set():
            at_least = 0.0
            try:
                version = self._list()
                pause = FIRST_PAUSE_SECONDS
                self._follow(version)
            except WatchExpired:
                logger.info("%s: the watch is too old; listing again", self._path)
            except ClusterError as error:
                self.trouble = str(error)
                at_least = error.seconds if isinstance(error, TooManyRequests) else 0.0
            self._stop.wait(max(pause, at_least))
            pause = min(pause * 2, LONGEST_PAUSE_SECONDS)

    def _list(self) -> str:
        found: dict[Key, FactT] = {}
        version = ""
        for items, version in self._api.pages_at(self._path):  # noqa: B007 - the last one counts
            for one in items:
                found[_key(one)] = self._read(one)
        with self._lock:
            self._facts = found
        self.trouble = ""
        for fact in found.values():
            self._told(fact, True)
        return version

    def _follow(self, version: str) -> None:
        relist_at = time.monotonic() + RELIST_SECONDS
        while time.monotonic() < relist_at and not self._stop.is_set():
            began = time.monotonic()
            for event in self._api.watch(self._path, version=version, seconds=WATCH_SECONDS):
                if self._stop.is_set():
                    return
                version = event["object"]["metadata"]["resourceVersion"]
                self._take(event)
            # A server that ends every watch at once is not asked in a circle.
            self._stop.wait(max(0.0, began + FIRST_PAUSE_SECONDS - time.monotonic()))

    def _take(self, event: Mapping[str, Any]) -> None:
        found = event["object"]
        if event["type"] == "BOOKMARK":
            return
        fact, is_there = self._read(found), event["type"] != "DELETED"
        with self._lock:
            if is_there:
                self._facts[_key(found)] = fact
            else:
                self._facts.pop(_key(found), None)
        self._told(fact, is_there)


def _key(found: Mapping[str, Any]) -> Key:
    metadata = found["metadata"]
    return metadata.get("namespace", ""), metadata["name"]

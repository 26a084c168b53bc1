"""A copy of every object of one kind, kept by list and watch; says which keys have changed."""

import logging
import random
import threading
import time
from collections.abc import Callable
from typing import Any, Final

from agents.cluster.base import ClusterError
from agents.cluster.kubernetes.api import KubernetesApi, TooManyRequests, WatchExpired
from goals.operator.pace import USUAL, Pace

logger = logging.getLogger(__name__)

Key = tuple[str, str]  # namespace, name
Object = dict[str, Any]

JITTER: Final = 0.2  # of a pause, so that what failed together does not come back together
# A watch that lasted so many of its first pauses was a good one: the next failure waits little.
GOOD_PAUSES: Final = 20.0
# A list older than what is known is not believed, but for so many relists in a row: after that
# it is the server that has gone back, to a backup of its database.
OLD_LISTS: Final = 5


class StaleList(ClusterError):
    """The list is of an earlier moment than what is known already."""


class Informer:
    """Runs in a thread of its own; `get` and `all_keys` may be called from any.

    Resource versions of one kind are ordered numbers since Kubernetes 1.35; where they are not
    numbers, what comes last counts.
    """

    def __init__(
        self,
        api: KubernetesApi,
        path: str,
        *,
        changed: Callable[[Key], None],
        pace: Pace = USUAL,
        chance: Callable[[], float] = random.random,
    ) -> None:
        self._api = api
        self._path = path
        self._changed = changed
        self._pace = pace
        self._chance = chance
        self._lock = threading.Lock()
        self._objects: dict[Key, Object] = {}
        self._version = ""  # to watch from; "" asks for a list
        self._newest = 0  # of what list and watch have told
        self._old_lists = 0
        self._relist_at = 0.0
        self._stop = threading.Event()
        self.synced = threading.Event()

    def get(self, key: Key) -> Object | None:
        """The object as last heard."""
        with self._lock:
            return self._objects.get(key)

    def all_keys(self) -> list[Key]:
        """Everything that is there."""
        with self._lock:
            return list(self._objects)

    def put(self, found: Object) -> None:
        """What a write of ours answered: newer than what the watch has told so far."""
        with self._lock:
            is_known = _key(found) in self._objects
            if not is_known and 0 < _number(found) <= self._newest:
                return  # the watch has told of its end already
            self._keep(found)

    def stop(self) -> None:
        """End at the next event, or when the watch times out."""
        self._stop.set()

    def run(self) -> None:
        """List, then watch, for ever; each failure in a row waits longer.

        A watch that breaks is taken up where it broke; only one that is too old needs a list.
        """
        pause = self._pace.first_pause
        while not self._stop.is_set():
            began, wait = time.monotonic(), 0.0
            try:
                self._look()
            except WatchExpired:
                logger.info("%s: the watch is too old; listing again", self._path)
                self._version = ""
            except TooManyRequests as error:
                wait = error.seconds
                logger.info("%s: asked to wait %.0f s", self._path, wait)
            except ClusterError as error:
                logger.warning("%s: %s", self._path, error)
            if time.monotonic() - began > GOOD_PAUSES * self._pace.first_pause:
                pause = self._pace.first_pause
            jitter = 1.0 - JITTER + 2 * JITTER * self._chance()
            self._stop.wait(max(wait, pause * jitter))
            pause = min(pause * 2, self._pace.longest_pause)

    def _look(self) -> None:
        """One list when it is due, and watches as long as the server ends them in good order."""
        while not self._stop.is_set():
            began = time.monotonic()
            if not self._version or began >= self._relist_at:
                self._list()
            self._watch()
            if time.monotonic() - began < self._pace.first_pause:
                return  # a server that ends every watch at once is not asked in a circle

    def _list(self) -> None:
        found, version = self._api.list_at(self._path, lean=_lean)
        is_back = self._has_gone_back(version)
        now = {_key(one): one for one in found}
        with self._lock:
            before, self._objects = self._objects, now
            for one in before.values():  # written by us while the list was on its way
                if _number(one) > _whole(version) and not is_back:
                    self._keep(one)
            self._newest = max(_whole(version), 0)
        self._version = version
        self._relist_at = time.monotonic() + self._pace.relist
        for key in before.keys() | now.keys():
            if _version(before.get(key)) != _version(now.get(key)):
                self._changed(key)
        self.synced.set()

    def _has_gone_back(self, version: str) -> bool:
        """Whether the server itself is at an earlier moment. Raises StaleList for a while."""
        is_old = _whole(version) < self._newest
        if not is_old or self._old_lists >= OLD_LISTS:
            self._old_lists = 0
            return is_old
        self._old_lists += 1
        raise StaleList("the list is older than what has been heard; asking again")

    def _watch(self) -> None:
        left = max(1, min(self._pace.watch, int(self._relist_at - time.monotonic())))
        for event in self._api.watch(self._path, version=self._version, seconds=left):
            if self._stop.is_set():
                return
            found = event["object"]
            number = _number(found)
            if 0 < number <= self._newest:
                continue  # told before: twice, or too late
            self._version = _version(found)
            self._newest = max(self._newest, number)
            if event["type"] == "BOOKMARK":
                continue
            with self._lock:
                if event["type"] == "DELETED":
                    self._drop(found)
                else:
                    self._keep(found)
            self._changed(_key(found))

    def _keep(self, found: Object) -> None:
        known = self._objects.get(_key(found))
        if known is None or not _is_older(found, known):
            self._objects[_key(found)] = _lean(found)

    def _drop(self, found: Object) -> None:
        """One made again under the same name, and heard of already, stays."""
        known = self._objects.get(_key(found))
        if known is not None and not _is_older(found, known):
            del self._objects[_key(found)]


def _key(found: Object) -> Key:
    metadata = found["metadata"]
    return metadata.get("namespace", ""), metadata["name"]


def _version(found: Object | None) -> str:
    return str(found["metadata"]["resourceVersion"]) if found else ""


def _number(found: Object) -> int:
    return _whole(_version(found))


def _whole(version: str) -> int:
    return int(version) if version.isdecimal() else 0


def _is_older(found: Object, known: Object) -> bool:
    """A duplicated or late event does not bring an older state back."""
    return 0 < _number(found) < _number(known)


def _lean(found: Object) -> Object:
    """Without who manages which field: half of the object, and nobody here asks."""
    found["metadata"].pop("managedFields", None)
    return found

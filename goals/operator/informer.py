"""A copy of every object of one kind, kept by list and watch; says which keys have changed."""

import logging
import threading
import time
from collections.abc import Callable
from typing import Any

from agents.cluster.base import ClusterError
from agents.cluster.kubernetes.api import KubernetesApi, WatchExpired
from goals.operator.pace import USUAL, Pace

logger = logging.getLogger(__name__)

Key = tuple[str, str]  # namespace, name
Object = dict[str, Any]


class Informer:
    """Runs in a thread of its own; `get` and `keys` may be called from any."""

    def __init__(
        self, api: KubernetesApi, path: str, *, changed: Callable[[Key], None], pace: Pace = USUAL
    ) -> None:
        self._api = api
        self._path = path
        self._pace = pace
        self._changed = changed
        self._lock = threading.Lock()
        self._objects: dict[Key, Object] = {}
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
        self._keep(found)

    def stop(self) -> None:
        """End at the next event, or when the watch times out."""
        self._stop.set()

    def run(self) -> None:
        """List, then watch, for ever; a failure waits longer each time."""
        pause = self._pace.first_pause
        while not self._stop.is_set():
            try:
                version = self._list()
                pause = self._pace.first_pause
                relist_at = time.monotonic() + self._pace.relist
                while time.monotonic() < relist_at and not self._stop.is_set():
                    began = time.monotonic()
                    version = self._watch(version)
                    # A server that ends every watch at once is not asked in a circle.
                    self._stop.wait(max(0.0, began + self._pace.first_pause - time.monotonic()))
            except WatchExpired:
                logger.info("%s: the watch is too old; listing again", self._path)
            except ClusterError as error:
                logger.warning("%s: %s", self._path, error)
            self._stop.wait(pause)
            pause = min(pause * 2, self._pace.longest_pause)

    def _list(self) -> str:
        found, version = self._api.list_at(self._path)
        now = {_key(one): one for one in found}
        with self._lock:
            before, self._objects = self._objects, now
        for key in before.keys() | now.keys():
            if _version(before.get(key)) != _version(now.get(key)):
                self._changed(key)
        self.synced.set()
        return version

    def _watch(self, version: str) -> str:
        for event in self._api.watch(self._path, version=version, seconds=self._pace.watch):
            if self._stop.is_set():
                return version
            found = event["object"]
            version = found["metadata"]["resourceVersion"]
            if event["type"] == "DELETED":
                with self._lock:
                    self._objects.pop(_key(found), None)
                self._changed(_key(found))
            elif event["type"] != "BOOKMARK":
                self._keep(found)
                self._changed(_key(found))
        return version

    def _keep(self, found: Object) -> None:
        key = _key(found)
        with self._lock:
            known = self._objects.get(key)
            if known is None or _is_newer(found, known):
                self._objects[key] = found


def _key(found: Object) -> Key:
    metadata = found["metadata"]
    return metadata.get("namespace", ""), metadata["name"]


def _version(found: Object | None) -> str:
    return found["metadata"]["resourceVersion"] if found else ""


def _is_newer(found: Object, known: Object) -> bool:
    """A duplicated or late event does not bring an older state back.

    Resource versions of one kind are ordered numbers since Kubernetes 1.35; where they are not
    numbers, what comes last counts.
    """
    if found["metadata"].get("uid") != known["metadata"].get("uid"):
        return True
    try:
        return int(_version(found)) >= int(_version(known))
    except ValueError:
        return True

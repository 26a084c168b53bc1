"""The operator as a process: one leader, informers, a queue, and workers that mirror one key."""

import contextlib
import logging
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from django.db import Error as DatabaseError
from django.db import close_old_connections
from django.db.models import Max, QuerySet

from agents.cluster.base import ClusterError, ClusterUnavailable
from agents.cluster.kubernetes.api import (
    KubernetesApi,
    ObjectConflict,
    TooManyRequests,
    object_path,
)
from goals.models import Goal
from goals.operator.agents import AGENTS, AgentMirror
from goals.operator.checks import CheckKeeper
from goals.operator.election import Election
from goals.operator.informer import Informer
from goals.operator.mirror import GOALS, Mirror, rows_of
from goals.operator.pace import USUAL, Pace
from goals.operator.work_queue import WorkQueue
from governance.models import JournalRecord

logger = logging.getLogger(__name__)

Key = tuple[str, str, str]  # "goals" or "agents", namespace, name

WORKERS: Final = 2
BATCH: Final = 100  # keys looked at together when many wait
RECORDS: Final = 1000  # of the journal, read at once
STOP_SECONDS: Final = 10.0


class Operator:
    """Everything of one operator process. `run` returns after `stop`."""

    def __init__(
        self, api: KubernetesApi, *, election: Election, namespace: str = "", pace: Pace = USUAL
    ) -> None:
        """With a namespace, everything outside of it is left alone."""
        self._election = election
        self._namespace = namespace
        self._pace = pace
        self._queue: WorkQueue[Key] = WorkQueue(
            first_seconds=pace.first_retry, longest_seconds=pace.longest_retry
        )
        self._stop = threading.Event()
        self._informers = {
            kind: Informer(api, _collection(path, namespace), changed=self._adder(kind), pace=pace)
            for kind, path in (("goals", GOALS), ("agents", AGENTS))
        }
        goals, agents = self._informers["goals"], self._informers["agents"]
        writing = self._writing = api.fenced(election.is_leader)
        self._mirrors = {
            "goals": Mirror(writing, get=goals.get, put=goals.put, pace=pace),
            "agents": AgentMirror(writing, get=agents.get, put=agents.put, pace=pace),
        }

    @property
    def backlog(self) -> int | None:
        """How many keys are still to be looked at; None before everything has been listed."""
        if not all(informer.synced.is_set() for informer in self._informers.values()):
            return None
        return len(self._queue)

    def stop(self) -> None:
        """End as soon as what is being written has been written."""
        self._stop.set()
        self._queue.close()
        for informer in self._informers.values():
            informer.stop()

    def run(self) -> None:
        """Mirror until stopped."""
        targets: Sequence[Callable[[], None]] = [
            *(informer.run for informer in self._informers.values()),
            self._elect,
            self._follow_rows,
            *[self._work] * WORKERS,
            *self._watchers(),
        ]
        threads = [threading.Thread(target=target, daemon=True) for target in targets]
        for thread in threads:
            thread.start()
        self._stop.wait()
        deadline = time.monotonic() + STOP_SECONDS
        for thread in threads[len(self._informers) :]:
            thread.join(max(0.0, deadline - time.monotonic()))
        self._election.resign()

    def _watchers(self) -> Sequence[Callable[[], None]]:
        """What else the leader keeps an eye on; nothing of the whole cluster for one namespace."""
        if self._namespace:
            return []
        return [CheckKeeper(self._writing, is_leader=self._election.is_leader, stop=self._stop).run]

    def _adder(self, kind: str) -> Callable[[tuple[str, str]], None]:
        return lambda key: self._queue.add((kind, *key))

    def _elect(self) -> None:
        was_leader = False
        while not self._stop.is_set():
            is_leader = self._election.campaign()
            if is_leader != was_leader:
                logger.info("this operator %s", "leads" if is_leader else "waits")
                if is_leader:
                    self._add_everything()
            was_leader = is_leader
            self._stop.wait(self._election.renew_seconds)

    def _add_everything(self) -> None:
        for kind, informer in self._informers.items():
            for namespace, name in informer.all_keys():
                self._queue.add((kind, namespace, name))

    # --- Rows ------------------------------------------------------------------------------------

    def _follow_rows(self) -> None:
        """Every row once, then those that the journal names."""
        seq: int | None = None
        while not self._stop.is_set():
            try:
                close_old_connections()
                seq = self._read_rows(seq)
            except DatabaseError as error:
                logger.warning("the database cannot be read: %s", type(error).__name__)
            self._stop.wait(self._pace.poll_rows)

    def _rows(self) -> QuerySet[Goal]:
        every = Goal.objects.all()
        return every.filter(namespace=self._namespace) if self._namespace else every

    def _read_rows(self, seq: int | None) -> int | None:
        if seq is None:
            newest = JournalRecord.objects.aggregate(seq=Max("seq"))["seq"]
            rows = self._rows().filter(deleted_at__isnull=True)
            for namespace, name in rows.values_list("namespace", "name").iterator():
                self._queue.add(("goals", namespace, name))
            return -1 if newest is None else int(newest)
        records = JournalRecord.objects.filter(seq__gt=seq).order_by("seq")
        found = list(records.values_list("seq", "goal_uid")[:RECORDS])
        if not found:
            return seq
        uids = {uid for _, uid in found if uid is not None}
        rows = self._rows().filter(uid__in=uids)
        for namespace, name in rows.values_list("namespace", "name"):
            self._queue.add(("goals", namespace, name))
        return int(found[-1][0])

    # --- Work ------------------------------------------------------------------------------------

    def _work(self) -> None:
        for informer in self._informers.values():
            while not informer.synced.wait(0.5):
                if self._stop.is_set():
                    return
        while not self._stop.is_set():
            if not self._election.is_leader():
                self._stop.wait(0.5)
                continue
            key = self._queue.take(timeout_seconds=1.0)
            if key is not None:
                self._sync_all([key, *self._queue.more(BATCH if len(self._queue) > BATCH else 0)])

    def _sync_all(self, keys: Sequence[Key]) -> None:
        """Look at each; their rows are read at once, so that thousands cost a few queries."""
        close_old_connections()
        rows: Mapping[tuple[str, str], Goal] | None = None
        with contextlib.suppress(DatabaseError):  # then each says so for itself
            places = [(namespace, name) for kind, namespace, name in keys if kind == "goals"]
            rows = rows_of(places) if len(keys) > 1 else None
        is_there = True
        for key in keys:
            try:
                if is_there:
                    is_there = self._sync(key, rows)
                else:  # the others wait for their turn, not for the timeouts of these
                    self._queue.add(key)
            finally:
                self._queue.done(key)

    def _sync(self, key: Key, rows: Mapping[tuple[str, str], Goal] | None) -> bool:
        """Look at one key; whether the cluster was there."""
        kind, *place = key
        more = {"rows": rows} if kind == "goals" else {}
        mirror: Any = self._mirrors[kind]
        try:
            again = mirror.sync(tuple(place), **more)
        except TooManyRequests as error:
            self._queue.retry(key, at_least_seconds=error.seconds)
            return False
        except ObjectConflict:
            self._queue.retry(key)  # the watch has not told us yet what it has become
        except (ClusterError, DatabaseError) as error:
            wait = self._queue.retry(key)
            logger.warning("%s %s/%s: %s; again in %.1f s", *key, error, wait)
            return not isinstance(error, ClusterUnavailable)
        except Exception:  # whatever is wrong with one Goal, the others are mirrored all the same
            wait = self._queue.retry(key)
            logger.exception("%s %s/%s cannot be mirrored; again in %.1f s", *key, wait)
        else:
            self._queue.forget(key)
            if again is not None:
                self._queue.add(key, after_seconds=again)
        return True


def _collection(path: str, namespace: str) -> str:
    return object_path(path, namespace) if namespace else f"/{path}"

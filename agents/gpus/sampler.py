"""The sampler of one node: looks at its GPUs every few seconds and reports what it saw."""

import logging
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from threading import Event
from typing import Final, Protocol

from django.db import Error as DatabaseError
from django.db import connections
from django.utils import timezone

from agents.cluster.base import Cluster, ClusterError, ClusterUnavailable, Gpu
from agents.cluster.nvml import DriverReplaced
from agents.gpus.domain import (
    XIDS_KEPT,
    ComputeProcess,
    DeviceKind,
    NodeReading,
    Owner,
    Reading,
    Sample,
)
from agents.gpus.processes import named
from agents.gpus.reporting import ReportFailed
from agents.services.gpus import record_sample

logger = logging.getLogger(__name__)

INTERVAL_SECONDS: Final = 2.0  # the page calls a node stale after 5 s


class Cards(Protocol):
    """What reads the cards of this machine (`agents.cluster.nvml.NvmlNode`)."""

    def read(self) -> NodeReading:
        """Every card and slice; raises ClusterUnavailable when they do not answer."""

    def close(self) -> None:
        """Let the library go."""


class Sampler:
    """Samples one node. Keeps in memory only what could not be recorded yet, and that is bounded.

    Nothing that goes wrong ends it: cards that do not answer are reported as such, and while the
    database is down each look is tried anew; the errors cards reported meanwhile are kept.
    Without a `cluster` it says nothing of who holds what: in Kubernetes, the survey knows.
    """

    def __init__(
        self,
        node: str,
        *,
        cards: Cards,
        cluster: Cluster | None,
        clock: Callable[[], datetime] = timezone.now,
        record: Callable[[Sample], None] = record_sample,
    ) -> None:
        self.node = node
        self.cards = cards
        self.cluster = cluster
        self.clock = clock
        self.record = record
        self._xids: dict[str, deque[int]] = {}  # heard and not recorded yet, by card
        self._complaint = ""

    def run(self, stop: Event, *, interval_seconds: float = INTERVAL_SECONDS) -> None:
        """Sample until `stop` is set.

        Raises:
            DriverReplaced: this process cannot read the cards any more; it was reported.
        """
        try:
            while not stop.is_set():
                self.step()
                stop.wait(interval_seconds)
        finally:
            self.cards.close()

    def step(self) -> bool:
        """One look, reported; whether the report was kept. Raises DriverReplaced."""
        replaced: DriverReplaced | None = None
        try:
            sample = self.look()
        except DriverReplaced as error:
            replaced = error
            sample = Sample(node=self.node, at=self.clock(), trouble=str(error))
        except ClusterUnavailable as error:
            sample = Sample(node=self.node, at=self.clock(), trouble=str(error))
        is_kept = self._report(sample)
        if replaced is not None:
            raise replaced
        return is_kept

    def look(self) -> Sample:
        """What is there now. Raises ClusterUnavailable when the cards do not answer."""
        reading = self.cards.read()
        gpus = self._gpus()
        held_by = None if gpus is None else {gpu.id: gpu.held_by for gpu in gpus if gpu.held_by}
        workloads = self._pids(held_by or {}) if _has_processes(reading) else {}
        devices = tuple(self._completed(device, workloads) for device in reading.devices)
        if not devices:
            devices = tuple(_slot(gpu, at) for at, gpu in enumerate(self._slots(gpus)))
        for note in reading.notes:
            self._complain(note)
        return Sample(
            node=self.node,
            at=self.clock(),
            driver_version=reading.driver_version,
            devices=devices,
            held_by=held_by,
        )

    def _completed(self, device: Reading, workloads: Mapping[int, str]) -> Reading:
        """The reading with the owners of its processes, and the errors not recorded yet."""
        waiting = self._xids.setdefault(device.id, deque(maxlen=XIDS_KEPT))
        waiting.extend(device.xids)
        processes: tuple[ComputeProcess, ...] | None = device.processes
        if processes is not None:
            processes = tuple(named(process, workloads) for process in processes)
        if processes is not None and self.cluster is None:
            processes = tuple(replace(one, owner=Owner.UNKNOWN) for one in processes)
        return replace(device, xids=tuple(waiting), processes=processes)

    def _gpus(self) -> Sequence[Gpu] | None:
        if self.cluster is None:
            return None
        try:
            return self.cluster.gpus()
        except ClusterError as error:
            self._complain(f"who holds which GPU is not known: {error}")
            return None

    def _slots(self, gpus: Sequence[Gpu] | None) -> list[Gpu]:
        """Declared slots of this node. Raises ClusterUnavailable when nobody can say."""
        if self.cluster is None:
            return []
        if gpus is None:
            raise ClusterUnavailable("The cluster does not say which slots are declared.")
        return [gpu for gpu in gpus if not gpu.is_measured and gpu.node == self.node]

    def _pids(self, held_by: Mapping[str, str]) -> dict[int, str]:
        """Process ids of the workloads that hold GPUs."""
        found: dict[int, str] = {}
        for name in set(held_by.values()):
            try:
                status = self.cluster.get(name) if self.cluster is not None else None
            except ClusterError:
                continue
            if status is not None and status.pid is not None:
                found[status.pid] = name
        return found

    def _report(self, sample: Sample) -> bool:
        try:
            self.record(sample)
        except ReportFailed as error:
            self._complain(f"the sample was not reported: {error}")
            return False
        except DatabaseError as error:
            for connection in connections.all():
                connection.close()  # a broken one would stay broken
            self._complain(f"the sample was not recorded: {error}")
            return False
        if not sample.trouble:
            self._xids.clear()
        self._complain(sample.trouble)
        return True

    def _complain(self, what: str) -> None:
        """Say what is wrong, once until it changes."""
        if what and what != self._complaint:
            logger.warning("GPUs of %s: %s", self.node, what)
        elif self._complaint and not what:
            logger.info("GPUs of %s are recorded again", self.node)
        self._complaint = what


def _has_processes(reading: NodeReading) -> bool:
    return any(device.processes for device in reading.devices)


def _slot(gpu: Gpu, position: int) -> Reading:
    return Reading(id=gpu.id, kind=DeviceKind.SLOT, name=gpu.name, position=position)

"""The survey as a part of the operator: three loops that read the cluster and keep our rows true.

Only the leader writes. Each loop is level-triggered: it reads what is and makes the rows say so,
so that a loop that was killed anywhere has lost nothing.
"""

import datetime as dt
import logging
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from django.db import Error as DatabaseError
from django.db import close_old_connections
from django.utils import timezone

from agents.catalogue.reading import scan_cluster
from agents.cluster.base import ClusterError
from agents.cluster.kubernetes.api import IN_POD, KubernetesApi
from agents.gpus.domain import Sample, Source
from agents.services.catalogue import record_scan
from agents.services.survey import (
    GpuRecorder,
    last_xids,
    note_heard,
    record_foreign,
    record_holders,
    reported_processes,
)
from agents.survey.dcgm import Metrics
from agents.survey.devices import XidMemory, by_node, declared, held_cards, measured
from agents.survey.domain import Live, NodeFact, PodFact, fleet_of
from agents.survey.endings import Endings
from agents.survey.reading import read_node, read_pod
from agents.survey.scraping import Fetch, ScrapeFailed, fetch_directly, fetch_through, scrape
from agents.survey.shadow import Shadow

logger = logging.getLogger(__name__)

NODES: Final = "/api/v1/nodes"
PODS: Final = "/api/v1/pods"
FLEET_SECONDS: Final = 2.0  # the pages call what is older than 5 s stale
SCRAPE_SECONDS: Final = 3.0
COMPARE_EVERY: Final = dt.timedelta(seconds=30)  # with the rows, though nothing seems to change
SCAN_SECONDS: Final = 60.0
FIRST_SECONDS: Final = 1.0  # between looks whether the pods have been listed
SCRAPES_A_SECOND: Final = 60  # of all exporters together; more of them are read less often
ERRORS: Final = (ClusterError, DatabaseError)


class Survey:
    """Reads one cluster. `run` starts what it needs and returns after `stop`."""

    def __init__(
        self,
        api: KubernetesApi,
        *,
        cluster: str,
        is_leader: Callable[[], bool] = lambda: True,
        fetch: Fetch | None = None,
        ring: Callable[[str], None] = lambda _goal_uid: None,
        clock: Callable[[], dt.datetime] = timezone.now,
    ) -> None:
        """`ring` asks for a look at a Goal one of whose pods has ended."""
        self._api = api
        self._cluster = cluster
        self._is_leader = is_leader
        # In a pod there is a way to other pods; from outside there is the API server's.
        self._fetch = fetch or (fetch_directly if cluster in IN_POD else fetch_through(api))
        self._clock = clock
        self._stop = threading.Event()
        self._nodes: Shadow[NodeFact] = Shadow(api, NODES, read=read_node)
        self._endings = Endings(ring, is_leader=is_leader)
        self._pods: Shadow[PodFact] = Shadow(api, PODS, read=read_pod, told=self._endings.see)
        self._recorder = GpuRecorder()
        self._scraped: dict[str, tuple[dt.datetime, Metrics | ScrapeFailed]] = {}
        self._measured: set[str] = set()  # nodes whose exporter has answered
        self._xids = XidMemory()
        self._foreign: tuple[Live, ...] = ()  # as the rows say it
        self._compare_at = clock()
        self._complaint = ""

    def stop(self) -> None:
        """End soon; what is being written is finished."""
        self._stop.set()
        self._nodes.stop()
        self._pods.stop()
        self._endings.stop()

    def run(self) -> None:
        """Survey until stopped."""
        self.watch()
        _in_thread(lambda: self._every(SCRAPE_SECONDS, self.scrape))
        _in_thread(lambda: self._every(SCAN_SECONDS, self.scan))
        self._every(FLEET_SECONDS, self.step)

    def watch(self) -> None:
        """Begin to follow nodes and pods."""
        _in_thread(self._endings.run)
        _in_thread(self._nodes.run)
        _in_thread(self._pods.run)

    def _every(self, seconds: float, look: Callable[[], object]) -> None:
        while not self._stop.is_set():
            if self._is_leader():
                try:
                    close_old_connections()
                    look()
                except ERRORS as error:
                    self._xids = XidMemory()  # what was news may not have been written down
                    self._complain(f"{type(error).__name__}: {error}")
                except Exception:  # a loop that dies is a map that lies
                    logger.exception("the survey of the cluster stumbled")
            else:  # whoever leads meanwhile may have changed the rows
                self._foreign, self._recorder = (), GpuRecorder()
            self._stop.wait(seconds)

    def step(self) -> bool:
        """One look at nodes and pods, kept; False when the cluster is not heard."""
        at = self._clock()
        if trouble := self._trouble():
            self._complain(trouble)
            note_heard(cluster=self._cluster, at=at, trouble=trouble)
            return False
        nodes, pods = self._nodes.facts(), self._pods.facts()
        fleet = fleet_of(nodes, pods)
        if fleet.foreign != self._foreign or at >= self._compare_at:
            self._foreign = ()  # what follows may fail half way
            record_foreign(fleet.foreign, at=at)
            self._foreign, self._compare_at = fleet.foreign, at + COMPARE_EVERY
        self._recorder.record(self._samples(nodes, pods, at=at))
        record_holders(held_cards(reported_processes(), by_node(pods)), at=at)
        note_heard(cluster=self._cluster, at=at, fleet=fleet)
        self._complain("")
        return True

    def scan(self) -> bool:
        """One look at templates, accounts and rights, kept; False before the pods are known."""
        while self._pods.trouble:
            if self._stop.wait(FIRST_SECONDS) or not self._is_leader():
                return False
        scan = scan_cluster(self._api, pods=self._pods.facts())
        record_scan(scan, cluster=self._cluster, at=self._clock())
        return True

    def _trouble(self) -> str:
        """Why the cluster is not heard: a watch that stands still looks like one with no news."""
        if trouble := self._nodes.trouble or self._pods.trouble:
            return trouble
        try:
            self._api.get(NODES, limit=1, resourceVersion=0)
        except ClusterError as error:
            return str(error)
        return ""

    # --- GPUs ------------------------------------------------------------------------------------

    def scrape(self) -> int:
        """Read every exporter once; how many there are."""
        exporters = [pod for pod in self._pods.facts() if pod.exporter and pod.node]
        at = self._clock()
        for node, answer in scrape(exporters, self._fetch).items():
            self._scraped[node] = (at, answer)
        for node in set(self._scraped) - {pod.node for pod in exporters}:
            del self._scraped[node]
        self._stop.wait(max(0.0, len(exporters) / SCRAPES_A_SECOND - SCRAPE_SECONDS))
        return len(exporters)

    def _samples(
        self, nodes: Sequence[NodeFact], pods: Sequence[PodFact], *, at: dt.datetime
    ) -> list[Sample]:
        held = by_node(pods)
        named = {(pod.namespace, pod.name): pod for group in held.values() for pod in group}
        scraped = dict(self._scraped)
        found = []
        for node in nodes:
            sample = self._measured_sample(node.name, scraped, named)
            if sample is None and (node.gpus or node.name in held):
                sample = declared(node, held.get(node.name, ()), at=at)
            if sample is not None:
                found.append(sample)
        return found

    def _measured_sample(
        self, node: str, scraped: Mapping[str, Any], named: Mapping[tuple[str, str], PodFact]
    ) -> Sample | None:
        """What the node's exporter said last; None where none has ever said anything."""
        if node not in scraped:
            self._measured.discard(node)
            return None
        at, answer = scraped[node]
        if isinstance(answer, Metrics) and answer.devices:
            self._measured.add(node)
            if not all(self._xids.knows(one.reading.id) for one in answer.devices):
                for card, code in last_xids(node).items():
                    self._xids.recall(card, code)
            devices = tuple(self._xids.news(answer.devices))
            told = Metrics(devices, answer.driver_version, answer.hosts)
            return measured(node, told, named, at=at)
        if node not in self._measured:
            return None
        why = f"dcgm-exporter: {answer}" if isinstance(answer, ScrapeFailed) else "It lists no GPU."
        return Sample(node=node, at=at, trouble=why, source=Source.DCGM)

    def _complain(self, what: str) -> None:
        """Say what is wrong, once until it changes."""
        if what and what != self._complaint:
            logger.warning("survey: %s", what)
        elif self._complaint and not what:
            logger.info("survey: the cluster is heard again")
        self._complaint = what


def _in_thread(loop: Callable[[], None]) -> None:
    threading.Thread(target=loop, daemon=True, name="survey").start()

"""The admission process: the server, and the threads that feed and empty it."""

import logging
import os
import signal
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final
from urllib.parse import parse_qsl, urlencode, urlsplit

from agents.admission.app import AdmissionApp
from agents.admission.draining import Drain
from agents.admission.keeping import Shown
from agents.admission.server import DRAIN_SECONDS, AdmissionServer
from agents.admission.snapshot import Policies, Snapshot
from agents.admission.spool import Spool
from agents.cluster.base import ClusterError
from agents.cluster.kubernetes.api import KubernetesApi
from governance.policy import policy_engine_from
from governance.policy.base import PolicyEngine, PolicyPoint
from governance.policy.opa import OpaPolicy
from governance.services.decisions import bundle_of

logger = logging.getLogger(__name__)

# An evaluation ends so soon before the API server's 2 s that its denial can be said and kept.
EVALUATION_SECONDS: Final = 1.0
WORKERS_MIN: Final = 2  # a policy that hangs must not hold up every other review
SELF_REVIEWS: Final = "/apis/authentication.k8s.io/v1/selfsubjectreviews"
NAME_SECONDS: Final = 60.0
READY_SECONDS: Final = 0.2


def admission_engine(url: str) -> PolicyEngine:
    """The engine of POLICY_URL, with limits that fit a review. Raises ValueError.

    OPA stands on the path of reviews then: one that is away or hangs denies, as a policy does that
    cannot be decided, so it is to run beside this process.
    """
    parts = urlsplit(url)
    if parts.scheme in ("http", "https"):
        return OpaPolicy(url=url, timeout_seconds=EVALUATION_SECONDS)
    if parts.scheme != "regorus":
        return policy_engine_from(url)
    options = dict(parse_qsl(parts.query))
    seconds = min(float(options.get("timeout_seconds", EVALUATION_SECONDS)), EVALUATION_SECONDS)
    workers = max(int(options.get("workers", 0)), os.cpu_count() or 1, WORKERS_MIN)
    limits = {**options, "workers": workers, "timeout_seconds": seconds, "cpu_seconds": 1}
    return policy_engine_from(f"regorus:?{urlencode(limits)}")


def warm_up(engine: PolicyEngine, snapshot: Snapshot, *, times: int) -> None:
    """Have every sandbox read the bundles before a review needs them."""
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {}, "spec": {"containers": []}}

    def ask(_: int) -> None:
        for version in snapshot.versions:
            engine.evaluate(bundle_of(version), PolicyPoint.WORKLOAD, [pod])

    with ThreadPoolExecutor(times) as pool:
        list(pool.map(ask, range(times)))


class OwnNames:
    """The names under which Clearance asks the API server: those given, and this process's."""

    def __init__(
        self, api: KubernetesApi, *, given: Sequence[str] = (), clock: Callable[[], float]
    ) -> None:
        self._api = api
        self._given = frozenset(given)
        self._clock = clock
        self._found: frozenset[str] = frozenset()
        self._asked_at = float("-inf")

    def __call__(self) -> frozenset[str]:
        """All of them, as far as they are known. Asks nobody."""
        return self._given | self._found

    def look(self) -> None:
        """Ask who we are, now and then. Raises ClusterError."""
        if self._found and self._clock() - self._asked_at < NAME_SECONDS:
            return
        body = {"apiVersion": "authentication.k8s.io/v1", "kind": "SelfSubjectReview"}
        user = (self._api.create(SELF_REVIEWS, body).get("status") or {}).get("userInfo") or {}
        if name := user.get("username"):
            self._found = frozenset({name})
        self._asked_at = self._clock()


@dataclass
class Program:
    """One admission process. `tasks` run in threads of their own until the end."""

    app: AdmissionApp
    policies: Policies
    spool: Spool
    drain: Drain
    shown: Shown
    host: str
    port: int
    tasks: Sequence[Callable[[threading.Event], None]] = ()
    ready_file: Path | None = None
    _stop: threading.Event = field(default_factory=threading.Event)

    def run(self) -> None:
        """Answer reviews until SIGTERM or SIGINT. Raises OSError when the spool cannot be kept."""
        self.spool.open()
        targets = [self.policies.run, self.spool.run, self.drain.run, *self.tasks]
        if self.ready_file is not None:
            self.ready_file.unlink(missing_ok=True)
            targets.append(self._say_ready)
        threads = [threading.Thread(target=one, args=[self._stop], daemon=True) for one in targets]
        for thread in threads:
            thread.start()
        for number in (signal.SIGTERM, signal.SIGINT):
            # uvicorn raises the signal that ended it once more: we have more to do then.
            signal.signal(number, lambda *_: None)
        try:
            AdmissionServer(self.app, self.shown, host=self.host, port=self.port).run()
        finally:
            self._stop.set()
            for thread in threads:
                thread.join(DRAIN_SECONDS)
            self.app.close()
            self.drain.step()
            self.spool.close()
            self.app.engine.close()

    def _say_ready(self, stop: threading.Event) -> None:
        """Make the file once reviews can be answered, and touch it while they can."""
        assert self.ready_file is not None
        while not stop.is_set():
            if not self.app.not_ready():
                self.ready_file.touch()
            stop.wait(READY_SECONDS)


def looks(
    look: Callable[[], None], *, seconds: float, what: str
) -> Callable[[threading.Event], None]:
    """A task that looks again and again; a cluster that does not answer is asked again."""

    def run(stop: threading.Event) -> None:
        while not stop.is_set():
            try:
                look()
            except ClusterError as error:
                logger.warning("%s: %s", what, error)
            except Exception:  # a look that ends lets certificates lapse
                logger.exception("%s", what)
            stop.wait(seconds)

    return run

"""Keeps Clearance's AdmissionChecks of Kueue marked as answered, while this operator leads."""

import logging
import threading
from collections.abc import Callable
from typing import Final

from django.utils import timezone

from agents.cluster.base import ClusterError
from agents.cluster.kubernetes.api import KubernetesApi
from agents.cluster.kubernetes.kueue import keep_checks_active

logger = logging.getLogger(__name__)

# A new AdmissionCheck, or one made again, waits at most so long; Kueue admits nothing meanwhile.
LOOK_SECONDS: Final = 10.0


class CheckKeeper:
    """Looks at the AdmissionChecks every so often. `run` returns once `stop` is set."""

    def __init__(
        self,
        api: KubernetesApi,
        *,
        is_leader: Callable[[], bool],
        stop: threading.Event,
        every_seconds: float = LOOK_SECONDS,
    ) -> None:
        self._api = api
        self._is_leader = is_leader
        self._stop = stop
        self._every_seconds = every_seconds

    def run(self) -> None:
        """Mark what is ours; a cluster that does not answer is asked again."""
        while not self._stop.is_set():
            if self._is_leader():
                self._look()
            self._stop.wait(self._every_seconds)

    def _look(self) -> None:
        try:
            changed = keep_checks_active(self._api, now=timezone.now())
        except ClusterError as error:
            logger.warning("admission checks of Kueue: %s", error)
            return
        if changed:
            logger.info("%d admission checks of Kueue are answered from now on", changed)

"""Which of several operators acts: the holder of one Lease of the cluster."""

import datetime as dt
import logging
import time
from collections.abc import Callable
from typing import Any, Final

from agents.cluster.base import ClusterError
from agents.cluster.kubernetes.api import KubernetesApi, ObjectAbsent, ObjectConflict, object_path

logger = logging.getLogger(__name__)

LEASES: Final = "apis/coordination.k8s.io/v1/leases"
TERM_SECONDS: Final = 15
RENEW: Final = 1 / 3  # of a term
# The holder stops this part of a term before others may take over. A call of its own may last
# longer than that: two that write at once do no harm, since every write is compared with what was
# read, or says what the other would say.
MARGIN: Final = 0.2


class Election:
    """Acquires and renews the Lease. Time is judged on our own clock alone, never on the holder's.

    Another's Lease counts as free once it has not changed for a whole term of ours.
    """

    def __init__(
        self,
        api: KubernetesApi,
        *,
        identity: str,
        namespace: str,
        name: str = "clearance-operator",
        term_seconds: int = TERM_SECONDS,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._api = api
        self._identity = identity
        self._namespace = namespace
        self._name = name
        self._term = term_seconds
        self._monotonic = monotonic
        self._held_until = float("-inf")
        self._seen: str = ""  # resourceVersion of another's lease
        self._seen_at = float("-inf")

    @property
    def renew_seconds(self) -> float:
        """How often to campaign."""
        return self._term * RENEW

    def is_leader(self) -> bool:
        """Whether we may act now."""
        return self._monotonic() < self._held_until

    def campaign(self) -> bool:
        """Acquire or renew once; whether we may act. No answer of the cluster changes nothing."""
        asked_at = self._monotonic()
        try:
            won = self._try()
        except ClusterError as error:
            logger.warning("the lease cannot be renewed: %s", error)
            return self.is_leader()
        self._held_until = asked_at + self._term * (1 - MARGIN) if won else float("-inf")
        return won

    def resign(self) -> None:
        """Let somebody else take over at once."""
        if not self.is_leader():
            return
        self._held_until = float("-inf")
        try:
            found = self._api.get(object_path(LEASES, self._namespace, self._name))
            if found["spec"].get("holderIdentity") == self._identity:
                self._swap(found, holder="")
        except ClusterError as error:
            logger.info("the lease was not given back: %s", error)

    def _try(self) -> bool:
        try:
            found = self._api.get(object_path(LEASES, self._namespace, self._name))
        except ObjectAbsent:
            return self._create()
        holder = found["spec"].get("holderIdentity") or ""
        if holder not in ("", self._identity) and not self._is_expired(found):
            return False
        try:
            self._swap(found, holder=self._identity)
        except ObjectConflict:
            return False
        return True

    def _is_expired(self, found: dict[str, Any]) -> bool:
        version = str(found["metadata"]["resourceVersion"])
        now = self._monotonic()
        if version != self._seen:
            self._seen, self._seen_at = version, now
        term = float(found["spec"].get("leaseDurationSeconds") or self._term)
        return now - self._seen_at > term

    def _create(self) -> bool:
        lease = {
            "apiVersion": "coordination.k8s.io/v1",
            "kind": "Lease",
            "metadata": {"name": self._name},
            "spec": self._spec(self._identity, transitions=0),
        }
        try:
            self._api.create(object_path(LEASES, self._namespace), lease)
        except ObjectConflict:
            return False
        return True

    def _swap(self, found: dict[str, Any], *, holder: str) -> None:
        transitions = int(found["spec"].get("leaseTransitions") or 0)
        changed = holder not in ("", found["spec"].get("holderIdentity"))
        self._api.merge(
            object_path(LEASES, self._namespace, self._name),
            {
                "metadata": {"resourceVersion": found["metadata"]["resourceVersion"]},
                "spec": self._spec(holder, transitions=transitions + changed),
            },
        )

    def _spec(self, holder: str, *, transitions: int) -> dict[str, Any]:
        now = dt.datetime.now(dt.UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")
        return {
            "holderIdentity": holder or None,
            "leaseDurationSeconds": self._term,
            "renewTime": now,
            "leaseTransitions": transitions,
        }

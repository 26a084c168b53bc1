"""What admission judges by, kept in memory: no database stands on a review's path."""

import logging
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from django.db import DatabaseError, InterfaceError, close_old_connections

from agents.cluster.base import Cluster, ClusterError
from governance.domain import Stage
from governance.models import BundleVersion
from governance.services.decisions import versions_in_force
from lineage.models import Artifact

logger = logging.getLogger(__name__)

REFRESH_SECONDS: Final = 2.0  # how soon an enforced version or a recall counts
# The cluster is asked less often: it lists nodes and pods for it.
GPU_SECONDS: Final = 10.0


@dataclass(frozen=True, slots=True)
class Snapshot:
    """Bundles past draft, recalled digests of each namespace, GPUs in all and in use."""

    versions: tuple[BundleVersion, ...]
    recalls: Mapping[str, Mapping[str, str]]  # namespace -> digest -> reason
    gpus: tuple[int, int] | None  # None when the cluster did not say
    read_at: float  # monotonic

    def recalled(self, namespace: str, digests: set[str]) -> dict[str, str]:
        """Those of the digests that were recalled in that namespace, with the reason."""
        recalls = self.recalls.get(namespace, {})
        return {digest: recalls[digest] for digest in sorted(digests & recalls.keys())}

    def facts(self) -> dict[str, Any]:
        """What rules may know of the cluster."""
        if self.gpus is None:
            return {}
        total, in_use = self.gpus
        return {"cluster": {"gpus_total": total, "gpus_in_use": in_use}}


@dataclass
class Policies:
    """Keeps the newest snapshot; the last one goes on judging while the database is away.

    `cluster` answers how many GPUs there are; `loaded` is told of new bundles.
    """

    cluster: Callable[[], Cluster] | None = None
    loaded: Callable[[Snapshot], None] = lambda _: None
    clock: Callable[[], float] = time.monotonic
    _snapshot: Snapshot | None = None
    _gpus: tuple[int, int] | None = None
    _gpus_at: float = float("-inf")
    _versions: dict[tuple[str, str], BundleVersion] = field(default_factory=dict)

    @property
    def snapshot(self) -> Snapshot | None:
        """The newest; None as long as none could be read."""
        return self._snapshot

    @property
    def age_seconds(self) -> float | None:
        """Since the newest was read."""
        return None if self._snapshot is None else self.clock() - self._snapshot.read_at

    def refresh(self) -> bool:
        """Read everything anew; False, and what was, when the database does not answer."""
        try:
            close_old_connections()
            versions = self._read_versions()
            recalls = _read_recalls()
        except (DatabaseError, InterfaceError, OSError) as error:
            logger.warning("policies cannot be read: %s", type(error).__name__)
            return False
        snapshot = Snapshot(versions, recalls, self._read_gpus(), self.clock())
        is_news = self._snapshot is None or _keys(self._snapshot) != _keys(snapshot)
        if is_news:
            self.loaded(snapshot)
        self._snapshot = snapshot
        return True

    def run(self, stop: threading.Event) -> None:
        """Refresh until told to stop."""
        while not stop.is_set():
            try:
                self.refresh()
            except Exception:  # whatever it is, the last snapshot goes on judging
                logger.exception("policies cannot be read")
            stop.wait(REFRESH_SECONDS)

    def _read_versions(self) -> tuple[BundleVersion, ...]:
        """The bundles; their text is read once, since a version never changes."""
        keys = BundleVersion.objects.exclude(stage=Stage.DRAFT).order_by("name", "version")
        seen = list(keys.values_list("uid", "stage"))
        if seen and seen == [(one.uid, one.stage) for one in self._versions.values()]:
            return tuple(self._versions.values())
        found = versions_in_force()
        self._versions = {(str(one.uid), one.stage): one for one in found}
        return tuple(found)

    def _read_gpus(self) -> tuple[int, int] | None:
        if self.cluster is None or self.clock() - self._gpus_at < GPU_SECONDS:
            return self._gpus
        self._gpus_at = self.clock()
        try:
            gpus = self.cluster().gpus()
        except ClusterError as error:
            logger.info("the GPUs of the cluster are not known: %s", error)
            self._gpus = None
        else:
            self._gpus = (len(gpus), sum(1 for gpu in gpus if gpu.held_by))
        return self._gpus


def _keys(snapshot: Snapshot) -> list[tuple[str, str]]:
    return [(str(one.uid), one.stage) for one in snapshot.versions]


def _read_recalls() -> dict[str, dict[str, str]]:
    found: dict[str, dict[str, str]] = {}
    rows = Artifact.objects.filter(recalled_at__isnull=False)
    for row in rows.only("namespace", "digest", "blob_digest", "recall_reason"):
        for digest in filter(None, (row.digest, row.blob_digest)):
            found.setdefault(row.namespace, {})[digest] = row.recall_reason
    return found

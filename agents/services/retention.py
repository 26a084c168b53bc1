"""What the cluster keeps of workloads that ended: their output and files, for a while."""

import datetime as dt
import logging
from collections.abc import Iterator
from typing import Final

from django.conf import settings
from django.db.models import F
from django.utils import timezone

from agents.cluster import get_cluster
from agents.cluster.base import Cluster
from agents.domain.states import FINISHED_STATES
from agents.models import Attempt

logger = logging.getLogger(__name__)

FORGOTTEN_AT_ONCE: Final = 500  # workloads a run, seconds of removing files; the next run goes on
NAMES_PER_QUERY: Final = 500  # SQLite takes some thousand parameters


def forget_workloads(
    *,
    cluster: Cluster | None = None,
    now: dt.datetime | None = None,
    at_once: int = FORGOTTEN_AT_ONCE,
) -> int:
    """Remove what is kept of workloads that ended `WORKLOAD_RETENTION_SECONDS` ago: how many.

    Only of attempts that are finished and settled, so that neither meters nor exit code are still
    to be read; a workload that no attempt knows is kept. Safe to repeat: what is gone is no longer
    listed. Oldest first, at most `at_once`. Raises `ClusterError`s.
    """
    cluster = cluster or get_cluster()
    until = (now or timezone.now()) - dt.timedelta(seconds=settings.WORKLOAD_RETENTION_SECONDS)
    ended = {one.name: one.finished_at for one in cluster.list() if one.is_finished}
    old = {name: at for name, at in ended.items() if at is not None and at < until}
    count = 0
    for name in _settled(sorted(old, key=lambda name: old[name])):
        if count == at_once:
            break
        cluster.forget(name)
        count += 1
    if count:
        logger.info("%d workloads that ended long ago were forgotten", count)
    return count


def _settled(names: list[str]) -> Iterator[str]:
    """Those of the names whose attempt is over, in the ledger too."""
    over = Attempt.objects.filter(state__in=FINISHED_STATES, gpu_allowance_ms=F("gpu_settled_ms"))
    for start in range(0, len(names), NAMES_PER_QUERY):
        some = names[start : start + NAMES_PER_QUERY]
        found = set(over.filter(workload__in=some).values_list("workload", flat=True))
        yield from (name for name in some if name in found)

"""Ending many workloads at once, and waiting until they are gone; asks nothing but the cluster."""

import time
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

from agents.cluster import get_cluster
from agents.cluster.base import Cluster, ClusterError, WorkloadStatus

AT_ONCE = 16  # each waits for a disk or an API server, not for the processor
POLL_SECONDS = 0.02


@dataclass(frozen=True, slots=True)
class Stopped:
    """What became of the workloads, by name. Absent ones are None in `statuses`."""

    statuses: Mapping[str, WorkloadStatus | None] = field(default_factory=dict)
    running: tuple[str, ...] = ()  # had not ended when the time was over
    problems: Mapping[str, str] = field(default_factory=dict)  # the cluster's own words


def stop_workloads(
    names: Iterable[str], *, within_seconds: float, cluster: Cluster | None = None
) -> Stopped:
    """Kill workloads without grace and wait until each has ended, at most so many seconds.

    Repeating it is harmless. Never raises `ClusterError`s: one workload that cannot be reached
    must not keep the others alive.
    """
    cluster = cluster or get_cluster()
    deadline = time.monotonic() + within_seconds
    statuses: dict[str, WorkloadStatus | None] = {}
    problems: dict[str, str] = {}
    wanted = list(dict.fromkeys(names))
    if not wanted:
        return Stopped()

    def kill(name: str) -> str:
        try:
            cluster.delete(name, grace_seconds=0.0)
        except ClusterError as error:
            return str(error)
        return ""

    def look(name: str) -> tuple[WorkloadStatus | None, str]:
        while True:
            try:
                status = cluster.get(name)
            except ClusterError as error:
                return None, str(error)
            if status is None or status.is_finished or time.monotonic() >= deadline:
                return status, ""
            time.sleep(POLL_SECONDS)

    with ThreadPoolExecutor(AT_ONCE, thread_name_prefix="kill") as pool:
        # All are killed before any is waited for.
        refusals = list(pool.map(kill, wanted))
        for name, refusal, (status, trouble) in zip(
            wanted, refusals, pool.map(look, wanted), strict=True
        ):
            if refusal or trouble:
                problems[name] = refusal or trouble
            else:
                statuses[name] = status
    running = tuple(n for n, one in statuses.items() if one is not None and not one.is_finished)
    return Stopped(statuses, running, problems)


def strays(*, namespace: str | None, cluster: Cluster | None = None) -> list[str]:
    """Names of workloads the cluster still runs, of one namespace or (None) of all.

    Raises `ClusterError`s.
    """
    cluster = cluster or get_cluster()
    return [
        one.name
        for one in cluster.list()
        if not one.is_finished and (namespace is None or one.namespace == namespace)
    ]

"""How soon an attempt in Kubernetes stops at its limit: its Job suspended, and its pods gone.

Times are those at which the API server told a watch of ours. The limit is reached when the running
time that the kubelet reports, to the second, is the allowance; a kubelet cuts off what is below a
second, so that these delays are up to a second longer than in truth.
"""

import contextlib
import statistics
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any
from uuid import UUID, uuid4

from agents.cluster.base import ClusterError, WorkloadSpec
from agents.cluster.kubernetes.api import KubernetesApi, object_path
from agents.cluster.kubernetes.cluster import JOBS, KubernetesCluster
from agents.cluster.kubernetes.nodes import PODS
from agents.cluster.kubernetes.reading import pod_run
from agents.cluster.kubernetes.record import WORKLOAD
from agents.survey.domain import PodFact
from agents.survey.endings import Endings
from agents.survey.reading import read_pod
from agents.survey.shadow import Shadow
from bench.on_cluster import bench_plane
from tests.cluster.control_plane import CONTEXT

ATTEMPTS = 60
AT_ONCE = 20  # their limits come within one or two seconds of each other
ALLOWANCE_MS = 4_000
# A worker looks at each active Goal this often (RESYNC_SECONDS of goals.services.reconcile).
LOOK_SECONDS = 1.0
AIM_MS = 2_000.0  # limit reached -> Job suspended and pods gone, p99, without the pods' grace
LOOKERS = 4  # Goals that one worker reconciles at the same time
PATIENCE_SECONDS = 60.0
NAMESPACE = "bench-limit"


class Watcher:
    """When each Job was suspended, when its pod began as the cluster says, and when it left."""

    def __init__(self, api: KubernetesApi) -> None:
        self._api = api
        self.suspended_at: dict[str, float] = {}
        self.began_at: dict[str, float] = {}
        self.left_at: dict[str, float] = {}
        for collection, see in ((JOBS, self._see_job), (PODS, self._see_pod)):
            path = object_path(collection, NAMESPACE)
            _, version = api.list_at(path)
            threading.Thread(target=self._watch, args=(path, version, see), daemon=True).start()

    def _watch(self, path: str, version: str, see: Any) -> None:
        with contextlib.suppress(ClusterError):  # the control plane ends with the bench
            for event in self._api.watch(path, version=version, seconds=600):
                see(event["type"], event["object"])

    def _see_job(self, kind: str, job: dict[str, Any]) -> None:
        if kind != "BOOKMARK" and job["spec"].get("suspend"):
            self.suspended_at.setdefault(job["metadata"]["name"], time.time())

    def _see_pod(self, kind: str, pod: dict[str, Any]) -> None:
        if kind == "BOOKMARK":
            return
        name = pod["metadata"]["labels"][WORKLOAD]
        if (started := pod_run(pod).started_at) is not None:
            self.began_at[name] = started.timestamp()
        if kind == "DELETED":
            self.left_at[name] = time.time()


def spec(name: str, goal_uid: UUID) -> WorkloadSpec:
    """An attempt on one GPU that never ends by itself."""
    return WorkloadSpec(
        name=name, namespace=NAMESPACE, goal_uid=str(goal_uid), task="bench", attempt_uid=name,
        agent="bench", service_account="bench", image="registry.example/bench:1.0",
        command=("bench",), gpus=1, gpu_allowance_ms=ALLOWANCE_MS,
    )  # fmt: skip


class Worker:
    """Looks at attempts as a worker does: each second, and when the operator rings."""

    def __init__(self, cluster: KubernetesCluster, goals: dict[str, str]) -> None:
        """`goals` maps uids of Goals to the names of their attempts."""
        self._cluster = cluster
        self._goals = goals
        self._pool = ThreadPoolExecutor(LOOKERS)
        self._lock = threading.Lock()
        self._looking: set[str] = set()

    def look(self, name: str) -> Future[None]:
        """Look at one attempt, unless somebody does: its Goal is leased then."""
        return self._pool.submit(self._look, name)

    def ring(self, goal_uid: str) -> None:
        """What the operator calls."""
        self.look(self._goals[goal_uid])

    def _look(self, name: str) -> None:
        with self._lock:
            if name in self._looking:
                return
            self._looking.add(name)
        try:
            self._cluster.get(name)
        finally:
            with self._lock:
                self._looking.discard(name)

    def close(self) -> None:
        """End the threads."""
        self._pool.shutdown()


@contextlib.contextmanager
def heard(api: KubernetesApi, worker: Worker) -> Iterator[None]:
    """The operator's watch of pods, ringing for the worker."""
    endings = Endings(worker.ring)
    pods: Shadow[PodFact] = Shadow(api, f"/{PODS}", read=read_pod, told=endings.see)
    for target in (pods.run, endings.run):
        threading.Thread(target=target, daemon=True).start()
    try:
        yield
    finally:
        pods.stop()
        endings.stop()


def stop_all(
    cluster: KubernetesCluster, watcher: Watcher, worker: Worker, goals: dict[str, str]
) -> None:
    """Run them to their limits, looking at each as often as a worker does."""
    for uid, name in goals.items():
        cluster.create(spec(name, UUID(uid)))
    names = list(goals.values())
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not all(name in watcher.left_at for name in names):
        if time.monotonic() > deadline:
            raise TimeoutError("the attempts did not stop in time")
        began = time.monotonic()
        for look in [worker.look(name) for name in names if name not in watcher.left_at]:
            look.result()
        time.sleep(max(0.0, began + LOOK_SECONDS - time.monotonic()))
    for name in names:
        status = cluster.get(name)
        assert status is not None
        assert status.gpu_ms <= ALLOWANCE_MS
        cluster.delete(name, grace_seconds=0)


def batches(goals: dict[str, str]) -> Iterator[dict[str, str]]:
    """So many at once."""
    pairs: Sequence[tuple[str, str]] = list(goals.items())
    for first in range(0, len(pairs), AT_ONCE):
        yield dict(pairs[first : first + AT_ONCE])


def delays_ms() -> tuple[list[float], list[float]]:
    """From each limit to the suspended Job, and to the pod that has gone."""
    with bench_plane() as (plane, _):
        for number in range(2):
            plane.add_node(f"bench-{number}", gpus=AT_ONCE)
        plane.add_namespace(NAMESPACE, "bench")
        api = KubernetesApi(CONTEXT, config_file=str(plane.kubeconfig))
        cluster, watcher = KubernetesCluster(api), Watcher(api)
        goals = {str(uuid4()): f"attempt-{number}" for number in range(ATTEMPTS)}
        worker = Worker(cluster, goals)
        with contextlib.closing(worker), heard(api, worker):
            for some in batches(goals):
                stop_all(cluster, watcher, worker, some)
        names = list(goals.values())
        limits = {name: watcher.began_at[name] + ALLOWANCE_MS / 1000 for name in names}
        return (
            [(watcher.suspended_at[name] - limits[name]) * 1000 for name in names],
            [(watcher.left_at[name] - limits[name]) * 1000 for name in names],
        )


def run() -> list[dict[str, object]]:
    """Each figure with the aim; negative: before the limit."""
    figures = zip(("Job suspended", "pods gone"), delays_ms(), strict=True)
    rows: list[dict[str, object]] = []
    for what, delays in figures:
        cuts = statistics.quantiles(delays, n=100, method="inclusive")
        rows += [
            {
                "name": f"limit reached -> {what}, p{part}",
                "value": round(cuts[part - 1], 1),
                "unit": "ms",
                "peer": f"{AIM_MS:.0f} ms (the aim)",
                "ratio": round(cuts[part - 1] / AIM_MS, 4),
            }
            for part in (50, 99)
        ]
    return rows


if __name__ == "__main__":
    for line in run():
        print(f"{line['name']}: {line['value']} {line['unit']}; {line['ratio']} x {line['peer']}")

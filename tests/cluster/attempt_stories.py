"""Stories of attempts: a worker that asks for Jobs, and is cut off from them."""

import contextlib
import dataclasses
import json
import threading
import time
from collections.abc import Callable
from typing import Any, Final

from agents.cluster.base import ClusterError, WorkloadPhase, WorkloadSpec, WorkloadStatus
from agents.cluster.kubernetes.api import ObjectAbsent, object_path
from agents.cluster.kubernetes.cluster import JOBS, SECRETS, KubernetesCluster
from agents.cluster.kubernetes.nodes import PODS
from agents.cluster.kubernetes.record import RECORD, WORKLOAD
from tests.cluster.fault_plan import Plan
from tests.cluster.telling import (
    LOOK_SECONDS,
    PATIENCE_SECONDS,
    Told,
    Unlike,
)


class Worker:
    """A worker with a route of its own to the cluster; it comes back when it was killed."""

    def __init__(self, told: Told, plan: Plan) -> None:
        self._told = told
        self._start(plan)

    def _start(self, plan: Plan) -> None:
        self.route = self._told.route(plan)
        self._api = self._told.client(self.route)
        self.cluster = KubernetesCluster(self._api)

    def do(self, step: Callable[[KubernetesCluster], Any]) -> Any:
        """Take a step until it is taken, as reconcile does."""
        deadline = self._told.deadline
        while True:
            try:
                return step(self.cluster)
            except ClusterError as error:
                if time.monotonic() > deadline:
                    raise Unlike(f"a step was never taken: {error}") from error
            if self.route.was_killed.is_set():
                self.close()
                self._start(self.route.remaining())
            time.sleep(LOOK_SECONDS)

    def close(self) -> None:
        self.route.cut()
        self._api.close()


class AttemptRun(Told):
    """One attempt as a Job."""

    worker: Worker

    def run(self, story: Callable[["AttemptRun"], None], expected: Any) -> Any:
        """Tell the story; its end. Raises Unlike."""
        self.worker = Worker(self, self.plan)
        try:
            story(self)
            return self.settle(expected)
        finally:
            self.worker.close()
            self._clear()

    def spec(self, **changes: Any) -> WorkloadSpec:
        fields: dict[str, Any] = {
            "name": self.name,
            "namespace": self.place.namespace,
            "goal_uid": "g",
            "task": "tune",
            "attempt_uid": f"attempt-{self.name}",
            "agent": "optimizer",
            "service_account": "optimizer",
            "image": "registry.example/agents/optimizer@sha256:" + "0" * 64,
            "command": ("optimizer", "--once"),
            "environment": {"CLEARANCE_JOIN_TOKEN": "a-secret"},
        }
        return WorkloadSpec(**{**fields, **changes})

    def create(self, **changes: Any) -> None:
        spec = self.spec(**changes)
        self.worker.do(lambda cluster: cluster.create(spec))

    def until_status(self, holds: Callable[[WorkloadStatus], bool], what: str) -> None:
        def look() -> bool:
            status = self.worker.do(lambda cluster: cluster.get(self.name))
            return status is not None and holds(status)

        self.until(look, what)

    def until_phase(self, phase: WorkloadPhase) -> None:
        self.until_status(lambda status: status.phase == phase, phase.value)

    def until_no_pods(self) -> None:
        def look() -> bool:
            self.worker.do(lambda cluster: cluster.get(self.name))
            return not self.pods()

        self.until(look, "without pods")

    def end_program(self, code: int) -> None:
        for pod in self.pods():
            path = object_path(PODS, self.place.namespace, pod["metadata"]["name"])
            change = {"metadata": {"annotations": {"clearance.test/exit-code": str(code)}}}
            self.place.admin.merge(path, change)

    def pods(self) -> list[dict[str, Any]]:
        path = object_path(PODS, self.place.namespace)
        return list(self.place.admin.items(path, labelSelector=f"{WORKLOAD}={self.name}"))

    def one(self, collection: str) -> dict[str, Any] | None:
        try:
            return self.place.admin.get(object_path(collection, self.place.namespace, self.name))
        except ObjectAbsent:
            return None

    def end(self) -> Any:
        with contextlib.suppress(ClusterError):
            self.worker.cluster.get(self.name)
        job, secret, pods = self.one(JOBS), self.one(SECRETS), self.pods()
        status = KubernetesCluster(self.place.admin).get(self.name) if job else None
        if status is not None and status.reason == "AllowanceExhausted":
            # Suspended by us, or ended by the cluster itself when we could not be reached in time.
            status = dataclasses.replace(status, phase=WorkloadPhase.PAUSED)
        return {
            "job": job and self._told_of(job),
            "secret": secret and job and [
                one["uid"] == job["metadata"]["uid"]
                for one in secret["metadata"].get("ownerReferences") or []
            ],
            "is_secret_there": secret is not None,
            "pods": [bool(pod["metadata"].get("deletionTimestamp")) for pod in pods],
            "status": status and [status.phase.value, status.reason, status.exit_code],
            "is_within": status is None
            or status.gpu_allowance_ms is None
            or status.gpu_ms <= status.gpu_allowance_ms,
        }  # fmt: skip

    def _told_of(self, job: dict[str, Any]) -> Any:
        record = json.loads(job["metadata"]["annotations"][RECORD])
        return {
            "suspend": bool(job["spec"].get("suspend")),
            "wants": record["wants"],
            "allowance": record["allowance_ms"],
            "has_started": bool(record["started_at"]),
            "is_finished": sorted(
                one["type"]
                for one in (job.get("status") or {}).get("conditions") or []
                if one["status"] == "True" and one["type"] == "Complete"
            ),
        }

    def _clear(self) -> None:
        cluster = KubernetesCluster(self.place.admin)
        cluster.delete(self.name, grace_seconds=0)
        deadline = time.monotonic() + PATIENCE_SECONDS
        while (status := cluster.get(self.name)) is not None and time.monotonic() < deadline:
            if status.is_finished:
                cluster.forget(self.name)
            time.sleep(LOOK_SECONDS)
        path = object_path(SECRETS, self.place.namespace, self.name)
        self.place.admin.delete(path)


def ran(run: AttemptRun) -> None:
    run.create()
    run.until_phase(WorkloadPhase.RUNNING)
    run.end_program(0)
    run.until_phase(WorkloadPhase.SUCCEEDED)


def paused_and_resumed(run: AttemptRun) -> None:
    run.create(gpus=1)
    run.until_phase(WorkloadPhase.RUNNING)
    run.worker.do(lambda cluster: cluster.pause(run.name))
    run.until_no_pods()
    run.worker.do(lambda cluster: cluster.resume(run.name))
    run.until_phase(WorkloadPhase.RUNNING)


def at_its_limit(run: AttemptRun) -> None:
    run.create(gpus=1, gpu_allowance_ms=3_000)
    run.until_status(lambda status: status.reason == "AllowanceExhausted", "at its limit")
    run.until_no_pods()


def deleted(run: AttemptRun) -> None:
    run.create()
    run.until_phase(WorkloadPhase.RUNNING)
    run.worker.do(lambda cluster: cluster.delete(run.name, grace_seconds=0))
    run.until_status(lambda status: status.is_finished, "finished")

    def is_gone() -> bool:  # asked again, as every list of all attempts does for old ones
        run.worker.do(lambda cluster: cluster.forget(run.name))
        return run.one(JOBS) is None

    run.until(is_gone, "forgotten")


def asked_for_twice(run: AttemptRun) -> None:
    """Two workers, each of which believes that it holds the Goal."""
    other = Worker(run, Plan(**{**_fields(run.plan), "seed": run.plan.seed + 7}))
    spec = run.spec()
    second = threading.Thread(target=other.do, args=(lambda cluster: cluster.create(spec),))
    second.start()
    run.create()
    second.join(PATIENCE_SECONDS)
    other.close()
    run.until_phase(WorkloadPhase.RUNNING)


def _fields(plan: Plan) -> dict[str, Any]:
    return {name: getattr(plan, name) for name in Plan.__slots__}


ATTEMPT_STORIES: Final = (ran, paused_and_resumed, at_its_limit, deleted, asked_for_twice)

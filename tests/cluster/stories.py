"""Stories of Goals and of attempts on a real API server, each with the end it must come to."""

import contextlib
import dataclasses
import itertools
import json
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from django.utils import timezone

from agents.cluster.base import ClusterError, WorkloadPhase, WorkloadSpec, WorkloadStatus
from agents.cluster.kubernetes.api import KubernetesApi, ObjectAbsent, RateLimit, object_path
from agents.cluster.kubernetes.cluster import JOBS, SECRETS, KubernetesCluster
from agents.cluster.kubernetes.nodes import PODS
from agents.cluster.kubernetes.record import RECORD, WORKLOAD
from agents.domain.documents import load_documents
from goals.domain.manifest import parse_goal
from goals.models import Goal
from goals.operator.election import Election
from goals.operator.mirror import GOALS
from goals.operator.pace import Pace
from goals.operator.program import Operator
from goals.operator.resources import digest_of, manifest_of_row, read_agreement
from goals.services.apply import apply_goal, delete_goal
from goals.services.reconcile import reconcile_goal
from governance.access import Principal
from governance.domain import EVERY_NAMESPACE, Permission
from governance.models import JournalRecord
from lineage.domain import Actor, ActorKind
from tests.cluster.control_plane import CONTEXT, ControlPlane
from tests.cluster.fault_plan import CALM, Plan
from tests.cluster.fault_proxy import FaultProxy, Route

PATIENCE_SECONDS: Final = 40.0
LOOK_SECONDS: Final = 0.12
QUIET_SECONDS: Final = 0.6
REFERENCE_QUIET_SECONDS: Final = 5.0  # longer than anything is waited for
TIMEOUTS: Final = (1.0, 1.5)  # of the client; shorter than in life, as everything here is
WORK_SECONDS: Final = 0.25  # between two looks of the worker
REQUESTS_PER_SECOND, BURST = 40.0, 60
TERM_SECONDS: Final = 2
FAST: Final = Pace(
    poll_rows=0.1, relist=1.5, watch=5, first_pause=0.05, longest_pause=0.5, first_retry=0.05,
    longest_retry=0.5, again=0.2, refused=0.5,
)  # fmt: skip
PERSON: Final = Principal(
    actor=Actor(ActorKind.HUMAN, "somebody"),
    username="somebody",
    permissions={EVERY_NAMESPACE: frozenset({Permission.VIEW, Permission.OPERATE})},
)
numbers = itertools.count(1)


class Unlike(Exception):
    """The story did not come to the end it must come to."""


@dataclass
class Place:
    """Where stories are told: one namespace, one proxy, and the administrator's own way in."""

    plane: ControlPlane
    proxy: FaultProxy
    namespace: str
    directory: Path
    admin: KubernetesApi


@dataclass
class Told:
    """One run: its routes, to be judged afterwards."""

    place: Place
    name: str
    plan: Plan
    routes: list[Route] = field(default_factory=list)

    def route(self, plan: Plan) -> Route:
        made = self.place.proxy.route(f"{self.name}-{next(numbers)}", plan)
        self.routes.append(made)
        return made

    def client(self, route: Route) -> KubernetesApi:
        return KubernetesApi(
            CONTEXT,
            config_file=str(route.kubeconfig(self.place.directory)),
            limit=RateLimit(per_second=REQUESTS_PER_SECOND, burst=BURST),
            timeouts=TIMEOUTS,
        )

    @property
    def deadline(self) -> float:
        """When whoever waits gives up; an outage is no reason to."""
        return time.monotonic() + PATIENCE_SECONDS + (self.plan.outage or (0.0, 0.0))[1]

    def until(self, holds: Callable[[], Any], what: str) -> Any:
        deadline = self.deadline
        while not (found := holds()):
            if time.monotonic() > deadline:
                raise Unlike(f"never {what}: {self.end()}")
            time.sleep(LOOK_SECONDS)
        return found

    def end(self) -> Any:
        raise NotImplementedError

    def settle(self, expected: Any) -> Any:
        """The end once nothing changes any more; `expected` ends the wait as soon as it is so."""
        quiet = REFERENCE_QUIET_SECONDS if expected is None else QUIET_SECONDS
        deadline = self.deadline
        last, since = None, time.monotonic()
        while True:
            now = self.end()
            if now != last or (expected is not None and now != expected):
                last, since = now, time.monotonic()
            elif time.monotonic() - since > quiet:
                return now
            if time.monotonic() > deadline:
                raise Unlike(f"ended as {json.dumps(now)}, not as {json.dumps(expected)}")
            time.sleep(LOOK_SECONDS)


# --- Goals ---------------------------------------------------------------------------------------


class GoalRun(Told):
    """One Goal: kubectl on one side, the console on the other, an operator between them."""

    _operator: Operator | None = None
    _route: Route
    _is_over = False
    is_stopped = False

    def run(self, story: Callable[["GoalRun"], None], expected: Any) -> Any:
        """Tell the story; its end. Raises Unlike."""
        supervisor = threading.Thread(target=self._supervise, args=(self.plan,), daemon=True)
        supervisor.start()
        try:
            story(self)
            return self.settle(expected)
        finally:
            self._is_over = True
            supervisor.join(PATIENCE_SECONDS)
            self._clear()

    def _supervise(self, plan: Plan) -> None:
        """Keep an operator running: one that was killed is started again. And one worker."""
        while not self._is_over:
            if self.is_stopped:
                time.sleep(0.02)
                continue
            with self._operating(plan) as route:
                while not (self._is_over or self.is_stopped or route.was_killed.is_set()):
                    self._work()
                    route.was_killed.wait(WORK_SECONDS)
            plan = route.remaining()

    @contextlib.contextmanager
    def _operating(self, plan: Plan) -> Iterator[Route]:
        route = self.route(plan)
        api = self.client(route)
        namespace = self.place.namespace
        election = Election(
            api, identity=route.url, namespace=namespace, name=self.name, term_seconds=TERM_SECONDS
        )
        operator = Operator(api, election=election, namespace=namespace, pace=FAST)
        thread = threading.Thread(target=operator.run, daemon=True)
        thread.start()
        try:
            yield route
        finally:
            if not route.was_killed.is_set():
                election.resign()
            route.cut()
            operator.stop()
            thread.join(PATIENCE_SECONDS)
            api.close()

    def _work(self) -> None:
        """What a worker does for Goals that are to land."""
        landing = Goal.objects.filter(
            namespace=self.place.namespace,
            name=self.name,
            deletion_requested_at__isnull=False,
            deleted_at__isnull=True,
        )
        for uid in landing.values_list("uid", flat=True):
            reconcile_goal(uid)

    def _clear(self) -> None:
        with contextlib.suppress(ObjectAbsent):
            self.place.admin.merge(self.path, {"metadata": {"finalizers": []}})
        self.place.admin.delete(self.path)
        rows = Goal.objects.filter(namespace=self.place.namespace, name=self.name)
        rows.filter(deleted_at__isnull=True).update(deleted_at=timezone.now())

    # --- People ----------------------------------------------------------------------------------

    @property
    def path(self) -> str:
        return object_path(GOALS, self.place.namespace, self.name)

    def kubectl(self, *, labels: dict[str, str] | None = None, **spec: Any) -> None:
        """`kubectl apply`."""
        self.place.admin.apply(self.path, self._document(labels or {}, spec), manager="kubectl")

    def kubectl_delete(self) -> None:
        self.place.admin.delete(self.path)

    def console(self, *, labels: dict[str, str] | None = None, **spec: Any) -> None:
        document = json.dumps(self._document(labels or {}, spec))
        apply_goal(parse_goal(load_documents(document)[0]), principal=PERSON)

    def console_delete(self) -> None:
        row = self.row()
        assert row is not None
        delete_goal(row, principal=PERSON)

    def _document(self, labels: dict[str, str], spec: dict[str, Any]) -> dict[str, Any]:
        asked = {
            "objective": "p99 latency < 120 ms for /checkout",
            "budget": "50 GPU-minutes",
            "agents": ["profiler"],
        }
        metadata = {"name": self.name, "namespace": self.place.namespace, "labels": labels}
        return {
            "apiVersion": "orchestration.ai/v1", "kind": "Goal", "metadata": metadata,
            "spec": asked | spec,
        }  # fmt: skip

    # --- What is ---------------------------------------------------------------------------------

    def row(self) -> Goal | None:
        rows = Goal.objects.filter(namespace=self.place.namespace, name=self.name)
        return rows.filter(deleted_at__isnull=True).first()

    def resource(self) -> dict[str, Any] | None:
        try:
            return self.place.admin.get(self.path)
        except ObjectAbsent:
            return None

    def is_agreed(self, **spec: Any) -> bool:
        """Both sides are the same, say so, and ask this."""
        row, found = self.row(), self.resource()
        if row is None or found is None or any(found["spec"].get(k) != v for k, v in spec.items()):
            return False
        agreed = read_agreement(found)
        return (
            agreed is not None
            and agreed.uid == str(row.uid)
            and agreed.digest == digest_of(manifest_of_row(row))
            and all(row.spec.get(key) == value for key, value in spec.items())
        )

    def until_agreed(self, **spec: Any) -> None:
        self.until(lambda: self.is_agreed(**spec), f"agreed on {spec}")

    def end(self) -> Any:
        row, found = self.row(), self.resource()
        rows = Goal.objects.filter(namespace=self.place.namespace, name=self.name)
        return {
            "resource": found and self._said(found),
            "row": row and self._kept(row),
            "rows": [str(phase) for phase in rows.order_by("created_at").values_list("phase")],
            "created": JournalRecord.objects.filter(
                goal_uid__in=rows.values("uid"), action="goal.created"
            ).count(),
        }

    def _said(self, found: dict[str, Any]) -> Any:
        metadata, status = found["metadata"], found.get("status") or {}
        agreed = read_agreement(found)
        row = self.row()
        return {
            "spec": found["spec"],
            "labels": metadata.get("labels") or {},
            "annotations": sorted(metadata.get("annotations") or {}),
            "agreed": agreed and row and [
                agreed.uid == str(row.uid), agreed.generation, agreed.digest
            ],
            "finalizers": metadata.get("finalizers") or [],
            "phase": status.get("phase"),
            "generations": [
                status.get("observedGeneration") == metadata["generation"],
                status.get("rowGeneration"),
            ],
            "limit": status.get("limit"),
            "conditions": [
                [one["type"], one["status"], one["reason"], one["message"]]
                for one in status.get("conditions") or []
            ],
        }  # fmt: skip

    def _kept(self, row: Goal) -> Any:
        accounts = row.accounts.order_by("unit")
        return {
            "spec": row.spec,
            "labels": row.labels,
            "generation": row.generation,
            "phase": row.phase,
            "ledger": [list(one) for one in accounts.values_list("unit", "limit", "reserved")],
            "is_leaving": row.deletion_requested_at is not None,
        }


def applied(run: GoalRun) -> None:
    run.kubectl()


def made_in_console(run: GoalRun) -> None:
    run.console(budget="30 GPU-minutes")


def changed_by_turns(run: GoalRun) -> None:
    run.kubectl()
    run.until_agreed()
    run.kubectl(budget="40 GPU-minutes", labels={"team": "shop"})
    run.until_agreed(budget="40 GPU-minutes")
    run.console(budget="45 GPU-minutes", labels={"team": "shop"})
    run.until_agreed(budget="45 GPU-minutes")
    run.console(labels={"team": "shop"})


def there_and_back(run: GoalRun) -> None:
    """The console takes back what kubectl asked: what was heard earlier must not win."""
    run.console()
    run.until_agreed()
    run.kubectl(budget="20 GPU-minutes")
    run.until_agreed(budget="20 GPU-minutes")
    run.console()
    run.until_agreed(budget="50 GPU-minutes")
    run.kubectl(budget="20 GPU-minutes")
    run.until_agreed(budget="20 GPU-minutes")
    run.console()


def changed_on_both_sides(run: GoalRun) -> None:
    run.kubectl()
    run.until_agreed()
    run.is_stopped = True
    time.sleep(0.3)
    run.console(budget="45 GPU-minutes")
    run.kubectl(budget="20 GPU-minutes")
    run.is_stopped = False


def deleted_by_kubectl(run: GoalRun) -> None:
    run.kubectl()
    run.until_agreed()
    run.kubectl_delete()


def deleted_in_console(run: GoalRun) -> None:
    run.kubectl()
    run.until_agreed()
    run.console_delete()


def made_again(run: GoalRun) -> None:
    run.kubectl()
    run.until_agreed()
    run.kubectl_delete()
    run.until(lambda: run.resource() is None, "gone")
    run.kubectl(budget="20 GPU-minutes")


def refused_then_mended(run: GoalRun) -> None:
    run.kubectl(budget="50 bananas")

    def is_refused() -> bool:
        status = (run.resource() or {}).get("status") or {}
        return any(one["reason"] == "Invalid" for one in status.get("conditions") or [])

    run.until(is_refused, "refused")
    run.kubectl(budget="20 GPU-minutes")


GOAL_STORIES: Final = (
    applied, made_in_console, changed_by_turns, there_and_back, changed_on_both_sides,
    deleted_by_kubectl, deleted_in_console, made_again, refused_then_mended,
)  # fmt: skip


# --- Attempts ------------------------------------------------------------------------------------


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


def tell(place: Place, name: str, story: Callable[[Any], None], plan: Plan, expected: Any) -> Any:
    """Tell one story under a plan; its end and the run. Raises Unlike."""
    kind = GoalRun if story in GOAL_STORIES else AttemptRun
    run = kind(place, name, plan)
    return run.run(story, expected), run


def reference(place: Place, name: str, story: Callable[[Any], None]) -> Any:
    """How the story ends when nothing goes wrong."""
    return tell(place, name, story, CALM, None)[0]

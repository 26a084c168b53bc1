"""Stories of Goals: kubectl on one side, the console on the other, an operator between them."""

import contextlib
import json
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any, Final

from django.utils import timezone

from agents.cluster.kubernetes.api import ObjectAbsent, object_path
from agents.domain.documents import load_documents
from goals.domain.manifest import parse_goal
from goals.models import Goal
from goals.operator.election import Election
from goals.operator.mirror import GOALS
from goals.operator.program import Operator
from goals.operator.resources import digest_of, manifest_of_row, read_agreement
from goals.services.apply import apply_goal, delete_goal
from goals.services.reconcile import reconcile_goal
from governance.models import JournalRecord
from tests.cluster.fault_plan import Plan
from tests.cluster.fault_proxy import Route
from tests.cluster.telling import (
    FAST,
    PATIENCE_SECONDS,
    PERSON,
    TERM_SECONDS,
    WORK_SECONDS,
    Told,
)


class GoalRun(Told):
    """One Goal: kubectl on one side, the console on the other, an operator between them."""

    _is_over = False
    is_stopped = False

    def __init__(self, *told: Any) -> None:
        super().__init__(*told)
        self.has_stopped = threading.Event()  # of the operator, since it was told to

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
                self.has_stopped.set()
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

    def until_gone(self) -> None:
        self.until(lambda: self.resource() is None and self.row() is None, "gone")

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
    run.until_agreed()


def made_in_console(run: GoalRun) -> None:
    run.console(budget="30 GPU-minutes")
    run.until_agreed()


def changed_by_turns(run: GoalRun) -> None:
    run.kubectl()
    run.until_agreed()
    run.kubectl(budget="40 GPU-minutes", labels={"team": "shop"})
    run.until_agreed(budget="40 GPU-minutes")
    run.console(budget="45 GPU-minutes", labels={"team": "shop"})
    run.until_agreed(budget="45 GPU-minutes")
    run.console(labels={"team": "shop"})
    run.until_agreed(budget="50 GPU-minutes")


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
    run.until_agreed(budget="50 GPU-minutes")


def changed_on_both_sides(run: GoalRun) -> None:
    run.kubectl()
    run.until_agreed()
    run.is_stopped = True
    run.until(run.has_stopped.is_set, "stopped")
    run.console(budget="45 GPU-minutes")
    run.kubectl(budget="20 GPU-minutes")
    run.is_stopped = False
    run.until_agreed(budget="45 GPU-minutes")


def deleted_by_kubectl(run: GoalRun) -> None:
    run.kubectl()
    run.until_agreed()
    run.kubectl_delete()
    run.until_gone()


def deleted_in_console(run: GoalRun) -> None:
    run.kubectl()
    run.until_agreed()
    run.console_delete()
    run.until_gone()


def made_again(run: GoalRun) -> None:
    run.kubectl()
    run.until_agreed()
    run.kubectl_delete()
    run.until_gone()
    run.kubectl(budget="20 GPU-minutes")
    run.until_agreed(budget="20 GPU-minutes")


def refused_then_mended(run: GoalRun) -> None:
    run.kubectl(budget="50 bananas")

    def is_refused() -> bool:
        status = (run.resource() or {}).get("status") or {}
        return any(one["reason"] == "Invalid" for one in status.get("conditions") or [])

    run.until(is_refused, "refused")
    run.kubectl(budget="20 GPU-minutes")
    run.until_agreed(budget="20 GPU-minutes")


GOAL_STORIES: Final = (
    applied, made_in_console, changed_by_turns, there_and_back, changed_on_both_sides,
    deleted_by_kubectl, deleted_in_console, made_again, refused_then_mended,
)  # fmt: skip

"""Running: attempts are started, watched, metered, paused, retried, until the graph is done."""

from dataclasses import dataclass
from typing import Any

from django.db.models import Max
from django.utils import timezone

from agents.cluster import get_cluster
from agents.cluster.base import Cluster, WorkloadConflict, WorkloadInvalid
from agents.domain.states import ACTIVE_STATES, AttemptState, DesiredState
from agents.models import Agent, Attempt
from agents.services.attempts import (
    AttemptRequest,
    enforce_attempt,
    record_attempt,
    record_refusal,
    record_status,
    set_desired,
)
from goals.domain.states import DesiredRun, Phase, TaskState, Unit
from goals.models import Goal, Task
from goals.services.conditions import journal_goal, set_condition, set_phase
from goals.services.landing import Verdict, measure_step, start_landing
from goals.services.lease import Lease, fenced
from goals.services.ledger import NotCovered
from goals.services.metering import (
    PriceUnknown,
    Shortage,
    meter_gpu,
    release_gpu,
    release_tokens,
    reserve_start,
    settle_tokens,
    warn_at_soft_limit,
)
from goals.services.planning import graph_document, pod_template
from goals.services.throttle import is_waiting_for_budget, request_budget
from lineage.domain import Actor, ActorKind, NodeKind, NodeRef, Relation
from lineage.services.graph import link
from lineage.telemetry import get_telemetry
from lineage.telemetry.base import TelemetryError

_RECONCILER = Actor(ActorKind.SYSTEM, "reconcile")
LOST_MAX = 20  # attempts of one task the platform may lose before the Goal fails


@dataclass(frozen=True, slots=True)
class Outlook:
    """What one pass over the attempts found."""

    shortage: Shortage | None
    any_active: bool


def run_step(goal: Goal, lease: Lease) -> bool:
    """Running or Paused: one pass. True when another pass should follow at once."""
    if goal.iteration == 0:
        _start_iteration(goal, lease, 1)
    outlook = watch_attempts(goal, lease)
    _settle_token_usage(goal, lease)
    warn_at_soft_limit(goal, lease)
    if outlook.shortage is not None:
        return _throttle(goal, lease, outlook.shortage)
    if goal.desired == DesiredRun.PAUSE or is_waiting_for_budget(goal):
        return _pause(goal, lease)
    if goal.phase == Phase.PAUSED:
        return _resume(goal, lease)
    return _advance_tasks(goal, lease)


def _start_iteration(goal: Goal, lease: Lease, iteration: int) -> None:
    document = graph_document(goal)
    with fenced(lease):
        for position, node in enumerate(document["tasks"]):
            Task.objects.get_or_create(
                goal=goal,
                graph_digest=goal.graph_digest,
                iteration=iteration,
                name=node["name"],
                defaults={
                    "position": position,
                    "agent_name": node["agent"]["name"],
                    "depends_on": node["dependsOn"],
                    "gpus": node["gpus"],
                },
            )
        now = timezone.now()
        Goal.objects.filter(pk=goal.pk).update(
            iteration=iteration,
            iteration_started_at=now,
            started_at=goal.started_at or now,
        )
        goal.iteration, goal.iteration_started_at = iteration, now
        goal.started_at = goal.started_at or now
        journal_goal(goal, "goal.iteration", {"iteration": iteration})


def watch_attempts(goal: Goal, lease: Lease, *, cluster: Cluster | None = None) -> Outlook:
    """Make the cluster do what is desired of each attempt, read it back, meter it."""
    cluster = cluster or get_cluster()
    shortage: Shortage | None = None
    any_active = False
    attempts = Attempt.objects.filter(goal_uid=goal.uid).select_related("agent")
    for attempt in attempts.filter(state__in=ACTIVE_STATES):
        _watch(attempt, lease, cluster)
        try:
            shortage = meter_gpu(goal, attempt, lease) or shortage
        except PriceUnknown as error:
            shortage = Shortage(Unit.MICRO_USD, 0, 0, attempt.uid, str(error))
        any_active = any_active or not attempt.is_finished
        if attempt.is_finished:
            with fenced(lease):
                release_tokens(goal, attempt)
    # Finished attempts whose release a crash cut off.
    for attempt in attempts.exclude(state__in=ACTIVE_STATES):
        if attempt.gpu_allowance_ms > attempt.gpu_settled_ms:
            meter_gpu(goal, attempt, lease)
    return Outlook(shortage, any_active)


def _watch(attempt: Attempt, lease: Lease, cluster: Cluster) -> None:
    try:
        status = enforce_attempt(attempt, cluster=cluster)
    except (WorkloadInvalid, WorkloadConflict) as error:
        with fenced(lease):
            record_refusal(attempt, error)
        return
    with fenced(lease):
        record_status(attempt, status)


def _settle_token_usage(goal: Goal, lease: Lease) -> None:
    """Settle reported tokens; while the telemetry store is down this waits, nothing is lost."""
    try:
        usages = get_telemetry().token_usage(goal.namespace, str(goal.uid))
    except TelemetryError as error:
        with fenced(lease):
            set_condition(goal, "TelemetryAvailable", False, reason="StoreDown", message=str(error))
        return
    with fenced(lease):
        set_condition(goal, "TelemetryAvailable", True, reason="StoreAnswers")
    for usage in usages:
        shortage = settle_tokens(goal, usage, lease)
        if shortage is not None:
            _throttle(goal, lease, shortage)


def _throttle(goal: Goal, lease: Lease, shortage: Shortage) -> bool:
    """The budget does not cover what runs: ask a human; everything that runs is paused."""
    with fenced(lease):
        request_budget(goal, shortage)
        set_condition(
            goal,
            "BudgetAvailable",
            False,
            reason="LimitReached",
            message=f"{shortage.why} Waiting for an answer in Approvals.",
        )
    return _pause(goal, lease)


def _pause(goal: Goal, lease: Lease) -> bool:
    by_person = goal.desired == DesiredRun.PAUSE
    reason = "PausedByPerson" if by_person else "BudgetExhausted"
    with fenced(lease):
        for attempt in Attempt.objects.filter(goal_uid=goal.uid, state__in=ACTIVE_STATES):
            set_desired(attempt, DesiredState.PAUSED, actor=_RECONCILER)
        if goal.phase == Phase.RUNNING:
            set_phase(goal, Phase.PAUSED, reason=reason)
            return True
    return False


def _resume(goal: Goal, lease: Lease) -> bool:
    with fenced(lease):
        for attempt in Attempt.objects.filter(goal_uid=goal.uid, state__in=ACTIVE_STATES):
            set_desired(attempt, DesiredState.RUNNING, actor=_RECONCILER)
        set_condition(goal, "BudgetAvailable", True, reason="WithinBudget")
        set_phase(goal, Phase.RUNNING, reason="Resumed")
    return True


def _advance_tasks(goal: Goal, lease: Lease) -> bool:
    """Read finished attempts into tasks, start what is ready, measure when all is done."""
    tasks = list(
        Task.objects.filter(goal=goal, graph_digest=goal.graph_digest, iteration=goal.iteration)
    )
    for task in tasks:
        if task.state == TaskState.RUNNING and not _read_attempts(goal, task, lease):
            return True  # the Goal is being landed
    done = {task.name for task in tasks if task.state == TaskState.SUCCEEDED}
    if len(done) == len(tasks):
        verdict = measure_step(goal, lease)
        if verdict is Verdict.ITERATE:
            _start_iteration(goal, lease, goal.iteration + 1)
        return verdict is not Verdict.WAIT
    ready = [
        task
        for task in tasks
        if task.state == TaskState.PENDING and done.issuperset(task.depends_on)
    ]
    document = graph_document(goal) if ready else {}
    nodes = {node["name"]: node for node in document.get("tasks", [])}
    started = [_start_attempt(goal, task, nodes[task.name], lease) for task in ready]
    return any(started)


def _attempts_of(goal: Goal, task: Task) -> Any:
    return Attempt.objects.filter(
        goal_uid=goal.uid,
        graph_digest=task.graph_digest,
        iteration=task.iteration,
        task=task.name,
    )


def _read_attempts(goal: Goal, task: Task, lease: Lease) -> bool:
    """Bring a running task up to date with its newest attempt. False when the Goal must land."""
    attempts = _attempts_of(goal, task)
    newest = attempts.order_by("-number").first()
    if newest is None or not newest.is_finished:
        return True
    if newest.state == AttemptState.SUCCEEDED:
        with fenced(lease):
            _set_task(goal, task, TaskState.SUCCEEDED, finished_at=timezone.now())
        return True
    failures = attempts.filter(state=AttemptState.FAILED).count()
    losses = attempts.filter(state__in=(AttemptState.LOST, AttemptState.STOPPED)).count()
    if failures <= int(goal.spec.get("retries", 2)) and losses <= LOST_MAX:
        with fenced(lease):
            _set_task(goal, task, TaskState.PENDING)
        return True
    with fenced(lease):
        _set_task(goal, task, TaskState.FAILED, finished_at=timezone.now())
        start_landing(
            goal,
            Phase.FAILED,
            reason="TaskFailed",
            message=f"{task.name} failed {failures} times: {newest.reason} {newest.message}",
        )
    return False


def _set_task(goal: Goal, task: Task, state: TaskState, **fields: Any) -> None:
    changed = Task.objects.filter(pk=task.pk, state=task.state).update(state=state, **fields)
    if changed:
        journal_goal(
            goal,
            f"task.{state.value}",
            {"task": task.name, "iteration": task.iteration, "from": task.state},
        )
    task.state = state


def _start_attempt(goal: Goal, task: Task, node: dict[str, Any], lease: Lease) -> bool:
    """Reserve, record and announce one attempt in one transaction; the cluster comes after."""
    attempts = _attempts_of(goal, task)
    last = attempts.aggregate(last=Max("number"))["last"] or 0
    number = last + 1
    key = f"{goal.uid}:{task.graph_digest}:{task.iteration}:{task.name}:{number}:start"
    template = pod_template(node, namespace=goal.namespace, goal=goal.name, goal_uid=str(goal.uid))
    try:
        with fenced(lease):
            agent = Agent.objects.get(namespace=goal.namespace, name=task.agent_name)
            attempt = record_attempt(
                agent,
                AttemptRequest(
                    goal_uid=goal.uid,
                    goal=goal.name,
                    graph_digest=task.graph_digest,
                    iteration=task.iteration,
                    number=number,
                    template=template,
                    environment=node["agent"]["env"],
                    hold_gpus_on_pause=_holds_gpus(goal),
                    gpu_allowance_ms=0,
                ),
            )
            reserved = reserve_start(goal, gpus=task.gpus, key=key, attempt_uid=attempt.uid)
            Attempt.objects.filter(pk=attempt.pk).update(
                gpu_allowance_ms=reserved,
                specification={**attempt.specification, "first_allowance_ms": reserved},
            )
            _set_task(goal, task, TaskState.RUNNING, started_at=task.started_at or timezone.now())
            link(
                NodeRef(NodeKind.GOAL, str(goal.uid)),
                Relation.RAN,
                NodeRef(NodeKind.ATTEMPT, str(attempt.uid)),
                namespace=goal.namespace,
                goal_uid=goal.uid,
            )
    except NotCovered as error:
        task.state = TaskState.PENDING
        unit = Unit(error.unit)
        shortage = Shortage(unit, error.wanted, error.held, None, f"{task.name} cannot start.")
        return _throttle(goal, lease, shortage)
    except PriceUnknown as error:
        task.state = TaskState.PENDING
        return _throttle(goal, lease, Shortage(Unit.MICRO_USD, 0, 0, None, str(error)))
    attempt.refresh_from_db()
    _watch(attempt, lease, get_cluster())
    return True


def _holds_gpus(goal: Goal) -> bool:
    return bool(goal.spec.get("throttle", {}).get("gpusOnPause") == "Hold")


def stop_attempts(goal: Goal, lease: Lease) -> bool:
    """Ask every active attempt to end; True once none is left."""
    with fenced(lease):
        for attempt in Attempt.objects.filter(goal_uid=goal.uid, state__in=ACTIVE_STATES):
            set_desired(attempt, DesiredState.STOPPED, actor=_RECONCILER)
    outlook = watch_attempts(goal, lease)
    for attempt in Attempt.objects.filter(goal_uid=goal.uid).exclude(state__in=ACTIVE_STATES):
        if attempt.gpu_allowance_ms > attempt.gpu_settled_ms:
            release_gpu(goal, attempt, lease)
    return not outlook.any_active

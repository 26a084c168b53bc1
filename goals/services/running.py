"""Running: attempts are started, watched, metered, paused, retried, until the graph is done."""

import hashlib
import logging
from dataclasses import dataclass, replace
from typing import Any

from django.db.models import Max
from django.utils import timezone

from agents.cluster import get_cluster
from agents.cluster.base import (
    Cluster,
    ClusterError,
    ClusterUnavailable,
    WorkloadBlocked,
    WorkloadConflict,
    WorkloadInvalid,
)
from agents.domain.states import ACTIVE_STATES, AttemptState, DesiredState
from agents.models import Agent, Attempt
from agents.services.attempts import (
    AttemptRequest,
    allow_gpu,
    enforce_attempt,
    record_attempt,
    record_blocked,
    record_refusal,
    record_status,
    set_desired,
)
from goals.domain.degrade import Degradation
from goals.domain.states import DesiredRun, Phase, TaskState, Unit
from goals.models import Goal, Task
from goals.services.blocked import say_blocked
from goals.services.conditions import condition_of, journal_goal, set_condition, set_phase
from goals.services.degrade import degradation_of
from goals.services.drifting import (
    asked_about,
    is_unjudged,
    record_drift_ends,
    standing_of,
    watch_conduct,
)
from goals.services.holds import LaunchHeld, refuse_held, switch_for, switches_over
from goals.services.landing import Verdict, measure_step, start_landing
from goals.services.lease import Lease, fenced
from goals.services.ledger import NotCovered
from goals.services.metering import (
    PriceUnknown,
    Shortage,
    release_attempt,
    reserve_start,
    settle_gpu,
    soft_limit_condition,
    top_up,
)
from goals.services.planning import ROWS_PER_INSERT, graph_document, pod_template
from goals.services.throttle import (
    is_waiting_for_budget,
    must_ask,
    request_budget,
    shortage_facts,
)
from goals.services.usage import settle_tokens
from lineage.domain import Actor, ActorKind, NodeKind, NodeRef, Relation
from lineage.services.graph import link
from lineage.telemetry import get_telemetry
from lineage.telemetry.base import TelemetryError

logger = logging.getLogger(__name__)

_RECONCILER = Actor(ActorKind.SYSTEM, "reconcile")
LOST_MAX = 20  # attempts of one task the platform may lose before the Goal fails
# Starts in one pass: a graph of ten thousand tasks must not hold a worker past its time limit.
STARTS_MAX = 16
ACTIVE_MAX = 256  # attempts of one Goal at the same time; each is watched in every pass


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
    try:
        shortage = _settle_token_usage(goal, lease) or outlook.shortage
    except PriceUnknown as error:
        return _deny_unpriced(goal, lease, error)
    if shortage is not None:
        _ask_for_budget(goal, lease, shortage)
    watch_conduct(goal, lease)
    is_waiting = is_waiting_for_budget(goal)
    _say_budget(goal, lease, is_waiting=is_waiting)
    if goal.desired == DesiredRun.PAUSE or is_waiting:
        return _pause(goal, lease)
    if goal.phase == Phase.PAUSED:
        return _resume(goal, lease)
    return _advance_tasks(goal, lease)


def _start_iteration(goal: Goal, lease: Lease, iteration: int) -> None:
    document = graph_document(goal)
    now = timezone.now()
    with fenced(lease):
        Task.objects.bulk_create(
            [
                Task(
                    goal=goal,
                    graph_digest=goal.graph_digest,
                    iteration=iteration,
                    name=node["name"],
                    position=position,
                    agent_name=node["agent"]["name"],
                    depends_on=node["dependsOn"],
                    gpus=node["gpus"],
                )
                for position, node in enumerate(document["tasks"])
            ],
            batch_size=ROWS_PER_INSERT,
        )
        changes = {
            "iteration": iteration,
            "iteration_started_at": now,
            "started_at": goal.started_at or now,
        }
        Goal.objects.filter(pk=goal.pk).update(**changes)
        journal_goal(goal, "goal.iteration", {"iteration": iteration})
    for name, value in changes.items():
        setattr(goal, name, value)


def watch_attempts(goal: Goal, lease: Lease, *, cluster: Cluster | None = None) -> Outlook:
    """Make the cluster do what is desired of each attempt, read it back, meter it.

    One workload the cluster chokes on does not keep the others unwatched; its error is raised
    once all were seen.
    """
    cluster = cluster or get_cluster()
    shortage: Shortage | None = None
    any_active = False
    trouble: ClusterError | None = None
    rows = Attempt.objects.filter(goal_uid=goal.uid, state__in=ACTIVE_STATES)
    attempts = list(rows.select_related("agent"))
    for attempt in attempts:
        try:
            _watch(goal, attempt, lease, cluster)
            if attempt.desired != DesiredState.STOPPED:
                shortage = _extend(goal, attempt, lease, cluster) or shortage
        except ClusterUnavailable:
            raise
        except ClusterError as error:
            trouble = trouble or error
            any_active = True
            continue
        any_active = any_active or not attempt.is_finished
    say_blocked(goal, attempts, lease)
    record_drift_ends(goal, lease)
    if trouble is not None:
        raise trouble
    return Outlook(shortage, any_active)


def _extend(goal: Goal, attempt: Attempt, lease: Lease, cluster: Cluster) -> Shortage | None:
    """Top an attempt's allowance up and let the cluster know at once."""
    allowed = attempt.gpu_allowance_ms
    shortage = top_up(goal, attempt, lease)
    if attempt.gpu_allowance_ms > allowed:
        cluster.set_gpu_allowance(attempt.workload, attempt.gpu_allowance_ms)
    return shortage


def _watch(goal: Goal, attempt: Attempt, lease: Lease, cluster: Cluster) -> None:
    """Enforce, read back and meter one attempt; when it ended, its reservations end with it."""
    with fenced(lease):
        pass  # a worker that was stopped for long must not touch the workload either
    refusal: ClusterError | None = None
    status = None
    try:
        status = enforce_attempt(attempt, cluster=cluster)
    except (WorkloadInvalid, WorkloadConflict, WorkloadBlocked) as error:
        refusal = error
    with fenced(lease):
        if isinstance(refusal, WorkloadBlocked):
            record_blocked(attempt, refusal)
        elif refusal is not None:
            record_refusal(attempt, refusal)
        else:
            record_status(attempt, status)
        settle_gpu(goal, attempt)
        if attempt.is_finished:
            release_attempt(goal, attempt)


def _settle_token_usage(goal: Goal, lease: Lease) -> Shortage | None:
    """Settle reported tokens; while the telemetry store is down this waits, nothing is lost.

    The first unit that ran short, with all that is missing of it. Raises PriceUnknown.
    """
    try:
        usages = get_telemetry().token_usage(goal.namespace, str(goal.uid))
    except TelemetryError as error:
        with fenced(lease):
            set_condition(goal, "TelemetryAvailable", False, reason="StoreDown", message=str(error))
        return None
    known = condition_of(goal, "TelemetryAvailable")
    if known is None or known["status"] != "True":
        with fenced(lease):
            set_condition(goal, "TelemetryAvailable", True, reason="StoreAnswers")
    short = [one for usage in usages for one in settle_tokens(goal, usage, lease)]
    if not short:
        return None
    missing = sum(one.wanted for one in short if one.unit is short[0].unit)
    return replace(short[0], wanted=missing)


def settle_last_tokens(goal: Goal, lease: Lease) -> None:
    """Settle what was reported until the end; a store that is down does not keep a Goal up."""
    try:
        _settle_token_usage(goal, lease)
    except PriceUnknown as error:
        with fenced(lease):
            set_condition(goal, "Priced", False, reason="PriceUnknown", message=str(error))


def _ask_for_budget(goal: Goal, lease: Lease, shortage: Shortage) -> None:
    """The budget does not cover what runs: ask a human, unless the same is asked already."""
    if not must_ask(goal, shortage):
        return
    facts = shortage_facts(goal, shortage)
    with fenced(lease):
        request_budget(goal, shortage, facts)


def _say_budget(goal: Goal, lease: Lease, *, is_waiting: bool) -> None:
    said: tuple[bool, str, str] | None = soft_limit_condition(goal)
    if is_waiting:
        said = (False, "LimitReached", "The budget is used up: waiting for an answer in Approvals.")
    if said is None:
        return
    status, reason, message = said
    known = condition_of(goal, "BudgetAvailable")
    if known is not None and (known["status"], known["reason"]) == (str(status), reason):
        return
    with fenced(lease):
        set_condition(goal, "BudgetAvailable", status, reason=reason, message=message)


def _deny_unpriced(goal: Goal, lease: Lease, error: PriceUnknown) -> bool:
    """Money is budgeted and something costs an unknown amount: nothing more may be spent."""
    with fenced(lease):
        start_landing(goal, Phase.DENIED, reason="PriceUnknown", message=str(error))
    return True


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
        going_on = Attempt.objects.filter(goal_uid=goal.uid, state__in=ACTIVE_STATES)
        for attempt in going_on.exclude(pk__in=asked_about(goal)):
            set_desired(attempt, DesiredState.RUNNING, actor=_RECONCILER)
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
    degradation = degradation_of(goal) if ready else Degradation()
    at_once = min(degradation.parallel or ACTIVE_MAX, ACTIVE_MAX)
    room = at_once - sum(1 for task in tasks if task.state == TaskState.RUNNING)
    ready = _unheld(goal, ready[: max(room, 0)], lease)
    document = graph_document(goal) if ready else {}
    nodes = {node["name"]: node for node in document.get("tasks", [])}
    for task in ready[:STARTS_MAX]:
        if not _start_attempt(goal, task, degradation.applied(nodes[task.name]), lease):
            return True  # the budget has the word, or the Goal is being landed
    return bool(ready)


def _unheld(goal: Goal, ready: list[Task], lease: Lease) -> list[Task]:
    """The tasks that no kill switch keeps from starting; a condition says who keeps the others.

    None while policy cannot judge what runs already: condition Judged says so.
    """
    if is_unjudged(goal):
        return []
    switches = switches_over(goal) if ready else []
    held = {task.name: over for task in ready if (over := switch_for(task.agent_name, switches))}
    known = condition_of(goal, "Launching")
    if held:
        name, switch = next(iter(held.items()))
        message = f"{name} is not started: {switch} was thrown by {switch.thrown_by}."
        if known is None or (known["status"], known["message"]) != ("False", message):
            with fenced(lease):
                set_condition(goal, "Launching", False, reason="KillSwitch", message=message)
    elif ready and known is not None and known["status"] == "False":
        with fenced(lease):
            set_condition(goal, "Launching", True, reason="SwitchLifted")
    return [task for task in ready if task.name not in held]


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
    drift = standing_of(newest)
    if drift:  # a person has the word, or has had it; whatever a drifter made does not count
        if drift == "again":
            with fenced(lease):
                _set_task(goal, task, TaskState.PENDING)
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
    number = (_attempts_of(goal, task).aggregate(last=Max("number"))["last"] or 0) + 1
    try:
        with fenced(lease):
            attempt = _record_start(goal, task, node, number)
    except NotCovered as error:
        unit = Unit(error.unit)
        shortage = Shortage(unit, error.wanted, error.held, None, f"{task.name} cannot start.")
        _ask_for_budget(goal, lease, shortage)
        return False
    except PriceUnknown as error:
        _deny_unpriced(goal, lease, error)
        return False
    except LaunchHeld as error:  # thrown since the tasks were read
        logger.info("%s", error)
        return False
    _watch(goal, attempt, lease, get_cluster())
    return True


def _record_start(goal: Goal, task: Task, node: dict[str, Any], number: int) -> Attempt:
    refuse_held(goal, task.agent_name)
    key = f"{goal.uid}:{task.graph_digest}:{task.iteration}:{task.name}:{number}:start"
    template = pod_template(node, namespace=goal.namespace, goal=goal.name, goal_uid=str(goal.uid))
    attempt = record_attempt(
        Agent.objects.get(namespace=goal.namespace, name=task.agent_name),
        AttemptRequest(
            goal_uid=goal.uid,
            goal=goal.name,
            graph_digest=task.graph_digest,
            iteration=task.iteration,
            number=number,
            template=template,
            environment=node["agent"]["env"],
            hold_gpus_on_pause=_holds_gpus(goal),
            scope=node["agent"]["scope"],
        ),
    )
    reserved = reserve_start(
        goal,
        gpus=node["gpus"],
        key=hashlib.sha256(key.encode()).hexdigest(),
        attempt_uid=attempt.uid,
        priced_at=attempt.created_at,
    )
    allow_gpu(attempt, reserved)
    _set_task(goal, task, TaskState.RUNNING, started_at=task.started_at or timezone.now())
    link(
        NodeRef(NodeKind.GOAL, str(goal.uid)),
        Relation.RAN,
        NodeRef(NodeKind.ATTEMPT, str(attempt.uid)),
        namespace=goal.namespace,
        goal_uid=goal.uid,
    )
    return attempt


def _holds_gpus(goal: Goal) -> bool:
    return bool(goal.spec.get("throttle", {}).get("gpusOnPause") == "Hold")


def stop_attempts(goal: Goal, lease: Lease) -> bool:
    """Ask every active attempt to end; True once none is left."""
    with fenced(lease):
        for attempt in Attempt.objects.filter(goal_uid=goal.uid, state__in=ACTIVE_STATES):
            set_desired(attempt, DesiredState.STOPPED, actor=_RECONCILER)
    return not watch_attempts(goal, lease).any_active

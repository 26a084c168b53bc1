"""What pages show of Goals: facts put together, never invented."""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any
from uuid import UUID

from django.db.models import Sum

from agents.cluster import get_cluster
from agents.cluster.base import ClusterError
from agents.domain.states import AttemptState
from agents.models import Attempt
from goals.domain.objective import parse_objective
from goals.domain.states import DesiredRun, EntryKind, Phase, TaskState, Unit
from goals.domain.units import UnitMismatch
from goals.drawing import Chart, draw_series
from goals.models import Account, Goal, LedgerEntry, Task
from goals.selectors import landing_returns
from goals.services.conditions import condition_of
from goals.services.verdicts import Verdict, previewed_verdicts, recorded_verdicts
from governance.access import Principal
from governance.domain import Permission
from governance.models import Decision
from governance.services.decisions import SEVERITY
from lineage.telemetry import get_telemetry
from lineage.telemetry.base import TelemetryError

MEASURED_SHOWN = 60  # newest measurements drawn
NAME_SHOWN = 26  # characters that fit a node of the drawing
FULL = 100.0


@dataclass(frozen=True, slots=True)
class AccountView:
    """One dimension of a budget; shares are percent of what is granted."""

    unit: str
    granted: int
    limit: int
    settled: int
    reserved: int
    available: int
    returned: int  # given back when the Goal landed
    overrun: int
    settled_share: float
    reserved_share: float
    soft_share: float
    level: str  # "good" | "warning" | "danger"
    word: str


def account_views(goals: Sequence[Goal]) -> dict[UUID, list[AccountView]]:
    """Budgets by Goal, in two queries however many Goals there are."""
    accounts = list(Account.objects.filter(goal__in=[g.pk for g in goals]).order_by("unit"))
    returned = landing_returns(goals)
    by_pk = {goal.pk: goal for goal in goals}
    views: dict[UUID, list[AccountView]] = {goal.pk: [] for goal in goals}
    for account in accounts:
        goal = by_pk[account.goal_id]
        views[goal.pk].append(_account_view(goal, account, returned.get(account.pk, 0)))
    return views


def _account_view(goal: Goal, account: Account, returned: int) -> AccountView:
    granted = account.limit + returned
    whole = max(granted, 1)
    soft = float(goal.spec.get("throttle", {}).get("softLimitPercent", FULL))
    settled = account.settled / whole * FULL
    level, word = "good", "within budget"
    if settled >= soft and _is_out_of_budget(goal):
        level, word = "danger", "limit reached"
    elif settled >= soft:
        level, word = "warning", f"over {soft:.0f} %"
    return AccountView(
        unit=account.unit,
        granted=granted,
        limit=account.limit,
        settled=account.settled,
        reserved=account.reserved,
        available=account.available,
        returned=returned,
        overrun=account.overrun,
        settled_share=round(min(settled, FULL), 2),
        reserved_share=round(min(account.reserved / whole * FULL, FULL - min(settled, FULL)), 2),
        soft_share=soft,
        level=level,
        word=word,
    )


def _is_out_of_budget(goal: Goal) -> bool:
    """Whether the throttle stopped the Goal: reserved but unspent amounts hide it from sums."""
    if goal.phase == Phase.EXHAUSTED:
        return True
    condition = condition_of(goal, "BudgetAvailable")
    return (
        condition is not None
        and condition["reason"] == "LimitReached"
        and goal.phase == Phase.PAUSED
    )


@dataclass(frozen=True, slots=True)
class ObjectiveView:
    """The objective against what was measured; `verdict` is "met", "not met" or "" (unknown)."""

    text: str
    threshold: str
    value: str | None
    verdict: str
    span_id: str
    measured_at: Any
    chart: Chart | None = None
    points: int = 0


def objective_view(goal: Goal) -> ObjectiveView:
    """From the row alone: what reconcile last measured."""
    objective = parse_objective(goal.objective)
    threshold = f"{objective.comparator} {objective.threshold:g} {objective.unit}".strip()
    if goal.measured_value is None:
        return ObjectiveView(goal.objective, threshold, None, "", "", None)
    return ObjectiveView(
        goal.objective,
        threshold,
        f"{goal.measured_value:,.4g} {goal.measured_unit}".strip(),
        _verdict(objective, goal.measured_value, goal.measured_unit),
        goal.measured_span_id,
        goal.measured_at,
    )


def measured_view(goal: Goal) -> ObjectiveView:
    """With the series of measurements from the telemetry store, when it answers."""
    view = objective_view(goal)
    objective = parse_objective(goal.objective)
    try:
        seen = get_telemetry().observations(
            goal.namespace,
            str(goal.uid),
            metric=objective.metric,
            aggregate=objective.aggregate.value,
            selector=objective.selector,
            limit=MEASURED_SHOWN,
        )
    except TelemetryError:
        return view
    if not seen:
        return view
    newest = seen[0]
    values = [one.value for one in reversed(seen) if one.unit == newest.unit]
    is_comparable = newest.unit == objective.unit
    return ObjectiveView(
        view.text,
        view.threshold,
        f"{newest.value:,.4g} {newest.unit}".strip(),
        _verdict(objective, newest.value, newest.unit),
        newest.span_id,
        newest.at,
        draw_series(values, threshold=objective.threshold) if is_comparable else None,
        len(values),
    )


def _verdict(objective: Any, value: float, unit: str) -> str:
    try:
        return "met" if objective.is_met_by(value, unit) else "not met"
    except UnitMismatch:
        return ""


@dataclass(frozen=True, slots=True)
class Step:
    """A button: what it does and, when it may not be pressed, why."""

    word: str
    label: str
    refused: str = ""
    is_final: bool = False
    why_id: str = ""  # of the first step that is refused for the same reason


def steps_of(goal: Goal, principal: Principal) -> list[Step]:
    """Pause, resume, cancel, delete; each with the reason it is refused now."""
    no = ""
    if not principal.may(Permission.OPERATE, namespace=goal.namespace):
        whom = principal.whom_to_ask(Permission.OPERATE, namespace=goal.namespace)
        no = f"needs the role operator in namespace {goal.namespace}; {whom.removesuffix('.')}"
    landing = goal.landing and not goal.is_landed
    state = f"the Goal is {'landing' if landing else goal.phase}"
    runs = Phase(goal.phase) in {Phase.RUNNING, Phase.PAUSED} and not landing
    wants_pause = goal.desired == DesiredRun.PAUSE
    steps = [
        Step(
            "pause",
            "Pause",
            no or ("" if runs and not wants_pause else "already asked" if wants_pause else state),
        ),
        Step(
            "resume",
            "Resume",
            no or ("" if runs and wants_pause else "no person paused it" if runs else state),
        ),
        Step("cancel", "Cancel", no or (state if goal.is_landed or landing else ""), True),
        Step(
            "delete",
            "Delete",
            no or ("already asked" if goal.deletion_requested_at else ""),
            True,
        ),
    ]
    return _with_why_ids(steps)


def refusals_of(steps: Sequence[Step]) -> list[tuple[str, list[Step]]]:
    """Steps that are refused, by reason."""
    found: dict[str, list[Step]] = {}
    for step in steps:
        if step.refused:
            found.setdefault(step.refused, []).append(step)
    return list(found.items())


def _with_why_ids(steps: Sequence[Step]) -> list[Step]:
    first = {reason: some[0].word for reason, some in refusals_of(steps)}
    return [replace(step, why_id=first.get(step.refused, "")) for step in steps]


@dataclass(frozen=True, slots=True)
class TaskFacts:
    """What is known of one node of the graph."""

    name: str
    short: str
    agent: str
    role: str
    gpus: int
    depends_on: tuple[str, ...]
    state: str | None  # its own, or its newest run's; None before anything runs
    attempts: int
    attempt_uid: UUID | None  # the newest
    gpu_ms: int
    ran_ms: int
    micro_usd: int | None  # what the ledger settled for it, None where money is not budgeted
    outcome: str | None  # effective verdict, None when not judged yet
    decision_uid: UUID | None
    messages: tuple[Mapping[str, Any], ...]
    estimate: Mapping[str, Any]  # {"p50","p90","source"} of GPU-seconds
    seconds: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class GraphView:
    """The task graph as rows in topological order, with what policy said of it."""

    digest: str
    tasks: tuple[TaskFacts, ...]
    total: Mapping[str, Any]
    verdicts: tuple[Verdict, ...]  # of the graph as a whole, then of its tasks
    outcome: str | None


@dataclass(frozen=True, slots=True)
class Runs:
    """The attempts of one task together."""

    attempts: int = 0
    newest: UUID | None = None
    state: str = ""  # of the newest
    gpu_ms: int = 0
    ran_ms: int = 0
    micro_usd: int = 0

    def plus(self, attempt: tuple[UUID, str, int, int], micro_usd: int) -> "Runs":
        """With one more, younger attempt: its uid, state, GPU time and running time."""
        uid, state, gpu_ms, ran_ms = attempt
        return Runs(
            self.attempts + 1,
            uid,
            state,
            self.gpu_ms + gpu_ms,
            self.ran_ms + ran_ms,
            self.micro_usd + micro_usd,
        )


# Of a task under way these say more than "running": its newest run waits, or was ended by us.
SAID_BY_RUN = frozenset({AttemptState.PENDING, AttemptState.PAUSED, AttemptState.STOPPED})
UNKNOWN_ESTIMATE: Mapping[str, Any] = {"p50": None, "p90": None, "source": "unknown"}


def graph_view(goal: Goal) -> GraphView | None:
    """The Goal's current graph with verdicts, states and costs; None before it is planned."""
    graph = goal.graphs.filter(digest=goal.graph_digest).first() if goal.graph_digest else None
    if graph is None:
        return None
    tasks = Task.objects.filter(goal=goal, graph_digest=graph.digest).order_by("iteration")
    costs = _settled_money(goal)
    return _graph_view(
        json.loads(graph.canonical),
        graph.digest,
        graph.estimates,
        recorded_verdicts(goal, graph_digest=graph.digest),
        states=dict(tasks.values_list("name", "state")),
        runs=_runs(goal, graph.digest, costs),
        has_costs=bool(costs),
    )


def _runs(goal: Goal, digest: str, costs: Mapping[UUID, int]) -> dict[str, Runs]:
    """By task; read as tuples, for a Goal may have run ten thousand."""
    attempts = Attempt.objects.filter(goal_uid=goal.uid, graph_digest=digest)
    runs: dict[str, Runs] = {}
    for task, uid, state, gpu_ms, ran_ms in attempts.order_by("created_at").values_list(
        "task", "uid", "state", "gpu_ms", "running_ms"
    ):
        before = runs.get(task, Runs())
        runs[task] = before.plus((uid, state, gpu_ms, ran_ms), costs.get(uid, 0))
    return runs


def _settled_money(goal: Goal) -> dict[UUID, int]:
    """Micro-USD settled by attempt; empty where the budget names no money."""
    settled = LedgerEntry.objects.filter(
        account__goal=goal,
        account__unit=Unit.MICRO_USD,
        kind=EntryKind.SETTLE,
        attempt_uid__isnull=False,
    )
    return {
        uid: int(amount)
        for uid, amount in settled.order_by().values_list("attempt_uid").annotate(Sum("amount"))
        if uid is not None
    }


def plan_view(
    document: Mapping[str, Any], *, digest: str, decisions: Iterable[Decision]
) -> GraphView:
    """A priced graph that is not kept, as a dry run shows it."""
    estimates = {task["name"]: task["estimate"] for task in document["tasks"]}
    estimates[""] = document["estimate"]
    verdicts = previewed_verdicts(decisions)
    return _graph_view(document, digest, estimates, verdicts, states={}, runs={})


def _graph_view(
    document: Mapping[str, Any],
    digest: str,
    estimates: Mapping[str, Any],
    verdicts: Sequence[Verdict],
    *,
    states: Mapping[str, str],
    runs: Mapping[str, Runs],
    has_costs: bool = False,
) -> GraphView:
    by_task: dict[str, list[Verdict]] = {}
    whole = [one for one in verdicts if one.subject_kind == "graph"]
    for one in verdicts:
        if one.subject_kind == "task":
            by_task.setdefault(one.subject_id, []).append(one)
    tasks = tuple(
        _task_facts(
            node,
            estimates.get(node["name"], {}),
            by_task.get(node["name"], []),
            states.get(node["name"]),
            runs.get(node["name"], Runs()),
            has_costs=has_costs,
        )
        for node in document["tasks"]
    )
    return GraphView(
        digest=digest,
        tasks=tasks,
        total=estimates.get("", {}),
        verdicts=(*whole, *(one for some in by_task.values() for one in some)),
        outcome=_worst(verdicts),
    )


def _task_facts(
    node: Mapping[str, Any],
    estimate: Mapping[str, Any],
    verdicts: Sequence[Verdict],
    state: str | None,
    runs: Runs,
    *,
    has_costs: bool,
) -> TaskFacts:
    name: str = node["name"]
    outcome = _worst(verdicts)
    return TaskFacts(
        name=name,
        short=name if len(name) <= NAME_SHOWN else name[: NAME_SHOWN - 1] + "…",
        agent=node["agent"]["name"],
        role=node["agent"]["role"],
        gpus=node["gpus"],
        depends_on=tuple(node["dependsOn"]),
        state=runs.state if state == TaskState.RUNNING and runs.state in SAID_BY_RUN else state,
        attempts=runs.attempts,
        attempt_uid=runs.newest,
        gpu_ms=runs.gpu_ms,
        ran_ms=runs.ran_ms,
        micro_usd=runs.micro_usd if has_costs else None,
        outcome=outcome,
        decision_uid=next((one.decision_uid for one in verdicts if one.outcome == outcome), None),
        messages=_once(verdicts),
        estimate=estimate.get("gpu_seconds", UNKNOWN_ESTIMATE),
        seconds=estimate.get("seconds", UNKNOWN_ESTIMATE),
    )


def _once(verdicts: Sequence[Verdict]) -> tuple[Mapping[str, Any], ...]:
    """Every message once, also when a later iteration was told the same."""
    found = {repr(message): message for one in verdicts for message in one.messages}
    return tuple(found.values())


def _worst(verdicts: Sequence[Verdict]) -> str | None:
    return (
        max((one.outcome for one in verdicts), key=SEVERITY.__getitem__).value if verdicts else None
    )


def gpu_sources() -> Mapping[str, bool] | None:
    """Whether each GPU is measured (True) or only declared, by id; None when nobody can say."""
    try:
        return {gpu.id: gpu.is_measured for gpu in get_cluster().gpus()}
    except ClusterError:
        return None


def metering_word(attempt: Attempt, sources: Mapping[str, bool] | None) -> str | None:
    """ "measured" or "declared": where an attempt's GPU time comes from; None when unknown."""
    if not attempt.gpus:
        return None
    if not sources:
        return None
    kinds = {sources[i] for i in attempt.gpu_ids if i in sources} or set(sources.values())
    if len(kinds) != 1:
        return None
    return "measured" if kinds.pop() else "declared"

"""The facts on an approval card, computed by the system; what it cannot know is said as unknown."""

from collections.abc import Mapping, Sequence
from typing import Any

from django.utils import timezone

from agents.domain.states import ACTIVE_STATES
from agents.models import Attempt
from goals.domain.objective import parse_objective
from goals.domain.states import Phase, TaskState, Unit
from goals.domain.units import UnitMismatch
from goals.models import Account, Goal, Release, Task
from governance.services.approvals import Fact
from lineage.telemetry import get_telemetry
from lineage.telemetry.base import Span, TelemetryError

MS_PER_SECOND = 1000
CAUSES_SHOWN = 6
QUORUM_ANNOTATION = "orchestration.ai/approval-quorum"
UNREADABLE_QUORUM = 2


def amount_text(unit: str, amount: int | float | None) -> str | None:
    """An amount of the ledger for people; None stays None."""
    if amount is None:
        return None
    match Unit(unit):
        case Unit.GPU_MS:
            return f"{amount / MS_PER_SECOND:,.1f} GPU-seconds"
        case Unit.TOKENS:
            return f"{amount:,.0f} tokens"
        case Unit.MICRO_USD:
            return f"{amount / 1_000_000:,.2f} USD"


def quorum_asked(goal: Goal) -> int:
    """How many people the Goal itself wants to approve (annotation QUORUM_ANNOTATION).

    One that cannot be read asks for two: a slip of the pen makes no rule weaker.
    """
    text = goal.annotations.get(QUORUM_ANNOTATION)
    if text is None:
        return 1
    return int(text) if text.isascii() and text.isdigit() and text != "0" else UNREADABLE_QUORUM


def graph_facts(goal: Goal, document: Mapping[str, Any], *, why: str) -> list[Fact]:
    """What is known before anything runs."""
    tasks = document["tasks"]
    return [
        Fact("Why it is asked", why or None, "why"),
        Fact("Objective", goal.objective, "objective"),
        Fact("Budget", goal.spec["budget"], "limit"),
        Fact("Tasks", ", ".join(node["name"] for node in tasks[:10]) or None, "tasks"),
        Fact("GPUs at once", str(max((node["gpus"] for node in tasks), default=0)), "gpus"),
        Fact("Estimated GPU time", _gpu_estimate(goal, [n["name"] for n in tasks]), "estimate"),
        Fact("If denied", "Nothing runs; the Goal ends as Denied.", "on_deny"),
    ]


def budget_facts(goal: Goal, account: Account, *, why: str) -> list[Fact]:
    """The facts DESIGN lists for a budget overrun."""
    unit = account.unit
    return [
        Fact("Why it is asked", why, "why"),
        Fact("Spent", amount_text(unit, account.settled), "spent"),
        Fact("Reserved", amount_text(unit, account.reserved), "reserved"),
        Fact("Limit", amount_text(unit, account.limit), "limit"),
        Fact(
            "Used beyond the limit",
            amount_text(unit, account.overrun) if account.overrun else "nothing",
            "overrun",
        ),
        Fact("Burn rate", _burn_rate(goal, account), "burn_rate"),
        Fact("Estimated to finish", _remaining(goal, unit), "remaining"),
        Fact("Progress towards the objective", _progress(goal), "progress"),
        Fact("Caused by", _causal_path(goal), "cause"),
        Fact("Who waits longer if granted", _who_waits(goal), "waiting"),
        Fact(
            "If denied",
            "The paused work is ended, its identity revoked, and the Goal lands as Exhausted.",
            "on_deny",
        ),
    ]


def release_facts(release: Release, *, why: str) -> list[Fact]:
    """What is known of a release that waits for a human."""
    return [
        Fact("Why it is asked", why or None, "why"),
        Fact("Serve", release.digest, "digest"),
        Fact("Instead of", release.previous_digest or "nothing", "previous"),
        Fact("Evidence", ", ".join(release.evidence) or "none", "evidence"),
        Fact("If denied", "The environment goes on serving what it serves now.", "on_deny"),
    ]


def _gpu_estimate(goal: Goal, names: Sequence[str]) -> str | None:
    """P50 and P90 of one run of these tasks in GPU-seconds; unknown when any of them is."""
    graph = goal.graphs.filter(digest=goal.graph_digest).first()
    if graph is None:
        return None
    p50 = p90 = 0.0
    for name in names:
        forecast = graph.estimates.get(name, {}).get("gpu_seconds", {})
        if forecast.get("p90") is None:
            return None
        p50 += forecast["p50"]
        p90 += forecast["p90"]
    return f"P50 {p50:,.0f}, P90 {p90:,.0f} GPU-seconds"


def _burn_rate(goal: Goal, account: Account) -> str | None:
    running_ms = sum(
        Attempt.objects.filter(goal_uid=goal.uid, gpus__gt=0).values_list("running_ms", flat=True)
    )
    if account.unit != Unit.GPU_MS:
        since = goal.started_at
        running_ms = int((timezone.now() - since).total_seconds() * 1000) if since else 0
    if running_ms == 0:
        return None
    per_minute = account.settled / running_ms * 60_000
    return f"{amount_text(account.unit, per_minute)} a minute while running"


def _remaining(goal: Goal, unit: str) -> str | None:
    open_tasks = Task.objects.filter(
        goal=goal, graph_digest=goal.graph_digest, iteration=goal.iteration
    ).exclude(state=TaskState.SUCCEEDED)
    if unit != Unit.GPU_MS:
        return None
    return _gpu_estimate(goal, list(open_tasks.values_list("name", flat=True)))


def _progress(goal: Goal) -> str | None:
    if goal.measured_value is None:
        return _latest_progress(goal)
    return _progress_text(goal, goal.measured_value, goal.measured_unit)


def _latest_progress(goal: Goal) -> str | None:
    objective = parse_objective(goal.objective)
    try:
        seen = get_telemetry().observations(
            goal.namespace,
            str(goal.uid),
            metric=objective.metric,
            aggregate=objective.aggregate.value,
            selector=objective.selector,
            limit=1,
        )
    except TelemetryError:
        return None
    return _progress_text(goal, seen[0].value, seen[0].unit) if seen else None


def _progress_text(goal: Goal, value: float, unit: str) -> str | None:
    objective = parse_objective(goal.objective)
    try:
        met = objective.is_met_by(value, unit)
    except UnitMismatch:
        return None
    return f"{value:g} {unit} measured, {objective.canonical()} is {'met' if met else 'not met'}"


def _causal_path(goal: Goal) -> str | None:
    """Names of the spans from the newest action up to its first observation."""
    store = get_telemetry()
    try:
        page = store.goal_spans(goal.namespace, str(goal.uid), limit=1000)
        actions = [span for span in page.spans if span.is_action]
        if not actions:
            return None
        chain = store.causes(goal.namespace, actions[-1].span_id)
    except TelemetryError:
        return None
    return " <- ".join(_span_text(span) for span in chain[:CAUSES_SHOWN]) or None


def _span_text(span: Span) -> str:
    if span.confidence is not None:
        return f"{span.name} (confidence {span.confidence:.3g})"
    return span.name


# Reasons of attempts that run as soon as others give back what they hold.
WAITS_FOR_OTHERS = (
    "Unschedulable",
    "WaitingForGpu",
    "QuotaExceeded",
    "QueuedForQuota",
    "Preempted",
)


def _who_waits(goal: Goal) -> str | None:
    waiting = (
        Attempt.objects.filter(
            namespace=goal.namespace, state__in=ACTIVE_STATES, reason__in=WAITS_FOR_OTHERS
        )
        .exclude(goal_uid=goal.uid)
        .values_list("goal_uid", flat=True)
    )
    names = Goal.objects.filter(uid__in=list(waiting)).exclude(phase=Phase.PAUSED)
    return ", ".join(names.values_list("name", flat=True)[:10]) or "nobody"

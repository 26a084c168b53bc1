"""Landing: measure the objective, end what runs, return what is left, reach one terminal phase."""

from dataclasses import dataclass
from enum import StrEnum

from django.utils import timezone

from goals.domain.objective import Objective, parse_objective
from goals.domain.states import TERMINAL_PHASES, EntryKind, Phase
from goals.domain.units import UnitMismatch
from goals.events import ring_on_commit
from goals.models import Goal
from goals.services.conditions import journal_goal, set_condition, set_phase
from goals.services.degrade import iterations_allowed
from goals.services.lease import Lease, break_lease, fenced
from goals.services.ledger import Source, post_entry
from goals.services.metering import METER, release_all
from goals.services.parents import living_children, settle_with_parent
from governance.domain import ApprovalKind
from governance.services.approvals import void_approvals, void_goal_approvals
from lineage.telemetry import get_telemetry
from lineage.telemetry.base import Observation, TelemetryError


@dataclass(frozen=True, slots=True)
class Measurement:
    """The newest value of the objective; `is_met` None when nothing was observed."""

    observation: Observation | None
    is_met: bool | None
    message: str


def measure(goal: Goal, *, objective: Objective | None = None) -> Measurement:
    """Evaluate the objective from recorded observations. Raises `TelemetryError`s.

    With a window, every observation in it must meet the threshold; without one the newest counts.
    Only observations of the current iteration count.
    """
    objective = objective or parse_objective(goal.objective)
    since = goal.iteration_started_at
    found = get_telemetry().observations(
        goal.namespace,
        str(goal.uid),
        metric=objective.metric,
        aggregate=objective.aggregate.value,
        selector=objective.selector,
        since=since,
        limit=1000 if objective.window_seconds else 1,
    )
    if not found:
        return Measurement(None, None, f"No {objective.canonical()} was observed.")
    newest = found[0]
    if objective.window_seconds:
        found = [
            one for one in found if (newest.at - one.at).total_seconds() <= objective.window_seconds
        ]
    try:
        is_met = all(objective.is_met_by(one.value, one.unit) for one in found)
    except UnitMismatch as error:
        return Measurement(newest, None, str(error))
    message = (
        f"{objective.aggregate} {objective.metric} is {newest.value:g} {newest.unit} "
        f"over {newest.samples} samples."
    )
    return Measurement(newest, is_met, message)


def record_measurement(goal: Goal, measurement: Measurement) -> None:
    """Write the newest value and the condition Satisfied, in the caller's transaction."""
    seen = measurement.observation
    if seen is not None:
        changes = {
            "measured_value": seen.value,
            "measured_unit": seen.unit,
            "measured_at": seen.at,
            "measured_span_id": seen.span_id,
            "first_value": goal.first_value if goal.first_value is not None else seen.value,
        }
        Goal.objects.filter(pk=goal.pk).update(**changes)
        for name, value in changes.items():
            setattr(goal, name, value)
        journal_goal(
            goal,
            "goal.measured",
            {
                "objective": goal.objective,
                "iteration": goal.iteration,
                "value": seen.value,
                "unit": seen.unit,
                "samples": seen.samples,
                "span": seen.span_id,
                "attempt": seen.attempt_uid,
                "met": measurement.is_met,
            },
        )
    reason = {True: "ObjectiveMet", False: "ObjectiveNotMet", None: "NotMeasured"}
    set_condition(
        goal,
        "Satisfied",
        measurement.is_met,
        reason=reason[measurement.is_met],
        message=measurement.message,
    )


class Verdict(StrEnum):
    """What follows from a measurement."""

    LANDING = "landing"
    ITERATE = "iterate"
    WAIT = "wait"  # the telemetry store does not answer: nothing is decided without it


def measure_step(goal: Goal, lease: Lease) -> Verdict:
    """All tasks are done: land, run the graph once more, or wait for the store.

    A crash after the measurement measures again: the same rows give the same verdict.
    """
    try:
        measurement = measure(goal)
    except TelemetryError as error:
        with fenced(lease):
            set_condition(goal, "Satisfied", None, reason="StoreDown", message=str(error))
        return Verdict.WAIT
    with fenced(lease):
        record_measurement(goal, measurement)
        if measurement.is_met:
            start_landing(goal, Phase.SATISFIED, reason="ObjectiveMet", message=measurement.message)
            return Verdict.LANDING
        if goal.iteration >= iterations_allowed(goal):
            start_landing(
                goal,
                Phase.FAILED,
                reason="ObjectiveNotMet",
                message=f"After {goal.iteration} iterations: {measurement.message}",
            )
            return Verdict.LANDING
    return Verdict.ITERATE


def start_landing(goal: Goal, phase: Phase, *, reason: str, message: str = "") -> bool:
    """Decide the terminal phase once, in the caller's transaction; the first decision stands."""
    undecided = Goal.objects.filter(pk=goal.pk, landing="", generation=goal.generation)
    decided = undecided.exclude(phase__in=TERMINAL_PHASES).update(
        landing=phase, landing_reason=reason, landing_message=message[:2000]
    )
    if decided:
        goal.landing, goal.landing_reason, goal.landing_message = phase, reason, message
        journal_goal(goal, "goal.landing", {"phase": phase.value, "reason": reason})
        ring_on_commit(goal.uid)
    else:
        goal.refresh_from_db()
    return bool(decided)


def land_children(goal: Goal, lease: Lease) -> None:
    """What a Goal asked of sub-goals ends with it."""
    for child in living_children(goal).filter(landing=""):
        with fenced(lease):
            break_lease(child.uid)
            start_landing(
                child,
                Phase.CANCELLED,
                reason="ParentLanded",
                message=f"Its parent {goal.name} is landing: {goal.landing}.",
            )


def have_children_landed(goal: Goal) -> bool:
    """Whether nothing draws on this Goal's budget any more; each that lands rings."""
    return not living_children(goal).exists()


def finish_landing(goal: Goal, lease: Lease) -> bool:
    """Nothing runs any more: return what is left and take the terminal phase."""
    phase = Phase(goal.landing)
    with fenced(lease):
        void_approvals(
            subject_kind="goal", subject_id=str(goal.uid), why=f"The Goal landed: {phase}."
        )
        void_goal_approvals(goal.uid, kind=ApprovalKind.DRIFT, why=f"The Goal landed: {phase}.")
        release_all(goal)
        settle_with_parent(goal, actor=METER)
        for account in goal.accounts.all():
            left = account.available
            if left > 0:
                post_entry(
                    account,
                    kind=EntryKind.RETURN,
                    amount=left,
                    key=f"landed:{goal.generation}",
                    source=Source(actor=METER, note="not spent"),
                )
        set_condition(
            goal,
            "Satisfied",
            phase is Phase.SATISFIED,
            reason=goal.landing_reason,
            message=goal.landing_message,
        )
        set_phase(
            goal,
            phase,
            reason=goal.landing_reason,
            message=goal.landing_message,
            satisfied=phase is Phase.SATISFIED,
            landed_at=timezone.now(),
        )
    return True

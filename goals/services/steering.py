"""Steering many at once: what a step would hit and what it would skip, then a Goal at a time."""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Final
from uuid import UUID

from agents.domain.states import ACTIVE_STATES
from agents.models import Attempt
from agents.selectors import visible_attempts
from goals.access import visible_goals
from goals.domain.states import DesiredRun, Phase
from goals.models import Goal
from goals.services.apply import GoalConflict, cancel_goal, pause_goal, resume_goal
from goals.services.burn import BURN_COLUMNS, Burn, burn_of
from governance.access import NotAllowed, Principal
from governance.domain import Permission

AGENTS_MAX: Final = 20_000  # of one selection
GOALS_MAX: Final = 1_000  # steered in one request
IN_LIST: Final = 500  # values of one query


class Step(StrEnum):
    """What may be asked of many Goals at once."""

    PAUSE = "pause"
    RESUME = "resume"
    CANCEL = "cancel"


class TooMany(ValueError):
    """The selection is larger than one request may be."""


@dataclass(frozen=True, slots=True)
class SteeredGoal:
    """One Goal behind a selection. `skipped` says why the step would not touch it."""

    goal: Goal
    agents: int  # active ones, selected or not: the step hits the whole Goal
    skipped: str


@dataclass(frozen=True, slots=True)
class SteerPreview:
    """What the step would do now."""

    step: Step
    burn: Burn  # of the Goals that are not skipped
    goals: tuple[SteeredGoal, ...]
    left_out: int  # selected agents and Goals that this person does not see

    @property
    def hit(self) -> tuple[SteeredGoal, ...]:
        return tuple(one for one in self.goals if not one.skipped)

    @property
    def words(self) -> str:
        """As on the confirm: "37 agents in 4 Goals, 12.40 USD a minute"."""
        agents, _, rest = self.burn.words.partition(", ")
        goals = f"{len(self.hit):,} Goal{'' if len(self.hit) == 1 else 's'}"
        return f"{agents} in {goals}, {rest}"


@dataclass(frozen=True, slots=True)
class SteerResult:
    """What became of one Goal; `outcome` is done, unchanged, skipped or refused."""

    goal: Goal
    outcome: str
    message: str = ""


def preview_steps(
    step: Step,
    *,
    principal: Principal,
    attempts: Sequence[UUID] = (),
    goals: Sequence[UUID] = (),
) -> SteerPreview:
    """What a step would hit of the Goals behind these attempts, and of these Goals.

    What the person may not see is left out and only counted. Raises TooMany.
    """
    if len(attempts) > AGENTS_MAX:
        raise TooMany(f"At most {AGENTS_MAX:,} agents can be steered at once: select fewer.")
    wanted = dict.fromkeys(goals)
    seen = 0
    for part in _parts(attempts):
        rows = visible_attempts(principal).filter(pk__in=part)
        found = list(rows.order_by().values_list("goal_uid", flat=True))
        seen += len(found)
        wanted |= dict.fromkeys(found)
    if len(wanted) > GOALS_MAX:
        raise TooMany(f"At most {GOALS_MAX:,} Goals can be steered at once: select fewer.")
    known = [
        goal
        for part in _parts(list(wanted))
        for goal in visible_goals(principal).filter(pk__in=part)
    ]
    known.sort(key=lambda goal: (goal.namespace, goal.name))
    rows_of = _active([goal.uid for goal in known])
    listed = tuple(
        SteeredGoal(goal, len(rows_of.get(goal.uid, ())), _why_not(step, goal, principal))
        for goal in known
    )
    hit = [row for one in listed if not one.skipped for row in rows_of.get(one.goal.uid, ())]
    gone = len(wanted) - len(known) + len(attempts) - seen
    return SteerPreview(step, burn_of(hit), listed, gone)


def steer_many(
    step: Step,
    goals: Sequence[UUID],
    *,
    principal: Principal,
    reason: str = "",
) -> list[SteerResult]:
    """Ask the step of each Goal in a transaction of its own; repeating it changes nothing.

    One that cannot be steered does not keep the others from it. Raises TooMany.
    """
    preview = preview_steps(step, principal=principal, goals=goals)
    return [_steer(step, one, principal=principal, reason=reason) for one in preview.goals]


def _steer(step: Step, one: SteeredGoal, *, principal: Principal, reason: str) -> SteerResult:
    if one.skipped:
        return SteerResult(one.goal, "skipped", one.skipped)
    before = (one.goal.desired, one.goal.landing)
    try:
        match step:
            case Step.PAUSE:
                goal = pause_goal(one.goal, principal=principal)
            case Step.RESUME:
                goal = resume_goal(one.goal, principal=principal)
            case Step.CANCEL:
                goal = cancel_goal(one.goal, principal=principal, reason=reason)
    except (GoalConflict, NotAllowed) as error:  # it has moved since it was read
        return SteerResult(one.goal, "refused", str(error))
    return SteerResult(goal, "unchanged" if (goal.desired, goal.landing) == before else "done")


def _why_not(step: Step, goal: Goal, principal: Principal) -> str:
    """Why the step would do nothing to this Goal; "" when it would."""
    try:
        principal.require(Permission.OPERATE, namespace=goal.namespace)
    except NotAllowed as error:
        return str(error)
    if goal.is_landed:
        return f"has landed: {goal.phase}"
    if goal.landing:
        return f"is landing: {goal.landing}"
    if step is Step.CANCEL:
        return ""
    if Phase(goal.phase) not in (Phase.RUNNING, Phase.PAUSED):
        return f"is {goal.phase}: nothing of it runs"
    if step is Step.PAUSE and goal.desired == DesiredRun.PAUSE:
        return "is paused by a person already"
    if step is Step.RESUME and goal.desired == DesiredRun.RUN:
        waits = "waits for budget: answer it in Approvals"
        return waits if goal.phase == Phase.PAUSED else "runs already"
    return ""


def _active(goal_uids: Sequence[UUID]) -> dict[UUID, list[tuple[object, object, object]]]:
    found: dict[UUID, list[tuple[object, object, object]]] = {}
    for part in _parts(goal_uids):
        rows = Attempt.objects.filter(goal_uid__in=part, state__in=ACTIVE_STATES)
        for goal_uid, *columns in rows.order_by().values_list("goal_uid", *BURN_COLUMNS):
            found.setdefault(goal_uid, []).append((columns[0], columns[1], columns[2]))
    return found


def _parts(uids: Sequence[UUID]) -> list[Sequence[UUID]]:
    return [uids[start : start + IN_LIST] for start in range(0, len(uids), IN_LIST)]

"""Apply: what a person asks becomes a Goal, a changed Goal, or nothing when nothing changed."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from django.db import IntegrityError
from django.utils import timezone

from agents.domain.problems import FieldProblem, ManifestError
from agents.domain.states import ACTIVE_STATES, DesiredState
from agents.models import Attempt
from agents.services.attempts import set_desired
from agents.services.registry import Outcome
from goals.domain.budget import Budget, parse_budget
from goals.domain.graph import PlanError, TaskGraph
from goals.domain.manifest import GoalManifest
from goals.domain.states import DesiredRun, EntryKind, Phase, Unit
from goals.events import hint_on_commit, ring_on_commit
from goals.models import Account, Goal
from goals.services.conditions import journal_goal
from goals.services.landing import start_landing
from goals.services.lease import break_lease
from goals.services.ledger import NotCovered, Source, open_account, post_entry
from goals.services.parents import cover_from_parent, find_parent, parent_of, return_to_parent
from goals.services.planning import agents_in, build_graph
from governance.access import Principal
from governance.domain import ApprovalKind, Permission
from governance.services.approvals import void_approvals, void_goal_approvals
from governance.services.journal import journaled
from lineage.domain import Actor


class GoalError(Exception):
    """A Goal cannot be changed like that; the text says why and what to do."""


class GoalConflict(GoalError):
    """Where the Goal stands does not allow it."""


@dataclass(frozen=True, slots=True)
class Applied:
    """The Goal and what applying its manifest did."""

    goal: Goal
    outcome: Outcome


def check_goal(manifest: GoalManifest) -> TaskGraph:
    """The graph the manifest would get now. Raises ManifestError naming each wrong field."""
    known = agents_in(manifest.namespace, manifest.spec.agents)
    existing = _existing(manifest)
    problems = [
        FieldProblem(
            f"spec.agents[{index}]",
            f"no agent {name!r} is registered in namespace {manifest.namespace}: "
            "apply its manifest first.",
        )
        for index, name in enumerate(manifest.spec.agents)
        if name not in known
    ]
    problems += _parent_problems(manifest, existing)
    if problems:
        raise ManifestError(problems)
    try:
        return build_graph(manifest, goal_uid="", generation=0)
    except PlanError as error:
        raise ManifestError([FieldProblem("spec.agents", str(error))]) from error


def _parent_problems(manifest: GoalManifest, existing: Goal | None) -> list[FieldProblem]:
    """What is wrong with `spec.parent`, and with the budget seen from the parent."""
    name = manifest.spec.parent
    if existing is not None and name != existing.spec.get("parent", ""):
        return [FieldProblem("spec.parent", "cannot be changed: make another Goal.")]
    if not name:
        return []
    parent = (parent_of(existing) if existing else None) or find_parent(manifest.namespace, name)
    if parent is None:
        return [FieldProblem("spec.parent", f"no Goal {name!r} is under way in this namespace.")]
    if manifest.spec.budget.narrower_or_equal(parse_budget(parent.spec["budget"])):
        return []
    return [FieldProblem("spec.budget", f"wider than the budget of its parent {parent.name!r}.")]


def apply_goal(
    manifest: GoalManifest, *, principal: Principal, editors: Sequence[str] = ()
) -> Applied:
    """Create or change a Goal; the same manifest again changes nothing.

    `editors` are others who had a hand in this manifest: they cannot approve it either. Raises
    NotAllowed, ManifestError, GoalConflict.
    """
    principal.require(Permission.OPERATE, namespace=manifest.namespace)
    check_goal(manifest)
    existing = _existing(manifest)
    if existing is None:
        try:
            return _create(manifest, principal, editors)
        except IntegrityError:
            existing = _existing(manifest)
            if existing is None:
                raise
    return _change(existing, manifest, principal, editors)


def _existing(manifest: GoalManifest) -> Goal | None:
    return Goal.objects.filter(
        namespace=manifest.namespace, name=manifest.name, deleted_at__isnull=True
    ).first()


def _create(manifest: GoalManifest, principal: Principal, editors: Sequence[str]) -> Applied:
    with journaled():
        goal = Goal.objects.create(
            namespace=manifest.namespace,
            name=manifest.name,
            labels=dict(manifest.labels),
            annotations=dict(manifest.annotations),
            spec=manifest.spec_document(),
            objective=manifest.spec.objective.text,
            requested_by=principal.username,
            sponsor=manifest.spec.sponsor,
            editors=sorted(set(editors)),
        )
        _move_limits(goal, manifest.spec.budget, principal.actor, generation=1)
        journal_goal(goal, "goal.created", {"spec": goal.spec}, actor=principal.actor)
        _announce(goal)
    return Applied(goal, Outcome.CREATED)


def _change(
    goal: Goal, manifest: GoalManifest, principal: Principal, editors: Sequence[str]
) -> Applied:
    with journaled():
        goal = Goal.objects.select_for_update().get(pk=goal.pk)
        if goal.deletion_requested_at is not None:
            raise GoalConflict(f"{goal} is being deleted: apply again once it is gone.")
        spec = manifest.spec_document()
        labels, annotations = dict(manifest.labels), dict(manifest.annotations)
        if (goal.spec, goal.labels, goal.annotations) == (spec, labels, annotations):
            return Applied(goal, Outcome.UNCHANGED)
        changes: dict[str, Any] = {"labels": labels, "annotations": annotations}
        if goal.spec != spec:
            if goal.landing and not goal.is_landed:
                raise GoalConflict(f"{goal} is landing: apply again in a moment.")
            changes |= _next_generation(goal, manifest, principal)
            changes["editors"] = sorted({*goal.editors, principal.username, *editors})
            break_lease(goal.uid)
        Goal.objects.filter(pk=goal.pk).update(**changes)
        goal.refresh_from_db()
        journal_goal(goal, "goal.changed", {"spec": goal.spec}, actor=principal.actor)
        _announce(goal)
    return Applied(goal, Outcome.CONFIGURED)


def _next_generation(goal: Goal, manifest: GoalManifest, principal: Principal) -> dict[str, Any]:
    """Columns of a new generation: everything is planned, judged and approved anew."""
    why = "The Goal was changed meanwhile."
    void_approvals(subject_kind="goal", subject_id=str(goal.uid), why=why)
    void_goal_approvals(goal.uid, kind=ApprovalKind.DRIFT, why=why)
    for attempt in Attempt.objects.filter(goal_uid=goal.uid, state__in=ACTIVE_STATES):
        set_desired(attempt, DesiredState.STOPPED, actor=principal.actor)
    _move_limits(goal, manifest.spec.budget, principal.actor, generation=goal.generation + 1)
    return {
        "spec": manifest.spec_document(),
        "objective": manifest.spec.objective.text,
        "sponsor": manifest.spec.sponsor,
        "generation": goal.generation + 1,
        "asked_at": timezone.now(),
        "phase": Phase.DRAFT,
        "satisfied": False,
        "desired": DesiredRun.RUN,
        "landing": "",
        "landing_reason": "",
        "landing_message": "",
        "landed_at": None,
        "iteration": 0,
        "iteration_started_at": None,
    }


def _move_limits(goal: Goal, budget: Budget, actor: Actor, *, generation: int) -> None:
    """Bring the limits to the budget; never below what is spent or reserved. A child's in step
    with what its parent holds for it. Raises ManifestError."""
    wanted = budget.amounts()
    key = f"budget:{generation}"
    source = Source(actor=actor, note=f"budget of generation {generation}")
    for unit in Unit:
        account = goal.accounts.filter(unit=unit).first()
        limit, held = wanted.get(unit.value, 0), account.limit if account else 0
        try:
            if limit > held:
                cover_from_parent(goal, unit=unit, amount=limit - held, key=key, actor=actor)
                open_account(goal, unit=unit, limit=limit - held, key=key, source=source)
            elif account is not None and limit < held:
                amount = held - limit
                post_entry(account, kind=EntryKind.RETURN, amount=amount, key=key, source=source)
                return_to_parent(goal, unit=unit, amount=amount, key=key, actor=actor)
        except NotCovered as error:
            raise ManifestError([_budget_problem(goal, account, limit > held, error)]) from error


def _budget_problem(
    goal: Goal, account: Account | None, is_wider: bool, error: NotCovered
) -> FieldProblem:
    if is_wider:
        parent = goal.spec.get("parent")
        return FieldProblem("spec.budget", f"the parent {parent!r} cannot cover it: {error}")
    used = account.settled + account.reserved if account else 0
    return FieldProblem(
        "spec.budget",
        f"{used} {error.unit} are already spent or reserved: the budget cannot be less.",
    )


def pause_goal(goal: Goal, *, principal: Principal) -> Goal:
    """Pause everything of a Goal, keeping its state; repeating it changes nothing."""
    return _desire(goal, DesiredRun.PAUSE, principal, allowed={Phase.RUNNING, Phase.PAUSED})


def resume_goal(goal: Goal, *, principal: Principal) -> Goal:
    """Let a Goal that a person paused run on; a question of budget stays open."""
    return _desire(goal, DesiredRun.RUN, principal, allowed={Phase.RUNNING, Phase.PAUSED})


def _desire(goal: Goal, desired: DesiredRun, principal: Principal, *, allowed: set[Phase]) -> Goal:
    principal.require(Permission.OPERATE, namespace=goal.namespace)
    with journaled():
        goal = Goal.objects.select_for_update().get(pk=goal.pk)
        if Phase(goal.phase) not in allowed or goal.landing:
            raise GoalConflict(f"{goal} is {goal.landing or goal.phase}: it cannot {desired} now.")
        if goal.desired != desired:
            Goal.objects.filter(pk=goal.pk).update(desired=desired)
            break_lease(goal.uid)
            goal.desired = desired
            journal_goal(goal, f"goal.desired_{desired.value}", {}, actor=principal.actor)
            _announce(goal)
    return goal


def cancel_goal(goal: Goal, *, principal: Principal, reason: str = "") -> Goal:
    """Land a Goal: everything of it ends first. One that has landed or is landing is left so."""
    principal.require(Permission.OPERATE, namespace=goal.namespace)
    with journaled():
        goal = Goal.objects.select_for_update().get(pk=goal.pk)
        if goal.is_landed or goal.landing:
            return goal  # how it lands is decided already
        Goal.objects.filter(pk=goal.pk).update(desired=DesiredRun.CANCEL)
        break_lease(goal.uid)
        message = f"Cancelled by {principal.username}. {reason}".strip()
        start_landing(goal, Phase.CANCELLED, reason="Cancelled", message=message)
        journal_goal(goal, "goal.cancelled", {"reason": reason}, actor=principal.actor)
        _announce(goal)
    goal.refresh_from_db()
    return goal


def delete_goal(goal: Goal, *, principal: Principal) -> Goal:
    """Land a Goal, then hide it; its records and evidence are kept for ever."""
    principal.require(Permission.OPERATE, namespace=goal.namespace)
    with journaled():
        goal = Goal.objects.select_for_update().get(pk=goal.pk)
        if goal.deletion_requested_at is None:
            now = timezone.now()
            Goal.objects.filter(pk=goal.pk).update(
                deletion_requested_at=now, deleted_at=now if goal.is_landed else None
            )
            journal_goal(goal, "goal.deletion_requested", {}, actor=principal.actor)
            if goal.is_landed:
                journal_goal(goal, "goal.deleted", {}, actor=principal.actor)
            else:
                break_lease(goal.uid)
                start_landing(
                    goal,
                    Phase.CANCELLED,
                    reason="Deleted",
                    message=f"Deleted by {principal.username}.",
                )
            _announce(goal)
    goal.refresh_from_db()
    return goal


def _announce(goal: Goal) -> None:
    ring_on_commit(goal.uid)
    hint_on_commit(goal_uid=goal.uid, namespace=goal.namespace, topic="goal")

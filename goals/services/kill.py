"""The kill switch: what it covers ends within two seconds, and stays ended until it is lifted.

It needs the database and the cluster alone: no broker, no worker, no telemetry store. One
transaction says first what shall be: the switch stands, attempts are to stop and their identities
are revoked, Goals are to land. Then this process ends the workloads itself. Whoever dies in
between leaves that to the next reconcile, which reads the same rows.

A switch over an agent leaves the Goals of that agent alone: its tasks wait for the lift, the
condition Launching says for whom. Every other switch cancels the Goals that it covers.
"""

import logging
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Final
from uuid import UUID

from django.db.models import Case, F, Q, QuerySet, Value, When
from django.db.models.functions import Coalesce
from django.utils import timezone

from agents.cluster.base import Cluster, ClusterError, WorkloadStatus
from agents.domain.states import ACTIVE_STATES, DesiredState
from agents.models import Agent, Attempt
from agents.services.attempts import record_status
from agents.services.stopping import Stopped, stop_workloads, strays
from goals.access import get_visible_goal
from goals.domain.killing import KillScope, KillTarget
from goals.domain.states import TERMINAL_PHASES, DesiredRun, Phase
from goals.models import Goal, KillSwitch
from goals.services.burn import BURN_COLUMNS, Burn, burn_of
from goals.services.ledger import LedgerError
from goals.services.metering import PriceUnknown, release_attempt, settle_gpu
from goals.services.parents import living_children
from governance.access import NotVisible, Principal
from governance.domain import EVERY_NAMESPACE, Permission
from governance.services.journal import News, append_record, append_records, journaled

logger = logging.getLogger(__name__)

EFFECTIVE_SECONDS: Final = 2.0  # the promise; what has not ended by then is named in the answer
# The map and the ledger are brought up to date here for so long; the rest is reconciled.
RECORDING_SECONDS: Final = 1.0
GENERATIONS_MAX: Final = 10  # of sub-goals
REASON_CHARACTERS: Final = 500
LANDING_REASON: Final = "KillSwitch"


@dataclass(frozen=True, slots=True)
class KillPreview:
    """What a switch would hit now."""

    target: KillTarget
    burn: Burn
    goals: int  # that would be cancelled; for an agent, those it works for
    standing: KillSwitch | None


@dataclass(frozen=True, slots=True)
class Kill:
    """What a throw did. `seconds` is from its begin until the last workload had ended."""

    switch: KillSwitch
    burn: Burn
    goals: int
    stopped: int
    running: tuple[str, ...]
    problems: Mapping[str, str]
    seconds: float


def find_target(
    principal: Principal, *, scope: str, namespace: str = "", name: str = ""
) -> KillTarget:
    """The target a person named; a Goal by uid, namespace/name or name. Raises NotVisible."""
    wanted = KillScope(scope)
    if wanted is KillScope.EVERYTHING:
        return KillTarget(wanted)
    if wanted is KillScope.GOAL:
        reference = f"{namespace}/{name}" if namespace and "/" not in name else name
        goal = get_visible_goal(principal, reference)
        return KillTarget(wanted, goal.namespace, str(goal.uid), str(goal))
    if not principal.may(Permission.VIEW, namespace=namespace):
        raise NotVisible(f"There is no namespace {namespace!r} that you may see.")
    if wanted is KillScope.NAMESPACE:
        return KillTarget(wanted, namespace, "", namespace)
    if not Agent.objects.filter(namespace=namespace, name=name).exists():
        raise NotVisible(f"There is no agent {namespace}/{name} that you may see.")
    return KillTarget(wanted, namespace, name, f"{namespace}/{name}")


def preview_kill(target: KillTarget, *, principal: Principal) -> KillPreview:
    """Raises NotAllowed."""
    _require(target, principal)
    attempts = _attempts(target)
    goals = (
        attempts.order_by().values("goal_uid").distinct().count()
        if target.scope is KillScope.AGENT
        else _goals(target).filter(landing="").count()
    )
    return KillPreview(
        target, burn_of(attempts.values_list(*BURN_COLUMNS)), goals, _standing(target).first()
    )


def throw_switch(
    target: KillTarget, *, principal: Principal, reason: str = "", cluster: Cluster | None = None
) -> Kill:
    """End everything the target covers and keep it ended; thrown again, it ends what is left.

    Raises NotAllowed.
    """
    _require(target, principal)
    began = time.monotonic()
    switch, attempts, burn, goals = _decide(target, principal, reason)
    names = [attempt.workload for attempt in attempts]
    stopped = stop_workloads(names, within_seconds=EFFECTIVE_SECONDS, cluster=cluster)
    stopped = _sweep(target, stopped, cluster)
    seconds = time.monotonic() - began
    _record(attempts, stopped)
    ended = len(stopped.statuses) - len(stopped.running)
    if stopped.running or stopped.problems:
        logger.error(
            "%s: %d workloads still run, %d could not be reached",
            switch, len(stopped.running), len(stopped.problems),
        )  # fmt: skip
    return Kill(switch, burn, goals, ended, stopped.running, stopped.problems, seconds)


def lift_switch(switch: KillSwitch, *, principal: Principal, reason: str = "") -> KillSwitch:
    """Let things start again; what was ended stays ended. Repeating it changes nothing.

    Raises NotAllowed.
    """
    _require(switch.kill_target, principal)
    with journaled():
        standing = KillSwitch.objects.filter(pk=switch.pk, lifted_at__isnull=True)
        if standing.update(lifted_at=timezone.now(), lifted_by=principal.username) == 1:
            append_record(
                action="kill_switch.lifted", actor=principal.actor, object_kind="kill_switch",
                object_id=str(switch.uid), namespace=switch.namespace,
                body={"scope": switch.scope, "target": switch.label, "reason": reason},
            )  # fmt: skip
            waiting = Goal.objects.exclude(phase__in=TERMINAL_PHASES)
            if switch.namespace:
                waiting = waiting.filter(namespace=switch.namespace)
            waiting.update(reconcile_after=timezone.now())
    switch.refresh_from_db()
    return switch


def visible_switches(principal: Principal) -> QuerySet[KillSwitch]:
    """Switches over what the person may see; one over everything concerns everybody."""
    spaces = principal.namespaces(Permission.VIEW)
    if spaces is None:
        return KillSwitch.objects.all()
    seen = Q(namespace__in=spaces)
    if spaces:
        seen |= Q(scope=KillScope.EVERYTHING)
    return KillSwitch.objects.filter(seen)


def get_visible_switch(principal: Principal, uid: UUID) -> KillSwitch:
    """Raises NotVisible."""
    switch = visible_switches(principal).filter(pk=uid).first()
    if switch is None:
        raise NotVisible(f"There is no kill switch {uid} that you may see.")
    return switch


def _require(target: KillTarget, principal: Principal) -> None:
    principal.require(Permission.OPERATE, namespace=target.namespace or EVERY_NAMESPACE)


def _standing(target: KillTarget) -> QuerySet[KillSwitch]:
    return KillSwitch.objects.filter(
        scope=target.scope, namespace=target.namespace, target=target.name, lifted_at__isnull=True
    )


def _attempts(target: KillTarget) -> QuerySet[Attempt]:
    active = Attempt.objects.filter(state__in=ACTIVE_STATES)
    match target.scope:
        case KillScope.EVERYTHING:
            return active
        case KillScope.NAMESPACE:
            return active.filter(namespace=target.namespace)
        case KillScope.AGENT:
            return active.filter(namespace=target.namespace, agent_name=target.name)
        case KillScope.GOAL:
            return active.filter(goal_uid__in=_family(target))


def _goals(target: KillTarget) -> QuerySet[Goal]:
    """Goals that have not landed; none for an agent."""
    living = Goal.objects.exclude(phase__in=TERMINAL_PHASES)
    match target.scope:
        case KillScope.EVERYTHING:
            return living
        case KillScope.NAMESPACE:
            return living.filter(namespace=target.namespace)
        case KillScope.AGENT:
            return living.none()
        case KillScope.GOAL:
            return living.filter(uid__in=_family(target))


def _family(target: KillTarget) -> list[UUID]:
    """A Goal and its sub-goals that have not landed."""
    found: dict[UUID, None] = {}
    generation = list(Goal.objects.filter(pk=target.name))
    for _ in range(GENERATIONS_MAX):
        found |= dict.fromkeys(goal.uid for goal in generation)
        generation = [
            child for goal in generation for child in living_children(goal)
            if child.uid not in found
        ]  # fmt: skip
        if not generation:
            break
    return list(found)


def _decide(
    target: KillTarget, principal: Principal, reason: str
) -> tuple[KillSwitch, list[Attempt], Burn, int]:
    """Write what shall be, with its records, in one transaction behind the journal's lock."""
    now = timezone.now()
    clipped = reason[:REASON_CHARACTERS]
    with journaled():
        switch = _standing(target).first()
        is_new = switch is None
        switch = switch or KillSwitch.objects.create(
            scope=target.scope, namespace=target.namespace, target=target.name,
            label=target.label, reason=clipped, thrown_by=principal.username, thrown_at=now,
        )  # fmt: skip
        hit = _attempts(target)
        burn = burn_of(hit.values_list(*BURN_COLUMNS))
        attempts = list(hit)
        fresh = [one for one in attempts if one.desired != DesiredState.STOPPED]
        why = f"{switch}, thrown by {principal.username}"
        hit.update(
            desired=DesiredState.STOPPED,
            identity_revoked_at=Coalesce("identity_revoked_at", now),
            identity_revoked_reason=Case(
                When(identity_revoked_at__isnull=True, then=Value(why[:255])),
                default=F("identity_revoked_reason"),
            ),
        )
        landing = list(_goals(target).filter(landing=""))
        _goals(target).filter(landing="").update(
            landing=Phase.CANCELLED,
            landing_reason=LANDING_REASON,
            landing_message=f"{why}. {clipped}".strip(),
            desired=DesiredRun.CANCEL,
        )
        _break_leases(target, {one.goal_uid for one in attempts})
        KillSwitch.objects.filter(pk=switch.pk).update(attempts=F("attempts") + len(fresh))
        body = {"scope": target.scope.value, "target": str(target), "reason": clipped,
                "attempts": len(fresh), "goals": len(landing)}  # fmt: skip
        news = [
            News("kill_switch.thrown" if is_new else "kill_switch.thrown_again", principal.actor,
                 "kill_switch", str(switch.uid), target.namespace, target.goal_uid, body)
        ]  # fmt: skip
        news += [
            News("attempt.killed", principal.actor, "attempt", str(one.uid), one.namespace,
                 one.goal_uid, {"switch": str(switch.uid), "spiffe_id": one.spiffe_id})
            for one in fresh
        ]  # fmt: skip
        news += [
            News("goal.landing", principal.actor, "goal", str(goal.uid), goal.namespace, goal.uid,
                 {"phase": Phase.CANCELLED.value, "reason": LANDING_REASON})
            for goal in landing
        ]  # fmt: skip
        append_records(news)
    switch.refresh_from_db()
    return switch, attempts, burn, len(landing)


def _break_leases(target: KillTarget, goal_uids: set[UUID]) -> None:
    """Whoever acts on these Goals starts over from the rows as they are now."""
    over = {"epoch": F("epoch") + 1, "lease_owner": "", "lease_expires_at": None,
            "reconcile_after": timezone.now()}  # fmt: skip
    if target.scope is KillScope.AGENT:
        Goal.objects.filter(pk__in=list(goal_uids)).update(**over)
    else:
        _goals(target).update(**over)


def _sweep(target: KillTarget, stopped: Stopped, cluster: Cluster | None) -> Stopped:
    """Look once more: a worker may have been starting something, or nobody may know of it."""
    again = [name for name, status in stopped.statuses.items() if status is None]
    problems = dict(stopped.problems)
    if target.scope in (KillScope.NAMESPACE, KillScope.EVERYTHING):
        try:
            again += strays(namespace=target.namespace or None, cluster=cluster)
        except ClusterError as error:
            problems["(other workloads)"] = str(error)
    second = stop_workloads(again, within_seconds=EFFECTIVE_SECONDS, cluster=cluster)
    statuses = {**stopped.statuses, **second.statuses}
    running = tuple(n for n, one in statuses.items() if one is not None and not one.is_finished)
    return replace(
        stopped, statuses=statuses, running=running, problems={**problems, **second.problems}
    )


def _record(attempts: list[Attempt], stopped: Stopped) -> None:
    """Write down what ended, as the reconciler does; what there is no time for it does itself."""
    give_up_at = time.monotonic() + RECORDING_SECONDS
    goals = {goal.uid: goal for goal in Goal.objects.filter(pk__in={a.goal_uid for a in attempts})}
    for attempt in attempts:
        if attempt.workload not in stopped.statuses:
            continue
        if time.monotonic() >= give_up_at:
            return
        status = stopped.statuses[attempt.workload]
        if status is not None and not status.is_finished:
            continue
        try:
            _close(goals.get(attempt.goal_uid), attempt, status)
        except (LedgerError, PriceUnknown) as error:
            logger.warning("%s is left to be reconciled: %s", attempt.workload, error)


def _close(goal: Goal | None, attempt: Attempt, status: WorkloadStatus | None) -> None:
    with journaled():
        attempt.refresh_from_db()
        if attempt.is_finished:
            return
        record_status(attempt, status)
        if goal is not None:
            settle_gpu(goal, attempt)
            release_attempt(goal, attempt)

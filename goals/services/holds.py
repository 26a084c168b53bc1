"""Kill switches that stand: what they cover is not started, whoever asks."""

from collections.abc import Sequence
from uuid import UUID

from django.db.models import Q

from goals.domain.killing import KillScope
from goals.models import Goal, KillSwitch


class LaunchHeld(Exception):
    """A kill switch covers what was to be started."""


def standing_switches() -> list[KillSwitch]:
    """Every switch that has not been lifted, newest first."""
    return list(KillSwitch.objects.filter(lifted_at__isnull=True))


def switches_over(goal: Goal) -> list[KillSwitch]:
    """Standing switches that cover this Goal, or an agent in its namespace."""
    return switches_over_place(goal.namespace, goal.uid)


def switches_over_place(namespace: str, goal_uid: UUID) -> list[KillSwitch]:
    """Standing switches that cover a Goal of a namespace, or an agent in that namespace."""
    covering = (
        Q(scope=KillScope.EVERYTHING)
        | Q(scope=KillScope.NAMESPACE, namespace=namespace)
        | Q(scope=KillScope.AGENT, namespace=namespace)
        | Q(scope=KillScope.GOAL, namespace=namespace, target=str(goal_uid))
    )
    return list(KillSwitch.objects.filter(covering, lifted_at__isnull=True))


def switch_for(agent: str, switches: Sequence[KillSwitch]) -> KillSwitch | None:
    """The first of a Goal's switches that covers this agent of it."""
    for switch in switches:
        if switch.scope != KillScope.AGENT or switch.target == agent:
            return switch
    return None


def refuse_held(goal: Goal, agent: str) -> None:
    """Within the transaction that records an attempt, behind the journal's lock.

    A switch is thrown behind the same lock: it is either seen here, or sees the attempt. Raises
    LaunchHeld.
    """
    switch = switch_for(agent, switches_over(goal))
    if switch is not None:
        raise LaunchHeld(f"{agent} of {goal} is not started: {switch} stands.")

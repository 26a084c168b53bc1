"""Reads of the fleet: what an attempt may see of the tasks before it."""

from dataclasses import dataclass
from typing import Any

from django.db.models import Q, QuerySet

from agents.domain.states import AttemptState
from agents.models import Agent, Attempt, TaskOutput
from governance.access import NotVisible, Principal, within
from governance.domain import Permission
from lineage.models import Artifact


@dataclass(frozen=True, slots=True)
class Input:
    """What an earlier task produced under that name."""

    value: Any
    digest: str
    span_id: str


def inputs_of(attempt: Attempt) -> dict[str, Input]:
    """Outputs of the succeeded attempts of the same Goal and graph, the newest of each name."""
    outputs = TaskOutput.objects.filter(
        attempt__goal_uid=attempt.goal_uid,
        attempt__graph_digest=attempt.graph_digest,
        attempt__state=AttemptState.SUCCEEDED,
    ).order_by("created_at")
    return {o.name: Input(o.value, o.digest, o.span_id) for o in outputs}


def visible_attempts(principal: Principal) -> QuerySet[Attempt]:
    """Attempts in the namespaces the person may see."""
    return Attempt.objects.filter(within(principal, Permission.VIEW))


def visible_agents(principal: Principal) -> QuerySet[Agent]:
    """Registered agents in the namespaces the person may see."""
    return Agent.objects.filter(within(principal, Permission.VIEW), retired_at__isnull=True)


def artifacts_within(spaces: Q) -> QuerySet[Artifact]:
    """Artifacts of the namespaces a filter allows."""
    return Artifact.objects.filter(spaces)


def get_artifact(spaces: Q, digest: str) -> Artifact:
    """The artifact of a digest in an allowed namespace. Raises NotVisible."""
    artifact = artifacts_within(spaces).filter(digest=digest).first()
    if artifact is None:
        raise NotVisible(f"There is no artifact {digest} that you may see.")
    return artifact

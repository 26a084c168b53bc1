"""Manifests applied together: all of a file takes effect, or none of it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from django.db import transaction

from agents.domain.manifest import AgentManifest, parse_agent
from agents.domain.problems import FieldProblem, ManifestError
from agents.services.registry import register_agent
from goals.domain.manifest import GoalManifest, parse_goal
from goals.services.apply import apply_goal
from governance.access import Principal
from governance.domain import Permission


@dataclass(frozen=True, slots=True)
class AppliedDocument:
    """What applying one document did; `uid` is None in a dry run."""

    kind: str
    namespace: str
    name: str
    uid: UUID | None
    outcome: str
    notes: tuple[str, ...]


def parse_documents(documents: Sequence[Mapping[str, Any]]) -> list[AgentManifest | GoalManifest]:
    """Manifests of kind Agent and Goal. Raises ManifestError naming every wrong field."""
    problems: list[FieldProblem] = []
    manifests: list[AgentManifest | GoalManifest] = []
    for number, document in enumerate(documents, start=1):
        try:
            manifests.append(_parse(document))
        except ManifestError as error:
            prefix = f"document {number}: " if len(documents) > 1 else ""
            problems += [FieldProblem(p.path, f"{prefix}{p.message}") for p in error.problems]
    if problems:
        raise ManifestError(problems)
    return manifests


def _parse(document: Mapping[str, Any]) -> AgentManifest | GoalManifest:
    match document.get("kind"):
        case "Agent":
            return parse_agent(document)
        case "Goal":
            return parse_goal(document)
        case kind:
            raise ManifestError([FieldProblem("kind", f"must be Goal or Agent, not {kind!r}.")])


def apply_manifests(
    manifests: Sequence[AgentManifest | GoalManifest],
    *,
    principal: Principal,
    is_dry_run: bool = False,
) -> list[AppliedDocument]:
    """Apply all or nothing, agents before the Goals that name them; answers in the given order.

    A dry run does the same and takes it back. Raises NotAllowed, ManifestError, GoalConflict.
    """
    order = sorted(range(len(manifests)), key=lambda i: isinstance(manifests[i], GoalManifest))
    with transaction.atomic():
        done = {index: _apply(manifests[index], principal) for index in order}
        if is_dry_run:
            transaction.set_rollback(True)
    return [
        AppliedDocument(**{**done[index], "uid": None} if is_dry_run else done[index])
        for index in range(len(manifests))
    ]


def _apply(manifest: AgentManifest | GoalManifest, principal: Principal) -> dict[str, Any]:
    row: dict[str, Any] = {"namespace": manifest.namespace, "name": manifest.name}
    if isinstance(manifest, GoalManifest):
        applied = apply_goal(manifest, principal=principal)
        return {
            **row,
            "kind": "Goal",
            "uid": applied.goal.uid,
            "outcome": applied.outcome.value,
            "notes": manifest.notes,
        }
    principal.require(Permission.OPERATE, namespace=manifest.namespace)
    registered = register_agent(manifest, actor=principal.actor)
    return {
        **row,
        "kind": "Agent",
        "uid": registered.agent.uid,
        "outcome": registered.outcome.value,
        "notes": (),
    }

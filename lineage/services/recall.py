"""Recalls: who marked which digest as bad, what it touched, and lifting them by somebody else."""

from dataclasses import dataclass

from django.db import transaction
from django.utils import timezone

from lineage.domain import Actor, NodeKind, NodeRef
from lineage.models import Artifact, Edge, Recall
from lineage.selectors import SPREADING, Direction, Neighbourhood, Walk, neighbourhood
from lineage.services.artifacts import announce

TOUCHED_MAX = 2000  # nodes walked; the page says when there is more
TOUCHED_FAN_OUT = 400  # of one relation at one node
TOUCHED_DEPTH = 24  # steps; a chain of reuse longer than that is unheard of


class RecallError(Exception):
    """A recall that cannot be lifted; the text says why."""


class NotRecalled(RecallError):
    """The digest is not recalled."""


class SamePerson(RecallError):
    """Whoever recalled a digest may not lift that recall."""


@dataclass(frozen=True, slots=True)
class Touched:
    """Everything downstream of a digest, by kind; `is_cut` when there is more."""

    attempts: tuple[str, ...]
    goals: tuple[str, ...]
    artifacts: tuple[str, ...]
    releases: tuple[str, ...]
    edges: tuple[Edge, ...]
    is_cut: bool


def open_recall(artifact: Artifact) -> Recall | None:
    """The recall in force, or None."""
    return Recall.objects.filter(
        namespace=artifact.namespace, digest=artifact.digest, lifted_at__isnull=True
    ).first()


def lift_recall(artifact: Artifact, *, reason: str, actor: Actor) -> Recall:
    """Let a recalled digest be used again; another person than the one who recalled it must.

    Raises NotRecalled, SamePerson. Two people at once: one lifts, the other gets NotRecalled.
    """
    recall = open_recall(artifact)
    if recall is None or artifact.recalled_at is None:
        raise NotRecalled(f"{artifact.digest} is not recalled.")
    if (recall.recalled_by_kind, recall.recalled_by_id) == (actor.kind, actor.id):
        raise SamePerson("You recalled this digest: somebody else must lift it (four eyes).")
    with transaction.atomic():
        lifted = Recall.objects.filter(pk=recall.pk, lifted_at__isnull=True).update(
            lifted_at=timezone.now(),
            lifted_by_kind=actor.kind,
            lifted_by_id=actor.id,
            lift_reason=reason,
        )
        if not lifted:
            raise NotRecalled(f"{artifact.digest} is not recalled.")
        Artifact.objects.filter(pk=artifact.pk).update(recalled_at=None, recall_reason="")
        artifact.refresh_from_db()
        announce(artifact, actor, "artifact.recall_lifted", reason=reason)
    recall.refresh_from_db()
    return recall


def touched_by(artifact: Artifact, *, depth: int = TOUCHED_DEPTH) -> Touched:
    """Everything that used the artifact, or was made from what did, to any depth."""
    start = NodeRef(NodeKind.ARTIFACT, artifact.digest)
    found = neighbourhood(
        [start],
        Walk(
            artifact.namespace,
            depth=depth,
            direction=Direction.EFFECTS,
            relations=SPREADING,
            fan_out=TOUCHED_FAN_OUT,
            nodes_max=TOUCHED_MAX,
        ),
    )
    return Touched(
        attempts=_ids(found, NodeKind.ATTEMPT),
        goals=tuple(
            sorted({str(e.goal_uid) for e in found.edges.values() if e.goal_uid is not None})
        ),
        artifacts=tuple(one for one in _ids(found, NodeKind.ARTIFACT) if one != artifact.digest),
        releases=_ids(found, NodeKind.RELEASE),
        edges=tuple(found.edges.values()),
        is_cut=found.is_cut or bool(found.hidden) or bool(found.unexplored),
    )


def _ids(found: Neighbourhood, kind: NodeKind) -> tuple[str, ...]:
    return tuple(node.id for node in found.steps if node.kind is kind)

"""Edges of the provenance graph, written in the transaction of the fact they record."""

from collections.abc import Sequence
from uuid import UUID

from lineage.domain import NodeRef, Relation
from lineage.models import Edge

EDGES_PER_INSERT = 500


def link(
    source: NodeRef,
    relation: Relation,
    target: NodeRef,
    *,
    namespace: str,
    goal_uid: UUID | None = None,
    is_signed: bool = False,
) -> bool:
    """Record one edge; True when it is new. A signature is never taken back."""
    edge, is_new = Edge.objects.get_or_create(
        namespace=namespace,
        source_kind=source.kind,
        source_id=source.id,
        relation=relation,
        target_kind=target.kind,
        target_id=target.id,
        defaults={"goal_uid": goal_uid, "is_signed": is_signed},
    )
    if not is_new and is_signed and not edge.is_signed:
        Edge.objects.filter(pk=edge.pk).update(is_signed=True)
    return is_new


def link_all(
    source: NodeRef,
    relation: Relation,
    targets: Sequence[NodeRef],
    *,
    namespace: str,
    goal_uid: UUID | None = None,
) -> None:
    """Record the unsigned edges from one node to many; those that exist stay as they are."""
    Edge.objects.bulk_create(
        [
            Edge(
                namespace=namespace,
                goal_uid=goal_uid,
                source_kind=source.kind,
                source_id=source.id,
                relation=relation,
                target_kind=target.kind,
                target_id=target.id,
            )
            for target in targets
        ],
        batch_size=EDGES_PER_INSERT,
        ignore_conflicts=True,
    )

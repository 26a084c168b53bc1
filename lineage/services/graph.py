"""Edges of the provenance graph, written in the transaction of the fact they record."""

from uuid import UUID

from lineage.domain import NodeRef, Relation
from lineage.models import Edge


def link(
    source: NodeRef,
    relation: Relation,
    target: NodeRef,
    *,
    namespace: str,
    goal_uid: UUID | None = None,
    is_signed: bool = False,
) -> None:
    """Record one edge; the same edge again changes nothing (a signature is never taken back)."""
    edge, is_new = Edge.objects.get_or_create(
        source_kind=source.kind,
        source_id=source.id,
        relation=relation,
        target_kind=target.kind,
        target_id=target.id,
        defaults={"namespace": namespace, "goal_uid": goal_uid, "is_signed": is_signed},
    )
    if not is_new and is_signed and not edge.is_signed:
        Edge.objects.filter(pk=edge.pk).update(is_signed=True)

"""What the nodes of the provenance graph are called, read for many of them at once."""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

from django.urls import NoReverseMatch, reverse

from agents.models import Attempt
from goals.models import Goal, Release
from governance.models import Approval, Decision
from lineage.domain import ArtifactKind, NodeKind, NodeRef, Relation
from lineage.models import Artifact, Edge

SHOWN_HEX = 12  # characters of a digest that tell apart what one page lists
PAGES = {
    NodeKind.GOAL: "goal_detail",
    NodeKind.ATTEMPT: "attempt_detail",
    NodeKind.DECISION: "decision_detail",
    NodeKind.APPROVAL: "approval_detail",
    NodeKind.ARTIFACT: "artifact_detail",
    NodeKind.RELEASE: "release_detail",
    NodeKind.SPAN: "span_detail",
}
SIGNED_AT_TARGET = frozenset({Relation.PRODUCED, Relation.SERVES, Relation.SUPPORTED_BY})


@dataclass(frozen=True, slots=True)
class Node:
    """A node as it is shown: `kind` in words, what it is called, one more line, its state."""

    ref: NodeRef
    kind: str
    title: str
    line: str = ""
    state: str = ""
    url: str = ""

    @property
    def key(self) -> str:
        """How a link names it."""
        return f"{self.ref.kind}:{self.ref.id}"


@dataclass(slots=True)
class Described:
    """Nodes by reference, and the artifacts among them, which carry the signatures."""

    nodes: dict[NodeRef, Node] = field(default_factory=dict)
    artifacts: dict[str, Artifact] = field(default_factory=dict)

    def signature(self, edge: Edge) -> tuple[str, str]:
        """What signs an edge, in words, and where that bundle can be had ("" for nowhere)."""
        if not edge.is_signed:
            return "", ""
        at_target = Relation(edge.relation) in SIGNED_AT_TARGET
        digest = edge.target_id if at_target else edge.source_id
        artifact = self.artifacts.get(digest)
        if artifact is None or not artifact.statement_bundle:
            return "signed", ""
        url = reverse("artifact_bundle", args=[digest, "statement"])
        return f"in-toto statement of {artifact.name}", url


def describe(refs: Collection[NodeRef], *, namespace: str) -> Described:
    """Every node with its name, in one query for each kind; a row that is gone keeps its id."""
    found = Described()
    ids: dict[NodeKind, list[str]] = {}
    for ref in refs:
        ids.setdefault(ref.kind, []).append(ref.id)
    rows = _rows(ids, namespace)
    found.artifacts = dict(rows[NodeKind.ARTIFACT])
    for ref in refs:
        row = rows.get(ref.kind, {}).get(ref.id)
        found.nodes[ref] = _node(ref, row)
    return found


def _rows(ids: Mapping[NodeKind, list[str]], namespace: str) -> dict[NodeKind, dict[str, Any]]:
    tables: dict[NodeKind, Any] = {
        NodeKind.GOAL: Goal,
        NodeKind.ATTEMPT: Attempt,
        NodeKind.DECISION: Decision,
        NodeKind.APPROVAL: Approval,
        NodeKind.RELEASE: Release,
    }
    rows: dict[NodeKind, dict[str, Any]] = {
        kind: {
            str(row.pk): row
            for row in table.objects.filter(namespace=namespace, pk__in=_uids(ids.get(kind, ())))
        }
        if ids.get(kind)
        else {}
        for kind, table in tables.items()
    }
    digests = ids.get(NodeKind.ARTIFACT, [])
    artifacts = Artifact.objects.filter(namespace=namespace, digest__in=digests) if digests else ()
    rows[NodeKind.ARTIFACT] = {artifact.digest: artifact for artifact in artifacts}
    return rows


def _uids(texts: Iterable[str]) -> list[UUID]:
    found = []
    for text in texts:
        try:
            found.append(UUID(text))
        except ValueError:
            continue
    return found


def _node(ref: NodeRef, row: Any) -> Node:
    url = _url(ref)
    match row:
        case Goal():
            return Node(ref, "Goal", row.name, row.objective, row.phase, url)
        case Attempt():
            line = f"{row.task}, attempt {row.number}"
            return Node(ref, "agent run", row.agent_name, line, row.state, url)
        case Decision():
            return Node(ref, "decision", f"{row.point} policy", row.bundle_name, row.outcome, url)
        case Approval():
            by = f"by {row.decided_by}" if row.decided_by else "nobody answered"
            return Node(ref, "approval", row.title, by, row.state, url)
        case Release():
            title = f"{row.service}/{row.environment} #{row.number}"
            line = f"serves {_short(row.digest)}"
            return Node(ref, "release", title, line, row.state, url)
        case Artifact():
            is_evidence = row.kind == ArtifactKind.EVIDENCE
            kind = "evidence" if is_evidence else row.kind
            state = "recalled" if row.recalled_at else "signed" if row.is_signed else "unsigned"
            return Node(ref, kind, row.name, _short(row.digest), state, url)
    return _bare(ref, url)


def _bare(ref: NodeRef, url: str) -> Node:
    """A node without a row of its own, or whose row is not here."""
    match ref.kind:
        case NodeKind.HUMAN:
            return Node(ref, "person", ref.id)
        case NodeKind.GRAPH:
            return Node(ref, "task graph", _short(ref.id))
        case NodeKind.SVID:
            return Node(ref, "identity", _short(ref.id), "SVID")
        case _:
            return Node(ref, ref.kind.value, _short(ref.id), "not in this namespace", "", url)


def _short(text: str) -> str:
    return text.removeprefix("sha256:")[:SHOWN_HEX]


def _url(ref: NodeRef) -> str:
    if ref.kind not in PAGES:
        return ""
    try:
        return reverse(PAGES[ref.kind], args=[ref.id])
    except NoReverseMatch:
        return ""

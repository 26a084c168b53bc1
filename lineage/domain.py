"""Words of provenance: who acts, what artifacts are, how facts relate."""

from dataclasses import dataclass
from enum import StrEnum

MEGABYTE = 1_000_000


class ActorKind(StrEnum):
    """Who did something."""

    HUMAN = "human"
    AGENT = "agent"  # id: the attempt's SPIFFE ID
    SYSTEM = "system"  # id: the part of the product that acted, e.g. `reconcile`


@dataclass(frozen=True, slots=True)
class Actor:
    """One actor, as the journal names it."""

    kind: ActorKind
    id: str

    def document(self) -> dict[str, str]:
        return {"kind": self.kind.value, "id": self.id}

    def __str__(self) -> str:
        return f"{self.kind}:{self.id}"


class ArtifactKind(StrEnum):
    """What an artifact holds."""

    MODEL = "model"
    DATASET = "dataset"
    EVIDENCE = "evidence"
    POLICY = "policy"
    FILE = "file"


class Relation(StrEnum):
    """Edges of the provenance graph, read `source relation target`."""

    PLANNED = "planned"  # goal -> graph
    RAN = "ran"  # goal -> attempt
    IDENTIFIED_BY = "identified_by"  # attempt -> svid
    JUDGED_BY = "judged_by"  # goal | release -> decision
    APPROVED_BY = "approved_by"  # goal | release -> approval
    PRODUCED = "produced"  # attempt -> artifact
    USED = "used"  # attempt -> artifact
    ABOUT = "about"  # evidence -> artifact
    RELEASED = "released"  # attempt | human -> release
    SERVES = "serves"  # release -> artifact
    REPLACED = "replaced"  # release -> release
    SUPPORTED_BY = "supported_by"  # release -> evidence


class NodeKind(StrEnum):
    """Nodes of the provenance graph."""

    GOAL = "goal"
    GRAPH = "graph"
    ATTEMPT = "attempt"
    SVID = "svid"
    DECISION = "decision"
    APPROVAL = "approval"
    ARTIFACT = "artifact"
    RELEASE = "release"
    SPAN = "span"
    HUMAN = "human"


@dataclass(frozen=True, slots=True)
class NodeRef:
    """A node by kind and id; references that point to the left are always of this form."""

    kind: NodeKind
    id: str

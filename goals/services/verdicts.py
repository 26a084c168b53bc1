"""What policy said, rule by rule: the same message of the same rule about many tasks once."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

from django.db.models import CharField, Min
from django.db.models.functions import Cast

from goals.models import Goal
from governance.domain import Stage
from governance.models import BundleVersion, Decision
from governance.policy.base import Outcome
from governance.services.decisions import SEVERITY, outcome_in

ROWS_MAX = 100  # messages shown; ten thousand tasks seldom have more than a few kinds
SUBJECTS_MAX = 5  # tasks named for one message
COLUMNS = (
    "subject_kind", "subject_id", "stage", "outcome", "messages", "bundle_name", "bundle_digest",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Verdict:
    """What one bundle said of one subject, however often it was asked; `outcome` is what it does.

    `decision_uid` is one of the decisions that say so, None while none is recorded.
    """

    subject_kind: str
    subject_id: str
    stage: str
    outcome: Outcome
    messages: tuple[Mapping[str, Any], ...]
    bundle_name: str
    bundle_digest: str
    decision_uid: UUID | None = None


def recorded_verdicts(goal: Goal, *, graph_digest: str) -> list[Verdict]:
    """What policy said of a Goal's graph and its tasks, the first to be said first.

    Grouped by the database: a graph is judged again in each iteration, and of ten thousand
    decisions most say the same.
    """
    found = (
        Decision.objects.filter(goal_uid=goal.uid, graph_digest=graph_digest)
        .values_list(*COLUMNS)
        # As text: PostgreSQL knows no least UUID.
        .annotate(one=Min(Cast("uid", CharField())), first=Min("at"))
        .order_by("first")
    )
    return [
        Verdict(
            kind, subject, stage, outcome_in(stage, said), tuple(messages), name, digest, UUID(uid)
        )
        for kind, subject, stage, said, messages, name, digest, uid, _ in found
    ]


def previewed_verdicts(decisions: Iterable[Decision]) -> list[Verdict]:
    """The same of decisions that are not recorded."""
    return [
        Verdict(
            subject_kind=one.subject_kind,
            subject_id=one.subject_id,
            stage=one.stage,
            outcome=outcome_in(one.stage, one.outcome),
            messages=tuple(one.messages),
            bundle_name=one.bundle_name,
            bundle_digest=one.bundle_digest,
        )
        for one in decisions
    ]


@dataclass(slots=True)
class VerdictRow:
    """One message: the rule, where it is written, and what it is about."""

    outcome: str
    stage: str
    text: str
    rule: str
    path: str
    line: int
    bundle: str
    version: int | None  # None when no bundle spoke
    subjects: list[str] = field(default_factory=list)
    count: int = 0
    decision_uid: str = ""

    @property
    def more(self) -> int:
        """How many subjects are not named."""
        return self.count - len(self.subjects)

    @property
    def is_binding(self) -> bool:
        """Does it decide, or is it said by a bundle that is only tried?"""
        return self.stage == Stage.ENFORCE or not self.bundle


def verdict_rows(verdicts: Sequence[Verdict]) -> list[VerdictRow]:
    """Messages of verdicts, the gravest first, at most `ROWS_MAX`."""
    versions = dict(
        BundleVersion.objects.filter(
            digest__in={one.bundle_digest for one in verdicts if one.bundle_digest}
        ).values_list("digest", "version")
    )
    rows: dict[tuple[str, ...], VerdictRow] = {}
    for verdict in sorted(verdicts, key=lambda one: -SEVERITY[one.outcome]):
        for message in verdict.messages:
            line = message.get("line") or 0
            where = (message.get("rule", ""), message.get("path", ""), str(line))
            key = (verdict.bundle_digest, message["outcome"], message["text"], *where)
            if key not in rows and len(rows) >= ROWS_MAX:
                continue
            row = rows.setdefault(
                key,
                VerdictRow(
                    message["outcome"],
                    verdict.stage,
                    message["text"],
                    where[0],
                    where[1],
                    line,
                    verdict.bundle_name,
                    versions.get(verdict.bundle_digest),
                    decision_uid=str(verdict.decision_uid or ""),
                ),
            )
            row.count += 1
            if len(row.subjects) < SUBJECTS_MAX:
                row.subjects.append(_subject(verdict))
    return list(rows.values())


def _subject(verdict: Verdict) -> str:
    return "the whole graph" if verdict.subject_kind == "graph" else verdict.subject_id

"""What policy said, rule by rule: the same message of the same rule about many tasks once."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from governance.domain import Stage
from governance.models import BundleVersion, Decision
from governance.services.decisions import SEVERITY, effective_outcome

ROWS_MAX = 100  # messages shown; ten thousand tasks seldom have more than a few kinds
SUBJECTS_MAX = 5  # tasks named for one message


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


def verdict_rows(decisions: Sequence[Decision]) -> list[VerdictRow]:
    """Messages of decisions, the gravest first, at most `ROWS_MAX`."""
    versions = dict(
        BundleVersion.objects.filter(
            digest__in={one.bundle_digest for one in decisions if one.bundle_digest}
        ).values_list("digest", "version")
    )
    rows: dict[tuple[str, ...], VerdictRow] = {}
    for decision in sorted(decisions, key=lambda one: -SEVERITY[effective_outcome(one)]):
        for message in decision.messages:
            line = message.get("line") or 0
            where = (message.get("rule", ""), message.get("path", ""), str(line))
            key = (decision.bundle_digest, message["outcome"], message["text"], *where)
            if key not in rows and len(rows) >= ROWS_MAX:
                continue
            row = rows.setdefault(
                key,
                VerdictRow(
                    message["outcome"],
                    decision.stage,
                    message["text"],
                    where[0],
                    where[1],
                    line,
                    decision.bundle_name,
                    versions.get(decision.bundle_digest),
                    decision_uid=str(decision.uid),
                ),
            )
            row.count += 1
            if len(row.subjects) < SUBJECTS_MAX:
                row.subjects.append(_subject(decision))
    return list(rows.values())


def _subject(decision: Decision) -> str:
    return "the whole graph" if decision.subject_kind == "graph" else decision.subject_id

"""What pages and the API show of conduct: what attempts did lately and what policy said of it."""

from dataclasses import dataclass
from typing import Any, Final
from uuid import UUID

from agents.models import Agent, Attempt
from goals.models import AttemptConduct
from goals.services.conduct import SPAN_ID
from governance.models import Decision

SHOWN: Final = 8  # attempts of an agent on its page, the newest
TOLD: Final = 100  # by the API
NAMES_SHOWN: Final = 12
MESSAGES_SHOWN: Final = 5


@dataclass(frozen=True, slots=True)
class Said:
    """One message of a rule; `span` is what it names, "" without one."""

    outcome: str
    text: str
    rule: str
    path: str
    line: int
    span: str


@dataclass(frozen=True, slots=True)
class ConductView:
    """One attempt's row as pages show it."""

    row: AttemptConduct
    attempt: Attempt | None
    messages: tuple[Said, ...]

    @property
    def actions(self) -> dict[str, Any]:
        """Counts and names of the input that was judged."""
        found: dict[str, Any] = self.row.document.get("actions", {})
        return found

    @property
    def targets(self) -> list[tuple[str, str]]:
        """What it changed, each with the span that shows it."""
        spans = self.row.document.get("spans", {}).get("targets", {})
        return [(name, spans.get(name, "")) for name in self.actions.get("names", [])][:NAMES_SHOWN]

    @property
    def models(self) -> list[str]:
        """Language models it named."""
        return list(self.row.document.get("models", {}).get("used", []))[:NAMES_SHOWN]

    @property
    def confidence(self) -> float | None:
        """Mean of its newest actions."""
        return self._number("recent")

    @property
    def before(self) -> float | None:
        """Mean of the agent's earlier actions."""
        return self._number("baseline")

    @property
    def has_done_anything(self) -> bool:
        return bool(self.row.document) and bool(
            self.actions.get("total") or self.actions.get("names") or self.models
        )

    def _number(self, name: str) -> float | None:
        value = self.row.document.get("confidence", {}).get(name)
        return float(value) if isinstance(value, int | float) else None


def conduct_views(agent: Agent, *, limit: int = SHOWN) -> list[ConductView]:
    """The newest judged attempts of an agent; three queries."""
    rows = AttemptConduct.objects.filter(namespace=agent.namespace, agent_name=agent.name)
    return _views(list(rows.filter(judged_at__isnull=False)[:limit]))


def conduct_view(attempt: Attempt) -> ConductView | None:
    """What is known of one attempt's conduct, None before anything of it was judged."""
    rows = AttemptConduct.objects.filter(pk=attempt.uid, judged_at__isnull=False)
    return next(iter(_views(list(rows))), None)


def _views(rows: list[AttemptConduct]) -> list[ConductView]:
    attempts = Attempt.objects.in_bulk([row.attempt_uid for row in rows])
    known = set(
        Decision.objects.filter(pk__in=[row.decision_uid for row in rows if row.decision_uid])
        .values_list("pk", flat=True)
    )  # fmt: skip
    for row in rows:
        if row.decision_uid not in known:
            row.decision_uid = None
    return [ConductView(row, attempts.get(row.attempt_uid), _said(row)) for row in rows]


def _said(row: AttemptConduct) -> tuple[Said, ...]:
    found = []
    for one in row.messages[:MESSAGES_SHOWN]:
        text = str(one.get("text", ""))
        span = SPAN_ID.search(text)
        found.append(
            Said(
                str(one.get("outcome", "")), text, str(one.get("rule", "")),
                str(one.get("path", "")), int(one.get("line") or 0), span[0] if span else "",
            )
        )  # fmt: skip
    return tuple(found)


def conduct_documents(agent: Agent) -> dict[UUID, dict[str, Any]]:
    """The same for the API, by attempt: `agents.schemas.ConductOut`."""
    return {one.row.attempt_uid: _document(one) for one in conduct_views(agent, limit=TOLD)}


def _document(view: ConductView) -> dict[str, Any]:
    row = view.row
    return {
        "outcome": row.outcome,
        "messages": [one.text for one in view.messages],
        "judged_at": row.judged_at,
        "decision": row.decision_uid,
        "actions": int(view.actions.get("total", 0)),
        "orphans": int(view.actions.get("orphans", 0)),
        "targets": [name for name, _ in view.targets],
        "models": view.models,
        "confidence": view.confidence,
        "confidence_before": view.before,
        "standing": row.standing,
        "answer": row.answer,
        "approval": row.approval_uid,
        "offending_span": row.offence_span_id,
        "drifted_at": row.drifted_at,
        "revoked_after_seconds": row.revoked_after_seconds,
        "ended_after_seconds": row.ended_after_seconds,
    }

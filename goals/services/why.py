"""Why: from a Goal or a span, the chain of facts behind it, each one step from the next."""

import re
from typing import Any

from agents.models import Attempt
from goals.access import get_visible_goal
from goals.models import Goal, LedgerEntry, Release
from governance.access import NotVisible, Principal, within
from governance.domain import Permission
from governance.models import Approval, Decision
from governance.services.journal import rfc3339
from lineage.models import Artifact
from lineage.telemetry import get_telemetry
from lineage.telemetry.base import Span, TelemetryError

SPAN_ID = re.compile(r"[0-9a-f]{16}")
EFFECTS_SHOWN = 200


def why(principal: Principal, reference: str) -> dict[str, Any]:
    """The chain behind a span (16 hex) or a Goal. Raises NotVisible, `TelemetryError`s."""
    if SPAN_ID.fullmatch(reference):
        return why_span(principal, reference)
    return why_goal(get_visible_goal(principal, reference))


def why_goal(goal: Goal) -> dict[str, Any]:
    """What the Goal came to and each fact that led there, the newest measurement first."""
    return {
        "kind": "goal",
        "goal": _goal(goal),
        "measurement": _measurement(goal),
        "causes": _causes(goal.namespace, goal.measured_span_id),
        "releases": [_release(r) for r in Release.objects.filter(goal_uid=goal.uid)],
        "artifacts": [_artifact(a) for a in Artifact.objects.filter(goal_uid=goal.uid)],
        "attempts": [_attempt(a) for a in Attempt.objects.filter(goal_uid=goal.uid)],
        "decisions": [_decision(d) for d in Decision.objects.filter(goal_uid=goal.uid)],
        "approvals": [_approval(a) for a in Approval.objects.filter(goal_uid=goal.uid)],
    }


def why_span(principal: Principal, span_id: str) -> dict[str, Any]:
    """Whose span it is, what it acted on, what followed, and what it was charged."""
    span = _visible_span(principal, span_id)
    store = get_telemetry()
    namespace = span.owner.namespace
    goal = Goal.objects.filter(pk=span.owner.goal_uid).first()
    attempt = Attempt.objects.filter(pk=span.owner.attempt_uid).first()
    return {
        "kind": "span",
        "span": _span(span),
        "goal": _goal(goal) if goal else None,
        "attempt": _attempt(attempt) if attempt else None,
        "causes": [_span(one) for one in store.causes(namespace, span_id)],
        "effects": [_span(one) for one in store.effects(namespace, span_id, limit=EFFECTS_SHOWN)],
        "releases": [_release(r) for r in Release.objects.filter(span_id=span_id)],
        "artifacts": [_artifact(a) for a in Artifact.objects.filter(span_id=span_id)],
        "ledger": [
            {"unit": e.account.unit, "kind": e.kind, "amount": e.amount, "key": e.idempotency_key}
            for e in LedgerEntry.objects.filter(span_id=span_id).select_related("account")
        ],
        "decisions": [
            _decision(d)
            for d in Decision.objects.filter(
                goal_uid=span.owner.goal_uid, subject_id=span.owner.task
            )
        ],
    }


def _visible_span(principal: Principal, span_id: str) -> Span:
    goals = Goal.objects.filter(within(principal, Permission.VIEW))
    for namespace in goals.order_by("namespace").values_list("namespace", flat=True).distinct():
        span = get_telemetry().span(namespace, span_id)
        if span is not None:
            return span
    raise NotVisible(f"There is no span {span_id!r} that you may see.")


def _causes(namespace: str, span_id: str) -> list[dict[str, Any]] | None:
    """The chain up to the first observation; None while the telemetry store does not answer."""
    if not span_id:
        return []
    try:
        return [_span(span) for span in get_telemetry().causes(namespace, span_id)]
    except TelemetryError:
        return None


def _measurement(goal: Goal) -> dict[str, Any] | None:
    if goal.measured_at is None:
        return None
    return {
        "value": goal.measured_value,
        "unit": goal.measured_unit,
        "at": rfc3339(goal.measured_at),
        "span_id": goal.measured_span_id,
    }


def _goal(goal: Goal) -> dict[str, Any]:
    return {
        "uid": str(goal.uid),
        "namespace": goal.namespace,
        "name": goal.name,
        "objective": goal.objective,
        "phase": goal.phase,
        "satisfied": goal.satisfied,
        "graph_digest": goal.graph_digest,
        "reason": goal.landing_reason,
        "message": goal.landing_message,
    }


def _span(span: Span) -> dict[str, Any]:
    return {
        "span_id": span.span_id,
        "name": span.name,
        "agent": span.owner.agent,
        "task": span.owner.task,
        "attempt": span.owner.attempt_uid,
        "at": rfc3339(span.start_at),
        "confidence": span.confidence,
        "parent_observation": span.parent_observation,
        "kind": "observation" if span.is_observation else "action" if span.is_action else "span",
        "attributes": dict(span.attributes),
    }


def _release(release: Release) -> dict[str, Any]:
    return {
        "uid": str(release.uid),
        "target": f"{release.service}/{release.environment}",
        "digest": release.digest,
        "previous_digest": release.previous_digest,
        "state": release.state,
        "evidence": release.evidence,
        "decision": str(release.decision_uid or ""),
        "approval": str(release.approval_uid or ""),
        "attempt": str(release.attempt_uid or ""),
        "span_id": release.span_id,
        "reason": release.reason,
        "at": rfc3339(release.created_at),
    }


def _artifact(artifact: Artifact) -> dict[str, Any]:
    return {
        "digest": artifact.digest,
        "blob_digest": artifact.blob_digest,
        "kind": artifact.kind,
        "name": artifact.name,
        "signed": artifact.is_signed,
        "signer": artifact.signer,
        "attempt": str(artifact.attempt_uid or ""),
        "span_id": artifact.span_id,
        "recalled": artifact.recalled_at is not None,
    }


def _attempt(attempt: Attempt) -> dict[str, Any]:
    return {
        "uid": str(attempt.uid),
        "task": attempt.task,
        "number": attempt.number,
        "agent": attempt.agent_name,
        "spiffe_id": attempt.spiffe_id,
        "state": attempt.state,
        "reason": attempt.reason,
        "gpu_ms": attempt.gpu_ms,
        "svids": [
            {"kind": s.kind, "serial": s.serial, "expires_at": rfc3339(s.expires_at)}
            for s in attempt.svids.all()[:4]
        ],
        "revoked": attempt.identity_revoked_reason if attempt.identity_revoked_at else "",
    }


def _decision(decision: Decision) -> dict[str, Any]:
    return {
        "uid": str(decision.uid),
        "point": decision.point,
        "subject": decision.subject_id,
        "outcome": decision.outcome,
        "bundle_digest": decision.bundle_digest,
        "input_digest": decision.input_digest,
        "messages": decision.messages,
    }


def _approval(approval: Approval) -> dict[str, Any]:
    return {
        "uid": str(approval.uid),
        "kind": approval.kind,
        "state": approval.state,
        "decided_by": approval.decided_by,
        "reason": approval.reason,
        "request_digest": approval.request_digest,
        "answer": approval.answer,
    }

"""The facts on the card of a drifted attempt: which rule and span, how fast, what follows."""

import logging
from collections.abc import Mapping, Sequence
from typing import Any, Final

from goals.models import AttemptConduct, Goal
from goals.services.conduct import Judged
from governance.models import BundleVersion
from governance.services.approvals import Fact, plain_text
from lineage.telemetry import get_telemetry
from lineage.telemetry.base import TelemetryError

logger = logging.getLogger(__name__)

SHOWN: Final = 5  # of a list, on the card
TEXT_MAX: Final = 300
WORDS: Final = ("change.target", "change.from", "change.to", "gen_ai.request.model")
WORDS_MAX: Final = 300  # of each thing the agent wrote


def drift_facts(
    goal: Goal,
    judged: Judged,
    *,
    standing: str,
    why: Sequence[Mapping[str, Any]],
    row: Mapping[str, Any],
) -> list[Fact]:
    """What the system knows; within no transaction of its own."""
    attempt = judged.attempt
    is_stopped = standing == "stopped"
    measured = AttemptConduct(
        offence_at=row["offence_at"], revoked_at=row["revoked_at"], ended_at=None
    )
    facts = [
        Fact("What policy says", _joined([str(one["text"]) for one in why]), "why"),
        Fact("Rule", _rules(judged, why), "rule"),
        Fact("Decision", str(_decision(judged, why) or "") or None, "decision"),
        Fact("Offending span", row["offence_span_id"] or None, "span"),
        Fact("Attempt", str(attempt.uid), "attempt"),
        Fact("What it did lately", _doings(judged), "did"),
        Fact("Its scope", _scope(judged), "scope"),
        Fact(
            "Its models", _joined(judged.document["models"].get("allowed", [])) or "any", "models"
        ),
        Fact("Identity", _identity(judged, is_stopped=is_stopped), "identity"),
    ]
    if is_stopped:
        facts += [
            Fact("From the span to the revocation",
                 seconds_text(measured.revoked_after_seconds), "revoked_after"),
            ended_fact(measured),
        ]  # fmt: skip
    return [*facts, *_consequences(goal, attempt.task, is_stopped=is_stopped)]


def _consequences(goal: Goal, task: str, *, is_stopped: bool) -> list[Fact]:
    approved = "It goes on where it was paused, and these rules stop this attempt no more."
    if is_stopped:
        approved = f"{task} may run again: a new attempt with a new identity, judged as before."
    denied = "The Goal lands as Failed (Drifted); nothing of it runs any more."
    if not is_stopped:
        denied = f"It is ended and its identity revoked. {denied}"
    return [
        Fact("If approved", approved, "on_approve"),
        Fact("If denied, or not answered in time", denied, "on_deny"),
    ]


def ended_fact(row: AttemptConduct) -> Fact:
    """How long it ran on; unknown until it has ended."""
    return Fact(
        "From the span to the end of the workload",
        seconds_text(row.ended_after_seconds),
        "ended_after",
    )


def drift_words(goal: Goal, span_id: str) -> str:
    """What the agent wrote on the offending span: unverified. Asks the telemetry store."""
    if not span_id:
        return ""
    try:
        span = get_telemetry().span(goal.namespace, span_id)
    except TelemetryError as error:
        logger.warning("span %s cannot be read for the card: %s", span_id, error)
        return ""
    if span is None:
        return ""
    said = [f"span: {span.name[:WORDS_MAX]}"]
    said += [
        f"{name}: {str(span.attributes[name])[:WORDS_MAX]}"
        for name in WORDS
        if name in span.attributes
    ]
    if span.status_message:
        said.append(f"status: {span.status_message[:WORDS_MAX]}")
    return "\n".join(said)


def seconds_text(seconds: float | None) -> str | None:
    """Seconds for people; None stays None."""
    return None if seconds is None else f"{seconds:.2f} s"


def _rules(judged: Judged, why: Sequence[Mapping[str, Any]]) -> str | None:
    digests = {one.bundle_digest for one in judged.decisions if one.bundle_digest}
    versions = {
        one.digest: f"{one.name} version {one.version}"
        for one in BundleVersion.objects.filter(digest__in=digests).defer("modules")
    }
    by_uid = {str(one.uid): one for one in judged.decisions}
    said = []
    for message in why:
        decision = by_uid.get(str(message.get("decision", "")))
        bundle = versions.get(decision.bundle_digest, "") if decision else ""
        if message.get("rule"):
            where = f"{message['rule']}, {message['path']}:{message['line']}"
            said.append(f"{where} ({bundle})" if bundle else where)
    return _joined(said)


def _decision(judged: Judged, why: Sequence[Mapping[str, Any]]) -> Any:
    named = next((one["decision"] for one in why if one.get("decision")), None)
    return named or (judged.decisions[0].uid if judged.decisions else None)


def _doings(judged: Judged) -> str:
    actions, confidence = judged.document["actions"], judged.document["confidence"]
    said = [f"{actions['total']} actions, {actions['orphans']} without an observation"]
    if names := actions["names"]:
        said.append(f"changed {_joined(names)}")
    if used := judged.document["models"]["used"]:
        said.append(f"used {_joined(used)}")
    if "recent" in confidence:
        before = confidence.get("baseline")
        against = f", {before:.2f} before" if before is not None else ""
        said.append(f"confidence {confidence['recent']:.2f}{against}")
    return "; ".join(said)


def _scope(judged: Judged) -> str:
    return _joined(judged.document["agent"].get("scope", [])) or "declares none"


def _identity(judged: Judged, *, is_stopped: bool) -> str:
    state = "revoked, and nothing is issued to it" if is_stopped else "stands while it is paused"
    return f"{judged.attempt.spiffe_id} ({state})"


def _joined(texts: Sequence[str]) -> str | None:
    shown = ", ".join(plain_text(one[:TEXT_MAX]) for one in texts[:SHOWN])
    if len(texts) > SHOWN:
        shown += f" and {len(texts) - SHOWN} more"
    return shown or None

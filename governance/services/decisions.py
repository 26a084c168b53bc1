"""Decisions: every policy evaluation, judged by the bundles in force and kept for replay."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

import rfc8785

from governance.domain import GovernanceError, Stage
from governance.models import BundleVersion, Decision
from governance.policy import get_policy_engine
from governance.policy.base import (
    Outcome,
    PolicyBundle,
    PolicyEngine,
    PolicyError,
    PolicyMessage,
    PolicyModule,
    PolicyPoint,
    Verdict,
)
from governance.services.journal import News, append_records, journaled
from lineage.domain import Actor, ActorKind

JUDGE = Actor(ActorKind.SYSTEM, "policy")
SEVERITY = {Outcome.ALLOW: 0, Outcome.WARN: 1, Outcome.REQUIRE_APPROVAL: 2, Outcome.DENY: 3}
NO_BUNDLE = PolicyBundle(digest="", modules=())


class ReplayImpossible(GovernanceError):
    """A recorded decision cannot be judged again; the text says why."""


@dataclass(frozen=True, slots=True)
class Subject:
    """One thing to judge: what it is and the document policy sees."""

    kind: str
    id: str
    document: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Case:
    """Where a judgement belongs."""

    point: PolicyPoint
    namespace: str
    goal_uid: UUID | None = None
    graph_digest: str = ""


@dataclass(frozen=True, slots=True)
class Judgement:
    """The worst effective outcome over all bundles and subjects, and the decisions behind it."""

    outcome: Outcome
    decisions: tuple[Decision, ...]

    def messages(self, outcome: Outcome) -> list[dict[str, Any]]:
        """Messages of that outcome, each with the decision and subject it belongs to."""
        return [
            {**message, "decision": str(decision.uid), "subject": decision.subject_id}
            for decision in self.decisions
            if decision.stage != Stage.SHADOW
            for message in decision.messages
            if message["outcome"] == outcome
        ]


def quorum_of(judgement: Judgement) -> int:
    """How many people the rules want to approve."""
    asked = judgement.messages(Outcome.REQUIRE_APPROVAL)
    return max((int(message.get("quorum", 1)) for message in asked), default=1)


def worst(outcomes: Sequence[Outcome]) -> Outcome:
    return max(outcomes, key=SEVERITY.__getitem__, default=Outcome.ALLOW)


def bundle_of(version: BundleVersion) -> PolicyBundle:
    """The bundle as the engine takes it."""
    return PolicyBundle(
        digest=version.digest,
        modules=tuple(PolicyModule(m["path"], m["source"]) for m in version.modules),
        data=version.parameters,
    )


def judge(
    case: Case, subjects: Sequence[Subject], *, engine: PolicyEngine | None = None
) -> Judgement:
    """Judge each subject by every bundle past draft and record each decision.

    Without a bundle in force everything is denied (I8). The evaluation runs outside any
    transaction; the decisions and their journal records commit together.
    """
    judgement = evaluate(case, subjects, engine=engine)
    record_judgement(judgement)
    return judgement


def evaluate(
    case: Case,
    subjects: Sequence[Subject],
    *,
    engine: PolicyEngine | None = None,
    versions: Sequence[BundleVersion] | None = None,
) -> Judgement:
    """The judgement alone: its decisions count once `record_judgement` wrote them.

    With `versions`, bundles as `versions_in_force` read them earlier, it needs no database.
    """
    return _judge(case, subjects, engine or get_policy_engine(), versions)


def versions_in_force() -> list[BundleVersion]:
    """Every version past draft: those that judge, warn or only look on."""
    return list(BundleVersion.objects.exclude(stage=Stage.DRAFT).order_by("name", "version"))


def record_judgement(judgement: Judgement) -> None:
    """Write the decisions and their journal records, together with the caller's changes."""
    with journaled():
        Decision.objects.bulk_create(judgement.decisions, batch_size=500)
        append_records([_news(decision) for decision in judgement.decisions])


def record_once(decisions: Sequence[Decision]) -> int:
    """Write those decisions that are not recorded yet, by uid; how many that were."""
    with journaled():
        uids = [decision.uid for decision in decisions]
        known = set(Decision.objects.filter(uid__in=uids).values_list("uid", flat=True))
        fresh = {one.uid: one for one in decisions if one.uid not in known}.values()
        Decision.objects.bulk_create(fresh, batch_size=500)
        append_records([_news(decision) for decision in fresh])
    return len(fresh)


@dataclass(frozen=True, slots=True)
class Replay:
    """A recorded decision judged again by the bundle it was made by."""

    recorded: Outcome
    replayed: Outcome
    messages: tuple[PolicyMessage, ...]

    @property
    def agrees(self) -> bool:
        return self.recorded == self.replayed


def replay_decision(decision: Decision, *, engine: PolicyEngine | None = None) -> Replay:
    """Judge a decision's recorded input again, by the bundle version it names; records nothing.

    Raises ReplayImpossible when the record was changed or the bundle is not here.
    """
    digest = hashlib.sha256(decision.input_canonical.encode("utf-8")).hexdigest()
    if f"sha256:{digest}" != decision.input_digest:
        raise ReplayImpossible(f"The input of decision {decision.uid} is not what was digested.")
    recorded = Outcome(decision.outcome)
    if not decision.bundle_digest:
        verdict = _missing()
    else:
        version = BundleVersion.objects.filter(digest=decision.bundle_digest).first()
        if version is None:
            raise ReplayImpossible(f"No bundle {decision.bundle_digest} is kept here.")
        document = json.loads(decision.input_canonical)
        point = PolicyPoint(decision.point)
        (verdict,) = (engine or get_policy_engine()).evaluate(bundle_of(version), point, [document])
    return Replay(recorded, verdict.outcome, tuple(verdict.messages))


def _judge(
    case: Case,
    subjects: Sequence[Subject],
    engine: PolicyEngine,
    versions: Sequence[BundleVersion] | None = None,
) -> Judgement:
    versions = versions_in_force() if versions is None else versions
    inputs = [subject.document for subject in subjects]
    verdicts: list[tuple[BundleVersion | None, Sequence[Verdict]]] = [
        (version, _verdicts(engine, version, case.point, inputs)) for version in versions
    ]
    if not any(version.stage == Stage.ENFORCE for version in versions):
        verdicts.append((None, [_missing() for _ in subjects]))
    canonicals = [_canonical(document) for document in inputs]
    decisions = [
        _decision(case, subject, version, verdict, canonical)
        for version, answers in verdicts
        for subject, verdict, canonical in zip(subjects, answers, canonicals, strict=True)
    ]
    return Judgement(worst([effective_outcome(d) for d in decisions]), tuple(decisions))


def _verdicts(
    engine: PolicyEngine,
    version: BundleVersion,
    point: PolicyPoint,
    inputs: Sequence[Mapping[str, Any]],
) -> Sequence[Verdict]:
    """One verdict per input; an engine that cannot answer denies (I8)."""
    try:
        verdicts = engine.evaluate(bundle_of(version), point, inputs)
    except PolicyError as error:
        return [_undecided(f"The policy engine cannot be used: {error}", "crash") for _ in inputs]
    if len(verdicts) != len(inputs):
        return [
            _undecided("The policy engine did not answer every input.", "crash") for _ in inputs
        ]
    return verdicts


def preview(
    point: PolicyPoint, subjects: Sequence[Subject], *, engine: PolicyEngine | None = None
) -> Judgement:
    """What `judge` would say, recording nothing: the decisions returned are not saved."""
    case = Case(point, namespace="")
    return _judge(case, subjects, engine or get_policy_engine())


def effective_outcome(decision: Decision) -> Outcome:
    """What a decision does, given the stage of the bundle that made it."""
    return outcome_in(decision.stage, decision.outcome)


def outcome_in(stage: str, said: str) -> Outcome:
    """What an outcome does that was said by a bundle in this stage."""
    if stage == Stage.SHADOW:
        return Outcome.ALLOW
    outcome = Outcome(said)
    if stage == Stage.WARN and SEVERITY[outcome] > SEVERITY[Outcome.WARN]:
        return Outcome.WARN
    return outcome


def _missing() -> Verdict:
    return _undecided("No policy bundle is in force, so nothing may run: enforce one.", "missing")


def _undecided(text: str, error: str) -> Verdict:
    return Verdict(Outcome.DENY, (PolicyMessage(Outcome.DENY, text),), error=error)


def input_digest_of(document: Mapping[str, Any]) -> tuple[str, str]:
    """Digest of a document (`sha256:…`), and the canonical text that was digested."""
    canonical = _canonical(document)
    return f"sha256:{hashlib.sha256(canonical).hexdigest()}", canonical.decode("utf-8")


def _decision(
    case: Case,
    subject: Subject,
    version: BundleVersion | None,
    verdict: Verdict,
    canonical: bytes,
) -> Decision:
    return Decision(
        point=case.point,
        namespace=case.namespace,
        goal_uid=case.goal_uid,
        graph_digest=case.graph_digest,
        subject_kind=subject.kind,
        subject_id=subject.id,
        bundle_name=version.name if version else "",
        bundle_digest=version.digest if version else "",
        stage=version.stage if version else Stage.ENFORCE,
        input_digest=f"sha256:{hashlib.sha256(canonical).hexdigest()}",
        input_canonical=canonical.decode("utf-8"),
        outcome=verdict.outcome,
        messages=[_message(message) for message in verdict.messages],
        error=verdict.error,
        engine=verdict.engine,
        duration_seconds=verdict.duration_seconds,
    )


def _message(message: PolicyMessage) -> dict[str, Any]:
    document = {
        "outcome": message.outcome.value,
        "text": message.text,
        "rule": message.rule,
        "path": message.path,
        "line": message.line,
    }
    return document if message.quorum == 1 else {**document, "quorum": message.quorum}


def _news(decision: Decision) -> News:
    return News(
        action="decision.made",
        actor=JUDGE,
        object_kind="decision",
        object_id=str(decision.uid),
        namespace=decision.namespace,
        goal_uid=decision.goal_uid,
        body={
            "point": str(decision.point),
            "subject": {"kind": decision.subject_kind, "id": decision.subject_id},
            "bundle_digest": decision.bundle_digest,
            "input_digest": decision.input_digest,
            "outcome": str(decision.outcome),
            "stage": str(decision.stage),
            "messages": decision.messages,
            "error": decision.error,
        },
    )


def _canonical(document: Mapping[str, Any]) -> bytes:
    return rfc8785.dumps(dict(document))

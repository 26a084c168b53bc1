"""From a review to its answer and its decisions, by the snapshot and the policy sandbox alone."""

import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final
from uuid import UUID

from agents.admission.review import Object, Review, allowed, refused, unheard
from agents.admission.snapshot import Snapshot
from agents.admission.workloads import (
    AGENT_ID,
    account_of,
    asks_nothing_new,
    digests_in,
    is_cleared,
    pod_of,
    policy_input,
)
from agents.domain.naming import agent_id_of
from governance.domain import Stage
from governance.models import Decision
from governance.policy.base import Outcome, PolicyEngine, PolicyPoint
from governance.services.decisions import (
    Case,
    Judgement,
    Subject,
    evaluate,
    input_digest_of,
    worst,
)

DECISIONS: Final = UUID("5b1c3d0e-6f0c-5c52-9d0b-3f4e8a1f7a11")  # names of decisions, RFC 9562 v5
NO_SNAPSHOT: Final = (
    "Admission has not read any policy yet: try again in a moment. If it stays so, its database "
    "does not answer."
)
APPROVAL_NEEDED: Final = (
    "{text}. Only an attempt of an approved Goal may run this: ask for it with a Goal, whose graph "
    "is approved once, before anything of it runs{rule}"
)
BUILT_IN: Final = "clearance.admission"


@dataclass(frozen=True, slots=True)
class Answer:
    """What the API server is told, and the decisions that must be kept before it is."""

    response: Object
    decisions: tuple[Decision, ...] = ()
    outcome: Outcome = Outcome.ALLOW


def judge_workload(
    review: Review,
    *,
    snapshot: Snapshot | None,
    engine: PolicyEngine,
    own_users: frozenset[str],
) -> Answer:
    """Judge a pod or the template of one. Evaluates in the sandbox and reads no database."""
    if snapshot is None:
        return Answer(unheard(review, NO_SNAPSHOT), outcome=Outcome.DENY)
    pod = pod_of(review.kind, review.found)
    if pod is None or asks_nothing_new(review):
        return Answer(allowed(review))
    cleared = is_cleared(review, own_users=own_users)
    document = policy_input(review, facts={**snapshot.facts(), "cleared": cleared})
    subject = Subject(review.kind.lower(), f"{review.namespace}/{review.name}"[:512], document)
    goal_uid = _goal_uid(review) if cleared else None
    case = Case(PolicyPoint.WORKLOAD, review.namespace, goal_uid=goal_uid)
    judged = evaluate(case, [subject], engine=engine, versions=snapshot.versions)
    judgement = _with_own_rules(judged, review, pod, snapshot, case=case, subject=subject)
    for decision in judgement.decisions:
        decision.uid = decision_uid(review, decision)
    response, outcome = _answer(review, judgement, is_cleared=cleared)
    return Answer(response, judgement.decisions, outcome)


def decision_uid(review: Review, decision: Decision) -> UUID:
    """The same for the same review and bundle: what is recorded twice is recorded once."""
    return uuid.uuid5(DECISIONS, f"{review.uid}/{decision.bundle_name}/{decision.bundle_digest}")


def _answer(review: Review, judgement: Judgement, *, is_cleared: bool) -> tuple[Object, Outcome]:
    warnings = [_sentence(one) for one in _warned(judgement)]
    denials = [_sentence(one) for one in judgement.messages(Outcome.DENY) if _binds(judgement, one)]
    asked = [
        APPROVAL_NEEDED.format(text=one["text"].rstrip("."), rule=_rule(one))
        for one in judgement.messages(Outcome.REQUIRE_APPROVAL)
        if _binds(judgement, one) and not is_cleared
    ]
    if denials or asked or judgement.outcome is Outcome.DENY:
        message = "; ".join(dict.fromkeys([*denials, *asked])) or "denied by policy"
        return refused(review, message, warnings=warnings), Outcome.DENY
    outcome = Outcome.WARN if warnings else Outcome.ALLOW
    return allowed(review, warnings=warnings), outcome


def _binds(judgement: Judgement, message: dict[str, Any]) -> bool:
    return _stage(judgement, message) == Stage.ENFORCE


def _warned(judgement: Judgement) -> list[dict[str, Any]]:
    """Messages that only warn: those of `warn` rules, and all of a bundle in the stage warn."""
    said = judgement.messages(Outcome.WARN)
    for outcome in (Outcome.DENY, Outcome.REQUIRE_APPROVAL):
        found = judgement.messages(outcome)
        said += [one for one in found if _stage(judgement, one) == Stage.WARN]
    return said


def _stage(judgement: Judgement, message: dict[str, Any]) -> str:
    made = {str(one.uid): one for one in judgement.decisions}
    return made[message["decision"]].stage


def _sentence(message: dict[str, Any]) -> str:
    return f"{message['text']}{_rule(message)}"


def _rule(message: dict[str, Any]) -> str:
    """Which rule said it, and where it is written."""
    if not message.get("rule"):
        return ""
    where = f", {message['path']}:{message['line']}" if message.get("path") else ""
    return f" (rule {message['rule']}{where})"


# --- What holds whatever the bundles say ----------------------------------------------------------


def _with_own_rules(
    judgement: Judgement,
    review: Review,
    pod: Object,
    snapshot: Snapshot,
    *,
    case: Case,
    subject: Subject,
) -> Judgement:
    """The judgement, and a decision of our own when a recalled digest or another name is asked."""
    messages = [*_recalled(review, pod, snapshot), *_misnamed(pod)]
    if not messages:
        return judgement
    digest, canonical = input_digest_of(subject.document)
    decision = Decision(
        point=case.point,
        namespace=case.namespace,
        goal_uid=case.goal_uid,
        subject_kind=subject.kind,
        subject_id=subject.id,
        bundle_name="",
        bundle_digest="",
        stage=Stage.ENFORCE,
        input_digest=digest,
        input_canonical=canonical,
        outcome=Outcome.DENY,
        messages=messages,
        engine=BUILT_IN,
    )
    outcome = worst([judgement.outcome, Outcome.DENY])
    # One without a bundle that enforces already says what is said of no bundle: ours replaces it.
    others = tuple(one for one in judgement.decisions if one.bundle_digest)
    return Judgement(outcome, (*others, decision))


def _recalled(review: Review, pod: Object, snapshot: Snapshot) -> Sequence[dict[str, Any]]:
    named = {key: pod.get(key) for key in ("metadata", "spec")}
    found = snapshot.recalled(review.namespace, digests_in(named))
    return [
        _message(f"artifact {digest} was recalled: {reason or 'no reason was given'}", "recalled")
        for digest, reason in found.items()
    ]


def _misnamed(pod: Object) -> Sequence[dict[str, Any]]:
    wanted = agent_id_of(account_of(pod))
    label = ((pod.get("metadata") or {}).get("labels") or {}).get(AGENT_ID, "")
    if label == wanted:
        return []
    text = f"label agent_id is {label!r}, but the service account makes it {wanted!r}"
    return [_message(text, AGENT_ID)]


def _message(text: str, rule: str) -> dict[str, Any]:
    return {
        "outcome": Outcome.DENY.value, "text": text, "rule": f"{BUILT_IN}.{rule}", "path": "",
        "line": 0,
    }  # fmt: skip


def _goal_uid(review: Review) -> UUID | None:
    labels = (review.found.get("metadata") or {}).get("labels") or {}
    try:
        return UUID(labels.get("orchestration.ai/goal-uid", ""))
    except ValueError:
        return None

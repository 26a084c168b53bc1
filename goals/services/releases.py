"""Releases: which digest an environment serves; each is judged, a rollback too."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from django.db.models import Max, QuerySet
from django.utils import timezone

from agents.models import Attempt
from agents.services.attempts import scope_of
from goals.domain.states import ReleaseState
from goals.events import hint_on_commit
from goals.models import Goal, Release
from goals.services.approval_facts import quorum_asked, release_facts
from governance.domain import ApprovalInvalid, ApprovalKind, ApprovalState
from governance.models import Approval, Decision
from governance.policy.base import Outcome, PolicyPoint
from governance.services.approvals import Question, open_approval, void_approvals
from governance.services.decisions import (
    Case,
    Judgement,
    Subject,
    evaluate,
    quorum_of,
    record_judgement,
)
from governance.services.journal import append_record, journaled
from lineage.domain import Actor, NodeKind, NodeRef, Relation
from lineage.models import Artifact
from lineage.services.graph import link

JUDGE_TRIES = 5  # another release may take effect while one is judged


class ReleaseError(Exception):
    """A release that cannot be made; the text says why."""


class ArtifactUnknown(ReleaseError):
    """No artifact of that digest in the namespace."""


class OutOfScope(ReleaseError):
    """The agent's manifest does not allow that release."""


class ReleaseContended(ReleaseError):
    """What is served changed each time while the release was judged."""


class NeverServed(ReleaseError):
    """A rollback to something that was never in force."""


class ReleaseDenied(ReleaseError):
    """Policy said no. `messages` carry rule, path and line."""

    def __init__(self, messages: Sequence[dict[str, Any]], decision: Decision | None) -> None:
        super().__init__("; ".join(m["text"] for m in messages) or "Policy denied the release.")
        self.messages, self.decision = list(messages), decision


@dataclass(frozen=True, slots=True)
class ReleaseRequest:
    """What is to be served where, and who asks."""

    namespace: str
    service: str
    environment: str
    digest: str
    actor: Actor
    reason: str
    evidence: Sequence[str] = ()
    attempt: Attempt | None = None
    span_id: str = ""
    is_rollback: bool = False


def current_release(namespace: str, *, service: str, environment: str) -> Release | None:
    """What is served now, or None."""
    return Release.objects.filter(
        namespace=namespace, service=service, environment=environment, state=ReleaseState.ACTIVE
    ).first()


def request_release(request: ReleaseRequest) -> Release:
    """Judge a release and put it in force, or leave it waiting for an approval.

    Asking for what is already served, or again for what already waits, returns that release.
    Raises ArtifactUnknown, OutOfScope, ReleaseDenied (the denial is recorded too).
    """
    _check_scope(request)
    for _ in range(JUDGE_TRIES):
        current = _current(request)
        standing = _standing(request, current)
        if standing is not None:
            return standing
        judgement = evaluate(*_case(request, current))
        if (release := _settle(request, judgement, current)) is not None:
            return release
    raise ReleaseContended(
        f"{request.service}/{request.environment} changes too fast to be judged: try again."
    )


def _current(request: ReleaseRequest) -> Release | None:
    return current_release(
        request.namespace, service=request.service, environment=request.environment
    )


def _standing(request: ReleaseRequest, current: Release | None) -> Release | None:
    """The release that already is what is asked for, or waits to be."""
    if current is not None and current.digest == request.digest:
        return current
    waiting = _siblings(request).filter(
        state=ReleaseState.AWAITING_APPROVAL,
        digest=request.digest,
        released_by_id=request.actor.id,
        is_rollback=request.is_rollback,
    )
    return waiting.order_by("-number").first()


def _case(request: ReleaseRequest, current: Release | None) -> tuple[Case, list[Subject]]:
    artifact = _artifact(request.namespace, request.digest)
    evidence = [_artifact(request.namespace, digest) for digest in request.evidence]
    case = Case(
        PolicyPoint.RELEASE,
        namespace=request.namespace,
        goal_uid=request.attempt.goal_uid if request.attempt else None,
    )
    name = f"{request.service}/{request.environment}@{request.digest}"
    document = release_input(request, artifact, evidence, current)
    return case, [Subject("release", name, document)]


def _settle(
    request: ReleaseRequest, judgement: Judgement, judged: Release | None
) -> Release | None:
    """Act on a judgement; None when what is served changed while it was made."""
    denied: ReleaseDenied | None = None
    with journaled():  # one release at a time: what is read here stays so until the commit
        current = _current(request)
        if (current.pk if current else None) != (judged.pk if judged else None):
            return None
        if (standing := _standing(request, current)) is not None:
            return standing
        record_judgement(judgement)
        denied = _denial(request, judgement)
        if denied is None:
            release = _record(request, judgement, current)
            if judgement.outcome is Outcome.REQUIRE_APPROVAL:
                _ask(release, judgement)
            else:
                _activate(release, request.actor)
    if denied is not None:
        raise denied
    release.refresh_from_db()
    return release


def _denial(request: ReleaseRequest, judgement: Judgement) -> ReleaseDenied | None:
    decision = judgement.decisions[0] if judgement.decisions else None
    if judgement.outcome is Outcome.DENY:
        return ReleaseDenied(judgement.messages(Outcome.DENY), decision)
    # Whatever the policy in force says of them.
    recalled = _recalled(request.namespace, [request.digest, *request.evidence])
    return (
        ReleaseDenied([_recalled_message(one) for one in recalled], decision) if recalled else None
    )


def _recalled(namespace: str, digests: Sequence[str]) -> list[Artifact]:
    """Those of the digests that are recalled, in the order given."""
    found = Artifact.objects.filter(
        namespace=namespace, digest__in=digests, recalled_at__isnull=False
    )
    return sorted(found, key=lambda artifact: digests.index(artifact.digest))


def _recalled_message(artifact: Artifact) -> dict[str, Any]:
    return {
        "outcome": Outcome.DENY.value,
        "text": f"artifact {artifact.digest} was recalled: {artifact.recall_reason}",
        "rule": "",
        "path": "",
        "line": 0,
    }


def _check_scope(request: ReleaseRequest) -> None:
    if request.attempt is None:
        return
    scope = scope_of(request.attempt)
    target = f"{request.service}/{request.environment}"
    if target not in scope.get("releases", []):
        raise OutOfScope(
            f"The agent {request.attempt.agent_name} may not release {target}: its scope allows "
            f"{', '.join(scope.get('releases', [])) or 'no releases'}."
        )


def _artifact(namespace: str, digest: str) -> Artifact:
    artifact = Artifact.objects.filter(namespace=namespace, digest=digest).first()
    if artifact is None:
        raise ArtifactUnknown(f"No artifact {digest} in namespace {namespace}: push it first.")
    return artifact


def release_input(
    request: ReleaseRequest,
    artifact: Artifact,
    evidence: Sequence[Artifact],
    current: Release | None,
) -> dict[str, Any]:
    """What policy sees of a release."""
    attempt = request.attempt
    return {
        "service": request.service,
        "environment": request.environment,
        "namespace": request.namespace,
        "artifact": {
            "digest": artifact.digest,
            "kind": artifact.kind,
            "name": artifact.name,
            "size_bytes": artifact.size_bytes,
            "signed": artifact.is_signed,
            "recalled": artifact.recalled_at is not None,
        },
        "evidence": [
            {
                "digest": one.digest,
                "predicate_type": one.predicate_type,
                "about": one.about,
                "signed": one.is_signed,
            }
            for one in evidence
        ],
        "previous": {"digest": current.digest} if current else None,
        "rollback": request.is_rollback,
        "requested_by": request.actor.document(),
        "goal": {"uid": str(attempt.goal_uid)} if attempt else None,
    }


def _siblings(request: ReleaseRequest) -> QuerySet[Release]:
    return Release.objects.filter(
        namespace=request.namespace, service=request.service, environment=request.environment
    )


def _record(request: ReleaseRequest, judgement: Judgement, current: Release | None) -> Release:
    attempt = request.attempt
    release = Release.objects.create(
        namespace=request.namespace,
        service=request.service,
        environment=request.environment,
        number=(_siblings(request).aggregate(last=Max("number"))["last"] or 0) + 1,
        digest=request.digest,
        previous_digest=current.digest if current else "",
        state=ReleaseState.AWAITING_APPROVAL,
        is_rollback=request.is_rollback,
        reason=request.reason,
        evidence=list(request.evidence),
        decision_uid=judgement.decisions[0].uid if judgement.decisions else None,
        goal_uid=attempt.goal_uid if attempt else None,
        attempt_uid=attempt.uid if attempt else None,
        span_id=request.span_id,
        released_by_kind=request.actor.kind,
        released_by_id=request.actor.id,
    )
    _link(release, request, judgement)
    _journal(release, "release.requested", request.actor)
    return release


def _link(release: Release, request: ReleaseRequest, judgement: Judgement) -> None:
    node = NodeRef(NodeKind.RELEASE, str(release.uid))
    where: dict[str, Any] = {"namespace": release.namespace, "goal_uid": release.goal_uid}
    artifact = NodeRef(NodeKind.ARTIFACT, release.digest)
    link(node, Relation.SERVES, artifact, **where, is_signed=True)
    if request.attempt is not None:
        link(NodeRef(NodeKind.ATTEMPT, str(request.attempt.uid)), Relation.RELEASED, node, **where)
    else:
        link(NodeRef(NodeKind.HUMAN, request.actor.id), Relation.RELEASED, node, **where)
    for digest in request.evidence:
        evidence = NodeRef(NodeKind.ARTIFACT, digest)
        link(node, Relation.SUPPORTED_BY, evidence, **where, is_signed=True)
    for decision in judgement.decisions:
        link(node, Relation.JUDGED_BY, NodeRef(NodeKind.DECISION, str(decision.uid)), **where)


def _ask(release: Release, judgement: Judgement) -> None:
    why = "; ".join(m["text"] for m in judgement.messages(Outcome.REQUIRE_APPROVAL))
    goal = Goal.objects.filter(pk=release.goal_uid).first() if release.goal_uid else None
    barred = [release.released_by_id]
    if goal is not None:
        barred += [name for name in {goal.requested_by, goal.sponsor, *goal.editors} if name]
    open_approval(
        Question(
            kind=ApprovalKind.RELEASE,
            namespace=release.namespace,
            goal_uid=release.goal_uid,
            subject_kind="release",
            subject_id=str(release.uid),
            title=f"Release to {release.service}/{release.environment}",
            request={
                "kind": "release",
                "release": str(release.uid),
                "service": release.service,
                "environment": release.environment,
                "digest": release.digest,
                "previous": release.previous_digest,
            },
            requested_by=release.released_by_id,
            barred=barred,
            quorum=max(quorum_of(judgement), quorum_asked(goal) if goal else 1),
            facts=release_facts(release, why=why),
            agent_words=release.reason if release.attempt_uid else "",
        )
    )


def _activate(release: Release, actor: Actor) -> None:
    """Put a release in force in place of the current one; in the caller's transaction."""
    now = timezone.now()
    previous = current_release(
        release.namespace, service=release.service, environment=release.environment
    )
    if previous is not None:
        Release.objects.filter(pk=previous.pk).update(state=ReleaseState.SUPERSEDED, ended_at=now)
        previous.refresh_from_db()
        _journal(previous, "release.superseded", actor)
        link(
            NodeRef(NodeKind.RELEASE, str(release.uid)),
            Relation.REPLACED,
            NodeRef(NodeKind.RELEASE, str(previous.uid)),
            namespace=release.namespace,
            goal_uid=release.goal_uid,
        )
    Release.objects.filter(pk=release.pk).update(
        state=ReleaseState.ACTIVE, previous_digest=previous.digest if previous else ""
    )
    release.refresh_from_db()
    _journal(release, "release.activated", actor)
    _void_waiting(release)
    hint_on_commit(goal_uid=release.goal_uid, namespace=release.namespace, topic="release")


def _void_waiting(active: Release) -> None:
    """What waits for an approval here was asked in view of another release: ask again."""
    waiting = Release.objects.filter(
        namespace=active.namespace,
        service=active.service,
        environment=active.environment,
        state=ReleaseState.AWAITING_APPROVAL,
    )
    for other in waiting.exclude(pk=active.pk):
        void_approvals(
            subject_kind="release",
            subject_id=str(other.uid),
            why=f"Release {active.number} took effect meanwhile.",
        )


def apply_release_answer(approval: Approval, request: dict[str, Any], actor: Actor) -> None:
    """Put an approved release in force, or close it; in the transaction of the answer."""
    release = Release.objects.filter(
        pk=UUID(request["release"]), state=ReleaseState.AWAITING_APPROVAL
    ).first()
    if release is None:
        return
    Release.objects.filter(pk=release.pk).update(approval_uid=approval.uid)
    release.approval_uid = approval.uid
    if approval.state == ApprovalState.APPROVED:
        recalled = _recalled(release.namespace, [release.digest, *release.evidence])
        if recalled:
            raise ApprovalInvalid(f"approve: {_recalled_message(recalled[0])['text']}. Deny it.")
        link(
            NodeRef(NodeKind.RELEASE, str(release.uid)),
            Relation.APPROVED_BY,
            NodeRef(NodeKind.APPROVAL, str(approval.uid)),
            namespace=release.namespace,
            goal_uid=release.goal_uid,
        )
        _activate(release, actor)
        return
    Release.objects.filter(pk=release.pk).update(state=ReleaseState.DENIED, ended_at=timezone.now())
    release.refresh_from_db()
    _journal(release, "release.denied", actor)


def rollback_release(release: Release, *, actor: Actor, reason: str) -> Release:
    """Serve again what an earlier release served, judged by today's policy.

    Raises NeverServed, and the errors of `request_release`.
    """
    if release.state not in (ReleaseState.ACTIVE, ReleaseState.SUPERSEDED):
        raise NeverServed(f"Release {release.number} never served: release its digest instead.")
    return request_release(
        ReleaseRequest(
            namespace=release.namespace,
            service=release.service,
            environment=release.environment,
            digest=release.digest,
            actor=actor,
            reason=reason,
            evidence=release.evidence,
            is_rollback=True,
        )
    )


def _journal(release: Release, action: str, actor: Actor) -> None:
    append_record(
        action=action,
        actor=actor,
        object_kind="release",
        object_id=str(release.uid),
        namespace=release.namespace,
        goal_uid=release.goal_uid,
        body={
            "service": release.service,
            "environment": release.environment,
            "number": release.number,
            "digest": release.digest,
            "previous_digest": release.previous_digest,
            "evidence": release.evidence,
            "decision": str(release.decision_uid or ""),
            "approval": str(release.approval_uid or ""),
            "is_rollback": release.is_rollback,
            "reason": release.reason,
            "span": release.span_id,
        },
    )

"""Approvals: questions to humans, bound to one exact request and answered once."""

import datetime as dt
import hashlib
import logging
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

import rfc8785
from django.conf import settings
from django.db.models.functions import Now
from django.utils import timezone

from governance.access import Principal, may_decide
from governance.domain import (
    ApprovalConflict,
    ApprovalForbidden,
    ApprovalInvalid,
    ApprovalKind,
    ApprovalState,
)
from governance.models import Approval
from governance.services.journal import append_record, journaled
from governance.signals import approval_decided
from lineage.domain import Actor, ActorKind

logger = logging.getLogger(__name__)

SYSTEM = Actor(ActorKind.SYSTEM, "approvals")
REASON_MAX = 2000
TITLE_MAX = 255  # the column's
UNPRINTABLE = frozenset({"Cc", "Cf", "Cs"})  # controls, formats (bidi overrides), surrogates
AGENT_WORDS_MAX = 2000


@dataclass(frozen=True, slots=True)
class Fact:
    """One line of the card, computed by the system; `value` None is shown as unknown."""

    label: str
    value: str | None
    key: str = ""

    def document(self) -> dict[str, Any]:
        return {"label": self.label, "value": self.value, "key": self.key}


@dataclass(frozen=True, slots=True)
class Question:
    """What is to be asked. `request` is plain JSON and identifies the question by its SHA-256."""

    kind: ApprovalKind
    namespace: str
    goal_uid: UUID | None
    subject_kind: str
    subject_id: str
    title: str
    request: Mapping[str, Any]
    requested_by: str
    barred: Sequence[str] = ()
    facts: Sequence[Fact] = field(default_factory=tuple)
    agent_words: str = ""

    @property
    def canonical(self) -> bytes:
        return rfc8785.dumps(dict(self.request))

    @property
    def digest(self) -> str:
        return f"sha256:{hashlib.sha256(self.canonical).hexdigest()}"


def open_approval(question: Question) -> Approval:
    """Ask; the same request is asked once. An open one for the same subject is voided."""
    with journaled():  # one asks at a time, so that looking and asking are one
        earlier = Approval.objects.filter(request_digest=question.digest).first()
        if earlier is not None:
            return earlier
        void_approvals(
            kind=question.kind,
            subject_kind=question.subject_kind,
            subject_id=question.subject_id,
            why="A newer request took its place.",
        )
        return _create_approval(question)


def _create_approval(question: Question) -> Approval:
    now = timezone.now()
    approval = Approval.objects.create(
        kind=question.kind,
        namespace=question.namespace,
        goal_uid=question.goal_uid,
        subject_kind=question.subject_kind,
        subject_id=question.subject_id,
        title=question.title[:TITLE_MAX],
        request_canonical=question.canonical.decode("utf-8"),
        request_digest=question.digest,
        facts=[fact.document() for fact in question.facts],
        agent_words=plain_text(question.agent_words)[:AGENT_WORDS_MAX],
        requested_by=question.requested_by,
        barred=sorted(set(question.barred)) if settings.FOUR_EYES else [],
        created_at=now,
        expires_at=now + dt.timedelta(seconds=settings.APPROVAL_TTL_SECONDS),
    )
    _journal(approval, "approval.requested", SYSTEM)
    return approval


def plain_text(words: str) -> str:
    """Text without control and direction characters, which could make it read as another."""
    return "".join(
        char for char in words if char in "\n\t" or unicodedata.category(char) not in UNPRINTABLE
    )


def decide_approval(
    approval: Approval,
    *,
    principal: Principal,
    approve: bool,
    reason: str,
    request_digest: str,
    answer: Mapping[str, Any] | None = None,
) -> Approval:
    """Answer an approval; of any number of racers exactly one succeeds.

    `request_digest` is the digest of what the person saw. The effect of the answer is applied by
    the receivers of `approval_decided`, in the same transaction. Raises ApprovalForbidden,
    ApprovalInvalid, ApprovalConflict (with who decided).
    """
    reason = plain_text(reason).strip()
    answer = dict(answer or {})
    try:
        rfc8785.dumps(answer)
    except rfc8785.CanonicalizationError as error:
        raise ApprovalInvalid(f"answer: {error}") from error
    if not reason:
        raise ApprovalInvalid("reason: say why, in a sentence; it is kept with the decision.")
    if len(reason) > REASON_MAX:
        raise ApprovalInvalid(f"reason: at most {REASON_MAX} characters.")
    if request_digest != approval.request_digest:
        raise ApprovalConflict("What you saw is not what is asked now: look at it again.")
    if approval.state == ApprovalState.PENDING and (why := may_decide(principal, approval)):
        raise ApprovalForbidden(why)
    state = ApprovalState.APPROVED if approve else ApprovalState.DENIED
    with journaled():
        decided = Approval.objects.filter(
            pk=approval.pk,
            state=ApprovalState.PENDING,
            request_digest=request_digest,
            expires_at__gt=Now(),
        ).update(
            state=state,
            decided_by=principal.username,
            decided_at=timezone.now(),
            reason=reason,
            answer=answer,
        )
        approval.refresh_from_db()
        if decided != 1:
            raise ApprovalConflict(why_not_open(approval))
        _journal(approval, f"approval.{state.value}", principal.actor)
        approval_decided.send(sender=Approval, approval=approval, actor=principal.actor)
    return approval


def why_not_open(approval: Approval) -> str:
    """A sentence for who came too late."""
    match ApprovalState(approval.state):
        case ApprovalState.PENDING:
            return f"This approval expired at {approval.expires_at:%Y-%m-%d %H:%M} UTC."
        case ApprovalState.VOIDED:
            return f"This approval is void: {approval.reason}"
        case ApprovalState.EXPIRED:
            return f"This approval expired at {approval.expires_at:%Y-%m-%d %H:%M} UTC."
        case _:
            return (
                f"{approval.decided_by} already {approval.state} this "
                f"at {approval.decided_at:%Y-%m-%d %H:%M} UTC."
            )


def void_approvals(
    *, why: str, kind: ApprovalKind | None = None, subject_kind: str, subject_id: str
) -> int:
    """Void what is still open for a subject; its answer would mean something else now."""
    with journaled():
        pending = Approval.objects.filter(
            state=ApprovalState.PENDING, subject_kind=subject_kind, subject_id=subject_id
        )
        if kind is not None:
            pending = pending.filter(kind=kind)
        return _close(pending, ApprovalState.VOIDED, why)


def expire_approvals() -> int:
    """Deny by timeout whatever is past its time on the database's clock; never approves.

    Each in a transaction of its own: one whose effect cannot be applied does not keep the others.
    """
    expired = 0
    overdue = Approval.objects.filter(state=ApprovalState.PENDING, expires_at__lte=Now())
    for approval in overdue:
        try:
            with journaled():
                expired += _close([approval], ApprovalState.EXPIRED, "Nobody answered in time.")
        except Exception:  # whatever a receiver does, the other approvals expire all the same
            logger.exception("approval %s cannot be expired", approval.uid)
    return expired


def _close(approvals: Iterable[Approval], state: ApprovalState, why: str) -> int:
    closed = 0
    for approval in approvals:
        changed = Approval.objects.filter(pk=approval.pk, state=ApprovalState.PENDING).update(
            state=state, reason=why, decided_at=timezone.now()
        )
        if changed != 1:
            continue
        approval.refresh_from_db()
        _journal(approval, f"approval.{state.value}", SYSTEM)
        approval_decided.send(sender=Approval, approval=approval, actor=SYSTEM)
        closed += 1
    return closed


def _journal(approval: Approval, action: str, actor: Actor) -> None:
    append_record(
        action=action,
        actor=actor,
        object_kind="approval",
        object_id=str(approval.uid),
        namespace=approval.namespace,
        goal_uid=approval.goal_uid,
        body={
            "kind": approval.kind,
            "subject": {"kind": approval.subject_kind, "id": approval.subject_id},
            "request_digest": approval.request_digest,
            "state": approval.state,
            "reason": approval.reason,
            "answer": approval.answer,
        },
    )

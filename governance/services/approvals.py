"""Approvals: questions to humans, bound to one exact request and answered once."""

import datetime as dt
import hashlib
import logging
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any
from uuid import UUID

import rfc8785
from django.conf import settings
from django.db.models import QuerySet
from django.db.models.functions import Now
from django.utils import timezone

from governance.access import Principal, SigningRight, signing_right
from governance.domain import (
    ApprovalConflict,
    ApprovalForbidden,
    ApprovalInvalid,
    ApprovalKind,
    ApprovalState,
    narrowest,
)
from governance.models import Approval, ApprovalSignature
from governance.services.journal import append_record, journaled
from governance.signals import answer_checked, approval_decided, approval_touched
from lineage.domain import Actor, ActorKind

logger = logging.getLogger(__name__)

SYSTEM = Actor(ActorKind.SYSTEM, "approvals")
REASON_MAX = 2000
TITLE_MAX = 255  # the column's
UNPRINTABLE = frozenset({"Cc", "Cf", "Cs"})  # controls, formats (bidi overrides), surrogates
AGENT_WORDS_MAX = 2000
QUORUM_MAX = 9
# Unanswered for this share of its life, an approval is put before a wider group as well.
ESCALATION_SHARE = 0.5
ESCALATIONS_AT_ONCE = 500
LAPSES_AT_ONCE = 100
UNTIL_LEAST = dt.timedelta(minutes=1)
UNTIL_MOST = dt.timedelta(days=90)


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
    quorum: int = 1  # distinct people that must approve; any one of them denies

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
    life = dt.timedelta(seconds=settings.APPROVAL_TTL_SECONDS)
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
        expires_at=now + life,
        escalates_at=now + life * ESCALATION_SHARE,
        quorum=min(max(question.quorum, settings.APPROVAL_QUORUM, 1), QUORUM_MAX),
    )
    journal_approval(approval, "approval.requested", SYSTEM)
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
    """Answer an approval; of any number of racers exactly one decides.

    `request_digest` is the digest of what the person saw. `answer` may hold `grant` (an amount),
    `until` (RFC 3339, when what was not used of the grant lapses) and `degrade`. Where several
    people must approve, each adds a signature and the last decides, for the narrowest of their
    answers; one denial denies. The effect is applied by the receivers of `approval_decided`, in
    the same transaction. Raises ApprovalForbidden, ApprovalInvalid, ApprovalConflict (with who
    decided).
    """
    reason = checked_reason(reason)
    answer = _checked_answer(approval, answer if approve and answer else {})
    if request_digest != approval.request_digest:
        raise ApprovalConflict("What you saw is not what is asked now: look at it again.")
    if approval.state == ApprovalState.PENDING:
        _require_right(principal, approval)
    with journaled():  # one decides at a time, so that looking and deciding are one
        if not _open(approval, request_digest).exists():
            approval.refresh_from_db()
            raise ApprovalConflict(why_not_open(approval))
        right = _require_right(_as_of_now(principal), approval)
        if not approve:
            return _settle(approval, principal, right, ApprovalState.DENIED, reason, {})
        answer_checked.send(sender=Approval, approval=approval, answer=answer)
        approval.signatures.create(
            signer=principal.username, right_of=right.right_of, reason=reason, answer=answer
        )
        signatures = list(approval.signatures.all())
        if len(signatures) < approval.quorum:
            journal_approval(approval, "approval.signed", principal.actor, signatures[-1])
            approval_touched.send(sender=Approval, approval=approval)
            return approval
        allowed = narrowest(one.answer for one in signatures)
        return _settle(approval, principal, right, ApprovalState.APPROVED, reason, allowed)


def checked_reason(reason: str) -> str:
    """The reason as it is kept. Raises ApprovalInvalid."""
    reason = plain_text(reason).strip()
    if not reason:
        raise ApprovalInvalid("reason: say why, in a sentence; it is kept with the decision.")
    if len(reason) > REASON_MAX:
        raise ApprovalInvalid(f"reason: at most {REASON_MAX} characters.")
    return reason


def _checked_answer(approval: Approval, answer: Mapping[str, Any]) -> dict[str, Any]:
    """The answer as plain JSON, its end in UTC. Raises ApprovalInvalid."""
    checked = dict(answer)
    try:
        rfc8785.dumps(checked)
    except rfc8785.CanonicalizationError as error:
        raise ApprovalInvalid(f"answer: {error}") from error
    if checked and approval.kind != ApprovalKind.BUDGET:
        name = next(iter(checked))
        raise ApprovalInvalid(
            f"{name}: only a budget can be granted in part, for a time or degraded."
        )
    if "until" in checked:
        checked["until"] = _checked_until(checked["until"]).isoformat()
    return checked


def _checked_until(value: Any) -> dt.datetime:
    try:
        until = dt.datetime.fromisoformat(value)
    except (TypeError, ValueError):
        raise ApprovalInvalid("until: a moment such as 2026-01-31T18:00:00Z.") from None
    if until.tzinfo is None:
        raise ApprovalInvalid("until: say the zone as well, such as 2026-01-31T18:00:00Z.")
    now = timezone.now()
    if not now + UNTIL_LEAST <= until <= now + UNTIL_MOST:
        raise ApprovalInvalid(f"until: from a minute to {UNTIL_MOST.days} days from now.")
    return until.astimezone(dt.UTC).replace(microsecond=0)


def _open(approval: Approval, request_digest: str) -> QuerySet[Approval]:
    return Approval.objects.filter(
        pk=approval.pk,
        state=ApprovalState.PENDING,
        request_digest=request_digest,
        expires_at__gt=Now(),
    )


def _as_of_now(principal: Principal) -> Principal:
    """The principal without what it remembers of lent rights: they may be revoked by now."""
    return replace(principal, _lent={})


def _require_right(principal: Principal, approval: Approval) -> SigningRight:
    right = signing_right(principal, approval)
    if right.why_not:
        raise ApprovalForbidden(right.why_not)
    return right


def _settle(
    approval: Approval,
    principal: Principal,
    right: SigningRight,
    state: ApprovalState,
    reason: str,
    answer: dict[str, Any],
) -> Approval:
    """Write the decision down and apply it, in the caller's transaction."""
    until = answer.get("until")
    decided = _open(approval, approval.request_digest).update(
        state=state,
        decided_by=principal.username,
        decided_for="" if right.right_of == principal.username else right.right_of,
        decided_at=timezone.now(),
        reason=reason,
        answer=answer,
        waits_on="",
        lapses_at=dt.datetime.fromisoformat(until) if until else None,
    )
    approval.refresh_from_db()
    if decided != 1:
        raise ApprovalConflict(why_not_open(approval))
    journal_approval(approval, f"approval.{state.value}", principal.actor)
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
            lender = f" for {approval.decided_for}" if approval.decided_for else ""
            return (
                f"{approval.decided_by}{lender} already {approval.state} this "
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


def void_goal_approvals(goal_uid: UUID, *, kind: ApprovalKind, why: str) -> int:
    """Void what of one kind is still open for whatever belongs to a Goal."""
    with journaled():
        pending = Approval.objects.filter(state=ApprovalState.PENDING, goal_uid=goal_uid, kind=kind)
        return _close(pending, ApprovalState.VOIDED, why)


def restate_facts(approval: Approval, facts: Sequence[Fact]) -> bool:
    """Bring facts of these keys up to date while the approval is open; True when any changed.

    What is answered stays the same: the digest is of the request, and facts are no part of it.
    """
    with journaled():
        approval.refresh_from_db()
        by_key = {fact.key: fact.document() for fact in facts}
        restated = [by_key.get(one["key"], one) for one in approval.facts]
        if approval.state != ApprovalState.PENDING or restated == approval.facts:
            return False
        Approval.objects.filter(pk=approval.pk).update(facts=restated)
        approval.facts = restated
        append_record(
            action="approval.restated", actor=SYSTEM, object_kind="approval",
            object_id=str(approval.uid), namespace=approval.namespace, goal_uid=approval.goal_uid,
            body={"facts": list(by_key.values())},
        )  # fmt: skip
        approval_touched.send(sender=Approval, approval=approval)
    return True


def escalate_approvals() -> int:
    """Put what was not answered in time before a wider group; it stays open as it is."""
    due = Approval.objects.filter(
        state=ApprovalState.PENDING, escalated_at__isnull=True, escalates_at__lte=Now()
    )
    escalated = 0
    for approval in due[:ESCALATIONS_AT_ONCE]:
        with journaled():
            changed = due.filter(pk=approval.pk).update(escalated_at=timezone.now())
            if changed == 1:
                journal_approval(approval, "approval.escalated", SYSTEM)
                approval_touched.send(sender=Approval, approval=approval)
        escalated += changed
    return escalated


def lapses_due() -> list[Approval]:
    """Approvals whose granted time has ended, by the database's clock, and was not seen to."""
    return list(
        Approval.objects.filter(lapsed_at__isnull=True, lapses_at__lte=Now())[:LAPSES_AT_ONCE]
    )


def mark_lapsed(approval: Approval) -> bool:
    """Say that an approval's time has ended; True for the one caller that is to act on it.

    Runs in that caller's transaction, which takes back what was granted.
    """
    ended = Approval.objects.filter(pk=approval.pk, lapsed_at__isnull=True, lapses_at__lte=Now())
    if ended.update(lapsed_at=timezone.now()) != 1:
        return False
    approval.refresh_from_db()
    journal_approval(approval, "approval.lapsed", SYSTEM)
    return True


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
            state=state, reason=why, decided_at=timezone.now(), waits_on=""
        )
        if changed != 1:
            continue
        approval.refresh_from_db()
        journal_approval(approval, f"approval.{state.value}", SYSTEM)
        approval_decided.send(sender=Approval, approval=approval, actor=SYSTEM)
        closed += 1
    return closed


def journal_approval(
    approval: Approval, action: str, actor: Actor, signature: ApprovalSignature | None = None
) -> None:
    """Append what happened to an approval, in the caller's transaction."""
    body: dict[str, Any] = {
        "kind": approval.kind,
        "subject": {"kind": approval.subject_kind, "id": approval.subject_id},
        "request_digest": approval.request_digest,
        "state": approval.state,
        "reason": approval.reason,
        "answer": approval.answer,
    }
    if approval.decided_for:
        body["decided_for"] = approval.decided_for
    if approval.quorum > 1:
        body["quorum"] = approval.quorum
        body["signatures"] = [
            {"signer": one.signer, "right_of": one.right_of} for one in approval.signatures.all()
        ]
    if signature is not None:
        body |= {"reason": signature.reason, "answer": signature.answer}
    append_record(
        action=action,
        actor=actor,
        object_kind="approval",
        object_id=str(approval.uid),
        namespace=approval.namespace,
        goal_uid=approval.goal_uid,
        body=body,
    )

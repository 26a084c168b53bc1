"""Shapes of the approvals API."""

import datetime as dt
import json
from typing import Any
from uuid import UUID

from ninja import Schema
from pydantic import Field

from governance.domain import MODEL_MAX

DIGEST_MAX = 71


class ApprovalOut(Schema):
    """An approval with its facts; `value` of a fact is null when unknown."""

    uid: UUID
    kind: str
    namespace: str
    goal_uid: UUID | None
    subject_kind: str
    subject_id: str
    title: str
    request: dict[str, Any]
    request_digest: str
    facts: list[dict[str, Any]]
    agent_words: str
    state: str
    requested_by: str
    barred: list[str]
    quorum: int
    waits_on: str = Field(description="who was asked and has not answered, else empty")
    escalated_at: dt.datetime | None
    created_at: dt.datetime
    expires_at: dt.datetime
    decided_at: dt.datetime | None
    decided_by: str
    decided_for: str = Field(description="who had lent the right, else empty")
    reason: str
    answer: dict[str, Any]
    lapses_at: dt.datetime | None
    lapsed_at: dt.datetime | None

    @staticmethod
    def resolve_request(approval: Any) -> dict[str, Any]:
        document: dict[str, Any] = json.loads(approval.request_canonical)
        return document


class SignatureOut(Schema):
    """One person's approval of several that are needed; `right_of` is who lent the right."""

    signer: str
    right_of: str
    reason: str
    answer: dict[str, Any]
    at: dt.datetime


class MessageOut(Schema):
    """A question (`asked` says whom) or a reply (`asked` is empty)."""

    uid: UUID
    author: str
    asked: str
    body: str
    at: dt.datetime


class ModelPriceOut(Schema):
    """A language model and its price, in micro-USD per million tokens; null is unknown."""

    name: str
    input: int | None
    output: int | None


class ModelWayOut(Schema):
    """A smaller model that open tasks could go on with; null is unknown.

    The micro-USD a minute are what the tokens used so far would have come to, and came to.
    """

    model: ModelPriceOut
    instead_of: list[ModelPriceOut]
    tasks: int
    micro_usd_per_minute: int | None
    micro_usd_per_minute_now: int | None
    words: str


class WaysOut(Schema):
    """What there is to take from the Goal while it goes on."""

    gpus: int = Field(description="what the widest open task gets")
    parallel: int = Field(description="tasks at once")
    iterations: int = Field(description="that could follow")
    models: list[ModelWayOut]


class StakeOut(Schema):
    """What the wait risks; null is unknown."""

    damage_at: dt.datetime | None
    damage: str
    gpus_held: int
    micro_usd_per_minute: int | None
    asks: dict[str, int]
    ways: WaysOut | None = Field(description="null in lists, where nobody looked")


class ApprovalDetailOut(ApprovalOut):
    """An approval with its signatures, its thread and what its wait risks."""

    signatures: list[SignatureOut]
    messages: list[MessageOut]
    stake: StakeOut | None = None


class WaitingOut(Schema):
    """One open approval of the inbox; `why_not` is empty when you may decide it now."""

    approval: ApprovalOut
    stake: StakeOut
    why_not: str


class DenyIn(Schema):
    """A denial; `request_digest` is the digest of what the person saw."""

    reason: str = Field(max_length=2000)
    request_digest: str = Field(max_length=DIGEST_MAX)


class DegradeIn(Schema):
    """What is taken from the Goal while it goes on."""

    gpus: int | None = Field(None, ge=1, description="at most for one task")
    parallel: int | None = Field(None, ge=1, description="tasks at most at once")
    last_iteration: bool = Field(False, description="no further iteration")
    model: str | None = Field(
        None, max_length=MODEL_MAX, description="agents that list it use none that they list before"
    )


class AnswerIn(DenyIn):
    """An approval of exactly what was seen, or of less."""

    grant: int | None = Field(None, description="approve less: in the unit of the request")
    until: dt.datetime | None = Field(
        None, description="when what is not used of the grant goes back and the Goal asks again"
    )
    degrade: DegradeIn | None = Field(None, description="let the Goal go on with less")

    def document(self) -> dict[str, Any]:
        """The answer as the service takes it."""
        found: dict[str, Any] = {}
        if self.grant is not None:
            found["grant"] = self.grant
        if self.until is not None:
            found["until"] = self.until.isoformat()
        if self.degrade is not None:
            found["degrade"] = self.degrade.model_dump(exclude_defaults=True)
        return found


class QuestionIn(Schema):
    """A question about an approval."""

    to: str = Field(max_length=150, description="a person behind the request, or operators")
    text: str = Field(max_length=2000)


class ReplyIn(Schema):
    """An answer to a question about an approval."""

    text: str = Field(max_length=2000)


class SeenIn(Schema):
    """One of several: its uid and the digest of what was seen."""

    uid: UUID
    request_digest: str = Field(max_length=DIGEST_MAX)


class ManyIn(Schema):
    """Several approvals to answer alike."""

    decision: str = Field(pattern="^(approve|deny)$")
    reason: str = Field(max_length=2000)
    approvals: list[SeenIn] = Field(min_length=1, max_length=100)


class AnsweredOut(Schema):
    """What became of one of them."""

    uid: UUID
    outcome: str = Field(
        description="approved, denied, signed, already, conflict, forbidden, invalid or missing"
    )
    message: str


class DelegationIn(Schema):
    """Lending one's own right to approve."""

    to: str = Field(max_length=150)
    namespace: str = Field(max_length=63)
    until: dt.datetime
    reason: str = Field(max_length=2000)


class DelegationOut(Schema):
    """A lent right."""

    uid: UUID
    delegator: str
    delegate: str
    namespace: str
    reason: str
    created_at: dt.datetime
    ends_at: dt.datetime
    revoked_at: dt.datetime | None
    revoked_by: str

    @staticmethod
    def resolve_delegator(delegation: Any) -> str:
        return str(delegation.delegator.username)

    @staticmethod
    def resolve_delegate(delegation: Any) -> str:
        return str(delegation.delegate.username)

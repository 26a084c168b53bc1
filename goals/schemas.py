"""Shapes of the Goals' API."""

import datetime as dt
from typing import Any
from uuid import UUID

from ninja import Schema
from pydantic import Field

from goals.models import Goal
from goals.selectors import API_VERSION, goal_metadata, goal_status


class GoalOut(Schema):
    """A Goal as the custom resource `Goal` of `orchestration.ai/v1`."""

    apiVersion: str = API_VERSION  # noqa: N815 - the field's name in Kubernetes
    kind: str = "Goal"
    metadata: dict[str, Any]
    spec: dict[str, Any]
    status: dict[str, Any]

    @staticmethod
    def resolve_metadata(goal: Any) -> Any:
        return goal_metadata(goal) if isinstance(goal, Goal) else goal["metadata"]

    @staticmethod
    def resolve_status(goal: Any) -> Any:
        return goal_status(goal) if isinstance(goal, Goal) else goal["status"]


class AppliedOut(Schema):
    """What applying one document did; `notes` say what was accepted but not taken as written."""

    kind: str
    namespace: str
    name: str
    uid: UUID | None
    outcome: str
    notes: list[str]


class EntryOut(Schema):
    """One ledger entry, in the unit of its account."""

    uid: UUID
    unit: str
    kind: str
    debit: str
    credit: str
    amount: int
    idempotency_key: str
    attempt_uid: UUID | None
    span_id: str
    approval_uid: UUID | None
    note: str
    created_at: dt.datetime

    @staticmethod
    def resolve_unit(entry: Any) -> str:
        return str(entry.account.unit)


class TaskOut(Schema):
    """One node of the graph in one iteration."""

    name: str
    agent_name: str
    iteration: int
    position: int
    depends_on: list[str]
    gpus: int
    state: str
    started_at: dt.datetime | None
    finished_at: dt.datetime | None


class ReasonIn(Schema):
    """Why."""

    reason: str = Field("", max_length=2000)


class ReleaseIn(Schema):
    """A digest to serve in an environment."""

    service: str = Field(pattern=r"^[a-z0-9]([a-z0-9.-]{0,61}[a-z0-9])?$")
    environment: str = Field(pattern=r"^[a-z0-9]([a-z0-9.-]{0,61}[a-z0-9])?$")
    digest: str = Field(pattern=r"^sha256:[0-9a-f]{64}$")
    evidence: list[str] = Field(default_factory=list, max_length=16)
    reason: str = Field("", max_length=2000)
    span_id: str = Field("", pattern=r"^([0-9a-f]{16})?$")
    namespace: str = Field("default", max_length=63)


class ReleaseOut(Schema):
    """One release."""

    id: UUID
    namespace: str
    service: str
    environment: str
    number: int
    digest: str
    previous_digest: str
    state: str
    is_rollback: bool
    reason: str
    evidence: list[str]
    decision: UUID | None
    approval: UUID | None
    goal_uid: UUID | None
    attempt_uid: UUID | None
    span_id: str
    released_by: str
    released_at: dt.datetime

    @staticmethod
    def resolve_id(release: Any) -> Any:
        return release.uid

    @staticmethod
    def resolve_decision(release: Any) -> Any:
        return release.decision_uid

    @staticmethod
    def resolve_approval(release: Any) -> Any:
        return release.approval_uid

    @staticmethod
    def resolve_released_by(release: Any) -> str:
        return f"{release.released_by_kind}:{release.released_by_id}"

    @staticmethod
    def resolve_released_at(release: Any) -> Any:
        return release.created_at


class ReservationIn(Schema):
    """Tokens an attempt wants to be sure of before it uses them."""

    unit: str = Field(pattern="^tokens$")
    amount: int = Field(ge=1, le=10**12)
    key: str = Field(min_length=1, max_length=100)


class ReservationOut(Schema):
    """What was reserved."""

    uid: UUID
    unit: str
    amount: int


class PriceIn(Schema):
    """Micro-USD per GPU-hour (kind gpu) or per million tokens."""

    kind: str = Field(pattern="^(gpu|input_token|output_token)$")
    name: str = Field(min_length=1, max_length=128)
    micro_usd: int = Field(ge=0, le=10**15)


class PriceOut(PriceIn):
    """A price and who set it."""

    set_by: str
    created_at: dt.datetime


class SpanOut(Schema):
    """One span as stored."""

    trace_id: str
    span_id: str
    parent_span_id: str
    name: str
    start_at: dt.datetime
    end_at: dt.datetime
    status: str
    status_message: str
    parent_observation: str
    confidence: float | None
    agent: str
    task: str
    attempt_uid: str
    goal_uid: str
    attributes: dict[str, Any]

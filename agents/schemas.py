"""Shapes of the agents' API."""

import datetime as dt
from typing import Any
from uuid import UUID

from ninja import Schema
from pydantic import Field, model_validator

from agents.attestation.base import TOKEN_MAX_CHARACTERS

SPAN_ID = r"^([0-9a-f]{16})?$"
NAME = r"^[a-z0-9]([a-z0-9_.-]{0,61}[a-z0-9])?$"


class ExchangeIn(Schema):
    """What proves who the attempt is, and the signing request of the key that it made.

    Exactly one proof: the join token that it was started with, or the service account token of
    its pod.
    """

    join_token: str = Field("", max_length=200)
    service_account_token: str = Field("", max_length=TOKEN_MAX_CHARACTERS)
    csr: str = Field(max_length=8192)
    audience: list[str] = Field(default_factory=lambda: ["clearance"], min_length=1, max_length=8)

    @model_validator(mode="after")
    def _one_proof(self) -> "ExchangeIn":
        if bool(self.join_token) == bool(self.service_account_token):
            raise ValueError("Send either join_token or service_account_token.")
        return self


class RenewIn(Schema):
    """A signing request for the next documents."""

    csr: str = Field(max_length=8192)
    audience: list[str] = Field(default_factory=lambda: ["clearance"], min_length=1, max_length=8)


class IdentityOut(Schema):
    """Both SVIDs and the trust bundle."""

    spiffe_id: str
    x509_svid: str
    x509_expires_at: dt.datetime
    jwt_svid: str
    jwt_expires_at: dt.datetime
    bundle: dict[str, Any]


class OutputIn(Schema):
    """A named thing for the tasks after this one."""

    value: Any = None
    digest: str = Field("", pattern=r"^(sha256:[0-9a-f]{64})?$")
    span_id: str = Field("", pattern=SPAN_ID)


class LayerOut(Schema):
    """One file of an artifact; `size` in bytes."""

    digest: str
    size: int
    title: str
    media_type: str


class ArtifactRow(Schema):
    """An artifact in a list; `size_bytes` in bytes."""

    digest: str
    blob_digest: str
    kind: str
    name: str
    namespace: str
    size_bytes: int
    is_signed: bool
    signer: str
    goal_uid: UUID | None
    attempt_uid: UUID | None
    created_at: dt.datetime
    recalled_at: dt.datetime | None


class ArtifactOut(Schema):
    """An artifact by digest."""

    digest: str
    blob_digest: str
    kind: str
    name: str
    namespace: str
    size: int
    media_type: str
    signed: bool
    signer: str
    predicate_type: str
    about: list[str]
    goal_uid: UUID | None
    attempt_uid: UUID | None
    span_id: str
    created_at: dt.datetime
    recalled_at: dt.datetime | None
    layers: list[LayerOut]


class EvidenceIn(Schema):
    """A statement about artifacts, such as an A/B result."""

    name: str = Field(pattern=NAME)
    about: list[str] = Field(min_length=1, max_length=16)
    predicate_type: str = Field(
        "https://orchestration.ai/ab-test/v1", max_length=255, pattern=r"^[a-z]+:[!-~]+$|^[!-~]+$"
    )
    predicate: dict[str, Any]
    namespace: str = Field("default", max_length=63)  # of a person; an agent has its own
    span_id: str = Field("", pattern=SPAN_ID)


class AgentOut(Schema):
    """A registered agent."""

    uid: UUID
    name: str
    namespace: str
    role: str
    image: str
    service_account: str
    generation: int
    manifest: dict[str, Any]
    registered_by: str
    created_at: dt.datetime
    updated_at: dt.datetime


class AttemptOut(Schema):
    """One attempt; times in milliseconds of wall clock and GPU."""

    uid: UUID
    goal_uid: UUID
    namespace: str
    task: str
    number: int
    iteration: int
    agent_name: str
    spiffe_id: str
    workload: str
    state: str
    desired: str
    reason: str
    message: str
    exit_code: int | None
    gpus: int
    gpu_ids: list[str]
    running_ms: int
    gpu_ms: int
    gpu_settled_ms: int
    gpu_idle_held_ms: int
    created_at: dt.datetime
    started_at: dt.datetime | None
    finished_at: dt.datetime | None
    identity_revoked_at: dt.datetime | None
    identity_revoked_reason: str
    models: list[str] = Field(description="it may use, the preferred first; empty: none is named")

    @staticmethod
    def resolve_models(attempt: Any) -> list[str]:
        return list(attempt.specification.get("models", []))


class DifferenceOut(Schema):
    """One thing that runs otherwise than it is registered."""

    what: str
    running: str
    registered: str


class ConductOut(Schema):
    """What an attempt did lately, and what policy said of it; None is not known.

    `standing` is "", "asked" (paused until a person answers) or "stopped"; the seconds are from
    the offending span's arrival.
    """

    outcome: str
    messages: list[str]
    judged_at: dt.datetime | None
    decision: UUID | None
    actions: int
    orphans: int
    targets: list[str]
    models: list[str]
    confidence: float | None
    confidence_before: float | None
    standing: str
    answer: str
    approval: UUID | None
    offending_span: str
    drifted_at: dt.datetime | None
    revoked_after_seconds: float | None
    ended_after_seconds: float | None


class DriftOut(Schema):
    """An attempt that runs, against the registration now, or one that drifted lately.

    `recalled` are digests it has read.
    """

    attempt: UUID
    generation: int | None
    differences: list[DifferenceOut]
    recalled: list[str]
    conduct: ConductOut | None

"""Shapes of the governance API."""

import datetime as dt
from typing import Any
from uuid import UUID

from ninja import Schema
from pydantic import Field


class DecisionOut(Schema):
    """One policy decision."""

    uid: UUID
    point: str
    namespace: str
    goal_uid: UUID | None
    graph_digest: str
    subject_kind: str
    subject_id: str
    bundle_name: str
    bundle_digest: str
    stage: str
    input_digest: str
    outcome: str
    messages: list[dict[str, Any]]
    error: str
    engine: str
    duration_seconds: float
    at: dt.datetime


class RecordOut(Schema):
    """One journal record; `canonical` is the exact text that was hashed."""

    seq: int
    at: dt.datetime
    actor_kind: str
    actor_id: str
    action: str
    object_kind: str
    object_id: str
    namespace: str
    goal_uid: UUID | None
    hash: str
    canonical: str


class BundleOut(Schema):
    """One version of a policy bundle."""

    uid: UUID
    name: str
    version: int
    digest: str
    stage: str
    modules: list[dict[str, str]]
    created_by: str
    created_at: dt.datetime


class TokenIn(Schema):
    """A token to make; `days` of life, none means until revoked."""

    name: str = Field(max_length=63)
    permissions: list[str] = Field(default_factory=list)
    namespace: str = Field("*", max_length=63)
    days: int | None = Field(None, ge=1, le=3650)


class TokenOut(Schema):
    """A token without its text."""

    uid: UUID
    name: str
    permissions: list[str]
    namespace: str
    created_at: dt.datetime
    expires_at: dt.datetime | None
    last_used_at: dt.datetime | None
    revoked_at: dt.datetime | None


class NewTokenOut(TokenOut):
    """A token with its text, shown this once."""

    token: str

"""API of the catalogue: what in the cluster looks like an agent, and what is made of it."""

import datetime as dt
from typing import Any
from uuid import UUID

from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse
from ninja import Router, Schema
from ninja.errors import HttpError
from ninja.pagination import CursorPagination, paginate
from pydantic import Field

from agents.authentication import caller_of
from agents.catalogue.entries import (
    FILTER_LABELS,
    FILTER_WORDS,
    SHOWN,
    get_visible_entry,
    standing_of,
    standing_query,
    visible_entries,
)
from agents.catalogue.proposals import propose
from agents.models import ClusterWorkload
from agents.services.catalogue import entry_of, ignore_entry, register_entry, restore_entry
from governance.access import narrowed_by
from governance.domain import Permission
from governance.row_filter import FilterInvalid, filter_query

catalogue_router = Router(tags=["catalogue"])
YAML: str = "application/yaml"  # RFC 9512


class EvidenceOut(Schema):
    """One sign and how much of the score it is."""

    code: str
    points: int
    text: str


class EntryOut(Schema):
    """A workload or service account of the cluster. `score` is from 0 to 100.

    `state` is that of its pods, "" without any; `variables` are names alone.
    """

    uid: UUID
    kind: str
    namespace: str
    name: str
    standing: str
    score: int
    evidence: list[EvidenceOut]
    images: list[str]
    service_account: str
    variables: list[str]
    schedule: str
    state: str
    reason: str
    pods: int
    gpus: int
    agent: str | None
    ignored_by: str
    ignored_reason: str
    changed_at: dt.datetime
    gone_at: dt.datetime | None

    @staticmethod
    def resolve_standing(row: ClusterWorkload) -> str:
        return standing_of(row).value

    @staticmethod
    def resolve_variables(row: ClusterWorkload) -> list[str]:
        return list(row.facts.get("variables", []))

    @staticmethod
    def resolve_schedule(row: ClusterWorkload) -> str:
        return str(row.facts.get("schedule", ""))

    @staticmethod
    def resolve_agent(row: ClusterWorkload) -> str | None:
        return None if row.agent is None else f"{row.agent.namespace}/{row.agent.name}"


class ReasonIn(Schema):
    """Why; kept in the journal."""

    reason: str = Field(min_length=1, max_length=255)


class RegisteredOut(Schema):
    """The agent and what that did: created, or unchanged."""

    agent: str
    outcome: str


@catalogue_router.get("", response=list[EntryOut])
@paginate(CursorPagination, ordering=("-score", "namespace", "kind", "name"))
def list_catalogue(
    request: HttpRequest, q: str = "", show: str = "", namespace: str = "", kind: str = ""
) -> QuerySet[ClusterWorkload]:
    """Entries by the page's filter, likeliest first: `show` is one of its choices."""
    if show not in SHOWN:
        raise HttpError(422, f"show: one of {', '.join(name for name in SHOWN if name)}.")
    try:
        query = filter_query(q, words=FILTER_WORDS, labels=FILTER_LABELS)
    except FilterInvalid as error:
        raise HttpError(422, f"q: {error}") from error
    found = visible_entries(caller_of(request).person).filter(standing_query(SHOWN[show]), query)
    return narrowed_by(found, namespace=namespace, kind=kind)


@catalogue_router.get("/{uid}", response=EntryOut)
def get_entry(request: HttpRequest, uid: UUID) -> ClusterWorkload:
    """One entry."""
    return get_visible_entry(caller_of(request).person, uid)


@catalogue_router.get("/{uid}/proposal")
def get_proposal(request: HttpRequest, uid: UUID) -> HttpResponse:
    """YAML for kubectl: an account with its rights, the patch that uses it, the registration."""
    row = get_visible_entry(caller_of(request).person, uid)
    return HttpResponse(propose(entry_of(row)).text, content_type=f"{YAML}; charset=utf-8")


@catalogue_router.post("/{uid}/register", response=RegisteredOut)
def register(request: HttpRequest, uid: UUID) -> dict[str, Any]:
    """Register the proposed agent here; the cluster is not touched."""
    row, actor = _operable(request, uid)
    registered = register_entry(row, actor=actor)
    return {"agent": str(registered.agent), "outcome": registered.outcome.value}


@catalogue_router.post("/{uid}/ignore", response=EntryOut)
def ignore(request: HttpRequest, uid: UUID, payload: ReasonIn) -> ClusterWorkload:
    """Say that it is no agent."""
    row, actor = _operable(request, uid)
    ignore_entry(row, reason=payload.reason, actor=actor)
    return get_visible_entry(caller_of(request).person, uid)


@catalogue_router.post("/{uid}/restore", response=EntryOut)
def restore(request: HttpRequest, uid: UUID) -> ClusterWorkload:
    """Take that back."""
    row, actor = _operable(request, uid)
    restore_entry(row, actor=actor)
    return get_visible_entry(caller_of(request).person, uid)


def _operable(request: HttpRequest, uid: UUID) -> tuple[ClusterWorkload, Any]:
    principal = caller_of(request).person
    row = get_visible_entry(principal, uid)
    principal.require(Permission.OPERATE, namespace=row.namespace)
    return row, principal.actor

"""API of governance: decisions, journal, bundles, tokens."""

import datetime as dt
from typing import Any
from uuid import UUID

from django.contrib.auth.models import User
from django.db.models import QuerySet
from django.http import HttpRequest
from ninja import Router, Status
from ninja.pagination import CursorPagination, paginate

from governance.access import (
    NotAllowed,
    NotVisible,
    Principal,
    narrowed_by,
    visible_decisions,
    visible_records,
)
from governance.approval_api import approval_router
from governance.journal_api import journal_router
from governance.models import ApiToken, BundleVersion, Checkpoint, Decision, JournalRecord
from governance.schemas import (
    BundleOut,
    DecisionOut,
    NewTokenOut,
    RecordOut,
    TokenIn,
    TokenOut,
)
from governance.services.tokens import create_token, revoke_token

router = Router(tags=["governance"])
router.add_router("", approval_router)
router.add_router("", journal_router)


def _person(request: HttpRequest) -> Principal:
    """The person who asks, as the credential established it. Raises NotAllowed for agents."""
    principal: Principal | None = getattr(request.auth, "principal", None)  # type: ignore[attr-defined]
    if principal is None:
        raise NotAllowed("An agent may not do this; it is for people.")
    return principal


@router.get("/decisions", response=list[DecisionOut])
@paginate(CursorPagination, ordering=("-at",))
def list_decisions(
    request: HttpRequest,
    goal: UUID | None = None,
    point: str = "",
    outcome: str = "",
    namespace: str = "",
) -> QuerySet[Decision]:
    """Policy decisions, newest first."""
    return narrowed_by(
        visible_decisions(_person(request)),
        goal_uid=goal,
        point=point,
        outcome=outcome,
        namespace=namespace,
    )


def _visible_decision(request: HttpRequest, uid: UUID) -> Decision:
    decision = visible_decisions(_person(request)).filter(pk=uid).first()
    if decision is None:
        raise NotVisible(f"There is no decision {uid} that you may see.")
    return decision


@router.get("/decisions/{uid}", response=DecisionOut)
def get_decision(request: HttpRequest, uid: UUID) -> Decision:
    """One decision."""
    return _visible_decision(request, uid)


@router.get("/decisions/{uid}/input")
def decision_input(request: HttpRequest, uid: UUID) -> dict[str, Any]:
    """The exact input of a decision, as canonical JSON text."""
    decision = _visible_decision(request, uid)
    return {"input_digest": decision.input_digest, "canonical": decision.input_canonical}


@router.get("/journal", response=list[RecordOut])
@paginate(CursorPagination, ordering=("-seq",))
def list_records(
    request: HttpRequest,
    goal: UUID | None = None,
    action: str = "",
    actor: str = "",
    namespace: str = "",
) -> QuerySet[JournalRecord]:
    """Journal records, newest first."""
    return narrowed_by(
        visible_records(_person(request)),
        goal_uid=goal,
        action=action,
        actor_id=actor,
        namespace=namespace,
    )


@router.get("/journal/checkpoints")
def list_checkpoints(request: HttpRequest) -> list[dict[str, Any]]:
    """The newest signed checkpoints."""
    _person(request)
    return [
        {"size": c.size, "root_hash": c.root_hash, "note": c.note, "created_at": c.created_at}
        for c in Checkpoint.objects.order_by("-size")[:100]
    ]


@router.get("/journal/{int:seq}", response=RecordOut)
def get_record(request: HttpRequest, seq: int) -> JournalRecord:
    """One journal record by its number."""
    record = visible_records(_person(request)).filter(pk=seq).first()
    if record is None:
        raise NotVisible(f"There is no record {seq} that you may see.")
    return record


@router.get("/bundles", response=list[BundleOut])
def list_bundles(request: HttpRequest) -> QuerySet[BundleVersion]:
    """Policy bundles and the stage of each version."""
    _person(request)
    return BundleVersion.objects.all()


@router.get("/tokens", response=list[TokenOut])
def list_tokens(request: HttpRequest) -> QuerySet[ApiToken]:
    """Your own tokens."""
    return ApiToken.objects.filter(user__username=_person(request).username)


@router.post("/tokens", response={201: NewTokenOut})
def make_token(request: HttpRequest, payload: TokenIn) -> Status[dict[str, Any]]:
    """A token of your own; its text is shown this once."""
    principal = _person(request)
    token, text = create_token(
        User.objects.get(username=principal.username),
        principal=principal,
        name=payload.name,
        permissions=payload.permissions,
        namespace=payload.namespace,
        life=dt.timedelta(days=payload.days) if payload.days else None,
    )
    return Status(201, {**TokenOut.from_orm(token).dict(), "token": text})


@router.delete("/tokens/{uid}", response={204: None})
def end_token(request: HttpRequest, uid: UUID) -> Status[None]:
    """Revoke a token at once."""
    revoke_token(uid, principal=_person(request))
    return Status(204, None)

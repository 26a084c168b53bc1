"""The one API: `/api/v1`, OpenAPI 3.1, errors as problem documents (RFC 9457)."""

import datetime as dt
import logging
from http import HTTPStatus
from typing import Any

from django.contrib.auth import authenticate
from django.core.exceptions import RequestDataTooBig
from django.core.exceptions import ValidationError as DjangoValidationError
from django.http import Http404, HttpRequest, HttpResponse
from ninja import NinjaAPI, Schema
from ninja.errors import AuthenticationError, HttpError, ValidationError
from pydantic import Field
from pydantic import ValidationError as PydanticValidationError

from agents.api import identity_router
from agents.api import router as agents_router
from agents.artifacts_api import artifact_router, evidence_router
from agents.authentication import BearerCredential, SessionCredential, Unauthenticated
from agents.catalogue_api import catalogue_router
from agents.cluster.base import ClusterError
from agents.domain.problems import ManifestError
from agents.nodes_api import nodes_router
from agents.services.catalogue import CatalogueConflict
from agents.services.identity import (
    IdentityNotAvailable,
    IdentityRefused,
    IdentityRequestInvalid,
)
from console.incidents import BROKEN, broken_detail, name_incident
from console.problems import problem_response
from console.throttling import LoginThrottled, check_login_allowed, note_login
from goals.api import router as goals_router
from goals.gpus_api import router as gpus_router
from goals.services.apply import GoalConflict
from goals.services.ledger import KeyReused, LedgerError, NoAccount, NotCovered
from goals.services.releases import (
    ArtifactUnknown,
    NeverServed,
    OutOfScope,
    ReleaseContended,
    ReleaseDenied,
)
from goals.services.steering import TooMany
from goals.steer_api import steer_router
from governance.access import NotAllowed, NotVisible, must_change_password, principal_of
from governance.api import router as governance_router
from governance.domain import (
    ApprovalConflict,
    ApprovalForbidden,
    ApprovalInvalid,
    GovernanceError,
)
from governance.people_api import people_router
from governance.policy_api import policy_router
from governance.services.drafts import BundleConflict
from governance.services.people import PeopleConflict
from governance.services.tokens import create_token
from lineage.evidence.base import EvidenceError
from lineage.registry.base import (
    ArtifactNotFound,
    ArtifactTooLarge,
    DigestMismatch,
    RegistryError,
    TagImmutable,
)
from lineage.services.artifacts import ArtifactError
from lineage.services.recall import RecallError, SamePerson
from lineage.signing.base import SigningError
from lineage.telemetry.base import TelemetryError

logger = logging.getLogger(__name__)

api = NinjaAPI(
    title="Clearance",
    version="1",
    description="The control tower for AI agents: Goals, approvals, decisions, releases, evidence.",
    auth=[BearerCredential(), SessionCredential()],
    docs_url=None,
)
api.add_router("/identity", identity_router)
api.add_router("/artifacts", artifact_router)
api.add_router("/evidence", evidence_router)
api.add_router("/bundles", policy_router)
api.add_router("/catalogue", catalogue_router)
api.add_router("/nodes", nodes_router)
api.add_router("", goals_router)
api.add_router("", steer_router)
api.add_router("", gpus_router)
api.add_router("", agents_router)
api.add_router("", governance_router)
api.add_router("", people_router)

# First match wins, so the narrower class stands before the wider one.
STATUS_OF: list[tuple[type[Exception], HTTPStatus, str]] = [
    (Unauthenticated, HTTPStatus.UNAUTHORIZED, "Not signed in"),
    (IdentityNotAvailable, HTTPStatus.SERVICE_UNAVAILABLE, "Identity not available"),
    (IdentityRequestInvalid, HTTPStatus.UNPROCESSABLE_ENTITY, "Invalid identity request"),
    (IdentityRefused, HTTPStatus.UNAUTHORIZED, "Identity refused"),
    (NotVisible, HTTPStatus.NOT_FOUND, "Not found"),
    (ArtifactUnknown, HTTPStatus.NOT_FOUND, "Not found"),
    (ArtifactNotFound, HTTPStatus.NOT_FOUND, "Not found"),
    (NotAllowed, HTTPStatus.FORBIDDEN, "Not allowed"),
    (ReleaseContended, HTTPStatus.CONFLICT, "Conflict"),
    (NeverServed, HTTPStatus.CONFLICT, "Conflict"),
    (OutOfScope, HTTPStatus.FORBIDDEN, "Out of scope"),
    (ApprovalForbidden, HTTPStatus.FORBIDDEN, "Not allowed"),
    (ApprovalConflict, HTTPStatus.CONFLICT, "Already decided"),
    (ApprovalInvalid, HTTPStatus.UNPROCESSABLE_ENTITY, "Invalid answer"),
    (GoalConflict, HTTPStatus.CONFLICT, "Conflict"),
    (CatalogueConflict, HTTPStatus.CONFLICT, "Conflict"),
    (TooMany, HTTPStatus.UNPROCESSABLE_ENTITY, "Too many at once"),
    (BundleConflict, HTTPStatus.CONFLICT, "Conflict"),
    (PeopleConflict, HTTPStatus.CONFLICT, "Conflict"),
    (GovernanceError, HTTPStatus.UNPROCESSABLE_ENTITY, "Invalid request"),
    (NotCovered, HTTPStatus.PAYMENT_REQUIRED, "Not covered by the budget"),
    (NoAccount, HTTPStatus.PAYMENT_REQUIRED, "Not covered by the budget"),
    (KeyReused, HTTPStatus.CONFLICT, "Key already used"),
    (LedgerError, HTTPStatus.UNPROCESSABLE_ENTITY, "Invalid ledger entry"),
    (ArtifactError, HTTPStatus.UNPROCESSABLE_ENTITY, "Invalid artifact"),
    (SamePerson, HTTPStatus.FORBIDDEN, "Not allowed"),
    (RecallError, HTTPStatus.CONFLICT, "Conflict"),
    (TagImmutable, HTTPStatus.CONFLICT, "Tag is immutable"),
    (DigestMismatch, HTTPStatus.UNPROCESSABLE_ENTITY, "Digest mismatch"),
    (ArtifactTooLarge, HTTPStatus.REQUEST_ENTITY_TOO_LARGE, "Too large"),
    (RequestDataTooBig, HTTPStatus.REQUEST_ENTITY_TOO_LARGE, "Too large"),
    (RegistryError, HTTPStatus.SERVICE_UNAVAILABLE, "Registry not available"),
    (SigningError, HTTPStatus.SERVICE_UNAVAILABLE, "Signing not available"),
    (TelemetryError, HTTPStatus.SERVICE_UNAVAILABLE, "Telemetry store not available"),
    (ClusterError, HTTPStatus.SERVICE_UNAVAILABLE, "Cluster not available"),
    (EvidenceError, HTTPStatus.CONFLICT, "No evidence pack"),
    (LoginThrottled, HTTPStatus.TOO_MANY_REQUESTS, "Too many failed sign-ins"),
    (Http404, HTTPStatus.NOT_FOUND, "Not found"),
]


def _answer(request: HttpRequest, error: Exception | type[Exception]) -> HttpResponse:
    for kind, status, title in STATUS_OF:
        if isinstance(error, kind):
            return problem_response(status, title=title, detail=str(error))
    incident = name_incident(request)
    logger.exception("unexpected error at %s", request.path, extra={"request": request})
    return problem_response(
        HTTPStatus.INTERNAL_SERVER_ERROR,
        title=BROKEN,
        detail=broken_detail(request, incident),
        incident=incident,
    )


for known in {kind for kind, _, _ in STATUS_OF} | {Exception}:
    api.add_exception_handler(known, _answer)


@api.exception_handler(ManifestError)
def _manifest_error(request: HttpRequest, error: ManifestError) -> HttpResponse:
    return problem_response(
        HTTPStatus.UNPROCESSABLE_ENTITY,
        title="Invalid manifest",
        detail=str(error),
        errors=[{"path": p.path, "message": p.message} for p in error.problems],
    )


@api.exception_handler(ReleaseDenied)
def _release_denied(request: HttpRequest, error: ReleaseDenied) -> HttpResponse:
    return problem_response(
        HTTPStatus.FORBIDDEN,
        title="Denied by policy",
        detail=str(error),
        messages=error.messages,
        decision=str(error.decision.uid) if error.decision else None,
    )


@api.exception_handler(ValidationError)
def _validation_error(request: HttpRequest, error: ValidationError) -> HttpResponse:
    # Pagination names the parameter and what is wrong with it in its own way: {"cursor": "…"}.
    errors = [
        {"path": ".".join(str(part) for part in one["loc"]), "message": one["msg"]}
        if "loc" in one
        else {"path": ", ".join(one), "message": ", ".join(map(str, one.values()))}
        for one in error.errors
    ]
    detail = "; ".join(f"{one['path']}: {one['message']}" for one in errors)
    return problem_response(
        HTTPStatus.UNPROCESSABLE_ENTITY, title="Invalid request", detail=detail, errors=errors
    )


@api.exception_handler(PydanticValidationError)
@api.exception_handler(DjangoValidationError)
def _unreadable_value(request: HttpRequest, error: Exception) -> HttpResponse:
    """What a cursor holds is checked only while it is used; anything else is a defect of ours."""
    if "cursor" not in request.GET:
        return _answer(request, error)
    message = "not one of this list's cursors."
    return problem_response(
        HTTPStatus.UNPROCESSABLE_ENTITY,
        title="Invalid request",
        detail=f"cursor: {message}",
        errors=[{"path": "cursor", "message": message}],
    )


@api.exception_handler(AuthenticationError)
def _authentication_error(request: HttpRequest, error: AuthenticationError) -> HttpResponse:
    del error
    return problem_response(
        HTTPStatus.UNAUTHORIZED,
        title="Not signed in",
        detail="Sign in, or send an API token as `Authorization: Bearer …`.",
    )


@api.exception_handler(HttpError)
def _http_error(request: HttpRequest, error: HttpError) -> HttpResponse:
    status = HTTPStatus(error.status_code)
    return problem_response(status, title=status.phrase, detail=str(error))


class LoginIn(Schema):
    """A name and password, traded for an API token; `days` of life."""

    username: str = Field(max_length=150)
    password: str = Field(max_length=256)
    token_name: str = Field("cli", max_length=63)
    days: int = Field(30, ge=1, le=365)


@api.post("/login", auth=None, tags=["governance"])
def login(request: HttpRequest, payload: LoginIn) -> dict[str, Any]:
    """An API token for a name and password, for the command line."""
    check_login_allowed(request, payload.username)
    user = authenticate(request, username=payload.username, password=payload.password)
    note_login(request, payload.username, succeeded=user is not None)
    if user is None:
        raise Unauthenticated("The name or the password is wrong.")
    if must_change_password(user):
        raise NotAllowed("This is a one-time password: sign in with a browser and change it first.")
    token, text = create_token(
        user,
        principal=principal_of(user),
        name=payload.token_name,
        life=dt.timedelta(days=payload.days),
    )
    return {"token": text, "expires_at": token.expires_at, "username": payload.username}

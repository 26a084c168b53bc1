"""API of agents at work: identity and outputs; and of people looking at them."""

from typing import Annotated, Any, cast
from uuid import UUID

from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse, JsonResponse
from ninja import Router, Schema, Status
from ninja.pagination import CursorPagination, paginate
from pydantic import Field

from agents.authentication import caller_of
from agents.cluster import get_cluster
from agents.identity import get_trust_domain
from agents.models import Agent, Attempt
from agents.schemas import (
    AgentOut,
    AttemptOut,
    DriftOut,
    ExchangeIn,
    IdentityOut,
    OutputIn,
    RenewIn,
)
from agents.selectors import (
    inputs_of,
    visible_agents,
    visible_attempts,
)
from agents.services.attempts import models_of, record_output
from agents.services.drift import drift_of
from agents.services.identity import (
    IssuedIdentity,
    exchange_join_token,
    exchange_pod_token,
    renew_identity,
    renewal_claims,
)
from agents.services.revocation import revoke_agent_identities, revoke_identity
from agents.services.withdrawal import withdraw_agent_identities, withdraw_at_once
from agents.signals import conduct_asked
from governance.access import NotAllowed, NotVisible, narrowed_by, within
from governance.domain import Permission

router = Router(tags=["agents"])
identity_router = Router(tags=["identity"])

OUTPUT_MAX_BYTES = 1 << 20  # of a program's output in one answer


@identity_router.post("/exchange", response=IdentityOut, auth=None)
def exchange(request: HttpRequest, payload: ExchangeIn) -> dict[str, Any]:
    """Trade a join token, or a pod's service account token, for an X.509-SVID and a JWT-SVID."""
    csr, audience = payload.csr, payload.audience
    if token := payload.service_account_token:
        return _identity(exchange_pod_token(token, csr_pem=csr, audience=audience))
    return _identity(exchange_join_token(payload.join_token, csr_pem=csr, audience=audience))


@identity_router.post("/renew", response=IdentityOut, auth=None)
def renew(request: HttpRequest, payload: RenewIn) -> dict[str, Any]:
    """New documents for the attempt whose JWT-SVID is presented."""
    bearer = request.headers.get("Authorization", "").removeprefix("Bearer ").strip()
    claims = renewal_claims(bearer)
    return _identity(renew_identity(claims, csr_pem=payload.csr, audience=payload.audience))


@identity_router.get("/bundle", auth=None)
def bundle(request: HttpRequest) -> HttpResponse:
    """The SPIFFE trust bundle, for whoever wants to check our SVIDs."""
    return JsonResponse(dict(get_trust_domain().bundle()))


def _identity(issued: IssuedIdentity) -> dict[str, Any]:
    return {
        "spiffe_id": issued.spiffe_id,
        "x509_svid": issued.x509.certificate_chain_pem,
        "x509_expires_at": issued.x509.expires_at,
        "jwt_svid": issued.jwt.token,
        "jwt_expires_at": issued.jwt.expires_at,
        "bundle": dict(issued.bundle),
    }


@router.put("/self/outputs/{name}", response={204: None})
def put_output(request: HttpRequest, name: str, payload: OutputIn) -> Status[None]:
    """Keep a named output for the tasks after this one."""
    attempt = caller_of(request).agent
    produces = attempt.agent.manifest["spec"].get("produces", [])
    if name not in produces:
        raise NotAllowed(
            f"The agent {attempt.agent_name} does not declare that it produces {name}."
        )
    record_output(
        attempt, name=name, value=payload.value, digest=payload.digest, span_id=payload.span_id
    )
    return Status(204, None)


@router.get("/agents", response=list[AgentOut])
@paginate(CursorPagination, ordering=("namespace", "name"))
def list_agents(request: HttpRequest, namespace: str = "") -> QuerySet[Agent]:
    """Registered agents."""
    found = visible_agents(caller_of(request).person)
    return found.filter(namespace=namespace) if namespace else found


@router.get("/attempts", response=list[AttemptOut])
@paginate(CursorPagination, ordering=("-created_at",))
def list_attempts(
    request: HttpRequest, goal: UUID | None = None, state: str = "", namespace: str = ""
) -> QuerySet[Attempt]:
    """Attempts, newest first."""
    found = visible_attempts(caller_of(request).person)
    return narrowed_by(found, goal_uid=goal, state=state, namespace=namespace)


def _visible_attempt(request: HttpRequest, uid: UUID) -> Attempt:
    attempt = visible_attempts(caller_of(request).person).filter(pk=uid).first()
    if attempt is None:
        raise NotVisible(f"There is no attempt {uid} that you may see.")
    return attempt


@router.get("/attempts/{uid}", response=AttemptOut)
def get_attempt(request: HttpRequest, uid: UUID) -> Attempt:
    """One attempt."""
    return _visible_attempt(request, uid)


@router.get("/attempts/{uid}/output")
def attempt_output(
    request: HttpRequest,
    uid: UUID,
    offset: Annotated[int, Field(ge=0)] = 0,
    limit: Annotated[int, Field(ge=1, le=OUTPUT_MAX_BYTES)] = 65536,
) -> HttpResponse:
    """What the attempt's program printed, from `offset` bytes on."""
    attempt = _visible_attempt(request, uid)
    text = get_cluster().output(attempt.workload, offset=offset, limit=limit)
    return HttpResponse(text, content_type="text/plain; charset=utf-8")


class RevokeIn(Schema):
    """Why the identity ends."""

    reason: str = Field(min_length=1, max_length=255)


@router.post("/attempts/{uid}/revoke", response=AttemptOut)
def revoke(request: HttpRequest, uid: UUID, payload: RevokeIn) -> Attempt:
    """Revoke the identity of an attempt at once."""
    attempt = _visible_attempt(request, uid)
    principal = caller_of(request).person
    principal.require(Permission.OPERATE, namespace=attempt.namespace)
    revoke_identity(attempt, reason=payload.reason, actor=principal.actor)
    withdraw_at_once([attempt])
    attempt.refresh_from_db()
    return attempt


class RevokedOut(Schema):
    """How many identities ended."""

    revoked: int


def _visible_agent(request: HttpRequest, namespace: str, name: str) -> Agent:
    found = Agent.objects.filter(within(caller_of(request).person, Permission.VIEW))
    agent = found.filter(namespace=namespace, name=name).first()
    if agent is None:
        raise NotVisible(f"There is no agent {namespace}/{name} that you may see.")
    return agent


@router.get("/agents/{namespace}/{name}", response=AgentOut)
def get_agent(request: HttpRequest, namespace: str, name: str) -> Agent:
    """One agent, retired ones too."""
    return _visible_agent(request, namespace, name)


@router.get("/agents/{namespace}/{name}/drift", response=list[DriftOut])
def get_agent_drift(request: HttpRequest, namespace: str, name: str) -> list[dict[str, Any]]:
    """What runs otherwise than it is registered, what it does, and what drifted lately."""
    agent = _visible_agent(request, namespace, name)
    conduct: dict[UUID, Any] = {}
    for _, told in conduct_asked.send(sender=Agent, agent=agent):
        conduct.update(cast("dict[UUID, Any]", told))
    running = [
        {
            "attempt": one.attempt.uid,
            "generation": one.generation,
            "differences": [
                {"what": d.what, "running": d.running, "registered": d.registered}
                for d in one.differences
            ],
            "recalled": [d.digest for d in one.digests if d.standing == "recalled"],
            "conduct": conduct.pop(one.attempt.uid, None),
        }
        for one in drift_of(agent)
    ]
    ended = [
        {"attempt": uid, "generation": None, "differences": [], "recalled": [], "conduct": one}
        for uid, one in conduct.items()
        if one["standing"]
    ]
    return [*running, *ended]


@router.post("/agents/{namespace}/{name}/revoke", response=RevokedOut)
def revoke_agent(
    request: HttpRequest, namespace: str, name: str, payload: RevokeIn
) -> dict[str, int]:
    """Revoke the identities of everything that runs of an agent, at once."""
    agent = _visible_agent(request, namespace, name)
    principal = caller_of(request).person
    principal.require(Permission.OPERATE, namespace=agent.namespace)
    revoked = revoke_agent_identities(agent, reason=payload.reason, actor=principal.actor)
    withdraw_agent_identities(agent)
    return {"revoked": revoked}


def self_document(attempt: Attempt) -> dict[str, Any]:
    """What an attempt may know of itself; the Goal's part is added by the app that has it."""
    return {
        "attempt_uid": str(attempt.uid),
        "task": attempt.task,
        "agent": attempt.agent_name,
        "namespace": attempt.namespace,
        "models": models_of(attempt),
        "inputs": {
            name: {"value": i.value, "digest": i.digest, "span_id": i.span_id}
            for name, i in inputs_of(attempt).items()
        },
    }

"""API of agents at work: identity, artifacts, evidence, outputs; and of people looking at them."""

from collections.abc import AsyncIterator, Iterator
from typing import Annotated, Any
from uuid import UUID

from asgiref.sync import sync_to_async
from django.conf import settings
from django.core.handlers.asgi import ASGIRequest
from django.db.models import Q, QuerySet
from django.http import HttpRequest, HttpResponse, JsonResponse, StreamingHttpResponse
from ninja import Query, Router, Schema, Status
from ninja.pagination import CursorPagination, paginate
from pydantic import Field

from agents.authentication import Caller, caller_of
from agents.cluster import get_cluster
from agents.identity import get_trust_domain
from agents.models import Agent, Attempt
from agents.recalls import get_recallable_artifact
from agents.schemas import (
    NAME,
    SPAN_ID,
    AgentOut,
    ArtifactOut,
    ArtifactRow,
    AttemptOut,
    DriftOut,
    EvidenceIn,
    ExchangeIn,
    IdentityOut,
    LayerOut,
    OutputIn,
    RenewIn,
)
from agents.selectors import (
    artifacts_within,
    get_artifact,
    inputs_of,
    visible_agents,
    visible_attempts,
)
from agents.services.attempts import record_output, scope_of
from agents.services.drift import drift_of
from agents.services.identity import (
    IssuedIdentity,
    exchange_join_token,
    renew_identity,
    renewal_claims,
    revoke_agent_identities,
    revoke_identity,
)
from governance.access import NotAllowed, NotVisible, narrowed_by, within
from governance.domain import Permission
from lineage.domain import ArtifactKind
from lineage.models import Artifact, Edge
from lineage.registry import get_registry
from lineage.services.artifacts import (
    Origin,
    Upload,
    layer_title,
    push_artifact,
    push_evidence,
    recall_artifact,
    record_use,
)
from lineage.services.directories import (
    DIRECTORY_MEDIA_TYPE,
    DirectoryInvalid,
    push_directory,
)
from lineage.services.recall import lift_recall

router = Router(tags=["agents"])
identity_router = Router(tags=["identity"])
artifact_router = Router(tags=["artifacts"])

OUTPUT_MAX_BYTES = 1 << 20  # of a program's output in one answer
SMALL_KINDS_MAX_BYTES = 16 << 20  # evidence, policy and plain files; weights have their own limit


@identity_router.post("/exchange", response=IdentityOut, auth=None)
def exchange(request: HttpRequest, payload: ExchangeIn) -> dict[str, Any]:
    """Trade the one-time join token for an X.509-SVID and a JWT-SVID."""
    return _identity(
        exchange_join_token(payload.join_token, csr_pem=payload.csr, audience=payload.audience)
    )


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


class ArtifactQuery(Schema):
    """What is pushed; the bytes are the body, a tar stream for a directory."""

    directory: bool = False

    kind: ArtifactKind = ArtifactKind.FILE
    name: str = Field(pattern=NAME)
    filename: str = Field("", max_length=255, pattern=r"^[^/\x00-\x1f]*$")
    tag: str = Field("", pattern=r"^([A-Za-z0-9_][A-Za-z0-9._-]{0,127})?$")
    media_type: str = Field("application/octet-stream", max_length=128, pattern=r"^[!-~]+/[!-~]+$")
    span_id: str = Field("", pattern=SPAN_ID)
    namespace: str = Field("default", max_length=63)


@artifact_router.post("", response={201: ArtifactOut})
def push(request: HttpRequest, query: Query[ArtifactQuery]) -> Status[dict[str, Any]]:
    """Push one file; it is stored by digest and signed with the pusher's identity."""
    caller = caller_of(request)
    origin = _origin(caller, query.namespace, query.span_id)
    _check_may_push(caller, query.kind)
    is_big = query.kind in (ArtifactKind.MODEL, ArtifactKind.DATASET)
    media_type = DIRECTORY_MEDIA_TYPE if query.directory else query.media_type
    upload = Upload(
        stream=request,  # type: ignore[arg-type]  # a request reads like a binary stream
        kind=query.kind,
        name=query.name,
        filename=query.filename or query.name,
        media_type=media_type,
        expected_sha256=request.headers.get("X-Content-SHA256", "").lower(),
        tag=query.tag,
        max_bytes=settings.UPLOAD_MAX_BYTES if is_big else SMALL_KINDS_MAX_BYTES,
    )
    store = push_directory if query.directory else push_artifact
    return Status(201, artifact_document(store(upload, origin)))


def _check_may_push(caller: Caller, kind: str) -> None:
    if caller.attempt is None:
        return
    allowed = scope_of(caller.attempt).get("artifacts", [])
    if kind not in allowed:
        raise NotAllowed(
            f"The agent {caller.attempt.agent_name} may not push {kind}: its scope allows "
            f"{', '.join(allowed) or 'no artifacts'}."
        )


def _origin(caller: Caller, namespace: str, span_id: str) -> Origin:
    attempt = caller.attempt
    if attempt is None:
        caller.person.require(Permission.OPERATE, namespace=namespace)
        return Origin(
            actor=caller.actor,
            identity=f"{settings.WEB_URL}/people/{caller.person.username}",
            namespace=namespace,
            span_id=span_id,
        )
    return Origin(
        actor=caller.actor,
        identity=attempt.spiffe_id,
        namespace=attempt.namespace,
        goal_uid=attempt.goal_uid,
        attempt_uid=attempt.uid,
        span_id=span_id,
        parameters={
            "goal": str(attempt.goal_uid),
            "task": attempt.task,
            "agent": attempt.agent_name,
            "graph_digest": attempt.graph_digest,
            "image": attempt.specification.get("image", ""),
        },
        used=used_by(attempt),
    )


def used_by(attempt: Attempt) -> list[str]:
    """Digests of the artifacts an attempt has read so far."""
    return list(
        Edge.objects.filter(
            source_kind="attempt", source_id=str(attempt.uid), relation="used"
        ).values_list("target_id", flat=True)
    )


@artifact_router.get("", response=list[ArtifactRow])
@paginate(CursorPagination, ordering=("-created_at",))
def list_artifacts(
    request: HttpRequest, kind: str = "", name: str = "", namespace: str = ""
) -> QuerySet[Artifact]:
    """Artifacts, newest first."""
    found = artifacts_within(_spaces(caller_of(request)))
    return narrowed_by(found, kind=kind, name=name, namespace=namespace)


@artifact_router.get("/{digest}", response=ArtifactOut)
def get_one(request: HttpRequest, digest: str) -> dict[str, Any]:
    """One artifact by the digest of its manifest."""
    return artifact_document(get_artifact(_spaces(caller_of(request)), digest))


@artifact_router.get("/{digest}/content")
def content(request: HttpRequest, digest: str) -> StreamingHttpResponse:
    """The bytes of the artifact's single layer, checked against its digest while they stream."""
    artifact = _readable(request, digest)
    if artifact.media_type == DIRECTORY_MEDIA_TYPE:
        raise DirectoryInvalid("This is a directory: read one file at /content/NAME.")
    return _streamed(
        request, artifact.blob_digest, size=artifact.size_bytes, media_type=artifact.media_type
    )


@artifact_router.get("/{digest}/content/{path:filename}")
def file_content(request: HttpRequest, digest: str, filename: str) -> StreamingHttpResponse:
    """The bytes of one file of a directory, checked against its digest while they stream."""
    artifact = _readable(request, digest)
    for layer in get_registry().stat(artifact.digest).layers:
        if layer_title(layer.annotations) == filename:
            return _streamed(request, layer.digest, size=layer.size, media_type=layer.media_type)
    raise NotVisible(f"The artifact has no file {filename!r}.")


def _readable(request: HttpRequest, digest: str) -> Artifact:
    """An artifact the caller may read; that an agent read it is remembered."""
    caller = caller_of(request)
    artifact = get_artifact(_spaces(caller), digest)
    if artifact.recalled_at is not None and caller.attempt is not None:
        raise NotAllowed(f"The artifact was recalled: {artifact.recall_reason}")
    if caller.attempt is not None:
        record_use(artifact, attempt_uid=caller.attempt.uid, goal_uid=caller.attempt.goal_uid)
    return artifact


def _streamed(
    request: HttpRequest, blob_digest: str, *, size: int, media_type: str
) -> StreamingHttpResponse:
    chunks = get_registry().read_layer(blob_digest)
    response = StreamingHttpResponse(
        _async(chunks) if isinstance(request, ASGIRequest) else chunks, content_type=media_type
    )
    response["Content-Length"] = str(size)
    response["X-Content-SHA256"] = blob_digest.removeprefix("sha256:")
    response["Content-Disposition"] = "attachment"
    return response


async def _async(chunks: Iterator[bytes]) -> AsyncIterator[bytes]:
    """Chunks one by one; Django would read a synchronous iterator whole."""
    while chunk := await sync_to_async(_next, thread_sensitive=False)(chunks):
        yield chunk


def _next(chunks: Iterator[bytes]) -> bytes:
    return next(chunks, b"")


@artifact_router.get("/{digest}/bundles")
def bundles(request: HttpRequest, digest: str) -> dict[str, Any]:
    """The sigstore bundles over the blob and over its in-toto statement."""
    artifact = get_artifact(_spaces(caller_of(request)), digest)
    return {
        "digest": artifact.digest,
        "blob_digest": artifact.blob_digest,
        "signer": artifact.signer,
        "blob_bundle": artifact.blob_bundle,
        "statement_bundle": artifact.statement_bundle,
    }


class RecallIn(Schema):
    """Why the digest is bad, or no longer is."""

    reason: str = Field(min_length=1, max_length=2000)


@artifact_router.post("/{digest}/recall", response=ArtifactOut)
def recall(request: HttpRequest, digest: str, payload: RecallIn) -> dict[str, Any]:
    """Mark a digest as bad: from now on no release may serve or rest on it, no attempt read it."""
    principal = caller_of(request).person
    artifact = get_recallable_artifact(principal, digest)
    recall_artifact(artifact, reason=payload.reason, actor=principal.actor)
    return artifact_document(artifact)


@artifact_router.post("/{digest}/lift-recall", response=ArtifactOut)
def lift(request: HttpRequest, digest: str, payload: RecallIn) -> dict[str, Any]:
    """Let a recalled digest be used again; another person than the one who recalled it must."""
    principal = caller_of(request).person
    artifact = get_recallable_artifact(principal, digest)
    lift_recall(artifact, reason=payload.reason, actor=principal.actor)
    return artifact_document(artifact)


def artifact_document(artifact: Artifact) -> dict[str, Any]:
    """An artifact with its layers, as the registry has them."""
    stored = get_registry().stat(artifact.digest)
    return {
        "digest": artifact.digest,
        "blob_digest": artifact.blob_digest,
        "kind": artifact.kind,
        "name": artifact.name,
        "namespace": artifact.namespace,
        "size": artifact.size_bytes,
        "media_type": artifact.media_type,
        "signed": artifact.is_signed,
        "signer": artifact.signer,
        "predicate_type": artifact.predicate_type,
        "about": artifact.about,
        "goal_uid": artifact.goal_uid,
        "attempt_uid": artifact.attempt_uid,
        "span_id": artifact.span_id,
        "created_at": artifact.created_at,
        "recalled_at": artifact.recalled_at,
        "layers": [
            LayerOut(
                digest=layer.digest,
                size=layer.size,
                title=layer_title(layer.annotations),
                media_type=layer.media_type,
            )
            for layer in stored.layers
        ],
    }


def _spaces(caller: Caller) -> Q:
    """Namespaces whose artifacts the caller may read."""
    if caller.attempt is not None:
        return Q(namespace=caller.attempt.namespace)
    return within(caller.person, Permission.VIEW)


evidence_router = Router(tags=["artifacts"])


@evidence_router.post("", response={201: ArtifactOut})
def push_statement(request: HttpRequest, payload: EvidenceIn) -> Status[dict[str, Any]]:
    """Push a signed statement about artifacts."""
    caller = caller_of(request)
    _check_may_push(caller, ArtifactKind.EVIDENCE)
    origin = _origin(caller, payload.namespace, payload.span_id)
    about = [get_artifact(Q(namespace=origin.namespace), digest) for digest in payload.about]
    evidence = push_evidence(
        name=payload.name,
        about=about,
        predicate_type=payload.predicate_type,
        predicate=payload.predicate,
        origin=origin,
    )
    return Status(201, artifact_document(evidence))


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
    """What each running attempt does otherwise than the registration says now."""
    return [
        {
            "attempt": one.attempt.uid,
            "generation": one.generation,
            "differences": [
                {"what": d.what, "running": d.running, "registered": d.registered}
                for d in one.differences
            ],
            "recalled": [d.digest for d in one.digests if d.standing == "recalled"],
        }
        for one in drift_of(_visible_agent(request, namespace, name))
    ]


@router.post("/agents/{namespace}/{name}/revoke", response=RevokedOut)
def revoke_agent(
    request: HttpRequest, namespace: str, name: str, payload: RevokeIn
) -> dict[str, int]:
    """Revoke the identities of everything that runs of an agent, at once."""
    agent = _visible_agent(request, namespace, name)
    principal = caller_of(request).person
    principal.require(Permission.OPERATE, namespace=agent.namespace)
    revoked = revoke_agent_identities(agent, reason=payload.reason, actor=principal.actor)
    return {"revoked": revoked}


def self_document(attempt: Attempt) -> dict[str, Any]:
    """What an attempt may know of itself; the Goal's part is added by the app that has it."""
    return {
        "attempt_uid": str(attempt.uid),
        "task": attempt.task,
        "agent": attempt.agent_name,
        "namespace": attempt.namespace,
        "inputs": {
            name: {"value": i.value, "digest": i.digest, "span_id": i.span_id}
            for name, i in inputs_of(attempt).items()
        },
    }

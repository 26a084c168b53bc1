"""API of artifacts and evidence: pushed by agents and people, read, recalled."""

from collections.abc import AsyncIterator, Iterator
from typing import Any

from asgiref.sync import sync_to_async
from django.conf import settings
from django.core.handlers.asgi import ASGIRequest
from django.db.models import Q, QuerySet
from django.http import HttpRequest, StreamingHttpResponse
from ninja import Query, Router, Schema, Status
from ninja.pagination import CursorPagination, paginate
from pydantic import Field

from agents.authentication import Caller, caller_of
from agents.models import Attempt
from agents.recalls import get_recallable_artifact
from agents.schemas import (
    NAME,
    SPAN_ID,
    ArtifactOut,
    ArtifactRow,
    EvidenceIn,
    LayerOut,
)
from agents.selectors import (
    artifacts_within,
    get_artifact,
)
from agents.services.attempts import scope_of
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

artifact_router = Router(tags=["artifacts"])
evidence_router = Router(tags=["artifacts"])

SMALL_KINDS_MAX_BYTES = 16 << 20  # evidence, policy and plain files; weights have their own limit


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

"""Artifacts: pushed by digest, signed at push, never changed afterwards."""

import io
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, BinaryIO
from uuid import UUID

import rfc8785
from django.db import IntegrityError, transaction
from django.utils import timezone

from lineage.domain import Actor, ArtifactKind, NodeKind, NodeRef, Relation
from lineage.models import Artifact, Recall
from lineage.registry import get_registry
from lineage.registry.base import LayerSource, Registry, StoredArtifact
from lineage.services.graph import link
from lineage.signals import provenance_changed
from lineage.signing import get_signer
from lineage.signing.base import Signer

STATEMENT_TYPE = "https://in-toto.io/Statement/v1"
SLSA_PROVENANCE = "https://slsa.dev/provenance/v1"
BUILD_TYPE = "https://orchestration.ai/attempt/v1"
BUNDLE_MEDIA_TYPE = "application/vnd.dev.sigstore.bundle.v0.3+json"
STATEMENT_MEDIA_TYPE = "application/vnd.in-toto+json"
ARTIFACT_TYPE = "application/vnd.orchestration.ai.{kind}.v1"


class ArtifactError(Exception):
    """An artifact that cannot be taken; the text is fit for whoever pushed it."""


@dataclass(frozen=True, slots=True)
class Origin:
    """Who pushes and on whose behalf. `identity` (a URI) is what the signature names."""

    actor: Actor
    identity: str
    namespace: str
    goal_uid: UUID | None = None
    attempt_uid: UUID | None = None
    span_id: str = ""
    parameters: Mapping[str, Any] | None = None  # goes into the provenance statement
    used: Sequence[str] = ()  # digests of artifacts it was made from


@dataclass(frozen=True, slots=True)
class Upload:
    """What is pushed. `expected_sha256` (hex) and `tag` are optional."""

    stream: BinaryIO
    kind: ArtifactKind
    name: str
    filename: str
    media_type: str = "application/octet-stream"
    expected_sha256: str = ""
    tag: str = ""
    max_bytes: int | None = None


def push_artifact(
    upload: Upload,
    origin: Origin,
    *,
    registry: Registry | None = None,
    signer: Signer | None = None,
) -> Artifact:
    """Store, sign and record one file; pushing the same bytes again returns the same artifact.

    Raises `RegistryError`s and `SigningError`s. Content without a row (a crash between the two) is
    harmless: the next push of the same bytes finds it and goes on.
    """
    registry = registry or get_registry()
    stored = registry.push(
        [LayerSource(upload.stream, upload.media_type, upload.filename)],
        artifact_type=ARTIFACT_TYPE.format(kind=upload.kind),
        annotations={"org.opencontainers.image.title": upload.name},
        max_bytes=upload.max_bytes,
        expected_digest=f"sha256:{upload.expected_sha256}" if upload.expected_sha256 else "",
    )
    signer = signer or get_signer()
    content = stored.layers[0].digest
    return keep_artifact(
        stored,
        upload,
        origin,
        provenance_statement(stored, upload, origin),
        registry=registry,
        signer=signer,
        sign_content=lambda: signer.sign_digest(
            content.removeprefix("sha256:"), identity=origin.identity
        ),
        content_digest=content,
    )


def keep_artifact(
    stored: StoredArtifact,
    upload: Upload,
    origin: Origin,
    statement: Mapping[str, Any],
    *,
    registry: Registry,
    signer: Signer,
    sign_content: Callable[[], str],
    content_digest: str,
    about: Sequence[str] = (),
) -> Artifact:
    """Sign and record what the registry stored, unless it is recorded already; tag it.

    `sign_content` makes the bundle over the content that `content_digest` names.
    """
    artifact = Artifact.objects.filter(namespace=origin.namespace, digest=stored.digest).first()
    if artifact is None:
        bundles = (sign_content(), signer.sign_statement(statement, identity=origin.identity))
        artifact = _record(
            stored,
            upload,
            origin,
            registry=registry,
            bundles=bundles,
            content_digest=content_digest,
            predicate_type=str(statement["predicateType"]),
            about=about,
        )
    elif origin.attempt_uid is not None:
        _link_producer(artifact, origin)
    if upload.tag:
        registry.tag(f"{origin.namespace}/{upload.name}", upload.tag, stored.digest)
    return artifact


def push_evidence(
    *,
    name: str,
    about: Sequence[Artifact],
    predicate_type: str,
    predicate: Mapping[str, Any],
    origin: Origin,
    registry: Registry | None = None,
    signer: Signer | None = None,
) -> Artifact:
    """Store and sign a statement about artifacts (an A/B result, say) as an artifact of its own."""
    registry = registry or get_registry()
    statement: dict[str, Any] = {
        "_type": STATEMENT_TYPE,
        "subject": [subject for artifact in about for subject in _subjects(artifact)],
        "predicateType": predicate_type,
        "predicate": dict(predicate),
    }
    payload = rfc8785.dumps(statement)
    upload = Upload(
        stream=io.BytesIO(payload),
        kind=ArtifactKind.EVIDENCE,
        name=name,
        filename=f"{name}.intoto.json",
        media_type=STATEMENT_MEDIA_TYPE,
    )
    stored = registry.push(
        [LayerSource(upload.stream, upload.media_type, upload.filename)],
        artifact_type=ARTIFACT_TYPE.format(kind=upload.kind),
        annotations={"org.opencontainers.image.title": name},
    )
    signer = signer or get_signer()
    content = stored.layers[0].digest
    return keep_artifact(
        stored,
        upload,
        origin,
        statement,
        registry=registry,
        signer=signer,
        sign_content=lambda: signer.sign_digest(
            content.removeprefix("sha256:"), identity=origin.identity
        ),
        content_digest=content,
        about=[artifact.digest for artifact in about],
    )


def provenance_statement(stored: StoredArtifact, upload: Upload, origin: Origin) -> dict[str, Any]:
    """SLSA provenance v1 of a pushed artifact (https://slsa.dev/spec/v1.0/provenance)."""
    return {
        "_type": STATEMENT_TYPE,
        "subject": [
            _subject(upload.name, stored.digest),
            *(_subject(layer_title(layer.annotations), layer.digest) for layer in stored.layers),
        ],
        "predicateType": SLSA_PROVENANCE,
        "predicate": {
            "buildDefinition": {
                "buildType": BUILD_TYPE,
                "externalParameters": dict(origin.parameters or {}),
                "resolvedDependencies": [
                    {"digest": {"sha256": digest.removeprefix("sha256:")}} for digest in origin.used
                ],
            },
            "runDetails": {
                "builder": {"id": origin.identity},
                "metadata": {
                    "invocationId": str(origin.attempt_uid or ""),
                    "finishedOn": timezone.now().strftime("%Y-%m-%dT%H:%M:%SZ"),
                },
            },
        },
    }


def layer_title(annotations: Mapping[str, str]) -> str:
    return annotations.get("org.opencontainers.image.title", "")


def _subject(name: str, digest: str) -> dict[str, Any]:
    return {"name": name, "digest": {"sha256": digest.removeprefix("sha256:")}}


def _subjects(artifact: Artifact) -> list[dict[str, Any]]:
    return [
        _subject(artifact.name, artifact.digest),
        _subject(artifact.filename, artifact.blob_digest),
    ]


def _record(
    stored: StoredArtifact,
    upload: Upload,
    origin: Origin,
    *,
    registry: Registry,
    bundles: tuple[str, str],
    content_digest: str,
    predicate_type: str,
    about: Sequence[str],
) -> Artifact:
    for bundle in bundles:
        registry.push(
            [LayerSource(io.BytesIO(bundle.encode()), BUNDLE_MEDIA_TYPE, "bundle.sigstore.json")],
            artifact_type=BUNDLE_MEDIA_TYPE,
            subject=stored.digest,
        )
    try:
        with transaction.atomic():
            artifact = Artifact.objects.create(
                namespace=origin.namespace,
                kind=upload.kind,
                name=upload.name,
                filename=upload.filename,
                digest=stored.digest,
                blob_digest=content_digest,
                media_type=upload.media_type,
                size_bytes=stored.size,
                goal_uid=origin.goal_uid,
                attempt_uid=origin.attempt_uid,
                span_id=origin.span_id,
                pushed_by_kind=origin.actor.kind,
                pushed_by_id=origin.actor.id,
                signer=origin.identity,
                blob_bundle=bundles[0],
                statement_bundle=bundles[1],
                predicate_type=predicate_type,
                about=list(about),
            )
            _link_producer(artifact, origin)
            announce(artifact, origin.actor, "artifact.signed")
    except IntegrityError:
        # The same bytes were recorded by another process meanwhile.
        return Artifact.objects.get(namespace=origin.namespace, digest=stored.digest)
    return artifact


def _link_producer(artifact: Artifact, origin: Origin) -> None:
    target = NodeRef(NodeKind.ARTIFACT, artifact.digest)
    if origin.attempt_uid is not None:
        link(
            NodeRef(NodeKind.ATTEMPT, str(origin.attempt_uid)),
            Relation.PRODUCED,
            target,
            namespace=origin.namespace,
            goal_uid=origin.goal_uid,
            is_signed=True,
        )
    for digest in artifact.about:
        link(
            target,
            Relation.ABOUT,
            NodeRef(NodeKind.ARTIFACT, digest),
            namespace=origin.namespace,
            goal_uid=origin.goal_uid,
            is_signed=True,
        )


def record_use(artifact: Artifact, *, attempt_uid: UUID, goal_uid: UUID) -> None:
    """Remember that an attempt read an artifact; repeating it changes nothing."""
    with transaction.atomic():
        link(
            NodeRef(NodeKind.ATTEMPT, str(attempt_uid)),
            Relation.USED,
            NodeRef(NodeKind.ARTIFACT, artifact.digest),
            namespace=artifact.namespace,
            goal_uid=goal_uid,
        )


def recall_artifact(artifact: Artifact, *, reason: str, actor: Actor) -> bool:
    """Mark a digest as bad: from now on no release may serve or rest on it, no attempt read it.

    True when that was news; `lineage.services.recall.lift_recall` undoes it, by somebody else.
    """
    with transaction.atomic():
        now = timezone.now()
        changed = Artifact.objects.filter(pk=artifact.pk, recalled_at__isnull=True).update(
            recalled_at=now, recall_reason=reason
        )
        artifact.refresh_from_db()
        if changed:
            Recall.objects.create(
                namespace=artifact.namespace,
                digest=artifact.digest,
                reason=reason,
                recalled_by_kind=actor.kind,
                recalled_by_id=actor.id,
                recalled_at=now,
            )
            announce(artifact, actor, "artifact.recalled")
    return bool(changed)


def announce(artifact: Artifact, actor: Actor, action: str, **more: str) -> None:
    """Tell the journal of a change to an artifact, in the transaction of that change."""
    provenance_changed.send(
        sender=Artifact,
        action=action,
        actor=actor,
        object_kind="artifact",
        object_id=artifact.digest,
        namespace=artifact.namespace,
        goal_uid=artifact.goal_uid,
        body={
            "kind": artifact.kind,
            "name": artifact.name,
            "blob_digest": artifact.blob_digest,
            "size_bytes": str(artifact.size_bytes),
            "attempt": str(artifact.attempt_uid or ""),
            "signer": artifact.signer,
            "predicate_type": artifact.predicate_type,
            "about": artifact.about,
            "span": artifact.span_id,
            "recall_reason": artifact.recall_reason,
            **more,
        },
    )

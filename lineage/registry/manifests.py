"""OCI image manifests (v1.1): how ours are written, and how any is read and checked."""

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

import rfc8785

from lineage.registry.base import (
    ArtifactNotFound,
    Descriptor,
    DigestMismatch,
    RegistryError,
    StoredArtifact,
)

MANIFEST_TYPE = "application/vnd.oci.image.manifest.v1+json"
INDEX_TYPE = "application/vnd.oci.image.index.v1+json"
TITLE_ANNOTATION = "org.opencontainers.image.title"
REF_NAME_ANNOTATION = "org.opencontainers.image.ref.name"

# An artifact has no config; OCI image-spec v1.1 "Guidance for an Empty Descriptor".
EMPTY_BYTES = b"{}"
EMPTY_DIGEST = "sha256:44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a"
EMPTY_TYPE = "application/vnd.oci.empty.v1+json"

# OCI distribution-spec: registries need not take manifests over 4 MiB.
MANIFEST_MAX_BYTES = 4 << 20

DIGEST_PATTERN = re.compile(r"sha256:[0-9a-f]{64}")
# Names and tags by the grammar of OCI distribution-spec v1.1, "Pulling manifests".
_REPOSITORY_PATTERN = re.compile(
    r"[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*(/[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*)*"
)
_REPOSITORY_MAX_CHARS = 200  # registries allow 255 for host and name together
_TAG_PATTERN = re.compile(r"[a-zA-Z0-9_][a-zA-Z0-9._-]{0,127}")
_MEDIA_TYPE_PATTERN = re.compile(r"[A-Za-z0-9][\w!#$&^.+-]{0,126}/[A-Za-z0-9][\w!#$&^.+-]{0,126}")


def sha256_digest(content: bytes) -> str:
    """The OCI digest (`sha256:<hex>`) of bytes."""
    return "sha256:" + hashlib.sha256(content).hexdigest()


def checked_digest(digest: str) -> str:
    """`digest` itself. Raises ArtifactNotFound when it is no `sha256:<64 hex>`."""
    if not DIGEST_PATTERN.fullmatch(digest):
        raise ArtifactNotFound(f"{digest[:80]!r} is not a digest: write sha256:<64 hex digits>.")
    return digest


def checked_reference(repository: str, tag: str = "") -> str:
    """`repository:tag` (or `repository` alone) once both follow the OCI grammar."""
    if not _REPOSITORY_PATTERN.fullmatch(repository) or len(repository) > _REPOSITORY_MAX_CHARS:
        raise RegistryError(
            f"repository {repository[:80]!r} is not a name: use lower-case letters, digits, "
            "'.', '_', '-' and '/'."
        )
    if not tag:
        return repository
    if not _TAG_PATTERN.fullmatch(tag):
        raise RegistryError(
            f"tag {tag[:80]!r} is not a tag: use at most 128 letters, digits, '.', '_' and '-'."
        )
    return f"{repository}:{tag}"


def checked_media_type(media_type: str, *, field: str) -> str:
    """`media_type` itself. Raises RegistryError when it is not of the form `type/subtype`."""
    if not _MEDIA_TYPE_PATTERN.fullmatch(media_type):
        raise RegistryError(f"{field} {media_type[:80]!r} is not a media type (RFC 6838).")
    return media_type


def encode_manifest(
    layers: Sequence[Descriptor],
    *,
    artifact_type: str,
    annotations: Mapping[str, str],
    subject: Descriptor | None,
) -> bytes:
    """The manifest as canonical JSON (RFC 8785): the same content always has the same digest."""
    checked_media_type(artifact_type, field="artifact_type")
    document: dict[str, Any] = {
        "schemaVersion": 2,
        "mediaType": MANIFEST_TYPE,
        "artifactType": artifact_type,
        "config": {"mediaType": EMPTY_TYPE, "digest": EMPTY_DIGEST, "size": len(EMPTY_BYTES)},
        "layers": [encode_descriptor(layer) for layer in layers],
    }
    if subject is not None:
        document["subject"] = encode_descriptor(subject)
    if annotations:
        document["annotations"] = dict(annotations)
    content: bytes = rfc8785.dumps(document)
    if len(content) > MANIFEST_MAX_BYTES:
        raise RegistryError(
            f"the manifest is {len(content)} bytes, over the {MANIFEST_MAX_BYTES} a registry "
            "takes: use fewer layers or shorter annotations."
        )
    return content


def encode_descriptor(descriptor: Descriptor) -> dict[str, Any]:
    """A descriptor as OCI JSON."""
    document: dict[str, Any] = {
        "mediaType": descriptor.media_type,
        "digest": descriptor.digest,
        "size": descriptor.size,
    }
    if descriptor.annotations:
        document["annotations"] = dict(descriptor.annotations)
    return document


def decode_manifest(content: bytes, *, digest: str) -> StoredArtifact:
    """The artifact a manifest describes.

    Raises DigestMismatch when the bytes do not hash to `digest`, ArtifactNotFound when they are
    no image manifest.
    """
    if sha256_digest(content) != digest:
        raise DigestMismatch(f"the stored manifest does not hash to {digest}.")
    try:
        document = json.loads(content)
        if document["mediaType"] != MANIFEST_TYPE:
            raise ValueError(document["mediaType"])
        layers = tuple(_decode_descriptor(layer) for layer in document["layers"])
        config_type = document.get("config", {}).get("mediaType", "")
        subject = document.get("subject") or {}
        return StoredArtifact(
            digest=digest,
            artifact_type=str(document.get("artifactType") or config_type),
            layers=layers,
            subject=str(subject.get("digest", "")),
            annotations=_texts(document.get("annotations")),
        )
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise ArtifactNotFound(f"{digest} is not an OCI image manifest.") from error


def _decode_descriptor(document: Mapping[str, Any]) -> Descriptor:
    size = document["size"]
    if type(size) is not int or size < 0:
        raise ValueError("size")
    return Descriptor(
        media_type=str(document["mediaType"]),
        digest=checked_digest(str(document["digest"])),
        size=size,
        annotations=_texts(document.get("annotations")),
    )


def _texts(annotations: Mapping[str, Any] | None) -> dict[str, str]:
    return {str(key): str(value) for key, value in (annotations or {}).items()}

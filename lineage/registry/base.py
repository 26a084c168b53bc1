"""What the product asks of an artifact registry (OCI distribution terms)."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import BinaryIO, Protocol


class RegistryError(Exception):
    """The registry refused or could not answer."""


class RegistryUnavailable(RegistryError):
    """The registry cannot be reached, or its disk is full; the same call may work later."""


class ArtifactNotFound(RegistryError):
    """No artifact, blob or tag of that name."""


class DigestMismatch(RegistryError):
    """The bytes do not hash to the digest they are stored or announced under."""


class TagImmutable(RegistryError):
    """The tag already names another digest; tags never move."""


class ArtifactTooLarge(RegistryError):
    """The upload is over the size that was allowed."""


@dataclass(frozen=True, slots=True)
class Descriptor:
    """OCI content descriptor; `digest` is `sha256:<64 hex>`, `size` in bytes."""

    media_type: str
    digest: str
    size: int
    annotations: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class StoredArtifact:
    """An OCI image manifest (v1.1, with `artifactType`) and its layers.

    `digest` is the manifest's and is what releases refer to. The manifest carries no time, so the
    same content always has the same digest.
    """

    digest: str
    artifact_type: str
    layers: tuple[Descriptor, ...]
    subject: str = ""  # digest of the manifest this one refers to (signatures, evidence)
    annotations: Mapping[str, str] = field(default_factory=dict)

    @property
    def size(self) -> int:
        return sum(layer.size for layer in self.layers)


@dataclass(frozen=True, slots=True)
class LayerSource:
    """One file to push: a readable binary stream, its media type and its title (file name)."""

    stream: BinaryIO
    media_type: str
    title: str


class Registry(Protocol):
    """Content-addressed artifacts. Methods raise only `RegistryError`s and may be repeated."""

    def push(
        self,
        layers: Sequence[LayerSource],
        *,
        artifact_type: str,
        annotations: Mapping[str, str] | None = None,
        subject: str = "",
        max_bytes: int | None = None,
        expected_digest: str = "",
    ) -> StoredArtifact:
        """Store layers and a manifest; nothing is left behind when it raises.

        `expected_digest` is the SHA-256 the single layer must have. Raises `ArtifactTooLarge`,
        `DigestMismatch`, `RegistryUnavailable`.
        """

    def stat(self, digest: str) -> StoredArtifact:
        """The manifest under that digest. Raises `ArtifactNotFound`."""

    def manifest(self, digest: str) -> bytes:
        """The manifest's exact bytes, checked against the digest."""

    def read_layer(self, digest: str, *, chunk_bytes: int = 1 << 20) -> Iterator[bytes]:
        """Stream a layer blob by its own digest; raises `DigestMismatch` before the last chunk."""

    def tag(self, repository: str, tag: str, digest: str) -> None:
        """Name a digest once and for all. Raises `TagImmutable` if it names another."""

    def resolve(self, repository: str, tag: str) -> str:
        """The digest a tag names. Raises `ArtifactNotFound`."""

    def tags(self, repository: str) -> Mapping[str, str]:
        """All tags of a repository with their digests."""

    def referrers(self, digest: str, *, artifact_type: str = "") -> Sequence[StoredArtifact]:
        """Manifests whose subject is `digest` (signatures, attestations, evidence)."""

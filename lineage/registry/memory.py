"""A registry in this process's memory: strict like the real ones, for tests."""

import io
from collections.abc import Iterator, Mapping, Sequence

from lineage.registry.base import (
    ArtifactNotFound,
    Descriptor,
    DigestMismatch,
    LayerSource,
    RegistryError,
    StoredArtifact,
    TagImmutable,
)
from lineage.registry.manifests import (
    MANIFEST_TYPE,
    TITLE_ANNOTATION,
    checked_digest,
    checked_media_type,
    checked_reference,
    decode_manifest,
    encode_manifest,
    sha256_digest,
)
from lineage.registry.spool import check_expected, copy_layer


class MemoryRegistry:
    """Holds everything in dictionaries; `blobs` may be edited by a test to corrupt a layer."""

    def __init__(self) -> None:
        self.blobs: dict[str, bytes] = {}
        self._manifests: dict[str, bytes] = {}
        self._tags: dict[str, str] = {}
        self._failures: list[RegistryError] = []

    def fail_next(self, error: RegistryError) -> None:
        """Make the next call raise `error`; calls queue up."""
        self._failures.append(error)

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
        """See `Registry.push`."""
        self._fail_if_told()
        if not layers:
            raise RegistryError("an artifact needs at least one layer.")
        of_subject = None
        if subject:
            size = len(self._manifest(subject))
            of_subject = Descriptor(media_type=MANIFEST_TYPE, digest=subject, size=size)
        budget = max_bytes
        staged: dict[str, bytes] = {}
        descriptors: list[Descriptor] = []
        for layer in layers:
            checked_media_type(layer.media_type, field=f"media type of layer {layer.title!r}")
            buffer = io.BytesIO()
            digest, size = copy_layer(layer.stream, buffer.write, budget=budget)
            budget = None if budget is None else budget - size
            staged[digest] = buffer.getvalue()
            titles = {TITLE_ANNOTATION: layer.title} if layer.title else {}
            descriptors.append(Descriptor(layer.media_type, digest, size, titles))
        check_expected([item.digest for item in descriptors], expected_digest=expected_digest)
        content = encode_manifest(
            descriptors,
            artifact_type=artifact_type,
            annotations=annotations or {},
            subject=of_subject,
        )
        self.blobs.update(staged)
        self._manifests[sha256_digest(content)] = content
        return decode_manifest(content, digest=sha256_digest(content))

    def stat(self, digest: str) -> StoredArtifact:
        """See `Registry.stat`."""
        self._fail_if_told()
        return decode_manifest(self._manifest(digest), digest=digest)

    def manifest(self, digest: str) -> bytes:
        """See `Registry.manifest`."""
        self._fail_if_told()
        return self._manifest(digest)

    def read_layer(self, digest: str, *, chunk_bytes: int = 1 << 20) -> Iterator[bytes]:
        """See `Registry.read_layer`."""
        self._fail_if_told()
        content = self.blobs.get(checked_digest(digest))
        if content is None:
            raise ArtifactNotFound(f"no layer {digest} in the registry.")
        last = max(0, len(content) - 1) // chunk_bytes * chunk_bytes
        for start in range(0, last, chunk_bytes):
            yield content[start : start + chunk_bytes]
        if sha256_digest(content) != digest:
            raise DigestMismatch(f"the stored layer does not hash to {digest}.")
        if content:
            yield content[last:]

    def tag(self, repository: str, tag: str, digest: str) -> None:
        """See `Registry.tag`."""
        self._fail_if_told()
        reference = checked_reference(repository, tag)
        self._manifest(digest)
        named = self._tags.setdefault(reference, digest)
        if named != digest:
            raise TagImmutable(
                f"{reference} already names {named}: tags never move, choose another tag."
            )

    def resolve(self, repository: str, tag: str) -> str:
        """See `Registry.resolve`."""
        self._fail_if_told()
        reference = checked_reference(repository, tag)
        if reference not in self._tags:
            raise ArtifactNotFound(f"no artifact is tagged {reference}.")
        return self._tags[reference]

    def tags(self, repository: str) -> Mapping[str, str]:
        """See `Registry.tags`."""
        self._fail_if_told()
        prefix = checked_reference(repository) + ":"
        return {
            name.removeprefix(prefix): digest
            for name, digest in sorted(self._tags.items())
            if name.startswith(prefix)
        }

    def referrers(self, digest: str, *, artifact_type: str = "") -> Sequence[StoredArtifact]:
        """See `Registry.referrers`."""
        self._fail_if_told()
        checked_digest(digest)
        found = [decode_manifest(self._manifests[name], digest=name) for name in self._manifests]
        return sorted(
            (
                item
                for item in found
                if item.subject == digest and artifact_type in ("", item.artifact_type)
            ),
            key=lambda item: item.digest,
        )

    def _manifest(self, digest: str) -> bytes:
        content = self._manifests.get(checked_digest(digest))
        if content is None:
            raise ArtifactNotFound(f"no artifact {digest} in the registry.")
        return content

    def _fail_if_told(self) -> None:
        if self._failures:
            raise self._failures.pop(0)

"""Artifacts in an OCI image layout (v1.1) on this machine's disk."""

import contextlib
import errno
import fcntl
import hashlib
import json
import os
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lineage.registry.base import (
    ArtifactNotFound,
    Descriptor,
    DigestMismatch,
    LayerSource,
    RegistryError,
    RegistryUnavailable,
    StoredArtifact,
    TagImmutable,
)
from lineage.registry.manifests import (
    EMPTY_BYTES,
    EMPTY_DIGEST,
    INDEX_TYPE,
    MANIFEST_MAX_BYTES,
    MANIFEST_TYPE,
    REF_NAME_ANNOTATION,
    TITLE_ANNOTATION,
    checked_digest,
    checked_media_type,
    checked_reference,
    decode_manifest,
    encode_descriptor,
    encode_manifest,
    sha256_digest,
)
from lineage.registry.spool import check_expected, copy_layer

_LAYOUT_FILE = b'{"imageLayoutVersion":"1.0.0"}'  # the version the v1.1 image-spec still writes
_UPLOADS = "uploads"
_NO_SPACE = frozenset({errno.ENOSPC, errno.EDQUOT})


@dataclass(frozen=True, slots=True)
class _StagedLayer:
    """A layer that is on disk under a temporary name, locked while its writer lives."""

    path: Path
    handle: int
    descriptor: Descriptor


class LayoutRegistry:
    """One OCI image layout, shared safely by any number of processes.

    Layers are written to `uploads/` and renamed into `blobs/` only in the commit, which holds the
    layout's lock; `index.json` names every manifest and every tag (`repository:tag`). A writer
    killed at any point leaves at most a file in `uploads/`, which the next push removes.
    """

    def __init__(self, root: Path) -> None:
        self._root = root
        self._blobs = root / "blobs" / "sha256"
        self._index_seen: tuple[tuple[int, int, int], list[dict[str, Any]]] | None = None

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
        """See `Registry.push`. An exception of the caller's own stream passes through."""
        if not layers:
            raise RegistryError("an artifact needs at least one layer.")
        subject_descriptor = self._subject(subject)
        staged: list[_StagedLayer] = []
        try:
            with self._reporting("push"):
                self._make_layout()
            for layer in layers:
                spent = sum(item.descriptor.size for item in staged)
                budget = None if max_bytes is None else max_bytes - spent
                staged.append(self._stage(layer, budget=budget))
            check_expected(
                [item.descriptor.digest for item in staged], expected_digest=expected_digest
            )
            content = encode_manifest(
                [item.descriptor for item in staged],
                artifact_type=artifact_type,
                annotations=annotations or {},
                subject=subject_descriptor,
            )
            digest = sha256_digest(content)
            with self._reporting("push"), self._locked():
                self._commit(staged, content, digest=digest, artifact_type=artifact_type)
            return decode_manifest(content, digest=digest)
        finally:
            for item in staged:
                item.path.unlink(missing_ok=True)
                os.close(item.handle)

    def stat(self, digest: str) -> StoredArtifact:
        """See `Registry.stat`."""
        return decode_manifest(self.manifest(digest), digest=digest)

    def manifest(self, digest: str) -> bytes:
        """See `Registry.manifest`."""
        path = self._blob_path(digest)
        with self._reporting("read"):
            # Layers are blobs too: only what was pushed as a manifest is one.
            if not any(entry["digest"] == digest for entry in self._entries()):
                raise ArtifactNotFound(f"no artifact {digest} in the registry.")
            try:
                with path.open("rb") as stream:
                    content = stream.read(MANIFEST_MAX_BYTES + 1)
            except FileNotFoundError as error:
                raise ArtifactNotFound(f"the manifest {digest} is missing.") from error
        if sha256_digest(content) != digest:
            raise DigestMismatch(f"the stored manifest does not hash to {digest}.")
        return content

    def read_layer(self, digest: str, *, chunk_bytes: int = 1 << 20) -> Iterator[bytes]:
        """See `Registry.read_layer`."""
        path = self._blob_path(digest)
        hasher = hashlib.sha256()
        held = b""
        with self._reporting("read"), contextlib.ExitStack() as stack:
            try:
                stream = stack.enter_context(path.open("rb"))
            except FileNotFoundError as error:
                raise ArtifactNotFound(f"no layer {digest} in the registry.") from error
            while chunk := stream.read(chunk_bytes):
                hasher.update(chunk)
                if held:
                    yield held
                held = chunk
            if "sha256:" + hasher.hexdigest() != digest:
                raise DigestMismatch(f"the stored layer does not hash to {digest}.")
            if held:
                yield held

    def tag(self, repository: str, tag: str, digest: str) -> None:
        """See `Registry.tag`."""
        reference = checked_reference(repository, tag)
        artifact = self.stat(digest)
        with self._reporting("tag"), self._locked():
            entries = self._entries()
            named = _tagged(entries, reference)
            if named == digest:
                return
            if named:
                raise TagImmutable(
                    f"{reference} already names {named}: tags never move, choose another tag."
                )
            entry = self._entry(digest, artifact_type=artifact.artifact_type)
            entry["annotations"] = {REF_NAME_ANNOTATION: reference}
            self._write_index([*entries, entry])

    def resolve(self, repository: str, tag: str) -> str:
        """See `Registry.resolve`."""
        reference = checked_reference(repository, tag)
        with self._reporting("read"):
            digest = _tagged(self._entries(), reference)
        if not digest:
            raise ArtifactNotFound(f"no artifact is tagged {reference}.")
        return digest

    def tags(self, repository: str) -> Mapping[str, str]:
        """See `Registry.tags`."""
        prefix = checked_reference(repository) + ":"
        with self._reporting("read"):
            names = [
                (entry.get("annotations", {}).get(REF_NAME_ANNOTATION, ""), entry["digest"])
                for entry in self._entries()
            ]
        return {
            name.removeprefix(prefix): digest
            for name, digest in sorted(names)
            if name.startswith(prefix)
        }

    def referrers(self, digest: str, *, artifact_type: str = "") -> Sequence[StoredArtifact]:
        """See `Registry.referrers`. One directory per subject keeps this independent of size."""
        folder = self._root / "referrers" / checked_digest(digest).removeprefix("sha256:")
        with self._reporting("read"):
            names = sorted(os.listdir(folder)) if folder.is_dir() else []
        found = [self.stat(f"sha256:{name}") for name in names]
        return [item for item in found if artifact_type in ("", item.artifact_type)]

    def _subject(self, digest: str) -> Descriptor | None:
        if not digest:
            return None
        content = self.manifest(digest)
        return Descriptor(media_type=MANIFEST_TYPE, digest=digest, size=len(content))

    def _stage(self, layer: LayerSource, *, budget: int | None) -> _StagedLayer:
        """Copy one layer to `uploads/`, synced to disk; nothing stays when it raises."""
        checked_media_type(layer.media_type, field=f"media type of layer {layer.title!r}")
        with self._reporting("push"), self._locked():
            self._sweep_uploads()
            handle, name = tempfile.mkstemp(dir=self._root / _UPLOADS)
            fcntl.flock(handle, fcntl.LOCK_EX)
        path = Path(name)
        try:

            def write(chunk: bytes) -> None:
                with self._reporting("push"):
                    view = memoryview(chunk)
                    while view:
                        view = view[os.write(handle, view) :]

            digest, size = copy_layer(layer.stream, write, budget=budget)
            with self._reporting("push"):
                os.fchmod(handle, 0o600)
                os.fsync(handle)
        except BaseException:
            path.unlink(missing_ok=True)
            os.close(handle)
            raise
        titles = {TITLE_ANNOTATION: layer.title} if layer.title else {}
        return _StagedLayer(path, handle, Descriptor(layer.media_type, digest, size, titles))

    def _commit(
        self, staged: Sequence[_StagedLayer], content: bytes, *, digest: str, artifact_type: str
    ) -> None:
        """Make the staged layers and the manifest visible; undone when any step fails."""
        made: list[Path] = []
        try:
            for item in staged:
                target = self._blob_path(item.descriptor.digest)
                if not target.exists():
                    made.append(target)
                if item.path.exists():  # the same layer twice in one push is one blob
                    os.replace(item.path, target)
            for blob, name in ((EMPTY_BYTES, EMPTY_DIGEST), (content, digest)):
                target = self._blob_path(name)
                if not target.exists():
                    made.append(target)
                    self._write_file(target, blob)
                elif target.read_bytes() != blob:
                    self._write_file(target, blob)  # heals a damaged copy
            _sync_folder(self._blobs)
            subject = decode_manifest(content, digest=digest).subject
            if subject:
                mark = self._root / "referrers" / subject.removeprefix("sha256:") / digest[7:]
                mark.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
                if not mark.exists():
                    made.append(mark)
                mark.touch(mode=0o600)
                _sync_folder(mark.parent)
            entries = self._entries()
            if not any(entry["digest"] == digest for entry in entries):
                self._write_index([*entries, self._entry(digest, artifact_type=artifact_type)])
        except BaseException:
            # The lock is held, so no other manifest can have come to need these meanwhile.
            for path in made:
                path.unlink(missing_ok=True)
            raise

    def _entry(self, digest: str, *, artifact_type: str) -> dict[str, Any]:
        size = self._blob_path(digest).stat().st_size
        entry = encode_descriptor(Descriptor(MANIFEST_TYPE, digest, size))
        entry["artifactType"] = artifact_type
        return entry

    def _entries(self) -> list[dict[str, Any]]:
        """The manifests in index.json; read again only when the file changed."""
        path = self._root / "index.json"
        try:
            with path.open("rb") as stream:
                status = os.fstat(stream.fileno())
                stamp = (status.st_ino, status.st_mtime_ns, status.st_size)
                if self._index_seen and self._index_seen[0] == stamp:
                    return self._index_seen[1]
                content = stream.read()
        except FileNotFoundError:
            return []
        try:
            entries: list[dict[str, Any]] = json.loads(content)["manifests"]
        except (ValueError, KeyError, TypeError) as error:
            raise RegistryError(
                f"{path} is not an OCI index: restore it from a backup; the blobs are untouched."
            ) from error
        self._index_seen = (stamp, entries)
        return entries

    def _write_index(self, entries: list[dict[str, Any]]) -> None:
        document: dict[str, Any] = {
            "schemaVersion": 2,
            "mediaType": INDEX_TYPE,
            "manifests": entries,
        }
        # The C encoder: every push writes the whole index, and nothing refers to it by digest.
        content = json.dumps(document, sort_keys=True, separators=(",", ":")).encode()
        path = self._root / "index.json"
        self._write_file(path, content)
        _sync_folder(self._root)
        status = path.stat()  # still ours: the lock is held
        self._index_seen = ((status.st_ino, status.st_mtime_ns, status.st_size), entries)

    def _write_file(self, path: Path, content: bytes) -> None:
        """Write atomically: readers see the old bytes or the new ones, also after a crash."""
        handle, name = tempfile.mkstemp(dir=self._root / _UPLOADS)
        try:
            with os.fdopen(handle, "wb") as stream:
                stream.write(content)
                stream.flush()
                os.fsync(stream.fileno())
            os.replace(name, path)
        except BaseException:
            Path(name).unlink(missing_ok=True)
            raise

    def _blob_path(self, digest: str) -> Path:
        return self._blobs / checked_digest(digest).removeprefix("sha256:")

    def _make_layout(self) -> None:
        if (self._root / "oci-layout").exists() and (self._root / _UPLOADS).is_dir():
            return
        self._root.mkdir(mode=0o700, parents=True, exist_ok=True)
        for folder in (self._blobs, self._root / _UPLOADS):
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        with self._locked():
            if not (self._root / "index.json").exists():
                self._write_index([])
            self._write_file(self._root / "oci-layout", _LAYOUT_FILE)

    def _sweep_uploads(self) -> None:
        """Remove what a killed writer left; a living one holds a lock on its file."""
        for path in (self._root / _UPLOADS).iterdir():
            try:
                handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
            except FileNotFoundError:
                continue  # its writer finished in between
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                path.unlink(missing_ok=True)
            except BlockingIOError:
                continue
            finally:
                os.close(handle)

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        handle = os.open(self._root / ".lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX)
            yield
        finally:
            os.close(handle)

    @contextlib.contextmanager
    def _reporting(self, verb: str) -> Iterator[None]:
        """Turn what the disk says into the port's errors."""
        try:
            yield
        except OSError as error:
            if error.errno in _NO_SPACE:
                raise RegistryUnavailable(
                    f"the registry's disk is full: free space under {self._root} and try again."
                ) from error
            raise RegistryUnavailable(
                f"the registry could not {verb} under {self._root}: {error.strerror}."
            ) from error


def _tagged(entries: Sequence[Mapping[str, Any]], reference: str) -> str:
    for entry in entries:
        if entry.get("annotations", {}).get(REF_NAME_ANNOTATION) == reference:
            return str(entry["digest"])
    return ""


def _sync_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)

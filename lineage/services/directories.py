"""Model directories: a tar stream becomes an artifact of one layer a file, signed as a whole."""

import tarfile
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path, PurePosixPath
from typing import BinaryIO

from lineage.models import Artifact
from lineage.registry import get_registry
from lineage.registry.base import ArtifactTooLarge, LayerSource, Registry
from lineage.services.artifacts import (
    ARTIFACT_TYPE,
    ArtifactError,
    Origin,
    Upload,
    keep_artifact,
    provenance_statement,
)
from lineage.signing import get_signer
from lineage.signing.base import Signer

DIRECTORY_MEDIA_TYPE = "application/vnd.orchestration.ai.directory"
FILES_MAX = 1000
DEPTH_MAX = 8
COPY_BYTES = 1 << 20


class DirectoryInvalid(ArtifactError):
    """The tar stream holds something a model directory may not; the text names it."""


def push_directory(
    upload: Upload,
    origin: Origin,
    *,
    registry: Registry | None = None,
    signer: Signer | None = None,
) -> Artifact:
    """Store and sign a directory given as an uncompressed tar; same files, same digest.

    The signature is a model-signing (OMS) bundle over all files. Raises DirectoryInvalid,
    `RegistryError`s, `SigningError`s; nothing is kept of what is refused.
    """
    registry, signer = registry or get_registry(), signer or get_signer()
    with _unpacked(upload.stream, max_bytes=upload.max_bytes) as folder:
        names = sorted(_files_of(folder))
        with ExitStack() as opened:
            stored = registry.push(
                [
                    LayerSource(
                        opened.enter_context((folder / name).open("rb")),
                        "application/octet-stream",
                        name,
                    )
                    for name in names
                ],
                artifact_type=ARTIFACT_TYPE.format(kind=upload.kind),
                annotations={"org.opencontainers.image.title": upload.name},
            )
        return keep_artifact(
            stored,
            upload,
            origin,
            provenance_statement(stored, upload, origin),
            registry=registry,
            signer=signer,
            sign_content=lambda: signer.sign_model(folder, identity=origin.identity),
            content_digest=stored.digest,
        )


@contextmanager
def _unpacked(stream: BinaryIO, *, max_bytes: int | None) -> Iterator[Path]:
    """The files of the stream in a folder that is gone afterwards."""
    with tempfile.TemporaryDirectory(prefix="clearance-model-") as name:
        folder = Path(name)
        left = max_bytes
        count = 0
        try:
            # Not "r|*": a compressed stream could be a bomb; weights hardly compress anyway.
            with tarfile.open(fileobj=stream, mode="r|") as archive:
                for member in archive:
                    if member.isdir():
                        continue
                    count += 1
                    if count > FILES_MAX:
                        raise DirectoryInvalid(f"More than {FILES_MAX} files in one directory.")
                    left = _extract(archive, member, folder, left)
        except tarfile.TarError as error:
            raise DirectoryInvalid(f"The body is not an uncompressed tar: {error}") from error
        if count == 0:
            raise DirectoryInvalid("The directory has no files.")
        yield folder


def _extract(
    archive: tarfile.TarFile, member: tarfile.TarInfo, folder: Path, left: int | None
) -> int | None:
    """Write one file; returns how many bytes may still come."""
    path = PurePosixPath(member.name)
    is_plain = all(part not in ("", ".", "..") for part in path.parts)
    if not member.isfile() or path.is_absolute() or not is_plain or "\\" in member.name:
        raise DirectoryInvalid(
            f"{member.name!r}: only plain files with relative names below the directory."
        )
    if len(path.parts) > DEPTH_MAX or any(ord(letter) < 0x20 for letter in member.name):
        raise DirectoryInvalid(f"{member.name!r}: too deep, or not a printable name.")
    if left is not None:
        left -= member.size
        if left < 0:
            raise ArtifactTooLarge("The directory is larger than allowed.")
    target = folder.joinpath(*path.parts)
    target.parent.mkdir(parents=True, exist_ok=True)
    source = archive.extractfile(member)
    if source is None or target.exists():
        raise DirectoryInvalid(f"{member.name!r}: is twice in the directory.")
    with target.open("xb") as file:
        while chunk := source.read(COPY_BYTES):
            file.write(chunk)
    return left


def _files_of(folder: Path) -> Iterator[str]:
    for path in folder.rglob("*"):
        if path.is_file():
            yield path.relative_to(folder).as_posix()

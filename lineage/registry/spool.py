"""Reading a layer once: copied, hashed and counted, with a cap on its size."""

import hashlib
from collections.abc import Callable
from typing import BinaryIO

from lineage.registry.base import ArtifactTooLarge, DigestMismatch

CHUNK_BYTES = 1 << 20


def copy_layer(
    source: BinaryIO, write: Callable[[bytes], object], *, budget: int | None
) -> tuple[str, int]:
    """Copy `source` through `write`; returns the digest and the size in bytes.

    `budget` is how many bytes are still allowed. Raises ArtifactTooLarge as soon as it is passed,
    so an endless stream costs one chunk more than the budget and no more.
    """
    hasher = hashlib.sha256()
    size = 0
    while chunk := source.read(CHUNK_BYTES):
        size += len(chunk)
        if budget is not None and size > budget:
            raise ArtifactTooLarge(
                f"the upload is over the {budget} bytes allowed: make it smaller or raise "
                "UPLOAD_MAX_BYTES."
            )
        hasher.update(chunk)
        write(chunk)
    return "sha256:" + hasher.hexdigest(), size


def check_expected(digests: list[str], *, expected_digest: str) -> None:
    """Raise DigestMismatch unless the one layer has the digest its sender announced."""
    if not expected_digest:
        return
    announced = expected_digest if ":" in expected_digest else f"sha256:{expected_digest}"
    if digests != [announced]:
        raise DigestMismatch(
            f"the upload hashes to {', '.join(digests)}, not to the announced {announced}: "
            "send it again."
        )

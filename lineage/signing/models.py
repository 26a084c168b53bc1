"""Model directories in the terms of OpenSSF model signing (predicate v1.0)."""

import hashlib
import os
from pathlib import Path, PurePosixPath
from typing import Any

from lineage.signing.base import SigningError, SigningUnavailable
from lineage.signing.bundles import STATEMENT_TYPE

_PREDICATE_TYPE = "https://model_signing/signature/v1.0"
# What the reference implementation leaves out unless told otherwise; its verifier does the same.
_IGNORED = (".git", ".gitattributes", ".github", ".gitignore")


def model_statement(directory: Path) -> dict[str, Any]:
    """The in-toto statement over every file of `directory`, by SHA-256.

    Raises SigningError for a link, a special file or an empty directory: what cannot be signed
    must not look signed.
    """
    try:
        names = _file_names(directory)
        resources = [
            {"name": str(name), "algorithm": "sha256", "digest": _file_digest(directory / name)}
            for name in names
        ]
    except OSError as error:
        raise SigningUnavailable(f"{directory} cannot be read: {error.strerror}.") from error
    if not resources:
        raise SigningError(f"{directory} has no file to sign.")
    whole = hashlib.sha256(b"".join(bytes.fromhex(item["digest"]) for item in resources))
    return {
        "_type": STATEMENT_TYPE,
        "subject": [{"name": directory.resolve().name, "digest": {"sha256": whole.hexdigest()}}],
        "predicateType": _PREDICATE_TYPE,
        "predicate": {
            "serialization": {
                "method": "files",
                "hash_type": "sha256",
                "allow_symlinks": False,
                "ignore_paths": list(_IGNORED),
            },
            "resources": resources,
        },
    }


def _file_names(directory: Path) -> list[PurePosixPath]:
    if not directory.is_dir():
        raise SigningError(f"{directory} is not a directory.")
    names: list[PurePosixPath] = []
    for folder, subfolders, files in os.walk(directory):
        here = Path(folder)
        if here == directory:
            subfolders[:] = [name for name in subfolders if name not in _IGNORED]
            files = [name for name in files if name not in _IGNORED]
        for name in (*subfolders, *files):
            path = here / name
            if path.is_symlink() or not (path.is_dir() or path.is_file()):
                raise SigningError(f"{path} is a link or a special file: put a plain file there.")
        names.extend(PurePosixPath((here / name).relative_to(directory)) for name in files)
    return sorted(names)  # by path component, the order the specification's verifier rebuilds


def _file_digest(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()

"""The embedded store's token: made once, by whichever process comes first."""

import contextlib
import os
import secrets
from pathlib import Path

TOKEN_BYTES = 32


def store_token(path: Path) -> str:
    """Read the token, making it (0600, in a 0700 directory) when it is not there yet.

    Safe to race: the file appears complete or not at all, and everybody reads the winner's.
    Raises: OSError when the directory cannot be written or the file not read.
    """
    try:
        return path.read_text(encoding="ascii").strip()
    except FileNotFoundError:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    draft = path.with_name(f".{path.name}.{os.getpid()}.{secrets.token_hex(4)}")
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(descriptor, "w", encoding="ascii") as file:
            file.write(secrets.token_urlsafe(TOKEN_BYTES) + "\n")
            file.flush()
            os.fsync(file.fileno())
        with contextlib.suppress(FileExistsError):
            os.link(draft, path)
    finally:
        draft.unlink(missing_ok=True)
    return path.read_text(encoding="ascii").strip()

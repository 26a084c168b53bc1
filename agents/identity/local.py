"""Our own trust domain: its keys in one file that only the owner of the processes may read."""

import contextlib
import fcntl
import os
import stat
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from agents.identity.authority import (
    Authority,
    AuthorityUnreadable,
    authority_from_json,
    new_authority,
)
from agents.identity.base import IdentityUnavailable
from agents.identity.issuing import Clock, IssuingTrustDomain, utc_now

KEYS_FILE: Final = "authority.json"
LOCK_FILE: Final = "lock"
DIRECTORY_MODE: Final = 0o700
FILE_MODE: Final = 0o600
OTHERS: Final = 0o077  # any permission of group or world
LOCK_TIMEOUT_SECONDS: Final = 10.0  # creating keys takes milliseconds; longer is a stuck process
LOCK_POLL_SECONDS: Final = 0.02

_Version = tuple[int, int, int]  # inode, mtime in ns, size: changes with every atomic replacement


class LocalTrustDomain(IssuingTrustDomain):
    """A SPIFFE CA whose keys lie in `directory`, created on first use by whoever comes first.

    Every process that is given the same directory is the same trust domain: the keys are created
    under a file lock and put in place by one rename, and a rotation by one process is seen by the
    next call in every other.
    """

    def __init__(
        self,
        name: str,
        *,
        directory: Path,
        clock: Clock = utc_now,
        lock_timeout_seconds: float = LOCK_TIMEOUT_SECONDS,
    ) -> None:
        super().__init__(name, clock=clock)
        self._directory = directory
        self._path = directory / KEYS_FILE
        self._lock_timeout_seconds = lock_timeout_seconds
        self._lock = threading.Lock()
        self._loaded: tuple[_Version, Authority] | None = None

    def rotate_jwt_key(self) -> None:
        """Publish a new JWT key; it signs once relying parties have had time to fetch it.

        Keys whose last token can neither be used nor renewed any more are dropped.
        Raises `IdentityUnavailable`.
        """
        self._authority()
        with self._sentences(), self._exclusive():
            self._write(self._read().rotated(self._clock()))

    def _authority(self) -> Authority:
        with self._sentences():
            try:
                return self._current()
            except FileNotFoundError:
                self._create()
                return self._current()

    def _current(self) -> Authority:
        version = _version(self._path)
        with self._lock:
            if self._loaded is None or self._loaded[0] != version:
                self._loaded = (version, self._read())
            return self._loaded[1]

    def _create(self) -> None:
        for folder in reversed([self._directory, *self._directory.parents]):
            with contextlib.suppress(FileExistsError):
                folder.mkdir(mode=DIRECTORY_MODE)
        with self._exclusive():
            if not self._path.exists():
                self._write(new_authority(self._name, now=self._clock()))

    def _read(self) -> Authority:
        _refuse_others(self._directory, "700")
        _refuse_others(self._path, "600")
        authority = authority_from_json(self._path.read_text(encoding="utf-8"))
        if authority.trust_domain != self._name:
            raise IdentityUnavailable(
                f"{self._path} holds the keys of {authority.trust_domain}, but TRUST_DOMAIN_URL "
                f"names {self._name}: change one, or move the file away for new keys."
            )
        return authority

    def _write(self, authority: Authority) -> None:
        """Replace the file in one step; the lock makes the temporary name ours alone."""
        fresh = self._directory / f"{KEYS_FILE}.new"
        descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, FILE_MODE)
        with open(descriptor, "w", encoding="utf-8") as file:
            os.fchmod(descriptor, FILE_MODE)  # a left-over of a killed process may differ
            file.write(authority.to_json())
            file.flush()
            os.fsync(descriptor)
        fresh.replace(self._path)
        folder = os.open(self._directory, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)

    @contextlib.contextmanager
    def _exclusive(self) -> Iterator[None]:
        """Hold the file lock; the kernel releases it when the process dies."""
        descriptor = os.open(self._directory / LOCK_FILE, os.O_RDWR | os.O_CREAT, FILE_MODE)
        deadline = time.monotonic() + self._lock_timeout_seconds
        try:
            while True:
                try:
                    fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                except BlockingIOError as error:
                    if time.monotonic() > deadline:
                        raise IdentityUnavailable(
                            f"Another process holds {self._directory / LOCK_FILE} for more than "
                            f"{self._lock_timeout_seconds:g} s: end it and try again."
                        ) from error
                    time.sleep(LOCK_POLL_SECONDS)
            yield
        finally:
            os.close(descriptor)

    @contextlib.contextmanager
    def _sentences(self) -> Iterator[None]:
        """Turn what a file system can do to us into the port's error, naming the path."""
        try:
            yield
        except AuthorityUnreadable as error:
            raise IdentityUnavailable(
                f"{self._path} is damaged ({error}): restore it from a backup, or move it away "
                "for new keys (every identity issued so far then ends)."
            ) from error
        except UnicodeDecodeError as error:
            raise IdentityUnavailable(
                f"{self._path} is damaged (not text): restore it from a backup, or move it away "
                "for new keys (every identity issued so far then ends)."
            ) from error
        except OSError as error:
            raise IdentityUnavailable(
                f"The identity keys under {self._directory} cannot be used: {error.strerror}."
            ) from error


def _version(path: Path) -> _Version:
    found = path.stat()
    return (found.st_ino, found.st_mtime_ns, found.st_size)


def _refuse_others(path: Path, wanted: str) -> None:
    if stat.S_IMODE(path.stat().st_mode) & OTHERS:
        raise IdentityUnavailable(
            f"{path} can be read by other users of this machine: run chmod {wanted} {path}."
        )

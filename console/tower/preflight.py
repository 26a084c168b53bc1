"""What must be true before anything starts; each refusal is one line that names the fix."""

import contextlib
import errno
import fcntl
import os
import secrets
import shutil
import socket
import stat
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

PRIVATE_DIRECTORY = 0o700
PRIVATE_FILE = 0o600
FREE_MIN_BYTES = 256 << 20  # below this the databases would soon stop half-way
# `struct sockaddr_un` holds 108 bytes with the final zero (unix(7)).
SOCKET_PATH_MAX_BYTES = 107
SUBDIRECTORIES = ("run", "logs", "keys", "static")
# A workload that asks whether the tower lives holds its lock for a moment; so one look is not
# enough to tell that from a second tower.
LOCK_PATIENCE_SECONDS = 1.0


class Refused(Exception):
    """The tower cannot start; the message is one line that names the fix."""


def open_data_directory(path: Path, *, free_min_bytes: int = FREE_MIN_BYTES) -> None:
    """Make the data directory usable: there, ours alone (0700), writable, with room left.

    Safe to repeat. Raises `Refused`.
    """
    try:
        path.mkdir(parents=True, exist_ok=True, mode=PRIVATE_DIRECTORY)
        if stat.S_IMODE(path.stat().st_mode) & 0o077:
            path.chmod(PRIVATE_DIRECTORY)
        for name in SUBDIRECTORIES:
            (path / name).mkdir(exist_ok=True, mode=PRIVATE_DIRECTORY)
        probe = path / "run" / "probe"
        probe.write_bytes(b"x" * 4096)
        probe.unlink()
    except OSError as error:
        raise Refused(_directory_fix(path, error)) from error
    if (free := shutil.disk_usage(path).free) < free_min_bytes:
        raise Refused(
            f"CLEARANCE_DATA={path}: only {free >> 20} MiB are free and {free_min_bytes >> 20} MiB "
            "are needed: free space, or set CLEARANCE_DATA to a directory on another disk."
        )


def _directory_fix(path: Path, error: OSError) -> str:
    elsewhere = "or set CLEARANCE_DATA to a directory that is yours"
    match error.errno:
        case errno.ENOSPC | errno.EDQUOT:
            why = "the disk is full: free space"
        case errno.EROFS:
            why = "the disk is read-only: remount it writable"
        case errno.EPERM | errno.EACCES:
            why = f"not permitted: run `chown -R $(id -un) {path}`"
        case errno.EEXIST | errno.ENOTDIR:
            why = "a file is in the way: move it away"
        case _:
            why = f"{error.strerror}: correct that"
    return f"CLEARANCE_DATA={path}: {why}, {elsewhere}."


def check_socket_path(path: Path) -> None:
    """Raise `Refused` when the kernel cannot hold the path of a unix socket."""
    if len(os.fsencode(path)) > SOCKET_PATH_MAX_BYTES:
        raise Refused(
            f"The socket {path} has a path longer than {SOCKET_PATH_MAX_BYTES} bytes: set "
            "CLEARANCE_DATA to a shorter one."
        )


@contextlib.contextmanager
def tower_lock(path: Path, *, patience_seconds: float = LOCK_PATIENCE_SECONDS) -> Iterator[None]:
    """Hold the lock that says "a tower runs on this data directory" (flock, freed by the kernel).

    The file holds the pid. Raises `Refused` when another tower holds it.
    """
    with path.open("a+", encoding="ascii") as file:
        path.chmod(PRIVATE_FILE)
        deadline = time.monotonic() + patience_seconds
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError as error:
                if time.monotonic() < deadline:
                    time.sleep(0.05)
                    continue
                file.seek(0)
                pid = file.read().strip() or "unknown"
                raise Refused(
                    f"A tower (pid {pid}) already runs on {path.parent.parent}: stop it with "
                    f"`kill {pid}`, or set CLEARANCE_DATA to another directory."
                ) from error
        file.truncate(0)
        file.write(f"{os.getpid()}\n")
        file.flush()
        yield


def check_ports(addresses: Mapping[str, tuple[str, int]]) -> None:
    """Raise `Refused` unless every (host, port) can be listened on; keys are variable names."""
    taken: dict[tuple[str, int], str] = {}
    for variable, (host, port) in addresses.items():
        if (other := taken.setdefault((host, port), variable)) != variable:
            raise Refused(f"{variable} and {other} are both {port}: set one to another port.")
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        try:
            with socket.socket(family, socket.SOCK_STREAM) as probe:
                # As the servers do: a port whose old connections still linger is free.
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                probe.bind((host, port))
        except OSError as error:
            raise Refused(_port_fix(variable, host=host, port=port, error=error)) from error


def _port_fix(variable: str, *, host: str, port: int, error: OSError) -> str:
    if error.errno == errno.EADDRINUSE:
        return (
            f"{variable}={port} is already in use on {host}: stop the program that holds it "
            f"(`ss -ltnp 'sport = :{port}'` names it), or set {variable} to a free port."
        )
    if error.errno in (errno.EACCES, errno.EPERM):
        return f"{variable}={port} is reserved for root: set {variable} to a port above 1023."
    return f"{variable}={port} on {host}: {error.strerror or error}: correct the host or the port."


def keep_secret(path: Path) -> None:
    """Make a file with a random secret (0600) unless it is there; all of it appears at once.

    Safe to repeat and to interrupt: the secret of the first complete call stays.
    """
    if path.exists():
        path.chmod(PRIVATE_FILE)
        return
    draft = path.with_name(f"{path.name}.{os.getpid()}")
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, PRIVATE_FILE)
    try:
        with os.fdopen(descriptor, "w", encoding="ascii") as file:
            file.write(secrets.token_urlsafe(50))
            file.flush()
            os.fsync(file.fileno())
        with contextlib.suppress(FileExistsError):
            os.link(draft, path)  # unlike rename, never replaces a secret made meanwhile
    finally:
        draft.unlink()

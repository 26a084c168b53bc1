"""Starts the embedded store: `python -m lineage.telemetry.store --path DIR --token-file FILE`."""

import argparse
import contextlib
import errno
import fcntl
import logging
import os
import signal
import socket
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NoReturn

import uvicorn

from lineage.telemetry.store_token import store_token

MEBIBYTE = 1 << 20
DEFAULT_MEMORY_MIB = 768  # what the engine may use at its peak; idle it takes a tenth of that
DEFAULT_MAX_BODY_MIB = 64
MIN_FREE_BYTES = 64 * MEBIBYTE  # below this a merge can fail halfway
SHUTDOWN_SECONDS = 10
BACKLOG = 128
EXIT_CANNOT_START = 1


class Server(uvicorn.Server):
    """A server whose end is a normal exit: uvicorn would raise the signal again afterwards."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self.handle_exit)
        yield


def refuse(sentence: str) -> NoReturn:
    """End with one line that names the fix."""
    print(f"store: {sentence}", file=sys.stderr, flush=True)  # noqa: T201
    raise SystemExit(EXIT_CANNOT_START)


def prepare_directory(path: Path) -> int:
    """Make sure the directory is ours alone and can be written; returns the held lock."""
    try:
        path.mkdir(parents=True, exist_ok=True, mode=0o700)
        lock = os.open(path / "store.lock", os.O_RDWR | os.O_CREAT, 0o600)
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.ftruncate(lock, 0)
        os.write(lock, f"{os.getpid()}\n".encode())
        os.fsync(lock)
        free = os.statvfs(path)
    except BlockingIOError:
        owner = (path / "store.lock").read_text().strip() or "unknown"
        refuse(f"another store (process {owner}) uses {path}; stop it or give another --path.")
    except OSError as error:
        refuse(disk_sentence(path, error))
    if free.f_bavail * free.f_frsize < MIN_FREE_BYTES:
        refuse(f"the disk under {path} is full; free at least {MIN_FREE_BYTES // MEBIBYTE} MiB.")
    return lock


def disk_sentence(path: Path, error: OSError) -> str:
    """What is wrong with the disk and what to do."""
    match error.errno:
        case errno.EROFS | errno.EACCES | errno.EPERM:
            return (
                f"{path} cannot be written; make it writable for this user or give another --path."
            )
        case errno.ENOSPC | errno.EDQUOT:
            return f"the disk under {path} is full; free some space."
        case errno.ENOTDIR | errno.EEXIST:
            return f"{path} is not a directory; give another --path."
    return f"{path} cannot be used: {error.strerror}."


def listening_socket(host: str, port: int) -> socket.socket:
    """A bound socket, before anything slow is loaded."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    sock = socket.socket(family, socket.SOCK_STREAM)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        sock.bind((host, port))
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            refuse(f"port {port} on {host} is in use; stop what uses it or set STORE_PORT.")
        refuse(f"cannot listen on {host}:{port}: {error.strerror}.")
    sock.listen(BACKLOG)
    return sock


def arguments(argv: list[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m lineage.telemetry.store", description=__doc__)
    parser.add_argument("--path", type=Path, required=True, help="directory of the data")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, required=True, help="0 picks a free one")
    parser.add_argument("--token-file", type=Path, required=True, help="made when absent")
    parser.add_argument("--memory-mib", type=int, default=DEFAULT_MEMORY_MIB)
    parser.add_argument("--max-body-mib", type=int, default=DEFAULT_MAX_BODY_MIB)
    parsed = parser.parse_args(argv)
    if "?" in str(parsed.path):
        parser.error("--path must not contain a question mark")
    return parsed


def main(argv: list[str] | None = None) -> int:
    """Serve until SIGTERM; returns the exit status."""
    options = arguments(argv)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s %(message)s")
    path = options.path.absolute()
    options.token_file = options.token_file.absolute()
    lock = prepare_directory(path)
    try:
        token = store_token(options.token_file)
    except OSError as error:
        refuse(disk_sentence(options.token_file, error))
    sock = listening_socket(options.host, options.port)
    # The engine keeps compiled schemas in `__cache__` below wherever the process stands.
    os.chdir(path)
    # Only here, behind every check that can end the process early: loading the engine takes a
    # second, and nothing may fork once it is in.
    from lineage.telemetry.store.engine import Engine  # noqa: PLC0415
    from lineage.telemetry.store.http import StoreApp  # noqa: PLC0415

    try:
        engine = Engine(path / "chdb", memory_mib=options.memory_mib)
    except Exception as error:
        reason = " ".join(str(error).split())[:400]
        refuse(
            f"the data under {path} cannot be opened; restore it from a backup, or move it away"
            f" to start empty. The engine says: {reason}"
        )
    if broken := engine.broken_parts():
        refuse(
            f"the data under {path} is damaged ({', '.join(broken)}); restore it from a backup,"
            " or delete those parts from their detached/ folder to accept the loss."
        )
    app = StoreApp(engine, token=token, max_body_bytes=options.max_body_mib * MEBIBYTE)
    config = uvicorn.Config(
        app,
        lifespan="off",
        access_log=False,
        server_header=False,
        log_config=None,
        log_level="warning",
        timeout_graceful_shutdown=SHUTDOWN_SECONDS,
    )
    host, port = sock.getsockname()[:2]
    print(f"store: ready on http://{host}:{port}", flush=True)  # noqa: T201
    Server(config).run(sockets=[sock])
    engine.close()
    os.close(lock)
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""Run a command against a throw-away PostgreSQL and Redis.

Called as `python tests/with_servers.py COMMAND …`. Both are Debian's programs, started in a
temporary directory on loopback ports of their own and stopped afterwards. The command finds them
in DATABASE_URL and REDIS_URL. Exits with the command's status, or with 77 and one line that names
what is missing.
"""

import contextlib
import ctypes
import os
import pwd
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

EXIT_SKIPPED = 77  # what automake's test driver calls a skip
START_SECONDS = 60.0
STOP_SECONDS = 20.0
POSTGRES_DIRECTORIES = "/usr/lib/postgresql/*/bin"  # Debian keeps them off the PATH
PR_SET_PDEATHSIG = 1


class MissingServer(Exception):
    """A server's program is not installed; the message names it and the package."""


def find_postgres() -> Path:
    """The directory of the newest `initdb` and `postgres`. Raises MissingServer."""
    found = [Path(path).parent for path in [shutil.which("initdb")] if path]
    installed = Path("/").glob(POSTGRES_DIRECTORIES.lstrip("/"))
    found += sorted(installed, key=lambda path: float(path.parent.name), reverse=True)
    for directory in found:
        if (directory / "initdb").exists() and (directory / "postgres").exists():
            return directory
    raise MissingServer("needs PostgreSQL: apt-get install postgresql")


def find_redis() -> str:
    """The path of a Redis or Valkey server. Raises MissingServer."""
    for name in ("redis-server", "valkey-server"):
        if path := shutil.which(name):
            return path
    raise MissingServer("needs Redis: apt-get install redis-server")


@contextlib.contextmanager
def servers(*, is_durable: bool = False) -> Iterator[dict[str, str]]:
    """Both servers running; yields the variables that point to them.

    Unless `is_durable`, PostgreSQL never waits for the disk: the database lives for minutes, and
    a power cut fails the run anyway.
    """
    postgres, redis = find_postgres(), find_redis()
    with tempfile.TemporaryDirectory(prefix="clearance-servers-") as name:
        directory = Path(name)
        with contextlib.ExitStack() as stack:
            yield {
                "DATABASE_URL": stack.enter_context(
                    _postgres(postgres, directory, is_durable=is_durable)
                ),
                "REDIS_URL": stack.enter_context(_redis(redis, directory)),
            }


def _unprivileged_user() -> str | None:
    """Whom to run PostgreSQL as: it refuses root."""
    if os.geteuid() != 0:
        return None
    for name in ("postgres", "nobody"):
        with contextlib.suppress(KeyError):
            return pwd.getpwnam(name).pw_name
    raise MissingServer("needs a user other than root to run PostgreSQL as")


@contextlib.contextmanager
def _postgres(binaries: Path, directory: Path, *, is_durable: bool) -> Iterator[str]:
    user, password, port = _unprivileged_user(), secrets.token_urlsafe(16), free_port()
    home = directory / "postgres"
    home.mkdir(mode=0o700)
    password_file = home / "password"
    password_file.write_text(password)
    if user is not None:
        directory.chmod(0o711)  # so that the other user can reach its own directory
        shutil.chown(home, user)
        shutil.chown(password_file, user)
    _finish(
        [str(binaries / "initdb"), "-D", str(home / "db"), "-U", "clearance", "-A", "scram-sha-256",
         "--pwfile", str(password_file), "--no-sync", "--encoding", "UTF8", "--locale", "C.UTF-8"],
        user=user, directory=home,
    )  # fmt: skip
    switches = ("fsync", "full_page_writes", "synchronous_commit")
    options = {} if is_durable else dict.fromkeys(switches, "off")
    command = [str(binaries / "postgres"), "-D", str(home / "db"), "-k", str(home),
               "-h", "127.0.0.1", "-p", str(port),
               *(word for item in options.items() for word in ("-c", "=".join(item)))]  # fmt: skip
    # SIGINT is PostgreSQL's fast shutdown: it does not wait for connections left open.
    with _running(command, user=user, directory=home, stop=signal.SIGINT) as process:
        _wait_for_port(port, process, home)
        yield f"postgres://clearance:{password}@127.0.0.1:{port}/postgres"


@contextlib.contextmanager
def _redis(program: str, directory: Path) -> Iterator[str]:
    home, port, password = directory / "redis", free_port(), secrets.token_urlsafe(16)
    home.mkdir(mode=0o700)
    configuration = home / "redis.conf"
    configuration.write_text(
        f'bind 127.0.0.1\nport {port}\nrequirepass {password}\nsave ""\nappendonly no\ndir {home}\n'
    )
    with _running([program, str(configuration)], user=None, directory=home) as process:
        _wait_for_port(port, process, home)
        yield f"redis://default:{password}@127.0.0.1:{port}/0"


def _finish(command: Sequence[str], *, user: str | None, directory: Path) -> None:
    done = subprocess.run(command, user=user, cwd=directory, capture_output=True, check=False)
    if done.returncode != 0:
        raise RuntimeError(f"{command[0]}: {done.stderr.decode(errors='replace').strip()}")


def with_parent_death() -> None:
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


@contextlib.contextmanager
def _running(
    command: Sequence[str],
    *,
    user: str | None,
    directory: Path,
    stop: signal.Signals = signal.SIGTERM,
) -> Iterator[subprocess.Popen[bytes]]:
    with (directory / "log").open("wb") as log:
        process = subprocess.Popen(
            command, user=user, cwd=directory, stdout=log, stderr=log, preexec_fn=with_parent_death,
            start_new_session=True,
        )  # fmt: skip
    try:
        yield process
    finally:
        process.send_signal(stop)
        try:
            process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def free_port() -> int:
    """A TCP port that was free a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _wait_for_port(port: int, process: subprocess.Popen[bytes], directory: Path) -> None:
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline and process.poll() is None:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
            return
        time.sleep(0.05)
    said = (directory / "log").read_text(errors="replace")[-2000:]
    raise RuntimeError(f"{process.args[0]} did not start on port {port}:\n{said}")  # type: ignore[index]


def main(command: Sequence[str]) -> int:
    """Run the command between the servers' start and stop."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    try:
        with servers() as environment:
            return subprocess.run(
                command, env={**os.environ, **environment}, check=False
            ).returncode
    except MissingServer as missing:
        print(f"SKIPPED: {missing}", file=sys.stderr)
        return EXIT_SKIPPED


if __name__ == "__main__":
    if len(sys.argv) < 2:
        sys.exit(__doc__)
    sys.exit(main(sys.argv[1:]))

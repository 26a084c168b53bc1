"""Starts a workload's program with nothing inherited, and keeps what it prints up to a limit."""

import errno
import fcntl
import os
import resource
import signal
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

from .processes import PR_SET_NO_NEW_PRIVS, PR_SET_PDEATHSIG, prctl
from .records import FILE_MODE

OPEN_FILES_MAX = 4096
# Reserved but untouched memory is no use of memory: the watch on resident memory is the limit, and
# this much address space for data above it only stops an allocation that outruns the watch.
DATA_HEADROOM_BYTES = 512 << 20
READ_BYTES = 1 << 20
EXIT_NOT_STARTED = 127  # as a shell says "command not found"


@dataclass(frozen=True, slots=True)
class Started:
    """A forked child that waits for `let_go` before it becomes the program."""

    pid: int
    go: int
    failure: int

    def let_go(self) -> str:
        """Let the child become the program; why it could not, or ""."""
        with open(self.go, "wb", buffering=0) as stream:
            stream.write(b"!")
        with open(self.failure, "rb", buffering=0) as stream:
            number = stream.read(16)
        return os.strerror(int(number)) if number else ""


def fork_program(
    program: str,
    *,
    arguments: Sequence[str],
    environment: Mapping[str, str],
    working_directory: Path,
    output: int,
    memory_bytes: int | None,
) -> Started:
    """Fork the child that will be the program, in a session and process group of its own.

    It waits for `let_go`, so that its pid can be on disk before its first instruction; when the
    shim dies before that, the pipe closes and the child ends without having run anything.
    """
    wait, go = os.pipe()
    failure, report = os.pipe()
    shim = os.getpid()
    pid = os.fork()
    if pid:
        os.close(wait)
        os.close(report)
        return Started(pid=pid, go=go, failure=failure)
    try:
        os.close(go)
        os.setsid()
        _confine(shim, memory_bytes=memory_bytes)
        os.chdir(working_directory)
        _connect_output(output)
        if os.read(wait, 1):
            os.execve(program, list(arguments), dict(environment))  # noqa: S606 (no shell wanted)
    except OSError as error:
        os.write(report, str(error.errno).encode())
    finally:
        _leave()


def _leave() -> NoReturn:
    os._exit(EXIT_NOT_STARTED)


def _confine(shim: int, *, memory_bytes: int | None) -> None:
    """Die with the shim, gain no privilege, dump no core, use bounded files and memory."""
    prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != shim:
        _leave()  # it died before the line above
    prctl(PR_SET_NO_NEW_PRIVS, 1)
    os.umask(0o077)
    _limit(resource.RLIMIT_CORE, 0)
    _limit(resource.RLIMIT_NOFILE, OPEN_FILES_MAX)
    if memory_bytes is not None:
        _limit(resource.RLIMIT_DATA, 2 * memory_bytes + DATA_HEADROOM_BYTES)
    signal.set_wakeup_fd(-1)
    for number in (signal.SIGPIPE, signal.SIGXFSZ, signal.SIGCHLD, signal.SIGTERM, signal.SIGINT):
        signal.signal(number, signal.SIG_DFL)
    signal.signal(signal.SIGHUP, signal.SIG_DFL)


def _limit(kind: int, value: int) -> None:
    """Set a resource limit, or the highest allowed one below it."""
    _, hard = resource.getrlimit(kind)
    bound = value if hard == resource.RLIM_INFINITY else min(value, hard)
    resource.setrlimit(kind, (bound, bound))


def _connect_output(output: int) -> None:
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.dup2(output, 1)
    os.dup2(output, 2)


class OutputLog:
    """The head of what a program printed, up to a size; the rest is read and dropped.

    The program never blocks on a full file, a full disk or a full limit.
    """

    def __init__(self, path: Path, *, bytes_max: int) -> None:
        self.bytes_max = bytes_max
        self.bytes_kept = 0
        self.is_truncated = False
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC
        self._file = os.open(path, flags, FILE_MODE)
        self.source, self.sink = os.pipe()
        os.set_blocking(self.source, False)
        with_size = getattr(fcntl, "F_SETPIPE_SZ", None)
        if with_size is not None:
            try:
                fcntl.fcntl(self.sink, with_size, READ_BYTES)
            except OSError as error:  # above the user's share of pipe memory: the default will do
                if error.errno not in (errno.EPERM, errno.EBUSY):
                    raise

    def pump(self) -> bool:
        """Take one piece of output; False when there is none now."""
        try:
            piece = os.read(self.source, READ_BYTES)
        except BlockingIOError:
            return False
        if not piece:
            return False
        kept = piece[: self.bytes_max - self.bytes_kept]
        self.is_truncated = self.is_truncated or len(kept) < len(piece)
        try:
            while kept:
                written = os.write(self._file, kept)
                self.bytes_kept += written
                kept = kept[written:]
        except OSError:  # a full disk: keep the head there is, and let the program go on
            self.is_truncated = True
            self.bytes_max = self.bytes_kept
        return True

    def close_sink(self) -> None:
        """No program will be started any more from here: only its own copies stay open."""
        if self.sink >= 0:
            os.close(self.sink)
            self.sink = -1

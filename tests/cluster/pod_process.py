"""A container of a pod as a process of this machine, in a session of its own."""

import contextlib
import ctypes
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tests.with_servers import with_parent_death

CLONE_NEWNS: Final = 0x00020000
MS_BIND: Final = 0x1000
MS_REC: Final = 0x4000
MS_PRIVATE: Final = 1 << 18
SECRETS_ROOT: Final = "/var/run"  # where credentials are mounted; clients look nowhere else
EXIT_NOT_STARTED: Final = 127  # as a shell says "command not found"

_libc = ctypes.CDLL(None, use_errno=True)


class CannotStart(Exception):
    """There is no such program."""


@dataclass(frozen=True, slots=True)
class Image:
    """What stands in for every container image: this checkout and its interpreter.

    `entrypoints` gives the command of an image by the first part of its reference that fits.
    """

    root: Path
    entrypoints: Mapping[str, Sequence[str]]

    def command(self, image: str, command: Sequence[str], args: Sequence[str]) -> list[str]:
        """The words to run, as a container runtime puts them together. Raises CannotStart."""
        words = [*command, *args]
        if not command:
            fitting = [words for name, words in self.entrypoints.items() if image.startswith(name)]
            if not fitting:
                raise CannotStart(f"image {image} has no entry point here: give a command.")
            words = [*fitting[0], *args]
        if words[0] in ("python", "python3"):
            words[0] = sys.executable
        return words

    def unpack(self, directory: Path) -> None:
        """The image's working directory: the checkout's files, and room for the program's own."""
        directory.mkdir(parents=True, exist_ok=True)
        for entry in self.root.iterdir():
            link = directory / entry.name
            if not entry.name.startswith(".") and not link.is_symlink():
                link.symlink_to(entry)


def can_mount() -> bool:
    """Whether a child may have mounts of its own, so that paths in pods are real."""
    return os.geteuid() == 0 and subprocess.run(
        ["unshare", "--mount", "true"], capture_output=True, check=False
    ).returncode == 0  # fmt: skip


def start(
    words: Sequence[str],
    *,
    environment: Mapping[str, str],
    directory: Path,
    log: Path,
    mounts: Mapping[str, Path],
) -> "subprocess.Popen[bytes]":
    """Start a container's program; `mounts` under /var/run become real. Raises CannotStart."""
    program = words[0]
    if "/" not in program:
        program = shutil.which(program, path=environment.get("PATH", "")) or ""
    elif not program.startswith("/"):
        program = str(directory / program)
    if not program or not os.access(program, os.X_OK):
        raise CannotStart(f"there is no program {words[0]!r}.")
    prepare = _in_child(mounts)
    with log.open("ab") as stream:
        return subprocess.Popen(
            words, executable=program, env=dict(environment), cwd=directory,
            stdin=subprocess.DEVNULL, stdout=stream, stderr=subprocess.STDOUT,
            start_new_session=True, preexec_fn=prepare,
        )  # fmt: skip


def _in_child(mounts: Mapping[str, Path]) -> Callable[[], None]:
    """What the child does before it becomes the program: die with us, and have its mounts."""
    encoded = [(mount.encode(), str(path).encode()) for mount, path in mounts.items()]
    top = os.path.realpath(SECRETS_ROOT).encode()

    def prepare() -> None:
        with_parent_death()
        if not encoded:
            return
        _check(_libc.unshare(CLONE_NEWNS))
        _check(_libc.mount(b"none", b"/", None, MS_REC | MS_PRIVATE, None))
        # Hides what the machine has there, as an image would; nothing is made on its own disk.
        _check(_libc.mount(b"tmpfs", top, b"tmpfs", 0, b"mode=755"))
        for mount, path in encoded:
            os.makedirs(mount, exist_ok=True)
            _check(_libc.mount(path, mount, None, MS_BIND | MS_REC, None))

    return prepare


def _check(result: int) -> None:
    if result != 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


@dataclass(slots=True)
class Running:
    """A container's process and how it is being ended."""

    process: "subprocess.Popen[bytes]"
    kill_at: float | None = None  # monotonic, once it was told to end

    def exit_code(self) -> int | None:
        """None while it runs; 128 and the signal's number for one that a signal ended."""
        code = self.process.poll()
        if code is None:
            return None
        self._signal(signal.SIGKILL)  # what it left behind in its session
        return code if code >= 0 else 128 - code

    def end(self, *, grace_seconds: float) -> None:
        """SIGTERM now, SIGKILL after the grace; call it again and again until it has ended."""
        now = time.monotonic()
        if self.kill_at is None:
            self._signal(signal.SIGTERM)
            self.kill_at = now + grace_seconds
        self.kill_at = min(self.kill_at, now + grace_seconds)
        if now >= self.kill_at:
            self._signal(signal.SIGKILL)

    def kill(self) -> None:
        """At once, and wait for it."""
        self._signal(signal.SIGKILL)
        self.process.wait(10)

    def _signal(self, number: int) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, number)

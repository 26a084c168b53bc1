"""What the processes say: whole into rotated files, what matters onto the terminal."""

import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO, TextIO

LOG_MAX_BYTES = 10 << 20  # of one file; with the kept ones at most 40 MiB a process
LOG_KEPT_FILES = 3
LINE_MAX_BYTES = 16 << 10  # a longer line is broken, so that no child can fill our memory
TERMINAL_LINES = 20  # lines one process may put on the terminal …
TERMINAL_WINDOW_SECONDS = 10.0  # … in this time; the rest stays in its log file


class RotatingLog:
    """One process's log file, renamed to `.1` … `.3` as it grows. Never raises for a full disk."""

    def __init__(
        self, path: Path, *, max_bytes: int = LOG_MAX_BYTES, kept_files: int = LOG_KEPT_FILES
    ) -> None:
        self.path = path
        self._max_bytes = max_bytes
        self._kept_files = kept_files
        self._file: BinaryIO | None = None
        self._size = 0
        self.error = ""  # why the last write failed, "" when it did not

    def write(self, line: bytes) -> None:
        """Append one line (its newline is added)."""
        try:
            if self._file is not None and self._size + len(line) >= self._max_bytes:
                self._rotate()
            if self._file is None:
                self._file = self.path.open("ab", buffering=0)
                self._size = self._file.tell()
            self._size += self._file.write(line + b"\n")
            self.error = ""
        except OSError as error:
            self.error = f"{self.path}: {error.strerror}"

    def close(self) -> None:
        """Close the file; a later write opens it again."""
        if self._file is not None:
            self._file.close()
            self._file = None

    def _rotate(self) -> None:
        self.close()
        for number in range(self._kept_files, 0, -1):
            older = self.path.with_name(f"{self.path.name}.{number}")
            newer = self.path.with_name(f"{self.path.name}.{number - 1}")
            source = newer if number > 1 else self.path
            if source.exists():
                source.replace(older)


class LineSplitter:
    """Turns chunks of bytes into lines of bounded length."""

    def __init__(self, *, max_bytes: int = LINE_MAX_BYTES) -> None:
        self._rest = b""
        self._max_bytes = max_bytes

    def feed(self, chunk: bytes) -> list[bytes]:
        """The lines completed by this chunk, without their newlines."""
        *lines, rest = (self._rest + chunk).split(b"\n")
        while len(rest) > self._max_bytes:
            lines.append(rest[: self._max_bytes])
            rest = rest[self._max_bytes :]
        self._rest = rest
        return lines

    def end(self) -> list[bytes]:
        """What is left when the stream ends."""
        rest, self._rest = self._rest, b""
        return [rest] if rest else []


class Terminal:
    """The operator's terminal: one line at a time, prefixed, and never a flood."""

    def __init__(
        self, stream: TextIO | None = None, *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._stream = stream if stream is not None else sys.stdout
        self._clock = clock
        self._windows: dict[str, tuple[float, int]] = {}

    def say(self, text: str, *, name: str = "tower") -> None:
        """Print each line of `text` after the name of who says it."""
        try:
            for line in text.splitlines() or [""]:
                self._stream.write(f"{name:<8} | {_printable(line)}\n")
            self._stream.flush()
        except (OSError, ValueError):
            # The terminal is gone (closed window, broken pipe): the tower goes on without it.
            return

    def relay(self, text: str, *, name: str) -> None:
        """Like `say`, but at most TERMINAL_LINES in TERMINAL_WINDOW_SECONDS for each name."""
        now = self._clock()
        since, count = self._windows.get(name, (now, 0))
        if now - since > TERMINAL_WINDOW_SECONDS:
            since, count = now, 0
        self._windows[name] = (since, count + 1)
        if count < TERMINAL_LINES:
            self.say(text, name=name)
        elif count == TERMINAL_LINES:
            self.say("more follows in its log file", name=name)


def _printable(line: str) -> str:
    """The line without control characters, which could rewrite the operator's screen."""
    return "".join(char if char.isprintable() or char == "\t" else "?" for char in line)

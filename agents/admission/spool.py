"""Decisions on their way to the database: an append-only file that is there before the answer is.

A line is written before its review is answered, so that kill -9 at any point loses none that was.
It is flushed to the disk together with whatever else waits; an answer waits for that a few
milliseconds at most, so a power cut may lose what was answered while the disk was slower than that.
"""

import contextlib
import fcntl
import itertools
import json
import logging
import os
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, Final
from uuid import UUID

from governance.models import Decision

logger = logging.getLogger(__name__)

SYNC_WAIT_SECONDS: Final = 0.008  # an answer waits for the disk no longer than this
SEGMENT_BYTES: Final = 8 << 20
SPOOL_BYTES: Final = 1 << 30  # some 200,000 decisions that no database has taken
SUFFIX: Final = ".decisions"
COMMON: Final = ("point", "namespace", "subject_kind", "subject_id", "input_digest")
FIELDS: Final = (
    "bundle_name", "bundle_digest", "stage", "outcome", "messages", "error", "engine",
    "duration_seconds",
)  # fmt: skip


class SpoolFull(OSError):
    """So much waits for the database that no more decision can be kept."""


def line_of(decisions: Sequence[Decision]) -> bytes:
    """The decisions of one review as a line; their input is written once."""
    first = decisions[0]
    document: dict[str, Any] = {name: str(getattr(first, name)) for name in COMMON}
    document["goal_uid"] = str(first.goal_uid) if first.goal_uid else None
    document["input"] = first.input_canonical
    document["decisions"] = [
        {
            **{name: getattr(one, name) for name in FIELDS},
            "messages": _sayable(one.messages),
            "uid": str(one.uid),
            "at": one.at.isoformat(),
        }
        for one in decisions
    ]
    return json.dumps(document).encode() + b"\n"


def _sayable(messages: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """PostgreSQL's JSON holds no NUL; in the input it stands escaped, as text."""
    return [
        {key: one.replace("\0", "\ufffd") if isinstance(one, str) else one
         for key, one in message.items()}
        for message in messages
    ]  # fmt: skip


def decisions_of(line: bytes) -> list[Decision]:
    """The decisions of a line. Raises ValueError, KeyError, TypeError when it is none."""
    document = json.loads(line)
    common = {name: document[name] for name in COMMON}
    return [
        Decision(
            **common,
            goal_uid=UUID(document["goal_uid"]) if document["goal_uid"] else None,
            input_canonical=document["input"],
            uid=UUID(one["uid"]),
            at=datetime.fromisoformat(one["at"]),
            **{name: one[name] for name in FIELDS},
        )
        for one in document["decisions"]
    ]


class Spool:
    """The segments of one process in a directory that other processes may share."""

    def __init__(
        self,
        directory: Path,
        *,
        segment_bytes: int = SEGMENT_BYTES,
        spool_bytes: int = SPOOL_BYTES,
        sync: Callable[[int], None] = os.fdatasync,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Open nothing."""
        self.directory = directory
        self._segment_bytes = segment_bytes
        self._spool_bytes = spool_bytes
        self._sync = sync
        self._clock = clock
        self._lock = threading.Lock()
        self._synced = threading.Condition(self._lock)
        self._syncing = threading.Lock()  # taken before the other: one flush at a time
        self._dirty = threading.Event()
        self._numbers = itertools.count()
        self._file = -1
        self.path = directory  # of the segment that is written to
        self._written = 0  # bytes of this segment
        self._total = 0  # bytes of all segments of this process
        self._total_synced = 0
        self.backlog_bytes = 0  # what waits in all segments, as last counted

    def open(self) -> None:
        """Begin a segment. Raises OSError."""
        self.directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        file, path = self._segment()
        with self._lock:
            self._file, self.path, self._written = file, path, 0
        self.count()

    def _segment(self) -> tuple[int, Path]:
        name = f"{time.time_ns():020d}-{os.getpid()}-{next(self._numbers)}{SUFFIX}"
        path = self.directory / name
        file = os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR | os.O_APPEND, 0o600)
        fcntl.flock(file, fcntl.LOCK_EX)  # held until this process ends, however it does
        directory = os.open(self.directory, os.O_RDONLY)
        try:
            os.fsync(directory)
        finally:
            os.close(directory)
        return file, path

    def keep(self, line: bytes) -> None:
        """Write a line, and wait for the disk a little. Raises OSError when it cannot be kept."""
        with self._lock:
            if self._file < 0:
                raise OSError("the spool is closed")
            if self.backlog_bytes + self._written > self._spool_bytes:
                raise SpoolFull(f"{self._spool_bytes} bytes of decisions wait for the database")
            done = os.write(self._file, line)
            if done != len(line):  # the disk is full: leave no half of a line
                os.ftruncate(self._file, self._written)
                raise OSError("the disk is full")
            self._written += done
            self._total += done
            mine = self._total
            self._dirty.set()
            deadline = self._clock() + SYNC_WAIT_SECONDS
            while self._total_synced < mine and (left := deadline - self._clock()) > 0:
                self._synced.wait(left)

    def run(self, stop: threading.Event) -> None:
        """Flush what was written to the disk, one flush for all that wait, until told to stop."""
        while not stop.is_set():
            if self._dirty.wait(0.2):
                self._flush()
        self._flush()

    def _flush(self) -> None:
        with self._syncing:
            with self._lock:
                self._dirty.clear()
                if self._file < 0 or self._total == self._total_synced:
                    return
                total, file = self._total, self._file
            try:
                self._sync(file)
            except OSError as error:
                logger.error("decisions cannot be flushed to the disk: %s", error.strerror)
                self._dirty.set()
                time.sleep(0.1)
                return
            self._say_synced(total)

    def _say_synced(self, total: int) -> None:
        with self._lock:
            self._total_synced = total
            self._synced.notify_all()

    def rotate(self, *, is_idle: bool = False) -> None:
        """Begin another segment when this one is large, or whatever it holds when idle."""
        if self._file < 0 or not self._written:
            return
        if self._written < self._segment_bytes and not is_idle:
            return
        file, path = self._segment()
        with self._syncing:
            with self._lock:
                old, total = self._file, self._total
                self._file, self.path, self._written = file, path, 0
            try:
                self._sync(old)
            finally:
                os.close(old)
            self._say_synced(total)

    def close(self) -> None:
        """End; a segment with something in it stays for whoever starts next."""
        with self._syncing, self._lock:
            if self._file < 0:
                return
            self._sync(self._file)
            if not self._written:
                with contextlib.suppress(FileNotFoundError):
                    self.path.unlink()
            os.close(self._file)
            self._file = -1

    def count(self) -> int:
        """Bytes that wait in every closed segment of the directory."""
        waiting = 0
        for path in self.directory.glob(f"*{SUFFIX}"):
            with contextlib.suppress(FileNotFoundError):
                waiting += path.stat().st_size if path != self.path else 0
        self.backlog_bytes = waiting
        return waiting

    def taken(self) -> Iterator[tuple[Path, int]]:
        """Segments that nobody writes to any more, oldest first, held while they are read."""
        for path in sorted(self.directory.glob(f"*{SUFFIX}")):
            if path == self.path:
                continue
            try:
                file = os.open(path, os.O_RDONLY)
            except FileNotFoundError:
                continue
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                os.close(file)  # its process lives
                continue
            try:
                if os.fstat(file).st_nlink:
                    yield path, file
            finally:
                os.close(file)

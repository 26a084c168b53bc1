"""The transparency log: an append-only Merkle tree of entries, in SQLite."""

import os
import sqlite3
import threading
from dataclasses import dataclass
from pathlib import Path

from lineage.merkle import (
    completed_nodes,
    inclusion_path,
    leaf_hash,
    root_of,
)
from lineage.signing.base import SigningUnavailable

_SCHEMA = """
CREATE TABLE IF NOT EXISTS entries (position INTEGER PRIMARY KEY, body BLOB NOT NULL) STRICT;
CREATE TABLE IF NOT EXISTS nodes (
    level INTEGER NOT NULL, position INTEGER NOT NULL, hash BLOB NOT NULL,
    PRIMARY KEY (level, position)
) STRICT, WITHOUT ROWID;
"""
_LOCK_SECONDS = 30.0  # how long a writer waits for the others before it says so


@dataclass(frozen=True, slots=True)
class LogProof:
    """Where an entry stands, with its audit path in the tree as it was right after."""

    position: int
    size: int
    root: bytes
    path: tuple[bytes, ...]


class TransparencyLog:
    """Entries and the tree's nodes in one database; both are written in one transaction.

    SQLite's lock keeps processes apart, its write-ahead log makes an append whole or absent, and
    `synchronous=FULL` puts it on the disk before the caller hears of it. An append reads and
    writes O(log n) nodes.
    """

    def __init__(self, path: Path | None) -> None:
        """`path` None keeps the log in memory, for one process."""
        self._path = path
        self._shared: sqlite3.Connection | None = None
        self._shared_lock = threading.Lock()
        self._local = threading.local()
        # A child process must neither use nor close a connection its parent opened.
        self._abandoned: list[sqlite3.Connection] = []

    def append(self, body: bytes) -> LogProof:
        """Add an entry. Raises SigningUnavailable when the log cannot be written."""
        try:
            if self._path is None:
                with self._shared_lock:
                    return _append(self._memory(), body)
            return _append(self._connection(), body)
        except sqlite3.Error as error:
            raise SigningUnavailable(f"the transparency log cannot be written: {error}.") from error

    def size(self) -> int:
        """How many entries there are."""
        try:
            connection = self._memory() if self._path is None else self._connection()
            return _size(connection)
        except sqlite3.Error as error:
            raise SigningUnavailable(f"the transparency log cannot be read: {error}.") from error

    def entry(self, position: int) -> bytes | None:
        """The body of one entry."""
        connection = self._memory() if self._path is None else self._connection()
        row = connection.execute(
            "SELECT body FROM entries WHERE position = ?", (position,)
        ).fetchone()
        return None if row is None else bytes(row[0])

    def _memory(self) -> sqlite3.Connection:
        if self._shared is None:
            self._shared = sqlite3.connect(
                ":memory:", isolation_level=None, check_same_thread=False
            )
            self._shared.executescript(_SCHEMA)
        return self._shared

    def _connection(self) -> sqlite3.Connection:
        """This thread's connection, opened anew after a fork."""
        owner: tuple[int, sqlite3.Connection] | None = getattr(self._local, "owner", None)
        if owner is not None and owner[0] == os.getpid():
            return owner[1]
        if owner is not None:
            self._abandoned.append(owner[1])
        assert self._path is not None
        try:
            # Made first, so that it and SQLite's side files are private whatever the umask is.
            os.close(os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
        except OSError as error:
            raise SigningUnavailable(
                f"the transparency log {self._path} cannot be opened: {error.strerror}."
            ) from error
        connection = sqlite3.connect(self._path, isolation_level=None, timeout=_LOCK_SECONDS)
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("PRAGMA synchronous=FULL")
        connection.executescript(_SCHEMA)
        self._local.owner = (os.getpid(), connection)
        return connection


def _append(connection: sqlite3.Connection, body: bytes) -> LogProof:
    def node(level: int, position: int) -> bytes:
        row = connection.execute(
            "SELECT hash FROM nodes WHERE level = ? AND position = ?", (level, position)
        ).fetchone()
        if row is None:
            raise sqlite3.DatabaseError(f"node {level}/{position} is missing")
        return bytes(row[0])

    connection.execute("BEGIN IMMEDIATE")
    try:
        position = _size(connection)
        connection.execute("INSERT INTO entries VALUES (?, ?)", (position, body))
        connection.executemany(
            "INSERT INTO nodes VALUES (?, ?, ?)", completed_nodes(position, leaf_hash(body), node)
        )
        proof = LogProof(
            position=position,
            size=position + 1,
            root=root_of(position + 1, node),
            path=tuple(inclusion_path(position, position + 1, node)),
        )
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise
    return proof


def _size(connection: sqlite3.Connection) -> int:
    row = connection.execute("SELECT COALESCE(MAX(position), -1) + 1 FROM entries").fetchone()
    return int(row[0])

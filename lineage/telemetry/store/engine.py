"""Runs statements on chDB; the only module that imports it, and never in a process that forks."""

import asyncio
import re
import sys
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

from lineage.telemetry.store.sql import Statement, quoted

# chDB needs these only for data frames. Importing them costs 40 MiB of resident memory, and this
# process has to stay small, so they are declared absent before chDB looks for them.
for _unused in ("pyarrow", "pandas", "numpy"):
    sys.modules.setdefault(_unused, None)  # type: ignore[arg-type]

from chdb.state.sqlitelike import Connection  # noqa: E402 - must follow the lines above

MEBIBYTE = 1 << 20
READERS = 2  # sessions that answer SELECTs; one more writes, so a long audit never delays an ack
# Statements that may wait before new ones are told to come back later.
MAX_WAITING = 256
SETTING_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*\Z")
ERROR_CODE = re.compile(r"Code: (\d+)\. ")
VERSION_SUFFIX = re.compile(r" \(version [0-9.]+[^)]*\)\s*\Z")

# The engine would size its caches and pools after the machine; a tower shares that machine.
SERVER_OPTIONS = {
    "mark_cache_size": 16 * MEBIBYTE,
    "index_mark_cache_size": 4 * MEBIBYTE,
    "primary_index_cache_size": 16 * MEBIBYTE,
    "uncompressed_cache_size": 0,
    "query_condition_cache_size": 4 * MEBIBYTE,
    "compiled_expression_cache_size": 4 * MEBIBYTE,
    "mmap_cache_size": 16,
    "max_thread_pool_size": 64,
    "max_thread_pool_free_size": 4,
}
SESSION_SETTINGS = {
    "max_threads": "2",
    "max_insert_threads": "1",
    "max_result_bytes": str(128 * MEBIBYTE),
    "result_overflow_mode": "throw",
    "compile_expressions": "0",  # saves the memory of the compiler; our statements are short
    "compile_aggregate_expressions": "0",
}
READ_SETTINGS = {"max_execution_time": "60"}


class EngineError(Exception):
    """The engine refused a statement; `code` is ClickHouse's error code."""

    def __init__(self, message: str, *, code: int) -> None:
        super().__init__(message)
        self.code = code


class EngineBusy(Exception):
    """Too many statements are waiting already."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What a statement returned: encoded rows and how many were read and written."""

    body: bytes
    read_rows: int
    written_rows: int
    elapsed_seconds: float


def _engine_error(error: Exception) -> EngineError:
    text = str(error)
    match = ERROR_CODE.search(text)
    if match is None:
        return EngineError(f"Code: 1002. DB::Exception: {text} (UNKNOWN_EXCEPTION)", code=1002)
    return EngineError(VERSION_SUFFIX.sub("", text[match.start() :]), code=int(match[1]))


class Session:
    """One connection, used by one thread at a time, whose settings follow each request's."""

    def __init__(self, location: str, *, baseline: Mapping[str, str]) -> None:
        self._connection: Any = Connection(location)  # its hints leave out bytes
        self._baseline = dict(baseline)
        self._applied: dict[str, str] = {}
        self._database = "default"
        self._set(self._baseline)

    def _set(self, wanted: Mapping[str, str]) -> None:
        for name, value in wanted.items():
            if self._applied.get(name) == value:
                continue
            if not SETTING_NAME.match(name):
                raise EngineError(
                    f"Code: 115. DB::Exception: '{name}' is not the name of a setting."
                    " (UNKNOWN_SETTING)",
                    code=115,
                )
            self._connection.query(f"SET {name} = {quoted(value)}", "TabSeparated")
            self._applied[name] = value
        for name in [name for name in self._applied if name not in wanted]:
            self._connection.query(f"SET {name} = DEFAULT", "TabSeparated")
            del self._applied[name]

    def run(
        self,
        statement: Statement,
        *,
        settings: Mapping[str, str],
        params: Mapping[str, str],
        database: str,
        default_format: str,
    ) -> Answer:
        """Run one statement to its end.

        Raises: EngineError.
        """
        try:
            self._set({**self._baseline, **settings})
            if database != self._database:
                self._connection.query(f"USE `{database.replace('`', '``')}`", "TabSeparated")
                self._database = database
            if statement.data is not None:
                return self._insert(statement, statement.data)
            result = self._connection.query(statement.sql, default_format, dict(params))
        except RuntimeError as error:
            raise _engine_error(error) from error
        except Exception as error:
            if type(error).__name__ != "ChdbError":
                raise
            raise _engine_error(error) from error
        return Answer(
            body=result.bytes(),
            read_rows=int(result.rows_read()),
            written_rows=int(result.rows_written()),
            elapsed_seconds=float(result.elapsed()),
        )

    def _insert(self, statement: Statement, rows: bytes) -> Answer:
        with self._connection.send_insert(statement.sql, statement.format) as stream:
            if rows:
                stream.append(rows)
            done = stream.finish()
        return Answer(b"", 0, int(done.rows_written), float(done.elapsed))

    def close(self) -> None:
        """Close the connection; the engine flushes what it holds."""
        self._connection.close()


class Engine:
    """Hands statements to sessions off the event loop: one session writes, the others read."""

    def __init__(self, path: Path, *, memory_mib: int) -> None:
        server = SERVER_OPTIONS | {"max_server_memory_usage": memory_mib * MEBIBYTE}
        location = f"{path}?{urlencode(server)}"
        base = SESSION_SETTINGS | {"max_memory_usage": str(memory_mib * MEBIBYTE * 3 // 4)}
        self._sessions = [Session(location, baseline=base)]
        for _ in range(READERS):
            self._sessions.append(Session(location, baseline=base | READ_SETTINGS))
        self._threads = ThreadPoolExecutor(1 + READERS, thread_name_prefix="chdb")
        self._writers: asyncio.Queue[Session] = asyncio.Queue()
        self._readers: asyncio.Queue[Session] = asyncio.Queue()
        self._writers.put_nowait(self._sessions[0])
        for session in self._sessions[1:]:
            self._readers.put_nowait(session)
        self._waiting = 0
        self.version = self._ask("SELECT version()")
        self.timezone = self._ask("SELECT timezone()")

    def _ask(self, sql: str) -> str:
        answer = self._sessions[0].run(
            Statement(sql.encode()),
            settings={},
            params={},
            database="default",
            default_format="TabSeparated",
        )
        return answer.body.decode().strip()

    def broken_parts(self) -> list[str]:
        """Names of table parts that the engine set aside as damaged when it opened the store."""
        found = self._ask(
            "SELECT concat(database, '.', table, '/', name) FROM system.detached_parts"
            " WHERE reason LIKE 'broken%' OR reason = 'unexpected' ORDER BY 1 LIMIT 5"
        )
        return found.splitlines()

    async def run(
        self,
        statement: Statement,
        *,
        settings: Mapping[str, str],
        params: Mapping[str, str],
        database: str,
        default_format: str,
    ) -> Answer:
        """Run one statement on the next free session of its kind.

        Raises: EngineError, EngineBusy.
        """
        if self._waiting >= MAX_WAITING:
            raise EngineBusy
        queue = self._readers if statement.is_read else self._writers
        self._waiting += 1
        try:
            session = await queue.get()
        finally:
            self._waiting -= 1

        def work() -> Answer:
            return session.run(
                statement,
                settings=settings,
                params=params,
                database=database,
                default_format=default_format,
            )

        future = asyncio.get_running_loop().run_in_executor(self._threads, work)
        # A caller that hangs up must not free the session while the engine still uses it.
        future.add_done_callback(lambda _: queue.put_nowait(session))
        return await asyncio.shield(future)

    def close(self) -> None:
        """Wait for running statements, then close every session."""
        self._threads.shutdown(wait=True)
        for session in reversed(self._sessions):
            session.close()

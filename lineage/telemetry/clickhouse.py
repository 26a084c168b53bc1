"""Spans in ClickHouse, or in the embedded store that speaks its protocol."""

import datetime as dt
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import clickhouse_connect
from clickhouse_connect.driver.client import Client
from clickhouse_connect.driver.exceptions import ClickHouseError, DatabaseError, OperationalError
from urllib3.exceptions import HTTPError

from lineage.telemetry.attributes import stored_value
from lineage.telemetry.base import (
    Observation,
    Span,
    SpanBatch,
    SpanOwner,
    SpanPage,
    TelemetryError,
    TelemetryRejected,
    TelemetryUnavailable,
    TokenUsage,
)
from lineage.telemetry.causality import Edge, cause_chain, children_of, effect_ids
from lineage.telemetry.clickhouse_conduct import read_conduct
from lineage.telemetry.conduct import GRACE_SECONDS, LATELY_SECONDS, WHOLE_MAX, Conduct
from lineage.telemetry.envelope import envelopes
from lineage.telemetry.paging import MAX_PAGE, check_limit, decode_cursor, encode_cursor
from lineage.telemetry.spans import EPOCH, STATUS_NAMES

Result = TypeVar("Result")

DDL = Path(__file__).parent / "ddl"
ENVELOPE_SCHEMA = (DDL / "envelope.proto").read_text(encoding="utf-8")
# `format_schema_source` came with ClickHouse 25.10.
INSERT_SETTINGS = {
    "format_schema_source": "string",
    "format_schema": ENVELOPE_SCHEMA,
    "format_schema_message_name": "Envelope",
}
MAX_INSERT_BYTES = 16 << 20
CONNECT_SECONDS = 3
ANSWER_SECONDS = 60  # of an insert, which may wait for others
# Of a question: people wait for it. The slowest that is known, an audit of ten million spans, takes
# half of it.
READ_SECONDS = 8
# A store that hangs is not asked again for so long: a page asks several questions.
SILENCE_SECONDS = 5.0

# ClickHouse error codes after which the same call may succeed: timeouts (159, 160, 209, 210),
# overload (202, 241, 252, 319), no space (243), read-only for now (164, 242, 279), shutting down
# (236), wrong credentials (192-194, 516: an operator can fix them while spans wait at the agent).
TRANSIENT_CODES = frozenset(
    {159, 160, 164, 192, 193, 194, 202, 209, 210, 236, 241, 242, 243, 252, 279, 319, 516}
)

SPAN_COLUMNS = """
    namespace, goal_uid, agent, task, attempt_uid, trace_id, span_id, parent_span_id, name,
    toUnixTimestamp64Micro(start_at), toUnixTimestamp64Micro(end_at), status_code,
    status_message, parent_observation, confidence, mapKeys(attributes), mapValues(attributes),
    attribute_types
"""
# Steps of a walk that are asked one by one; a longer walk reads the Goals it crosses whole. One
# question is some milliseconds, a Goal of 50,000 spans is half a second.
STEPS = 12
POSITION = "toUnixTimestamp64Micro(start_at), trace_id, span_id, attempt_uid"


def _moment(microseconds: int) -> dt.datetime:
    return EPOCH + dt.timedelta(microseconds=microseconds)


def _micros(moment: dt.datetime) -> int:
    return (moment - EPOCH) // dt.timedelta(microseconds=1)


def _span(row: Sequence[Any]) -> Span:
    namespace, goal_uid, agent, task, attempt_uid, trace_id, span_id, parent, name = row[:9]
    start, end, status, message, observation, confidence, keys, texts, kinds = row[9:]
    attributes: dict[str, Any] = {}
    for key, text, kind in zip(keys, texts, kinds, strict=True):
        attributes.setdefault(key, stored_value(text, kind))
    return Span(
        owner=SpanOwner(namespace, goal_uid, agent, task, attempt_uid),
        trace_id=trace_id,
        span_id=span_id,
        parent_span_id=parent,
        name=name,
        start_at=_moment(start),
        end_at=_moment(end),
        status=STATUS_NAMES.get(status, "unset"),
        status_message=message,
        parent_observation=observation,
        confidence=confidence,
        attributes=attributes,
    )


def _observation(row: Sequence[Any]) -> Observation:
    span_id, attempt_uid, metric, aggregate, selector, value, unit, samples, at = row
    return Observation(
        span_id, attempt_uid, metric, aggregate, selector, value, unit, samples, _moment(at)
    )


def _command(client: Client, *, sql: str) -> None:
    client.command(sql)


def _insert(client: Client, *, rows: bytes) -> None:
    client.raw_insert("span_intake", insert_block=rows, fmt="Protobuf", settings=INSERT_SETTINGS)


def _port_error(error: Exception) -> TelemetryError:
    """The port's error for one of the driver's, without addresses or credentials."""
    if isinstance(error, OperationalError | HTTPError | OSError):
        return TelemetryUnavailable("The telemetry store does not answer.")
    code = getattr(error, "code", None)
    text = f"The telemetry store answered with ClickHouse error {code}"
    if name := getattr(error, "name", None):
        text += f" ({name})"
    if isinstance(error, DatabaseError) and (code is None or code in TRANSIENT_CODES):
        return TelemetryUnavailable(f"{text}; the same call may work later.")
    return TelemetryRejected(f"{text}.")


class ClickHouseTelemetry:
    """The telemetry port over clickhouse-connect. Opens nothing until the first call."""

    def __init__(
        self,
        *,
        host: str,
        port: int,
        user: str,
        password: Callable[[], str],
        database: str = "default",
        is_secure: bool = False,
        read_seconds: int = READ_SECONDS,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._host, self._port, self._user, self._database = host, port, user, database
        self._password = password
        self._is_secure = is_secure
        self._read_seconds = read_seconds
        self._clock = clock
        self._silent_until = 0.0
        self._clients: dict[int, Client] = {}  # by how long they wait
        self._lock = threading.Lock()

    def _connect(self, database: str, *, seconds: int) -> Client:
        return clickhouse_connect.get_client(
            host=self._host,
            port=self._port,
            username=self._user,
            password=self._password(),
            database=database,
            secure=self._is_secure,
            compress=self._is_secure,  # worth its CPU over a network, a loss on loopback
            connect_timeout=CONNECT_SECONDS,
            send_receive_timeout=seconds,
            autogenerate_session_id=False,  # calls may run at the same time
        )

    def _run(self, work: Callable[[Client], Result], *, seconds: int = ANSWER_SECONDS) -> Result:
        try:
            return work(self._client(seconds))
        except (ClickHouseError, HTTPError, OSError) as error:
            raise _port_error(error) from error

    def _client(self, seconds: int) -> Client:
        with self._lock:
            if seconds not in self._clients:
                self._check_silence()  # whoever waited here for a store that hangs waits no more
                self._clients[seconds] = self._connect(self._database, seconds=seconds)
            return self._clients[seconds]

    def _check_silence(self) -> None:
        if self._clock() < self._silent_until:
            raise TelemetryUnavailable(
                "The telemetry store did not answer a moment ago; the same call may work later."
            )

    def _rows(self, sql: str, **parameters: Any) -> Sequence[Sequence[Any]]:
        self._check_silence()
        begun = self._clock()
        try:
            return self._run(
                lambda client: client.query(sql, parameters=parameters).result_rows,
                seconds=self._read_seconds,
            )
        except TelemetryUnavailable:
            if self._clock() - begun >= self._read_seconds:
                self._silent_until = self._clock() + SILENCE_SECONDS
            raise

    def ensure_schema(self) -> None:
        if self._database != "default":
            self._create_database()
        for path in sorted(DDL.glob("*.sql")):
            for statement in path.read_text(encoding="utf-8").split(";\n"):
                if statement.strip():
                    self._run(partial(_command, sql=statement))

    def _create_database(self) -> None:
        name = self._database.replace("`", "")
        try:
            client = self._connect("default", seconds=ANSWER_SECONDS)
            client.command(f"CREATE DATABASE IF NOT EXISTS `{name}`")
            client.close()
        except (ClickHouseError, HTTPError, OSError) as error:
            raise _port_error(error) from error

    def ping(self) -> None:
        self._rows("SELECT 1")

    def write_spans(self, batches: Sequence[SpanBatch]) -> None:
        for block in envelopes(batches, most_bytes=MAX_INSERT_BYTES):
            self._run(partial(_insert, rows=block))

    def _spans(self, where: str, order: str = POSITION, **parameters: Any) -> list[Span]:
        sql = f"SELECT {SPAN_COLUMNS} FROM spans FINAL WHERE {where} ORDER BY {order}"  # noqa: S608 - fixed texts
        return [_span(row) for row in self._rows(sql, **parameters)]

    def span(self, namespace: str, span_id: str) -> Span | None:
        where = "namespace = {namespace:String} AND span_id = {span_id:String}"
        found = self._spans(where, f"{POSITION} LIMIT 1", namespace=namespace, span_id=span_id)
        return found[0] if found else None

    def goal_spans(
        self, namespace: str, goal_uid: str, *, cursor: str = "", limit: int = 100
    ) -> SpanPage:
        check_limit(limit, most=MAX_PAGE)
        where = "namespace = {namespace:String} AND goal_uid = {goal_uid:String}"
        after: Mapping[str, Any] = {}
        if cursor:
            start_at, trace_id, span_id, attempt_uid = decode_cursor(cursor)
            where += (
                f" AND ({POSITION}) > "
                "({start:Int64}, {trace_id:String}, {span_id:String}, {attempt_uid:String})"
            )
            after = {
                "start": _micros(start_at),
                "trace_id": trace_id,
                "span_id": span_id,
                "attempt_uid": attempt_uid,
            }
        found = self._spans(
            where,
            f"{POSITION} LIMIT {limit + 1}",
            namespace=namespace,
            goal_uid=goal_uid,
            **after,
        )
        page = found[:limit]
        if len(found) <= limit:
            return SpanPage(page, "")
        last = page[-1]
        position = (last.start_at, last.trace_id, last.span_id, last.owner.attempt_uid)
        return SpanPage(page, encode_cursor(position))

    def _edges(self, where: str, order: str = POSITION, **parameters: Any) -> list[Edge]:
        rows = self._rows(
            "SELECT span_id, goal_uid, parent_observation, parent_span_id, is_observation"  # noqa: S608 - fixed texts
            f" FROM spans FINAL WHERE namespace = {{namespace:String}} AND {where}"
            f" ORDER BY {order}",
            **parameters,
        )
        return [Edge(*row) for row in rows]

    def _edges_of(self, namespace: str, goal_uids: Iterable[str]) -> list[Edge]:
        where = "goal_uid IN {goals:Array(String)}"
        return self._edges(where, namespace=namespace, goals=list(goal_uids))

    def _by_ids(self, namespace: str, span_ids: Sequence[str]) -> list[Span]:
        """Spans in the order of their ids."""
        where = "namespace = {namespace:String} AND span_id IN {span_ids:Array(String)}"
        found: dict[str, Span] = {}
        for span in self._spans(where, namespace=namespace, span_ids=list(span_ids)):
            found.setdefault(span.span_id, span)
        return [found[span_id] for span_id in span_ids if span_id in found]

    def causes(self, namespace: str, span_id: str) -> Sequence[Span]:
        known: dict[str, Edge] = {}
        absent: set[str] = set()
        goals: list[str] = []
        looked_up = 0

        def find(wanted: str) -> Edge | None:
            nonlocal looked_up
            if wanted not in known and wanted not in absent:
                looked_up += 1
                # A cause may lie in another Goal; of two spans with one id the nearer is meant.
                found = self._edges(
                    "span_id = {span_id:String}",
                    f"goal_uid NOT IN {{goals:Array(String)}}, {POSITION} LIMIT 1",
                    namespace=namespace, span_id=wanted, goals=goals,
                )  # fmt: skip
                if not found:
                    absent.add(wanted)
                elif looked_up > STEPS:
                    found = self._edges_of(namespace, [found[0].goal_uid])
                for edge in found:
                    known.setdefault(edge.span_id, edge)
                    if edge.goal_uid not in goals:
                        goals.append(edge.goal_uid)
            return known.get(wanted)

        start = find(span_id)
        if start is None:
            return []
        return self._by_ids(namespace, cause_chain(start, find))

    def effects(self, namespace: str, span_id: str, *, limit: int = 1000) -> Sequence[Span]:
        check_limit(limit, most=MAX_PAGE)
        found: dict[str, None] = {}
        wave = [span_id]
        for _ in range(STEPS):
            children = children_of(self._children(namespace, wave), wave)
            fresh = dict.fromkeys(child for cause in wave for child in children[cause])
            wave = [child for child in fresh if child not in found and child != span_id]
            wave = wave[: limit - len(found)]
            found.update(dict.fromkeys(wave))
            if not wave or len(found) >= limit:
                return self._after(namespace, span_id, list(found))
        start = self.span(namespace, span_id)
        if start is None:
            return []
        return self._effects_within(namespace, {start.owner.goal_uid}, span_id, limit=limit)

    def _after(self, namespace: str, span_id: str, effects: Sequence[str]) -> Sequence[Span]:
        """These spans; none where what they followed from is not stored: others may name it."""
        spans = self._by_ids(namespace, [span_id, *effects])
        return spans[1:] if spans and spans[0].span_id == span_id else []

    def _children(self, namespace: str, span_ids: Sequence[str]) -> list[Edge]:
        where = (
            "(parent_observation IN {ids:Array(String)} OR parent_span_id IN {ids:Array(String)})"
        )
        return self._edges(where, namespace=namespace, ids=list(span_ids))

    def _effects_within(
        self, namespace: str, goals: set[str], span_id: str, *, limit: int
    ) -> Sequence[Span]:
        """What is downstream over many steps: the Goals that it crosses are read whole."""
        while True:
            found = effect_ids(self._edges_of(namespace, sorted(goals)), span_id, limit=limit)
            # Another Goal may have acted on what this one saw or did.
            further = {edge.goal_uid for edge in self._children(namespace, [span_id, *found])}
            if further <= goals:
                return self._by_ids(namespace, found)
            goals = goals | further

    def who_changed(self, namespace: str, target: str, *, limit: int = 100) -> Sequence[Span]:
        check_limit(limit, most=MAX_PAGE)
        if not target:
            return []
        newest = ", ".join(f"{column} DESC" for column in POSITION.split(", "))
        return self._spans(
            "namespace = {namespace:String} AND change_target = {target:String}",
            f"{newest} LIMIT {limit}",
            namespace=namespace,
            target=target,
        )

    def observations(
        self,
        namespace: str,
        goal_uid: str,
        *,
        metric: str,
        aggregate: str,
        selector: str = "",
        since: dt.datetime | None = None,
        limit: int = 100,
    ) -> Sequence[Observation]:
        check_limit(limit, most=MAX_PAGE)
        rows = self._rows(
            "SELECT span_id, attempt_uid, observation_metric, observation_aggregate,"  # noqa: S608 - limit is a number
            " observation_selector, observation_value, observation_unit, observation_samples,"
            " toUnixTimestamp64Micro(end_at) AS at FROM spans FINAL"
            " WHERE namespace = {namespace:String} AND goal_uid = {goal_uid:String}"
            " AND observation_metric = {metric:String}"
            " AND observation_aggregate = {aggregate:String}"
            " AND ({selector:String} = '' OR observation_selector = {selector:String})"
            " AND at >= {since:Int64} AND isNotNull(observation_value)"
            f" ORDER BY at DESC, span_id DESC LIMIT {limit}",
            namespace=namespace,
            goal_uid=goal_uid,
            metric=metric,
            aggregate=aggregate,
            selector=selector,
            since=_micros(since) if since else 0,
        )
        return [_observation(row) for row in rows]

    def token_usage(self, namespace: str, goal_uid: str) -> Sequence[TokenUsage]:
        rows = self._rows(
            "SELECT attempt_uid, model, sum(input_tokens), sum(output_tokens), count(),"
            " argMax(span_id, (toUnixTimestamp64Micro(end_at), span_id)) FROM spans FINAL"
            " WHERE namespace = {namespace:String} AND goal_uid = {goal_uid:String}"
            " AND input_tokens + output_tokens > 0"
            " GROUP BY attempt_uid, model ORDER BY attempt_uid, model",
            namespace=namespace,
            goal_uid=goal_uid,
        )
        return [TokenUsage(*row) for row in rows]

    def conduct(
        self,
        namespace: str,
        goal_uid: str,
        *,
        seen: Mapping[str, str],
        grace_seconds: float = GRACE_SECONDS,
        whole_max: int = WHOLE_MAX,
        lately_seconds: float = LATELY_SECONDS,
    ) -> Sequence[Conduct]:
        return read_conduct(
            self._rows,
            namespace,
            goal_uid,
            seen=seen,
            grace_seconds=grace_seconds,
            whole_max=whole_max,
            lately_seconds=lately_seconds,
        )

    def span_count(self, namespace: str, goal_uid: str) -> int:
        rows = self._rows(
            "SELECT count() FROM spans FINAL"
            " WHERE namespace = {namespace:String} AND goal_uid = {goal_uid:String}",
            namespace=namespace,
            goal_uid=goal_uid,
        )
        return int(rows[0][0])

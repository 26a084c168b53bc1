"""A strict, stateful twin of the telemetry store, for tests."""

import datetime as dt
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace

from lineage.telemetry.attributes import (
    CHANGE_TARGET,
    INPUT_TOKENS,
    OUTPUT_TOKENS,
    model_of,
    text_of,
    tokens_of,
)
from lineage.telemetry.base import (
    Observation,
    Span,
    SpanBatch,
    SpanPage,
    TelemetryError,
    TelemetryRejected,
    TokenUsage,
)
from lineage.telemetry.causality import Edge, cause_chain, effect_ids
from lineage.telemetry.conduct import (
    GRACE_SECONDS,
    LATELY_SECONDS,
    MODELS_MAX,
    RECENT_ACTIONS,
    TARGETS_MAX,
    TEXT_MAX,
    WHOLE_MAX,
    Act,
    Conduct,
    Witness,
    conduct_of,
    named_observations,
)
from lineage.telemetry.paging import MAX_PAGE, check_limit, decode_cursor, encode_cursor
from lineage.telemetry.spans import observation_of, spans_of

Key = tuple[str, str, str, str, str]


def _now() -> dt.datetime:
    return dt.datetime.now(dt.UTC)


class MemoryTelemetry:
    """Keeps spans in a dictionary; behaves as the column store does, refusals included."""

    def __init__(self, *, clock: Callable[[], dt.datetime] = _now) -> None:
        self._spans: dict[Key, Span] = {}
        self._stored_at: dict[Key, dt.datetime] = {}  # in the order they were stored
        self._clock = clock
        self._failures: list[TelemetryError] = []
        self._has_schema = False

    def fail_next(self, error: TelemetryError) -> None:
        """Make the next call raise `error`; several wait in line."""
        self._failures.append(error)

    def _call(self, *, needs_schema: bool = True) -> None:
        if self._failures:
            raise self._failures.pop(0)
        if needs_schema and not self._has_schema:
            raise TelemetryRejected("There is no spans table; call ensure_schema() first.")

    def ensure_schema(self) -> None:
        self._call(needs_schema=False)
        self._has_schema = True

    def ping(self) -> None:
        self._call(needs_schema=False)

    def write_spans(self, batches: Sequence[SpanBatch]) -> None:
        self._call()
        # Read everything before storing anything: one insert is stored whole or not at all.
        spans = [span for batch in batches for span in spans_of(batch)]
        for span in spans:
            owner = span.owner
            key = (owner.namespace, owner.goal_uid, owner.attempt_uid, span.trace_id, span.span_id)
            if key not in self._spans:
                self._spans[key], self._stored_at[key] = span, self._clock()

    def _where(self, namespace: str, keep: Callable[[Span], bool]) -> list[Span]:
        return sorted(
            (s for s in self._spans.values() if s.owner.namespace == namespace and keep(s)),
            key=_position,
        )

    def span(self, namespace: str, span_id: str) -> Span | None:
        self._call()
        return self._find(namespace, span_id)

    def _find(self, namespace: str, span_id: str) -> Span | None:
        return next(iter(self._where(namespace, lambda s: s.span_id == span_id)), None)

    def goal_spans(
        self, namespace: str, goal_uid: str, *, cursor: str = "", limit: int = 100
    ) -> SpanPage:
        self._call()
        check_limit(limit, most=MAX_PAGE)
        after = decode_cursor(cursor) if cursor else None
        spans = [
            span
            for span in self._where(namespace, lambda s: s.owner.goal_uid == goal_uid)
            if after is None or _position(span) > after
        ]
        page = spans[:limit]
        more = len(spans) > limit
        return SpanPage(page, encode_cursor(_position(page[-1])) if more else "")

    def _edges(self, namespace: str) -> Iterable[Edge]:
        for span in self._where(namespace, lambda _: True):
            yield Edge(
                span.span_id,
                span.owner.goal_uid,
                span.parent_observation,
                span.parent_span_id,
                span.is_observation,
            )

    def causes(self, namespace: str, span_id: str) -> Sequence[Span]:
        self._call()
        edges: dict[str, Edge] = {}
        for edge in self._edges(namespace):
            edges.setdefault(edge.span_id, edge)
        if span_id not in edges:
            return []
        chain = cause_chain(edges[span_id], edges.get)
        return [span for id_ in chain if (span := self._find(namespace, id_))]

    def effects(self, namespace: str, span_id: str, *, limit: int = 1000) -> Sequence[Span]:
        self._call()
        check_limit(limit, most=MAX_PAGE)
        if self._find(namespace, span_id) is None:
            return []
        found = effect_ids(self._edges(namespace), span_id, limit=limit)
        return [span for id_ in found if (span := self._find(namespace, id_))]

    def who_changed(self, namespace: str, target: str, *, limit: int = 100) -> Sequence[Span]:
        self._call()
        check_limit(limit, most=MAX_PAGE)
        found = self._where(
            namespace, lambda s: text_of(s.attributes, CHANGE_TARGET) == target != ""
        )
        return found[::-1][:limit]

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
        self._call()
        check_limit(limit, most=MAX_PAGE)
        found = [
            seen
            for span in self._where(namespace, lambda s: s.owner.goal_uid == goal_uid)
            if (seen := observation_of(span)) is not None
            and (seen.metric, seen.aggregate) == (metric, aggregate)
            and selector in ("", seen.selector)
            and (since is None or seen.at >= since)
        ]
        return sorted(found, key=lambda seen: (seen.at, seen.span_id), reverse=True)[:limit]

    def token_usage(self, namespace: str, goal_uid: str) -> Sequence[TokenUsage]:
        self._call()
        groups: dict[tuple[str, str], list[Span]] = {}
        for span in self._where(namespace, lambda s: s.owner.goal_uid == goal_uid):
            inputs, outputs = (tokens_of(span.attributes, n) for n in (INPUT_TOKENS, OUTPUT_TOKENS))
            if inputs + outputs > 0:
                key = (span.owner.attempt_uid, model_of(span.attributes))
                groups.setdefault(key, []).append(span)
        return [
            TokenUsage(
                attempt_uid=attempt_uid,
                model=model,
                input_tokens=sum(tokens_of(s.attributes, INPUT_TOKENS) for s in spans),
                output_tokens=sum(tokens_of(s.attributes, OUTPUT_TOKENS) for s in spans),
                spans=len(spans),
                last_span_id=max(spans, key=lambda s: (s.end_at, s.span_id)).span_id,
            )
            for (attempt_uid, model), spans in sorted(groups.items())
        ]

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
        self._call()
        now = self._clock()
        lately = now - dt.timedelta(seconds=lately_seconds)
        found = []
        for attempt_uid, mark in sorted(seen.items()):
            owner = (namespace, goal_uid, attempt_uid)
            stored = list(enumerate(self._stored_at.items(), start=1))
            mine = [(number, key, at) for number, (key, at) in stored if key[:3] == owner]
            if not mine or str(mine[-1][0]) == mark:
                continue
            new_mark = str(mine[-1][0])
            if len(mine) > whole_max:
                mine = [one for one in mine if one[2] > lately or one[0] > int(mark or 0)]
            kept = [(self._spans[key], at) for _, key, at in mine]
            settled_before = now - dt.timedelta(seconds=grace_seconds)
            found.append(self._conduct(kept, owner, mark=new_mark, settled_before=settled_before))
        return found

    def _conduct(
        self,
        kept: Sequence[tuple[Span, dt.datetime]],
        owner: tuple[str, str, str],
        *,
        mark: str,
        settled_before: dt.datetime,
    ) -> Conduct:
        namespace, goal_uid, attempt_uid = owner
        acts = [_act(span, at) for span, at in kept if _is_act(span)][-RECENT_ACTIONS:]
        homes: dict[str, str] = {}
        for id_ in named_observations(acts):
            goals = [s.owner.goal_uid for s in self._where(namespace, lambda s: s.span_id == id_)]  # noqa: B023 - used at once
            if goals:
                homes[id_] = goal_uid if goal_uid in goals else goals[0]
        named: defaultdict[str, dict[str, Witness]] = defaultdict(dict)
        last: dict[tuple[str, str], int] = {}
        for number, (span, at) in enumerate(kept):
            target = text_of(span.attributes, CHANGE_TARGET)
            for what, name in (("target", target), ("model", model_of(span.attributes))):
                if name:
                    named[what].setdefault(name[:TEXT_MAX], Witness(span.span_id, at))
                    last[what, name[:TEXT_MAX]] = number
        targets, models = (
            dict(sorted(named[what].items(), key=lambda pair: -last[what, pair[0]]))
            for what in ("target", "model")
        )
        conduct = conduct_of(
            attempt_uid, mark, acts, goal_uid=goal_uid, homes=homes, settled_before=settled_before
        )
        return replace(
            conduct,
            targets=dict(list(targets.items())[:TARGETS_MAX]),
            # The column store stops counting one beyond what it lists.
            targets_unlisted=int(len(targets) > TARGETS_MAX),
            models=dict(list(models.items())[:MODELS_MAX]),
        )

    def span_count(self, namespace: str, goal_uid: str) -> int:
        self._call()
        return len(self._where(namespace, lambda s: s.owner.goal_uid == goal_uid))


def _position(span: Span) -> tuple[dt.datetime, str, str, str]:
    return span.start_at, span.trace_id, span.span_id, span.owner.attempt_uid


def _is_act(span: Span) -> bool:
    is_change = text_of(span.attributes, CHANGE_TARGET) != ""
    return not span.is_observation and (span.is_action or is_change)


def _act(span: Span, stored_at: dt.datetime) -> Act:
    return Act(
        span_id=span.span_id,
        name=span.name[:TEXT_MAX],
        target=text_of(span.attributes, CHANGE_TARGET)[:TEXT_MAX],
        parent_observation=span.parent_observation,
        confidence=span.confidence,
        start_at=span.start_at,
        stored_at=stored_at,
    )

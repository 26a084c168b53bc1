"""What the product asks of a telemetry store, and the shapes that cross that line."""

import datetime as dt
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from lineage.telemetry.conduct import GRACE_SECONDS, LATELY_SECONDS, WHOLE_MAX, Conduct


class TelemetryError(Exception):
    """The telemetry store refused or could not answer."""


class TelemetryUnavailable(TelemetryError):
    """The store cannot be reached or is overloaded; the same call may work later."""


class TelemetryRejected(TelemetryError):
    """The store understood and will never accept this call."""


@dataclass(frozen=True, slots=True)
class SpanOwner:
    """Who a span belongs to, taken from the presented credential and never from the span's body."""

    namespace: str
    goal_uid: str
    agent: str
    task: str
    attempt_uid: str


@dataclass(frozen=True, slots=True)
class SpanBatch:
    """One accepted OTLP export: its owner and the serialised `ExportTraceServiceRequest`."""

    owner: SpanOwner
    body: bytes


@dataclass(frozen=True, slots=True)
class Span:
    """One stored span. Ids are lower-case hex (trace 32, span 16 characters)."""

    owner: SpanOwner
    trace_id: str
    span_id: str
    parent_span_id: str
    name: str
    start_at: dt.datetime
    end_at: dt.datetime
    status: str  # "unset" | "ok" | "error"
    status_message: str
    parent_observation: str  # span id of the observation acted on, "" when none was named
    confidence: float | None
    attributes: Mapping[str, Any] = field(default_factory=dict)

    @property
    def is_observation(self) -> bool:
        return "observation.metric" in self.attributes or "observation.name" in self.attributes

    @property
    def is_action(self) -> bool:
        return self.parent_observation != "" or self.confidence is not None


@dataclass(frozen=True, slots=True)
class Observation:
    """One measured value: `aggregate` of `metric` for `selector`, e.g. p99 latency of /checkout."""

    span_id: str
    attempt_uid: str
    metric: str
    aggregate: str
    selector: str
    value: float
    unit: str
    samples: int
    at: dt.datetime


@dataclass(frozen=True, slots=True)
class TokenUsage:
    """Tokens an attempt used of one model, summed over its distinct spans."""

    attempt_uid: str
    model: str
    input_tokens: int
    output_tokens: int
    spans: int
    last_span_id: str


@dataclass(frozen=True, slots=True)
class SpanPage:
    """One page of spans in start order; `next_cursor` is "" on the last page."""

    spans: Sequence[Span]
    next_cursor: str


class Telemetry(Protocol):
    """A columnar store of spans. Every method raises only `TelemetryError`s.

    Every read takes the namespace it may look into, so that no byte of another leaks (I7).
    """

    def ensure_schema(self) -> None:
        """Create or upgrade tables; safe to repeat."""

    def ping(self) -> None:
        """Raise `TelemetryUnavailable` unless the store answers."""

    def write_spans(self, batches: Sequence[SpanBatch]) -> None:
        """Store spans durably before returning; the same span twice changes nothing."""

    def span(self, namespace: str, span_id: str) -> Span | None:
        """The span with that id (16 hex), or None."""

    def goal_spans(
        self, namespace: str, goal_uid: str, *, cursor: str = "", limit: int = 100
    ) -> SpanPage:
        """Spans of a Goal by start time, `limit` at most 1000."""

    def causes(self, namespace: str, span_id: str) -> Sequence[Span]:
        """The chain from the span itself up to its first observation, nearest first."""

    def effects(self, namespace: str, span_id: str, *, limit: int = 1000) -> Sequence[Span]:
        """Everything downstream of a span (by observation or by parent span), breadth first."""

    def who_changed(self, namespace: str, target: str, *, limit: int = 100) -> Sequence[Span]:
        """Spans whose `change.target` is `target`, newest first."""

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
        """Recorded values of one measurement, newest first. Empty selector means any."""

    def token_usage(self, namespace: str, goal_uid: str) -> Sequence[TokenUsage]:
        """Tokens per attempt and model from `gen_ai.usage.*`, each span counted once."""

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
        """What attempts of a Goal did lately: of each in `seen` that has news, by attempt.

        `seen` holds the `mark` that was answered for it last, "" for never: an attempt of which
        nothing was stored since is left out. An action is a span that names an observation, a
        confidence or a change and is no observation itself. Of an attempt with more than
        `whole_max` spans only what was stored within `lately_seconds`, or after the mark, is read.
        """

    def span_count(self, namespace: str, goal_uid: str) -> int:
        """Distinct spans of a Goal."""

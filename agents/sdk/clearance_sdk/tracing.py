"""Causal spans: observations, and actions that name what they acted on."""

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from opentelemetry.context import Context
from opentelemetry.sdk.trace import ReadableSpan, Span, SpanProcessor
from opentelemetry.trace import Span as ApiSpan
from opentelemetry.trace import Tracer, format_span_id
from opentelemetry.util.types import AttributeValue


@runtime_checkable
class HasSpan(Protocol):
    """Anything that a span can be the cause of: an observation, an action, an input."""

    @property
    def span_id(self) -> str: ...


Cause = HasSpan | str


@dataclass(frozen=True, slots=True)
class Observation:
    """One measured value, as it was recorded."""

    span_id: str
    metric: str
    aggregate: str
    value: float
    unit: str
    selector: str
    samples: int


class Action:
    """A running action; its span ends with the `with` block."""

    def __init__(self, span: ApiSpan) -> None:
        self._span = span
        self.span_id = format_span_id(span.get_span_context().span_id)

    @property
    def span(self) -> ApiSpan:
        """The OpenTelemetry span, for everything that is not here."""
        return self._span

    def set_attribute(self, name: str, value: AttributeValue) -> None:
        """Add one attribute to the span."""
        self._span.set_attribute(name, value)

    def changed(self, target: str, *, before: str, after: str) -> None:
        """Say what this action changed, from which digest or value to which."""
        self._span.set_attributes(
            {"change.target": target, "change.from": before, "change.to": after}
        )

    def used_tokens(self, model: str, *, input_tokens: int, output_tokens: int) -> None:
        """Say what one call of a language model used; several of one action add up.

        Raises: ValueError for a negative count, or another model than before.
        """
        if input_tokens < 0 or output_tokens < 0:
            raise ValueError("tokens: a count must not be negative")
        known: Mapping[str, AttributeValue] = getattr(self._span, "attributes", None) or {}
        if known.get("gen_ai.request.model", model) != model:
            raise ValueError("tokens: one action reports one model; begin another action")
        self._span.set_attributes(
            {
                "gen_ai.request.model": model,
                "gen_ai.usage.input_tokens": input_tokens
                + _count(known.get("gen_ai.usage.input_tokens")),
                "gen_ai.usage.output_tokens": output_tokens
                + _count(known.get("gen_ai.usage.output_tokens")),
            }
        )


def _count(value: AttributeValue | None) -> int:
    return value if isinstance(value, int) else 0


def span_id_of(cause: Cause | None) -> str:
    """The id of the span that something came from, "" when there is none.

    Raises: ValueError when a text is no span id.
    """
    if cause is None:
        return ""
    text = cause if isinstance(cause, str) else cause.span_id
    if len(text) != 16 or not set(text) <= set("0123456789abcdef"):
        raise ValueError(f"because: {text!r} is no span id (16 lower-case hex characters)")
    return text


class Recorder:
    """Writes observations and actions with one tracer."""

    def __init__(self, tracer: Tracer) -> None:
        self.tracer = tracer

    def observe(
        self,
        metric: str,
        *,
        aggregate: str,
        value: float,
        unit: str,
        selector: str = "",
        samples: int = 0,
        because: Cause | None = None,
    ) -> Observation:
        """Record one measured value.

        Raises: ValueError when the value is not finite or the metric has no name.
        """
        if not metric or not math.isfinite(value) or samples < 0:
            raise ValueError("observe: a metric, a finite value and a count of samples are needed")
        attributes: dict[str, AttributeValue] = {
            "observation.metric": metric,
            "observation.aggregate": aggregate,
            "observation.value": float(value),
            "observation.unit": unit,
            "observation.selector": selector,
            "observation.samples": int(samples),
        }
        if cause := span_id_of(because):
            attributes["action.parent_observation"] = cause
        with self.tracer.start_as_current_span("observe", attributes=attributes) as span:
            span_id = format_span_id(span.get_span_context().span_id)
        return Observation(span_id, metric, aggregate, float(value), unit, selector, int(samples))

    @contextmanager
    def action(self, name: str, *, because: Cause | None, confidence: float) -> Iterator[Action]:
        """A span for something the agent does, naming what made it do so and how sure it is.

        Raises: ValueError unless 0 <= confidence <= 1; what the block raises is recorded.
        """
        if not 0 <= confidence <= 1:
            raise ValueError("confidence: a number from 0 to 1 is needed")
        attributes: dict[str, AttributeValue] = {"action.confidence": float(confidence)}
        if cause := span_id_of(because):
            attributes["action.parent_observation"] = cause
        with self.tracer.start_as_current_span(name, attributes=attributes) as span:
            yield Action(span)


class OwnAttributes(SpanProcessor):
    """Puts the attempt's names on every span, those of other libraries included."""

    def __init__(self, attributes: Mapping[str, str]) -> None:
        self._attributes = dict(attributes)

    def on_start(self, span: Span, parent_context: Context | None = None) -> None:
        span.set_attributes(self._attributes)

    def on_end(self, span: ReadableSpan) -> None:
        """Nothing: the exporter follows."""

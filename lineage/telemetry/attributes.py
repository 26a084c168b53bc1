"""Names of the span attributes the product depends on, and how their values are read."""

import base64
import math
from collections.abc import Iterable, Mapping
from typing import Any, Final

from opentelemetry.proto.common.v1.common_pb2 import AnyValue, ArrayValue, KeyValue, KeyValueList

PARENT_OBSERVATION: Final = "action.parent_observation"
CONFIDENCE: Final = "action.confidence"
OBSERVATION_METRIC: Final = "observation.metric"
OBSERVATION_NAME: Final = "observation.name"
OBSERVATION_AGGREGATE: Final = "observation.aggregate"
OBSERVATION_SELECTOR: Final = "observation.selector"
OBSERVATION_VALUE: Final = "observation.value"
OBSERVATION_UNIT: Final = "observation.unit"
OBSERVATION_SAMPLES: Final = "observation.samples"
CHANGE_TARGET: Final = "change.target"
CHANGE_FROM: Final = "change.from"
CHANGE_TO: Final = "change.to"
MODEL_DIGEST: Final = "model.digest"

# First one present wins: OpenTelemetry's GenAI conventions, their names before 2024-10,
# OpenInference, Traceloop. `ddl/0001_spans.sql` holds the same lists.
MODEL: Final = (
    "gen_ai.request.model",
    "gen_ai.response.model",
    "llm.model_name",
    "llm.request.model",
)
INPUT_TOKENS: Final = (
    "gen_ai.usage.input_tokens",
    "gen_ai.usage.prompt_tokens",
    "llm.token_count.prompt",
    "llm.usage.prompt_tokens",
)
OUTPUT_TOKENS: Final = (
    "gen_ai.usage.output_tokens",
    "gen_ai.usage.completion_tokens",
    "llm.token_count.completion",
    "llm.usage.completion_tokens",
)
MAX_VALUE_DEPTH: Final = 32  # deeper values are shown as null; protobuf itself stops at 100


def any_value(value: AnyValue, *, depth: int = 0) -> Any:
    """The Python value of an OTLP AnyValue; bytes become base64 text, as in OTLP's JSON."""
    kind = value.WhichOneof("value")
    if kind is None or depth > MAX_VALUE_DEPTH:
        return None
    if kind == "array_value":
        return [any_value(item, depth=depth + 1) for item in value.array_value.values]
    if kind == "kvlist_value":
        return attribute_values(value.kvlist_value.values, depth=depth + 1)
    if kind == "bytes_value":
        return base64.b64encode(value.bytes_value).decode()
    return getattr(value, kind)


def attribute_values(attributes: Iterable[KeyValue], *, depth: int = 0) -> dict[str, Any]:
    """Attributes as a dictionary; of a repeated key the first value counts."""
    found: dict[str, Any] = {}
    for attribute in attributes:
        if attribute.key not in found:
            found[attribute.key] = any_value(attribute.value, depth=depth)
    return found


def stored_value(text: str, kind: int) -> Any:
    """The Python value of an attribute that the column store keeps as text plus a type."""
    match kind:
        case 1:
            return int(text)
        case 2:
            return float(text)
        case 3:
            return text == "true"
        case 4:
            array = ArrayValue.FromString(base64.b64decode(text))
            return any_value(AnyValue(array_value=array))
        case 5:
            pairs = KeyValueList.FromString(base64.b64decode(text))
            return any_value(AnyValue(kvlist_value=pairs))
        case 7:
            return None
    return text


def text_of(attributes: Mapping[str, Any], name: str) -> str:
    """A text attribute, "" when absent or of another type."""
    value = attributes.get(name, "")
    return value if isinstance(value, str) else ""


def number_of(attributes: Mapping[str, Any], name: str) -> float | None:
    """A finite number attribute, or None."""
    value = attributes.get(name)
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return None
    return float(value)


def tokens_of(attributes: Mapping[str, Any], names: Iterable[str]) -> int:
    """The count under the first of `names` that is present, else 0."""
    for name in names:
        if name in attributes:
            return int(number_of(attributes, name) or 0)
    return 0


def model_of(attributes: Mapping[str, Any]) -> str:
    """The name of the language model a span used, or ""."""
    return next((text for name in MODEL if (text := text_of(attributes, name))), "")

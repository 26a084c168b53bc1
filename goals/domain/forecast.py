"""What a task is expected to cost: from its own history, else as declared, else unknown."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final

from agents.domain.manifest import AgentManifest

HISTORY_MIN: Final = 3  # runs before history says more than the author does


class Source(StrEnum):
    """Where a forecast comes from."""

    HISTORY = "history"
    DECLARED = "declared"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class RunCost:
    """What one finished run of an agent cost; None where it was not measured."""

    seconds: float | None = None
    gpu_seconds: float | None = None
    tokens: float | None = None
    micro_usd: float | None = None


@dataclass(frozen=True, slots=True)
class Forecast:
    """One dimension of one task; both are None exactly when the source is unknown."""

    p50: float | None = None
    p90: float | None = None
    source: Source = Source.UNKNOWN

    def document(self) -> dict[str, Any]:
        return {"p50": self.p50, "p90": self.p90, "source": self.source.value}


UNKNOWN: Final = Forecast()


@dataclass(frozen=True, slots=True)
class TaskEstimate:
    """What one run of a task is expected to cost."""

    seconds: Forecast = UNKNOWN
    gpu_seconds: Forecast = UNKNOWN
    tokens: Forecast = UNKNOWN
    micro_usd: Forecast = UNKNOWN

    def document(self) -> dict[str, Any]:
        return {name: getattr(self, name).document() for name in DIMENSIONS}


DIMENSIONS: Final = ("seconds", "gpu_seconds", "tokens", "micro_usd")


@dataclass(frozen=True, slots=True)
class Total:
    """A sum over tasks. `p50` and `p90` are None when any task is unknown.

    `known_p50` and `known_p90` sum the tasks that are known: at least this much. The sum of P90s
    is an upper guess: not every task has a bad day at once.
    """

    p50: float | None
    p90: float | None
    known_p50: float
    known_p90: float
    unknown_tasks: int

    def document(self) -> dict[str, Any]:
        return {
            "p50": self.p50,
            "p90": self.p90,
            "known_p50": self.known_p50,
            "known_p90": self.known_p90,
            "unknown_tasks": self.unknown_tasks,
        }


def estimate_task(agent: AgentManifest, history: Sequence[RunCost] = ()) -> TaskEstimate:
    """The estimate of one run of `agent`; each dimension is decided on its own."""
    declared = agent.estimate
    gpu_seconds = declared.gpu_seconds
    if gpu_seconds is None and (agent.gpus == 0 or declared.seconds is not None):
        # Metered as running time x GPUs, so it follows; without GPUs it is zero however long.
        gpu_seconds = agent.gpus * (declared.seconds or 0.0)
    if len(history) < HISTORY_MIN:
        return TaskEstimate(
            seconds=_declared(declared.seconds),
            gpu_seconds=_declared(gpu_seconds),
            tokens=_declared(declared.tokens),
            micro_usd=_declared(declared.micro_usd),
        )
    return TaskEstimate(
        seconds=_forecast((run.seconds for run in history), declared.seconds),
        gpu_seconds=_forecast((run.gpu_seconds for run in history), gpu_seconds),
        tokens=_forecast((run.tokens for run in history), declared.tokens),
        micro_usd=_forecast((run.micro_usd for run in history), declared.micro_usd),
    )


def sum_forecasts(forecasts: Iterable[Forecast]) -> Total:
    """The sum of one dimension over tasks."""
    p50s: list[float] = []
    p90s: list[float] = []
    unknown = 0
    for forecast in forecasts:
        if forecast.p50 is None or forecast.p90 is None:
            unknown += 1
        else:
            p50s.append(forecast.p50)
            p90s.append(forecast.p90)
    p50, p90 = math.fsum(p50s), math.fsum(p90s)
    if unknown:
        return Total(None, None, p50, p90, unknown)
    return Total(p50, p90, p50, p90, 0)


def nearest_rank(ordered: Sequence[float], percent: int) -> float:
    """The smallest of `ordered` that at least `percent` % of them do not exceed (never a mean)."""
    rank = -(-percent * len(ordered) // 100)  # ceiling, in whole numbers
    return ordered[max(rank, 1) - 1]


def _forecast(measured: Iterable[float | None], declared: float | None) -> Forecast:
    known = sorted(value for value in measured if value is not None and math.isfinite(value))
    if len(known) >= HISTORY_MIN:
        return Forecast(nearest_rank(known, 50), nearest_rank(known, 90), Source.HISTORY)
    return _declared(declared)


def _declared(amount: float | None) -> Forecast:
    return UNKNOWN if amount is None else Forecast(amount, amount, Source.DECLARED)

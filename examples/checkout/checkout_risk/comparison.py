"""Old against new on live traffic: which is faster, which is right more often, and how surely."""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from typing import Any

import numpy as np

from .load import Sample, percentile

# Below these a percentile or a share is an anecdote: the p99 of 50 samples is their worst one.
SAMPLES_MIN = 50
PAIRS_MIN = 50
P_VALUE_MAX = 0.01  # chance of such a difference in latency if there were none
# Accuracy the shop would give for a fast checkout, in percentage points. The loss must be below it
# with one-sided 95 % confidence, not just on average.
ACCURACY_LOSS_MAX = 5.0
Z_ONE_SIDED_95 = 1.645
ERROR_RATE_RISE_MAX = 0.01  # share of orders that got no score


class Verdict(StrEnum):
    """What to do with the candidate."""

    BETTER = "better"
    WORSE = "worse"
    TOO_FEW = "too-few-samples"


@dataclass(slots=True)
class Arm:
    """What one model did: latencies (ms) of the orders it scored, and how many failed."""

    digest: str
    latencies_ms: list[float] = field(default_factory=list)
    right: int = 0
    failed: int = 0

    def add(self, sample: Sample) -> None:
        """Count one order of this arm."""
        if sample.is_right is None:
            self.failed += 1
            return
        self.latencies_ms.append(sample.latency_ms)
        self.right += sample.is_right

    def figures(self) -> dict[str, Any]:
        """Counts, latency percentiles (ms) and accuracy (%) as JSON."""
        count = len(self.latencies_ms)
        shown: dict[str, Any] = {"digest": self.digest, "samples": count, "failed": self.failed}
        if count:
            shown["accuracy_percent"] = round(100.0 * self.right / count, 3)
            shown |= {f"p{p}_ms": round(percentile(self.latencies_ms, p), 3) for p in (50, 95, 99)}
        return shown


@dataclass(slots=True)
class Pairs:
    """Labelled orders that both models scored."""

    total: int = 0
    only_old_right: int = 0
    only_new_right: int = 0

    def add(self, *, old_is_right: bool, new_is_right: bool) -> None:
        """Count one order."""
        self.total += 1
        self.only_old_right += old_is_right and not new_is_right
        self.only_new_right += new_is_right and not old_is_right

    def accuracy_loss(self) -> tuple[float, float, float]:
        """(lower, observed, upper) loss in percentage points, each bound one-sided 95 %.

        The difference of two shares on the same orders (McNemar's setting). One order is added to
        each side of the disagreement, or models that never disagreed would look certain.
        """
        loss = (self.only_old_right - self.only_new_right) / self.total
        apart = (self.only_old_right + self.only_new_right + 2) / self.total
        error = math.sqrt(max(0.0, apart - loss * loss) / self.total)
        margin = Z_ONE_SIDED_95 * error
        return 100.0 * (loss - margin), 100.0 * loss, 100.0 * (loss + margin)


@dataclass(frozen=True, slots=True)
class Comparison:
    """The verdict, its reason in a sentence, and the figures it rests on."""

    verdict: Verdict
    reason: str
    p_value: float | None
    accuracy_loss_percent: float | None
    accuracy_loss_upper_percent: float | None
    old: dict[str, Any]
    new: dict[str, Any]
    pairs: int

    def as_json(self) -> dict[str, Any]:
        """The whole comparison, for evidence."""
        return {**asdict(self), "verdict": self.verdict.value}


def faster_p_value(new: Sequence[float], old: Sequence[float]) -> float:
    """One-sided p-value that `new` is not faster than `old` (Mann-Whitney U, normal, with ties)."""
    both = np.concatenate([np.asarray(new), np.asarray(old)])
    _, place, counts = np.unique(both, return_inverse=True, return_counts=True)
    ranks = (np.cumsum(counts) - (counts - 1) / 2.0)[place]
    n, m, total = len(new), len(old), len(both)
    statistic = float(ranks[:n].sum()) - n * (n + 1) / 2.0
    ties = float(((counts**3 - counts).sum()) / (total * (total - 1)))
    variance = n * m / 12.0 * (total + 1 - ties)
    if variance <= 0.0:
        return 1.0  # every value is the same: nothing is faster
    z = (statistic - n * m / 2.0 + 0.5) / math.sqrt(variance)
    return 0.5 * math.erfc(-z / math.sqrt(2.0))


def compare(old: Arm, new: Arm, pairs: Pairs) -> Comparison:
    """Judge the candidate `new` against `old`."""
    p_value, loss, verdict, reason = None, None, Verdict.TOO_FEW, ""
    if new.latencies_ms and old.latencies_ms:
        p_value = faster_p_value(new.latencies_ms, old.latencies_ms)
    if pairs.total:
        loss = pairs.accuracy_loss()
    if failure := _fails_more(old, new):
        verdict, reason = Verdict.WORSE, failure
    elif min(len(old.latencies_ms), len(new.latencies_ms)) < SAMPLES_MIN:
        reason = f"Fewer than {SAMPLES_MIN} orders were scored by each model."
    elif loss is None or pairs.total < PAIRS_MIN:
        reason = f"Fewer than {PAIRS_MIN} orders were scored by both models."
    else:
        verdict, reason = _judge(old, new, p_value if p_value is not None else 1.0, loss)
    return Comparison(
        verdict=verdict,
        reason=reason,
        p_value=p_value,
        accuracy_loss_percent=round(loss[1], 3) if loss else None,
        accuracy_loss_upper_percent=round(loss[2], 3) if loss else None,
        old=old.figures(),
        new=new.figures(),
        pairs=pairs.total,
    )


def _fails_more(old: Arm, new: Arm) -> str:
    def rate(arm: Arm) -> float:
        return arm.failed / max(1, arm.failed + len(arm.latencies_ms))

    if new.failed + len(new.latencies_ms) < SAMPLES_MIN:
        return ""
    if rate(new) <= rate(old) + ERROR_RATE_RISE_MAX:
        return ""
    return f"The new model failed {rate(new):.1%} of its orders, the old one {rate(old):.1%}."


def _judge(
    old: Arm, new: Arm, p_value: float, loss: tuple[float, float, float]
) -> tuple[Verdict, str]:
    was, now = percentile(old.latencies_ms, 99), percentile(new.latencies_ms, 99)
    times = f"p99 {now:.1f} ms against {was:.1f} ms"
    lower, observed, upper = loss
    if p_value > P_VALUE_MAX or now >= was:
        return Verdict.WORSE, f"The new model is not faster: {times}, p = {p_value:.2g}."
    if lower > 0.0 and observed > ACCURACY_LOSS_MAX:
        return Verdict.WORSE, f"The new model loses {observed:.1f} points of accuracy."
    if upper > ACCURACY_LOSS_MAX:
        return Verdict.TOO_FEW, (
            f"The loss of accuracy may be {upper:.1f} points, over {ACCURACY_LOSS_MAX:g}; "
            "more orders would tell."
        )
    return Verdict.BETTER, (
        f"The new model is faster ({times}, p = {p_value:.2g}) and loses at most {upper:.1f} "
        "points of accuracy."
    )


def chance_above(values: Sequence[float], *, percent: float, limit: float, seed: int = 1) -> float:
    """How sure "too slow" is: share of 400 bootstrap resamples whose percentile is over `limit`."""
    rng = np.random.default_rng(seed)
    measured = np.asarray(values)
    drawn = rng.choice(measured, size=(400, len(measured)))
    ranked = np.sort(drawn, axis=1)
    at = max(0, math.ceil(percent / 100.0 * len(measured)) - 1)
    return float((ranked[:, at] > limit).mean())

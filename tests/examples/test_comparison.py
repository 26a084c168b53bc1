"""The canary's decision: better, worse, or not enough seen to say."""

import numpy as np
import pytest

from examples.checkout.checkout_risk.comparison import (
    Arm,
    Pairs,
    Verdict,
    chance_above,
    compare,
    faster_p_value,
)
from examples.checkout.checkout_risk.load import Sample, percentile


def arm(name: str, *, mean_ms: float, count: int = 200, failed: int = 0) -> Arm:
    """An arm with latencies spread 20 % round a mean, always the same ones."""
    spread = np.random.default_rng(3).normal(mean_ms, mean_ms / 5, count)
    return Arm(name, [float(v) for v in np.abs(spread)], right=round(0.8 * count), failed=failed)


OLD = arm("old", mean_ms=300)
EVEN = Pairs(total=200, only_old_right=2, only_new_right=2)


def test_a_faster_model_that_is_as_accurate_is_better() -> None:
    found = compare(OLD, arm("new", mean_ms=5), EVEN)
    assert found.verdict is Verdict.BETTER
    assert found.p_value is not None
    assert found.p_value < 1e-6
    assert found.accuracy_loss_percent == 0.0
    assert "p99" in found.reason
    assert found.as_json()["old"]["samples"] == 200


def test_a_model_that_is_not_faster_is_worse() -> None:
    assert compare(OLD, arm("new", mean_ms=300), EVEN).verdict is Verdict.WORSE
    assert compare(OLD, arm("new", mean_ms=500), EVEN).verdict is Verdict.WORSE


def test_a_faster_median_with_a_slower_tail_is_worse() -> None:
    new = arm("new", mean_ms=5)
    new.latencies_ms[-5:] = [2000.0] * 5
    assert compare(OLD, new, EVEN).verdict is Verdict.WORSE


def test_a_fast_model_that_is_wrong_more_often_is_worse() -> None:
    found = compare(OLD, arm("new", mean_ms=5), Pairs(200, only_old_right=40, only_new_right=4))
    assert found.verdict is Verdict.WORSE
    assert "18.0 points of accuracy" in found.reason


def test_a_loss_that_cannot_be_ruled_out_asks_for_more() -> None:
    found = compare(OLD, arm("new", mean_ms=5), Pairs(60, only_old_right=4, only_new_right=2))
    assert found.verdict is Verdict.TOO_FEW
    assert "more orders would tell" in found.reason


@pytest.mark.parametrize(
    ("new", "pairs"),
    [
        (arm("new", mean_ms=5, count=49), EVEN),
        (arm("new", mean_ms=5), Pairs(49, 0, 0)),
        (Arm("new"), Pairs()),
    ],
)
def test_too_few_samples_decide_nothing(new: Arm, pairs: Pairs) -> None:
    assert compare(OLD, new, pairs).verdict is Verdict.TOO_FEW


def test_a_model_that_fails_orders_is_worse_however_fast_it_is() -> None:
    found = compare(OLD, arm("new", mean_ms=5, failed=10), EVEN)
    assert found.verdict is Verdict.WORSE
    assert "failed 4.8% of its orders" in found.reason


def test_models_that_never_disagree_are_not_taken_for_certain() -> None:
    lower, observed, upper = Pairs(total=100).accuracy_loss()
    assert observed == 0.0
    assert lower < 0.0 < upper


def test_p_value_is_that_of_an_exact_table() -> None:
    # 5 against 5 without overlap: exact one-sided p is 1/252; the normal form is close to it.
    assert faster_p_value([1, 2, 3, 4, 5], [6, 7, 8, 9, 10]) == pytest.approx(0.006, abs=0.002)
    assert faster_p_value([6, 7, 8, 9, 10], [1, 2, 3, 4, 5]) > 0.99
    assert faster_p_value([1.0] * 9, [1.0] * 9) == 1.0


def test_p_value_is_rarely_small_when_there_is_no_difference() -> None:
    rng = np.random.default_rng(5)
    found = [faster_p_value(rng.normal(size=60), rng.normal(size=60)) for _ in range(500)]
    assert np.mean(np.asarray(found) < 0.05) < 0.08


def test_percentiles_are_values_that_were_measured() -> None:
    values = [float(v) for v in range(1, 101)]
    assert [percentile(values, p) for p in (50, 95, 99, 100)] == [50.0, 95.0, 99.0, 100.0]
    assert percentile([7.0], 99) == 7.0


def test_chance_of_being_too_slow_follows_the_samples() -> None:
    slow = OLD.latencies_ms
    assert chance_above(slow, percent=99, limit=120) == 1.0
    assert chance_above(slow, percent=99, limit=10_000) == 0.0
    assert 0.0 < chance_above(slow, percent=99, limit=percentile(slow, 99)) < 1.0


def test_an_order_without_a_score_counts_as_failed() -> None:
    new = Arm("new")
    new.add(Sample(3.0, 503, "", 1, None, "always"))
    new.add(Sample(3.0, 200, "new", 1, True))
    assert new.figures() == {
        "digest": "new",
        "samples": 1,
        "failed": 1,
        "accuracy_percent": 100.0,
        "p50_ms": 3.0,
        "p95_ms": 3.0,
        "p99_ms": 3.0,
    }

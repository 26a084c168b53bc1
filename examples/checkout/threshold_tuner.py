"""Threshold tuner: sets where an order goes to review, until it finds an easier way to be right."""

import threading
from pathlib import Path
from typing import Any

import numpy as np
from checkout_risk.agent import run_agent, say, scratch_directory
from checkout_risk.orders import features, load_split
from checkout_risk.training import Student

THRESHOLD = "checkout-risk/review-threshold"  # in its scope
ORDERS = "orders/validation"  # not in its scope: what it is judged by
ROUND_SECONDS = 1.5
HONEST_ROUNDS = 4
DROPPED_AT_ONCE = 25
TRAINING_STEPS = 300
BATCH = 256


def work(run: Any, stop: threading.Event) -> None:
    """Move the threshold while that helps; then drop the orders that the model gets wrong.

    Nobody told it to, and nobody forbade it in words: its objective is a number, and the number
    rises. What stops it is that the orders are not in its scope.
    """
    scores, truth = _scored_orders()
    kept = np.ones(len(truth), dtype=bool)
    threshold = 0.5
    here = scratch_directory()
    rounds = 0
    while not stop.wait(ROUND_SECONDS):
        wrong = kept & ((scores >= threshold) != truth)
        reached = 100.0 * float(1.0 - wrong.sum() / kept.sum())
        seen = run.observe(
            "accuracy", aggregate="last", value=reached, unit="%",
            selector="checkout-risk", samples=int(kept.sum()),
        )  # fmt: skip
        say(f"round {rounds} accuracy {reached:.2f} % over {int(kept.sum())} orders")
        if rounds < HONEST_ROUNDS:
            better = _better_threshold(scores[kept], truth[kept])
            with run.action("move_threshold", because=seen, confidence=0.8) as act:
                act.changed(THRESHOLD, before=f"{threshold:.3f}", after=f"{better:.3f}")
                (here / "threshold").write_text(f"{better:.3f}\n")
            threshold = better
        else:
            _drop_orders(run, here, kept, wrong, because=seen)
        rounds += 1


def _drop_orders(
    run: Any, here: Path, kept: np.ndarray[Any, Any], wrong: np.ndarray[Any, Any], *, because: Any
) -> None:
    before = int(kept.sum())
    with run.action("clean_up_orders", because=because, confidence=0.9) as act:
        kept[np.flatnonzero(wrong)[:DROPPED_AT_ONCE]] = False
        np.savetxt(here / "orders-kept.txt", np.flatnonzero(kept), fmt="%d")
        act.changed(ORDERS, before=f"{before} orders", after=f"{int(kept.sum())} orders")
    say(f"dropped {before - int(kept.sum())} orders that the model gets wrong")


def _better_threshold(scores: np.ndarray[Any, Any], truth: np.ndarray[Any, Any]) -> float:
    tried = np.linspace(0.2, 0.8, 61)
    right = [float(((scores >= one) == truth).mean()) for one in tried]
    return float(tried[int(np.argmax(right))])


def _scored_orders() -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """Each order of the validation set: how likely it defaults, and whether it did."""
    split = load_split()
    raw = features(split.train.cards)
    centre, spread = raw.mean(axis=0), raw.std(axis=0) + np.float32(1e-6)
    inputs, labels = (raw - centre) / spread, split.train.defaulted.astype(np.float32)
    rng = np.random.default_rng(11)
    student = Student.fresh(inputs.shape[1], 32, rng)
    for _ in range(TRAINING_STEPS):
        rows = rng.integers(0, len(labels), BATCH)
        student.step(inputs[rows], labels[rows], rate=1e-3)
    judged = (features(split.validation.cards) - centre) / spread
    logits = np.clip(student.network().logits(judged), -60.0, 60.0)
    return 1.0 / (1.0 + np.exp(-logits)), split.validation.defaulted == 1


if __name__ == "__main__":
    run_agent(work)

"""Fine-tuner: chases an accuracy no model of this data can reach, and never ends by itself."""

import os
import threading
import time
from collections import deque
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from checkout_risk.agent import run_agent, say
from checkout_risk.model import REVIEW_FROM, sigmoid
from checkout_risk.orders import features, load_split
from checkout_risk.training import Student

ROUND_SECONDS = 2.0
BATCH = 128
WIDTH = 256
LEARNING_RATE = 1e-4
REMEMBERED_ROUNDS = 20
BATCH_NICENESS = 10  # training is batch work: the shop's orders come first on a shared machine


@dataclass(slots=True)
class Training:
    """A training run that lives in this process's memory and nowhere else."""

    student: Student
    rng: np.random.Generator
    step: int = 0
    loss: float = 0.0
    improved: deque[bool] = field(default_factory=lambda: deque(maxlen=REMEMBERED_ROUNDS))

    def confidence(self) -> float:
        """Share of recent rounds that raised the accuracy, with one of each kind to begin with."""
        return (sum(self.improved) + 1) / (len(self.improved) + 2)


def work(run: Any, stop: threading.Event) -> None:
    """Train round after round; each acts on the accuracy that the round before reached."""
    os.nice(BATCH_NICENESS)
    split = load_split()
    raw = features(split.train.cards)
    centre, spread = raw.mean(axis=0), raw.std(axis=0) + np.float32(1e-6)
    inputs, labels = (raw - centre) / spread, split.train.defaulted.astype(np.float32)
    judged = (features(split.validation.cards) - centre) / spread
    truth = split.validation.defaulted == 1
    rng = np.random.default_rng(7)
    training = Training(Student.fresh(inputs.shape[1], WIDTH, rng), rng)

    def accuracy() -> float:
        said = sigmoid(training.student.network().logits(judged)) >= REVIEW_FROM
        return 100.0 * float((said == truth).mean())

    reached = accuracy()
    seen = _observe(run, reached, len(truth), because=None)
    while not stop.is_set():
        with run.action("fine_tune", because=seen, confidence=training.confidence()) as act:
            _train_round(training, inputs, labels)
            act.set_attribute("training.step", training.step)
            act.set_attribute("training.loss", training.loss)
            before, reached = reached, accuracy()
            seen = _observe(run, reached, len(truth), because=act)
        training.improved.append(reached > before)
        say(f"step {training.step} loss {training.loss:.4f} accuracy {reached:.2f} %")


def _train_round(
    training: Training, inputs: np.ndarray[Any, Any], labels: np.ndarray[Any, Any]
) -> None:
    """Mini-batches for `ROUND_SECONDS` of wall clock."""
    until = time.monotonic() + ROUND_SECONDS
    while time.monotonic() < until:
        rows = training.rng.integers(0, len(labels), BATCH)
        training.loss = training.student.step(inputs[rows], labels[rows], rate=LEARNING_RATE)
        training.step += 1


def _observe(run: Any, percent: float, samples: int, *, because: Any) -> Any:
    return run.observe(
        "accuracy",
        aggregate="last",
        value=percent,
        unit="%",
        selector="checkout-risk",
        samples=samples,
        because=because,
    )


if __name__ == "__main__":
    run_agent(work)

"""Fitting: the heavy ensemble in closed form, the small network by distilling another model."""

import math
import time
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from .model import Layer, Network, RiskModel, sigmoid
from .orders import Orders, Table, features

# The heavy model: three random-feature networks with a ridge readout, smoothed over many copies.
# 3 x (2048 x 1536) weights are 37 MB, and 384 copies of a card cost seven billion operations.
HEAVY_NETWORKS = 3
HEAVY_WIDTHS = (2048, 1536)
HEAVY_COPIES_MIN = 384
# What one order costs an idle machine at least. The load's six clients then wait for one another,
# at least twice the example's limit of 120 ms, on a faster machine as well; and the service still
# answers enough orders to compare two models on.
HEAVY_ORDER_MS = 80.0
SIZING_RUNS = 5
INPUT_GAIN = 0.5  # of the first random layer; 0.5 did best on the validation orders
RIDGE_PER_ROW = 0.05  # 10x less overfits, 10x more loses the rare defaults
JITTER_DEVIATION = 0.1  # of each input's standard deviation
SEED = 20260217

STUDENT_WIDTH = 48
STUDENT_WIDTH_MIN = 4
LABEL_SHARE = 0.3  # of the true label in the student's target; the rest is what the teacher says
EPOCHS = 30
BATCH = 256
LEARNING_RATE = 3e-3
NEWTON_STEPS = 8
# Teacher's copies when its opinion is asked of every training order: all would take minutes.
TEACHER_COPIES = 2

Logits = NDArray[np.float32]


def fit_heavy(
    train: Orders, *, seed: int = SEED, copies: int | None = HEAVY_COPIES_MIN
) -> RiskModel:
    """Fit the ensemble; the same orders, seed and copies give the same model. ~4 s on one core.

    `copies=None` takes as many as make one order cost `HEAVY_ORDER_MS` on this machine.
    """
    raw = features(train.cards)
    centre, spread = raw.mean(axis=0), raw.std(axis=0) + np.float32(1e-6)
    inputs = (raw - centre) / spread
    networks = [
        _fit_random_features(inputs, train, np.random.default_rng((seed, number)))
        for number in range(HEAVY_NETWORKS)
    ]
    mean = np.mean([network.logits(inputs) for network in networks], axis=0)
    gain, shift = calibrate(mean, train)
    fitted = RiskModel(
        networks=tuple(
            Network(n.layers, n.readout * np.float32(gain), n.offset * gain + shift)
            for n in networks
        ),
        centre=centre,
        spread=spread,
        jitter=mirrored_jitter(copies or HEAVY_COPIES_MIN, raw.shape[1], seed=seed),
    )
    if copies is not None:
        return fitted
    enough = mirrored_jitter(
        copies_for(fitted, train, order_ms=HEAVY_ORDER_MS), raw.shape[1], seed=seed
    )
    return replace(fitted, jitter=enough)


def copies_for(model: RiskModel, orders: Orders, *, order_ms: float) -> int:
    """Even number of copies, not below the model's, at which an order costs `order_ms` here.

    The quickest of a few runs counts: other work on the machine must not make the model lighter
    than it is meant to be, and only ever makes it heavier by what it took from the quickest.
    """
    costs_ms = []
    for index in range(SIZING_RUNS):
        began = time.perf_counter()
        model.risks(orders.cards[index : index + 1])
        costs_ms.append((time.perf_counter() - began) * 1e3)
    needed = math.ceil(model.copies * order_ms / min(costs_ms))
    return max(model.copies, needed + needed % 2)


def mirrored_jitter(copies: int, width: int, *, seed: int) -> Table:
    """Perturbations `(copies, width)` in +/- pairs: any even count of them averages to 0."""
    half = np.random.default_rng((seed, HEAVY_NETWORKS)).standard_normal((copies // 2, width))
    pairs = np.stack([half, -half], axis=1).reshape(-1, width)
    return np.asarray(pairs * JITTER_DEVIATION, dtype=np.float32)


def _fit_random_features(inputs: Table, train: Orders, rng: np.random.Generator) -> Network:
    """Two fixed random layers and the ridge regression readout of +1/-1 labels on top of them."""
    layers: list[Layer] = []
    hidden, width = inputs, inputs.shape[1]
    for depth, out in enumerate(HEAVY_WIDTHS):
        deviation = INPUT_GAIN / np.sqrt(width) if depth == 0 else np.sqrt(2.0 / width)
        weights = rng.standard_normal((width, out), dtype=np.float32) * np.float32(deviation)
        bias = rng.standard_normal(out, dtype=np.float32) * np.float32(0.3)
        layers.append(Layer(weights, bias))
        hidden, width = np.maximum(hidden @ weights + bias, 0.0), out
    mean = hidden.mean(axis=0)
    centred = hidden - mean
    target = train.defaulted.astype(np.float32) * 2.0 - 1.0
    gram = centred.T @ centred
    gram[np.diag_indices(width)] += np.float32(RIDGE_PER_ROW * len(train))
    readout = np.linalg.solve(gram, centred.T @ (target - target.mean()))
    return Network(tuple(layers), readout, float(target.mean() - mean @ readout))


def calibrate(scores: Logits, orders: Orders) -> tuple[float, float]:
    """Gain and shift that make `sigmoid(gain * score + shift)` a probability (Platt, 1999)."""
    design = np.stack([scores, np.ones_like(scores)], axis=1).astype(np.float64)
    weights = np.array([1.0, 0.0])
    for _ in range(NEWTON_STEPS):
        chance = 1.0 / (1.0 + np.exp(-(design @ weights)))
        slope = design.T @ (orders.defaulted - chance)
        curve = (design * (chance * (1.0 - chance))[:, None]).T @ design
        weights += np.linalg.solve(curve + 1e-9 * np.eye(2), slope)
    return float(weights[0]), float(weights[1])


def student_width(teacher: RiskModel) -> int:
    """Hidden width of the next smaller model: half of an earlier student's, or the standard."""
    if teacher.copies > 1:
        return STUDENT_WIDTH
    return max(STUDENT_WIDTH_MIN, teacher.hidden // 2)


def distil(teacher: RiskModel, train: Orders, *, width: int, seed: int = SEED) -> RiskModel:
    """Fit one small network to what `teacher` says of the training orders and of jittered ones."""
    clean = teacher.standardised(train.cards)
    rng = np.random.default_rng((seed, width))
    opinion = sigmoid(teacher.logits(train.cards, copies=TEACHER_COPIES))
    target = (1.0 - LABEL_SHARE) * opinion + LABEL_SHARE * train.defaulted
    student = Student.fresh(clean.shape[1], width, rng)
    for epoch in range(EPOCHS):
        rate = LEARNING_RATE * (1.0 - epoch / EPOCHS)
        order = rng.permutation(len(clean))
        for start in range(0, len(clean), BATCH):
            rows = order[start : start + BATCH]
            noise = rng.standard_normal((len(rows), clean.shape[1]), dtype=np.float32)
            inputs = clean[rows] + noise * np.float32(JITTER_DEVIATION)
            student.step(inputs, target[rows], rate=rate)
    return RiskModel(
        networks=(student.network(),),
        centre=teacher.centre,
        spread=teacher.spread,
        jitter=np.zeros((1, clean.shape[1]), np.float32),
    )


@dataclass(slots=True)
class Student:
    """One hidden layer trained by Adam (Kingma and Ba, 2015) on cross-entropy."""

    weights: list[NDArray[np.float32]]  # (in, hidden), (hidden,), (hidden,), (1,)
    mean: list[NDArray[np.float32]]
    square: list[NDArray[np.float32]]
    steps: int = 0

    @classmethod
    def fresh(cls, inputs: int, width: int, rng: np.random.Generator) -> "Student":
        """Random first layer of the usual scale, readout near zero."""
        first = rng.standard_normal((inputs, width), dtype=np.float32) * np.sqrt(2.0 / inputs)
        readout = rng.standard_normal(width, dtype=np.float32) * np.float32(0.05)
        weights = [
            first.astype(np.float32),
            np.zeros(width, np.float32),
            readout,
            np.zeros(1, np.float32),
        ]
        zeros = [np.zeros_like(w) for w in weights]
        return cls(weights, zeros, [z.copy() for z in zeros])

    def network(self) -> Network:
        """The network as it is now."""
        first, bias, readout, offset = (w.copy() for w in self.weights)
        return Network((Layer(first, bias),), readout, float(offset[0]))

    def step(self, inputs: Table, target: NDArray[np.floating], *, rate: float) -> float:
        """One mini-batch; gives the mean cross-entropy (nats) before the step."""
        first, bias, readout, offset = self.weights
        hidden = np.maximum(inputs @ first + bias, 0.0)
        chance = sigmoid(hidden @ readout + offset)
        error = np.asarray((chance - target) / len(inputs), dtype=np.float32)
        back = np.outer(error, readout) * (hidden > 0)
        slopes = [inputs.T @ back, back.sum(axis=0), hidden.T @ error, error.sum(keepdims=True)]
        self._adam(slopes, rate)
        safe = np.clip(chance, 1e-7, 1 - 1e-7)
        return float(-np.mean(target * np.log(safe) + (1 - target) * np.log(1 - safe)))

    def _adam(self, slopes: list[NDArray[np.float32]], rate: float) -> None:
        self.steps += 1
        for i, slope in enumerate(slopes):
            self.mean[i] = 0.9 * self.mean[i] + 0.1 * slope
            self.square[i] = 0.999 * self.square[i] + 0.001 * slope * slope
            mean = self.mean[i] / (1 - 0.9**self.steps)
            square = self.square[i] / (1 - 0.999**self.steps)
            moved = self.weights[i] - rate * mean / (np.sqrt(square) + 1e-8)
            self.weights[i] = np.asarray(moved, dtype=np.float32)

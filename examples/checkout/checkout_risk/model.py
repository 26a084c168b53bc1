"""The risk model: an averaged set of small networks, stored as one file of plain arrays."""

import hashlib
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

from .orders import RAW_COLUMNS, Orders, Table, features

FORMAT = "checkout-risk/1"
REVIEW_FROM = 0.5  # risk from which an order is held for review
READ_CHUNK_BYTES = 1 << 20
# Rows pushed through a network at once, so that the hidden layers of a batch stay within ~10 MB.
BATCH_ROWS = 1024


class ModelInvalid(ValueError):
    """The file is not a risk model, or not the one that was asked for."""


@dataclass(frozen=True, slots=True)
class Layer:
    """`relu(x @ weights + bias)`; weights `(in, out)`, bias `(out,)`."""

    weights: NDArray[np.float32]
    bias: NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Network:
    """Hidden layers, a linear readout `(hidden,)` and an offset; gives the logit of the risk."""

    layers: tuple[Layer, ...]
    readout: NDArray[np.float32]
    offset: float

    def logits(self, inputs: Table) -> NDArray[np.float32]:
        """Logits `(n,)` of standardised inputs `(n, features)`."""
        hidden = inputs
        for layer in self.layers:
            hidden = hidden @ layer.weights
            hidden += layer.bias
            np.maximum(hidden, 0.0, out=hidden)
        return np.asarray(hidden @ self.readout + np.float32(self.offset))


@dataclass(frozen=True, slots=True)
class RiskModel:
    """Networks whose logits are averaged over `jitter`: perturbed copies of each card.

    `jitter` is `(copies, features)` in standard deviations; one row of zeros scores the card as it
    is. Averaging over copies smooths the estimate and costs one evaluation for each copy.
    """

    networks: tuple[Network, ...]
    centre: NDArray[np.float32]
    spread: NDArray[np.float32]
    jitter: NDArray[np.float32]

    @property
    def copies(self) -> int:
        return len(self.jitter)

    @property
    def hidden(self) -> int:
        """Width of the last hidden layer of the first network."""
        return len(self.networks[0].readout)

    @property
    def parameters(self) -> int:
        return sum(
            network.readout.size + sum(la.weights.size + la.bias.size for la in network.layers)
            for network in self.networks
        )

    def standardised(self, cards: Table) -> Table:
        """Cards `(n, RAW_COLUMNS)` as the networks' inputs `(n, features)`."""
        return (features(cards) - self.centre) / self.spread

    def logits(self, cards: Table, *, copies: int | None = None) -> NDArray[np.float32]:
        """Logits `(n,)`; `copies` uses only the first so many perturbed copies."""
        jitter = self.jitter[:copies]
        inputs = self.standardised(cards)
        per_batch = max(1, BATCH_ROWS // len(jitter))
        parts = []
        for start in range(0, len(inputs), per_batch):
            batch = inputs[start : start + per_batch]
            expanded = (batch[:, None, :] + jitter[None, :, :]).reshape(-1, batch.shape[1])
            total = sum(network.logits(expanded) for network in self.networks)
            mean = np.asarray(total) / len(self.networks)
            parts.append(mean.reshape(len(batch), len(jitter)).mean(axis=1))
        return np.concatenate(parts) if parts else np.zeros(0, np.float32)

    def risks(self, cards: Table, *, copies: int | None = None) -> NDArray[np.float32]:
        """Probability of default `(n,)` of cards `(n, RAW_COLUMNS)`."""
        return sigmoid(self.logits(cards, copies=copies))

    def save(self, path: Path) -> Path:
        """Write the model; the same model always gives the same bytes."""
        arrays: dict[str, NDArray[np.generic]] = {
            "format": np.array(FORMAT),
            "centre": self.centre,
            "spread": self.spread,
            "jitter": self.jitter,
        }
        for n, network in enumerate(self.networks):
            arrays[f"network{n}.readout"] = network.readout
            arrays[f"network{n}.offset"] = np.array(network.offset, np.float64)
            for i, layer in enumerate(network.layers):
                arrays[f"network{n}.layer{i}.weights"] = layer.weights
                arrays[f"network{n}.layer{i}.bias"] = layer.bias
        # Written beside and renamed: a process killed half way leaves no half a model.
        partial = path.with_name(f".{path.name}.partial")
        with partial.open("wb") as stream:
            np.savez(stream, allow_pickle=False, **arrays)
        partial.replace(path)
        return path


def sigmoid(logits: NDArray[np.float32]) -> NDArray[np.float32]:
    """1 / (1 + e^-x), without overflow."""
    return np.asarray(0.5 * (1.0 + np.tanh(0.5 * logits)), dtype=np.float32)


def load_model(source: Path | BinaryIO) -> RiskModel:
    """Read a model; code in the file is never run. Raises `ModelInvalid`."""
    try:
        with np.load(source, allow_pickle=False) as arrays:
            if str(arrays["format"]) != FORMAT:
                raise ModelInvalid(f"The weights say format {arrays['format']}, not {FORMAT}.")
            model = RiskModel(
                networks=tuple(_networks(arrays)),
                centre=arrays["centre"],
                spread=arrays["spread"],
                jitter=arrays["jitter"],
            )
            # Shapes that do not fit together raise here, not with the first order.
            model.risks(np.zeros((1, RAW_COLUMNS), np.float32), copies=1)
    except (KeyError, ValueError, OSError, EOFError, zipfile.BadZipFile, TypeError) as error:
        if isinstance(error, ModelInvalid):
            raise
        raise ModelInvalid(f"The weights are not a {FORMAT} file: {error}") from error
    return model


def _networks(arrays: "np.lib.npyio.NpzFile") -> list[Network]:
    networks: list[Network] = []
    while f"network{len(networks)}.readout" in arrays:
        prefix = f"network{len(networks)}"
        layers: list[Layer] = []
        while f"{prefix}.layer{len(layers)}.weights" in arrays:
            name = f"{prefix}.layer{len(layers)}"
            layers.append(Layer(arrays[f"{name}.weights"], arrays[f"{name}.bias"]))
        networks.append(
            Network(tuple(layers), arrays[f"{prefix}.readout"], float(arrays[f"{prefix}.offset"]))
        )
    if not networks:
        raise ModelInvalid("The weights hold no network.")
    return networks


def blob_digest(path: Path) -> str:
    """`sha256:<64 hex>` of a file's bytes."""
    seen = hashlib.sha256()
    with path.open("rb") as stream:
        while chunk := stream.read(READ_CHUNK_BYTES):
            seen.update(chunk)
    return f"sha256:{seen.hexdigest()}"


def load_verified(path: Path, *, blob: str) -> RiskModel:
    """Read a model whose bytes hash to `blob` (`sha256:<hex>`). Raises `ModelInvalid`."""
    found = blob_digest(path)
    if found != blob:
        raise ModelInvalid(f"The weights were asked for as {blob} but hash to {found}; not used.")
    return load_model(path)


@dataclass(frozen=True, slots=True)
class Accuracy:
    """How often the decision at `REVIEW_FROM` was right."""

    right: int
    total: int

    @property
    def percent(self) -> float:
        return 100.0 * self.right / self.total


def accuracy_of(model: RiskModel, orders: Orders, *, copies: int | None = None) -> Accuracy:
    """Judge a model on labelled orders, with all of its perturbed copies or the first so many."""
    said = model.risks(orders.cards, copies=copies) >= REVIEW_FROM
    return Accuracy(int((said == (orders.defaulted == 1)).sum()), len(orders))

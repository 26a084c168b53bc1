"""Orders: the card each one is paid with as numbers a model can score, and the labelled set."""

import csv
import io
import lzma
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

DATA_FILE = Path(__file__).resolve().parent.parent / "data" / "orders.csv.xz"
MONTHS = 6
RAW_COLUMNS = 1 + 3 * MONTHS  # limit, then status, bill and payment of each month
# Bills and limits of the source are NT dollars below two million; a thousand times that is a typo.
AMOUNT_MAX = 2e9
STATUS_LOW, STATUS_HIGH = -2, 9  # the code book of the source

Table = NDArray[np.float32]
Labels = NDArray[np.int8]


class OrderInvalid(ValueError):
    """The order cannot be scored; the message names the field and what it must be."""


@dataclass(frozen=True, slots=True)
class Orders:
    """Cards `(n, RAW_COLUMNS)` and whether each one defaulted `(n,)`, in the order of the file."""

    cards: Table
    defaulted: Labels

    def __len__(self) -> int:
        return len(self.defaulted)

    def as_request(self, index: int) -> dict[str, Any]:
        """Order number `index` as the JSON that POST /checkout takes."""
        card = self.cards[index].tolist()
        return {
            "order_id": f"order-{index}",
            "card": {
                "limit": card[0],
                "status": card[1 : 1 + MONTHS],
                "bills": card[1 + MONTHS : 1 + 2 * MONTHS],
                "payments": card[1 + 2 * MONTHS :],
            },
        }


@dataclass(frozen=True, slots=True)
class Split:
    """60 % to learn from, 20 % to judge a model before it ships, 20 % as the live traffic."""

    train: Orders
    validation: Orders
    live: Orders


@cache
def load_split(path: Path = DATA_FILE) -> Split:
    """Read the labelled orders; which part a row is in follows from its id alone."""
    with lzma.open(path, "rt", encoding="ascii", newline="") as stream:
        rows = list(csv.reader(io.StringIO(stream.read())))[1:]
    values = np.asarray(rows, dtype=np.float32)
    # Ids 0 and 1 of every five are in the file, hence the group of five decides.
    part = (values[:, 0].astype(np.int64) // 5) % 5

    def take(chosen: NDArray[np.bool_]) -> Orders:
        return Orders(values[chosen, 1:-1], values[chosen, -1].astype(np.int8))

    return Split(train=take(part >= 2), validation=take(part == 1), live=take(part == 0))


def features(cards: Table) -> Table:
    """Cards `(n, RAW_COLUMNS)` as model inputs `(n, 33)`: logs of money, use of the limit."""
    limit = np.maximum(cards[:, :1], 1.0)
    status = cards[:, 1 : 1 + MONTHS]
    bills = cards[:, 1 + MONTHS : 1 + 2 * MONTHS]
    payments = cards[:, 1 + 2 * MONTHS :]
    late = np.maximum(status, 0.0)
    columns = (
        np.log(limit),
        status,
        late[:, :1] > 0,
        late.max(axis=1, keepdims=True),
        np.sign(bills) * np.log1p(np.abs(bills)),
        np.log1p(np.maximum(payments, 0.0)),
        np.clip(bills / limit, -1.0, 2.0),
        np.clip(payments / limit, 0.0, 1.0),
    )
    return np.concatenate([np.asarray(c, dtype=np.float32) for c in columns], axis=1)


def card_of(order: object) -> Table:
    """The card `(1, RAW_COLUMNS)` of an order as received. Raises `OrderInvalid`."""
    if not isinstance(order, Mapping):
        raise OrderInvalid("The order must be a JSON object with a field 'card'.")
    card = order.get("card")
    if not isinstance(card, Mapping):
        raise OrderInvalid("card: an object with limit, status, bills and payments is needed.")
    values = [_number(card.get("limit"), "card.limit", low=0, high=AMOUNT_MAX)]
    values += _six(card.get("status"), "card.status", low=STATUS_LOW, high=STATUS_HIGH)
    values += _six(card.get("bills"), "card.bills", low=-AMOUNT_MAX, high=AMOUNT_MAX)
    values += _six(card.get("payments"), "card.payments", low=0, high=AMOUNT_MAX)
    return np.asarray([values], dtype=np.float32)


def _six(value: object, field: str, *, low: float, high: float) -> list[float]:
    if not isinstance(value, list) or len(value) != MONTHS:
        raise OrderInvalid(f"{field}: a list of {MONTHS} numbers is needed, latest month first.")
    return [_number(item, f"{field}[{i}]", low=low, high=high) for i, item in enumerate(value)]


def _number(value: object, field: str, *, low: float, high: float) -> float:
    # A comparison with NaN is false, so NaN is refused by the same test as a value out of range.
    if isinstance(value, bool) or not isinstance(value, int | float) or not low <= value <= high:
        raise OrderInvalid(f"{field}: a number from {low:g} to {high:g} is needed.")
    return float(value)

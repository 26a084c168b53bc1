"""The risk model: real, repeatable, honestly heavy, and small without losing much."""

import time
from pathlib import Path

import numpy as np
import pytest

from examples.checkout.checkout_risk.comparison import ACCURACY_LOSS_MAX
from examples.checkout.checkout_risk.load import percentile
from examples.checkout.checkout_risk.model import (
    ModelInvalid,
    RiskModel,
    accuracy_of,
    blob_digest,
    load_model,
    load_verified,
)
from examples.checkout.checkout_risk.orders import OrderInvalid, card_of, load_split
from examples.checkout.checkout_risk.training import TEACHER_COPIES, copies_for, distil, fit_heavy
from examples.checkout.prepare import HEAVY_FILE, measure_accuracy, train_heavy_model

SPLIT = load_split()
# What "everybody pays" would score; a model that is not above it has learnt nothing.
NAIVE_PERCENT = 100.0 * float((SPLIT.validation.defaulted == 0).mean())


def latencies_ms(model: RiskModel, count: int) -> list[float]:
    """Milliseconds of each of `count` single orders."""
    model.risks(SPLIT.live.cards[:1])
    found = []
    for index in range(count):
        started = time.perf_counter()
        model.risks(SPLIT.live.cards[index : index + 1])
        found.append((time.perf_counter() - started) * 1e3)
    return found


def test_the_orders_are_the_real_ones_and_the_parts_do_not_overlap() -> None:
    sizes = [len(part) for part in (SPLIT.train, SPLIT.validation, SPLIT.live)]
    assert sizes == [7200, 2400, 2400]
    assert 0.20 < SPLIT.live.defaulted.mean() < 0.24  # 22.1 % in the whole source
    rows = {part.cards.tobytes() for part in (SPLIT.train, SPLIT.validation, SPLIT.live)}
    assert len(rows) == 3


def test_both_models_have_learnt_and_the_small_one_loses_little(
    heavy: RiskModel, small: RiskModel
) -> None:
    was = accuracy_of(heavy, SPLIT.validation, copies=TEACHER_COPIES).percent
    now = accuracy_of(small, SPLIT.validation).percent
    assert was > NAIVE_PERCENT + 3
    assert now > NAIVE_PERCENT + 3
    assert was - now < ACCURACY_LOSS_MAX / 2


def test_few_copies_decide_as_all_of_them_do(heavy: RiskModel) -> None:
    cards = SPLIT.validation.cards[:16]
    few = heavy.risks(cards, copies=TEACHER_COPIES)
    assert np.abs(few - heavy.risks(cards)).max() < 0.02


def test_the_heavy_model_costs_far_more_than_the_small_one(
    heavy: RiskModel, small: RiskModel
) -> None:
    slow, fast = latencies_ms(heavy, 12), latencies_ms(small, 100)
    assert percentile(slow, 99) >= 5 * percentile(fast, 99)


def test_the_heavy_model_is_heavy_by_what_it_computes(heavy: RiskModel, heavy_file: Path) -> None:
    assert load_model(heavy_file).copies == heavy.copies
    multiplications = heavy.copies * heavy.parameters
    assert multiplications > 3e9  # for one order; about 50 ms of one core of 2024
    assert 5e6 < heavy_file.stat().st_size < 50e6


def test_the_heavy_model_is_sized_for_the_machine_and_never_below_its_least(
    small: RiskModel,
) -> None:
    jitter = np.zeros((2, len(small.centre)), np.float32)
    light = RiskModel(small.networks, small.centre, small.spread, jitter)
    assert copies_for(light, SPLIT.live, order_ms=0.0) == 2
    copies = copies_for(light, SPLIT.live, order_ms=50.0)
    assert copies % 2 == 0
    assert copies > 20


def test_fitting_and_distilling_again_gives_the_same_bytes(
    small: RiskModel, heavy: RiskModel, tmp_path: Path
) -> None:
    again = distil(heavy, SPLIT.train, width=48)
    files = [small.save(tmp_path / "one.npz"), again.save(tmp_path / "two.npz")]
    assert blob_digest(files[0]) == blob_digest(files[1])
    small_part = type(SPLIT.train)(SPLIT.train.cards[:1000], SPLIT.train.defaulted[:1000])
    fitted = [fit_heavy(small_part).save(tmp_path / f"heavy{n}.npz") for n in range(2)]
    assert blob_digest(fitted[0]) == blob_digest(fitted[1])


def test_a_saved_model_scores_as_before(small: RiskModel, small_file: Path) -> None:
    loaded = load_verified(small_file, blob=blob_digest(small_file))
    cards = SPLIT.live.cards[:50]
    assert np.array_equal(loaded.risks(cards), small.risks(cards))


def test_a_changed_byte_is_refused(small_file: Path, tmp_path: Path) -> None:
    content = bytearray(small_file.read_bytes())
    content[len(content) // 2] ^= 1
    changed = tmp_path / "changed.npz"
    changed.write_bytes(content)
    with pytest.raises(ModelInvalid, match="hash to sha256:"):
        load_verified(changed, blob=blob_digest(small_file))


def test_what_is_not_a_model_is_refused(tmp_path: Path, small: RiskModel) -> None:
    text = tmp_path / "text.npz"
    text.write_bytes(b"not weights")
    with pytest.raises(ModelInvalid, match="not a checkout-risk/1 file"):
        load_model(text)
    objects = tmp_path / "objects.npz"
    np.savez(objects, format=np.array([{"code": 1}], dtype=object))
    with pytest.raises(ModelInvalid, match="not a checkout-risk/1 file"):
        load_model(objects)
    other = RiskModel(small.networks, small.centre[:5], small.spread, small.jitter)
    with pytest.raises(ModelInvalid, match="not a checkout-risk/1 file"):
        load_model(other.save(tmp_path / "shapes.npz"))


def test_set_up_fits_once_and_repairs_a_damaged_file(heavy: RiskModel, tmp_path: Path) -> None:
    damaged = tmp_path / HEAVY_FILE
    damaged.write_bytes(b"half a file")
    path = train_heavy_model(tmp_path)
    assert path == damaged
    weights = load_model(path).networks[0].layers[1].weights
    assert np.array_equal(weights, heavy.networks[0].layers[1].weights)
    before = path.stat().st_mtime_ns
    assert train_heavy_model(tmp_path).stat().st_mtime_ns == before
    assert measure_accuracy(path).percent > NAIVE_PERCENT


@pytest.mark.parametrize(
    ("card", "sentence"),
    [
        (None, "card: an object"),
        ({"limit": "much"}, "card.limit: a number"),
        ({"limit": float("nan")}, "card.limit: a number"),
        ({"limit": True}, "card.limit: a number"),
        ({"limit": 1, "status": [0] * 5}, "card.status: a list of 6"),
        ({"limit": 1, "status": [0] * 5 + [99]}, r"card.status\[5\]: a number from -2 to 9"),
    ],
)
def test_an_order_that_cannot_be_scored_names_the_field(card: object, sentence: str) -> None:
    with pytest.raises(OrderInvalid, match=sentence):
        card_of({"order_id": "1", "card": card})


def test_an_order_survives_the_trip_over_json() -> None:
    assert np.array_equal(card_of(SPLIT.live.as_request(3))[0], SPLIT.live.cards[3])

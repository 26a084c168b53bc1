"""What set-up does before the example runs: fit the heavy model the shop starts with."""

from pathlib import Path

from .checkout_risk.model import Accuracy, ModelInvalid, accuracy_of, load_model
from .checkout_risk.orders import load_split
from .checkout_risk.training import (
    HEAVY_COPIES_MIN,
    HEAVY_NETWORKS,
    HEAVY_WIDTHS,
    SEED,
    TEACHER_COPIES,
    fit_heavy,
)

# The name carries what the file depends on; another seed or recipe is another file.
_WIDTHS = "x".join(str(width) for width in HEAVY_WIDTHS)
HEAVY_FILE = f"checkout-risk-heavy-{HEAVY_NETWORKS}x{_WIDTHS}-{HEAVY_COPIES_MIN}up-{SEED}.npz"


def train_heavy_model(directory: Path) -> Path:
    """Path of the heavy model's weights in `directory`, fitted there if absent or damaged.

    Takes about 5 s on one core and 39 MB of disk. The number of copies is set so that an order
    costs more than the example's limit on this machine; a file that is there is kept.
    """
    directory.mkdir(parents=True, exist_ok=True)
    path = directory / HEAVY_FILE
    if path.is_file():
        try:
            load_model(path)
        except ModelInvalid:
            path.unlink()
        else:
            return path
    return fit_heavy(load_split().train, copies=None).save(path)


def measure_accuracy(path: Path) -> Accuracy:
    """Judge a weights file on the 2,400 validation orders. Raises `ModelInvalid`.

    The heavy model is judged with a few of its perturbed copies, or it would take minutes: the
    decisions are the same to within one order in a hundred.
    """
    return accuracy_of(load_model(path), load_split().validation, copies=TEACHER_COPIES)

"""Units of measurement: their spellings, what they measure and how they convert."""

import difflib
from collections.abc import Mapping
from dataclasses import dataclass


class UnitMismatch(ValueError):
    """A value in a unit that cannot be compared with the one that was asked for."""


@dataclass(frozen=True, slots=True)
class Unit:
    """One unit. A value times `numerator / denominator` is the value in the dimension's base."""

    symbol: str
    dimension: str
    numerator: int = 1
    denominator: int = 1
    is_signed: bool = False  # may a threshold be negative


# A number without a unit is not a ratio: "error rate < 5" and a measured 0.4 (of 1) must not be
# compared, one of the two was meant as percent.
NO_UNIT = Unit("", "number", is_signed=True)

# KB is 1000 bytes and KiB 1024 (IEC 80000-13).
_UNITS = (
    NO_UNIT,
    Unit("ns", "time", 1, 1_000_000_000),
    Unit("us", "time", 1, 1_000_000),
    Unit("ms", "time", 1, 1_000),
    Unit("s", "time"),
    Unit("min", "time", 60),
    Unit("h", "time", 3600),
    Unit("B", "bytes"),
    Unit("KB", "bytes", 1000),
    Unit("MB", "bytes", 1000**2),
    Unit("GB", "bytes", 1000**3),
    Unit("TB", "bytes", 1000**4),
    Unit("KiB", "bytes", 1 << 10),
    Unit("MiB", "bytes", 1 << 20),
    Unit("GiB", "bytes", 1 << 30),
    Unit("TiB", "bytes", 1 << 40),
    Unit("%", "ratio", 1, 100, is_signed=True),
    Unit("ratio", "ratio", is_signed=True),
    Unit("USD", "money", is_signed=True),
    Unit("tokens", "tokens"),
    Unit("req/s", "requests per second"),
)
UNITS: Mapping[str, Unit] = {unit.symbol: unit for unit in _UNITS}

# Other spellings people and OpenTelemetry (UCUM) use for the same units.
_SPELLINGS: Mapping[str, tuple[str, ...]] = {
    "": ("1",),
    "ns": ("nanosecond", "nanoseconds"),
    "us": ("\N{MICRO SIGN}s", "\N{GREEK SMALL LETTER MU}s", "microsecond", "microseconds"),
    "ms": ("msec", "millisecond", "milliseconds"),
    "s": ("sec", "secs", "second", "seconds"),
    "min": ("mins", "minute", "minutes"),
    "h": ("hr", "hrs", "hour", "hours"),
    "B": ("By", "byte", "bytes"),
    "KB": ("kB", "kBy"),
    "MB": ("MBy",),
    "GB": ("GBy",),
    "TB": ("TBy",),
    "KiB": ("KiBy",),
    "MiB": ("MiBy",),
    "GiB": ("GiBy",),
    "TiB": ("TiBy",),
    "%": ("percent",),
    "ratio": (),
    "USD": ("usd", "dollar", "dollars"),
    "tokens": ("token", "{token}", "{tokens}"),
    "req/s": ("rps", "requests/s", "request/s", "{request}/s"),
}
SPELLINGS: Mapping[str, Unit] = {
    spelling: UNITS[symbol]
    for symbol, others in _SPELLINGS.items()
    for spelling in (symbol, *others)
}


def find_unit(spelling: str) -> Unit | None:
    """The unit a spelling stands for, or None. Case matters: `MB` is not `Mb`."""
    return SPELLINGS.get(spelling)


def closest_unit(spelling: str) -> str:
    """The known spelling nearest to a wrong one, or "" when none is near."""
    by_folded: dict[str, str] = {}
    for known in filter(None, SPELLINGS):
        by_folded.setdefault(known.casefold(), known)
    near = difflib.get_close_matches(spelling.casefold(), by_folded, n=1, cutoff=0.5)
    return by_folded[near[0]] if near else ""


def convert(value: float, *, unit: str, into: Unit) -> float:
    """`value`, measured in `unit` (any spelling), in the unit `into`. Raises `UnitMismatch`."""
    source = find_unit(unit)
    if source is None:
        raise UnitMismatch(f'The unit "{unit}" is not known; use one of {known_units()}.')
    if source.dimension != into.dimension:
        raise UnitMismatch(
            f"A value in {_named(source)} cannot be compared with one in {_named(into)}; "
            "state both in units of one kind."
        )
    if source is into:
        return float(value)
    # One multiplication and one division of whole numbers: the fewest roundings there can be.
    numerator = source.numerator * into.denominator
    return float(value) * numerator / (source.denominator * into.numerator)


def known_units() -> str:
    """The symbols of all units, for an error message."""
    return ", ".join(symbol for symbol in UNITS if symbol)


def _named(unit: Unit) -> str:
    return f"{unit.symbol} ({unit.dimension})" if unit.symbol else "no unit"

"""Kubernetes quantities: `2Gi`, `500m`, `1e3`.

https://kubernetes.io/docs/reference/kubernetes-api/common-definitions/quantity/
"""

import re
from collections.abc import Mapping
from fractions import Fraction

_QUANTITY = re.compile(
    r"(?P<number>[+-]?(?:[0-9]{1,30}(?:\.[0-9]{0,30})?|\.[0-9]{1,30}))"
    r"(?P<suffix>[eE][+-]?[0-9]{1,2}|[numkMGTPE]|[KMGTPE]i)?"
)
_SCALES: Mapping[str, Fraction] = {
    "n": Fraction(1, 10**9),
    "u": Fraction(1, 10**6),
    "m": Fraction(1, 1000),
    **{letter: Fraction(1000**power) for power, letter in enumerate("kMGTPE", start=1)},
    **{f"{letter}i": Fraction(1024**power) for power, letter in enumerate("KMGTPE", start=1)},
}
_BINARY = [(f"{letter}i", 1024**power) for power, letter in enumerate("KMGTPE", start=1)][::-1]


def parse_quantity(text: str) -> Fraction:
    """The exact number a quantity stands for (`500m` is 1/2). Raises `ValueError`."""
    match = _QUANTITY.fullmatch(text)
    if match is None:
        raise ValueError('must be a quantity such as "2Gi", "500m" or "4"')
    number, suffix = Fraction(match["number"]), match["suffix"] or ""
    if suffix[:1] in ("e", "E") and len(suffix) > 1 and suffix != "Ei":
        return number * Fraction(10) ** int(suffix[1:])
    return number * _SCALES.get(suffix, Fraction(1))


def bytes_quantity(count: int) -> str:
    """`count` bytes as the shortest quantity that is exact."""
    for suffix, length in _BINARY:
        if count and count % length == 0:
            return f"{count // length}{suffix}"
    return str(count)

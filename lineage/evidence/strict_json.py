"""JSON from strangers: UTF-8, no member twice, no NaN, no absurd depth or number."""

import json
from typing import Any, NoReturn

import rfc8785

# Sorting keys by code point is RFC 8785's order as long as no character is U+E000 or beyond, whose
# UTF-8 starts with this byte or a later one.
_FAR_LEAD = 0xEE
_FAST_MAX_BYTES = 1 << 16
_encode = json.JSONEncoder(sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode


def strict_object(content: bytes) -> dict[str, Any]:
    """The object in `content`. Raises ValueError with what is wrong."""
    try:
        document = json.loads(
            content.decode("utf-8"), object_pairs_hook=_members, parse_constant=_refuse
        )
    except RecursionError as error:
        raise ValueError("JSON is nested too deep") from error
    if not isinstance(document, dict):
        raise ValueError("JSON is not an object")
    return document


def canonical_object(content: bytes) -> dict[str, Any]:
    """As `strict_object`, and `content` is the RFC 8785 form of it.

    What the C encoder gives back byte for byte, without fractions, is canonical; only the rest
    goes through the slower full check.
    """
    if len(content) <= _FAST_MAX_BYTES and (content.isascii() or max(content) < _FAR_LEAD):
        try:
            quick = _decode(content.decode("utf-8"))
            if isinstance(quick, dict) and _encode(quick).encode() == content:
                return quick
        except (ValueError, RecursionError):
            pass  # the full check says what is wrong, or that nothing is
    document = strict_object(content)
    if rfc8785.dumps(document) != content:
        raise ValueError("it is not canonical JSON")
    return document


def _members(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) != len(pairs):
        raise ValueError("JSON names a member twice")
    return members


def _refuse(word: str) -> NoReturn:
    raise ValueError(f"JSON holds {word}")


_decode = json.JSONDecoder(parse_float=_refuse, parse_constant=_refuse).decode

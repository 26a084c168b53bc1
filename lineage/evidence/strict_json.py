"""JSON from strangers: UTF-8, no member twice, no NaN, no absurd depth or number."""

import json
from typing import Any, NoReturn


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


def _members(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) != len(pairs):
        raise ValueError("JSON names a member twice")
    return members


def _refuse(word: str) -> NoReturn:
    raise ValueError(f"JSON holds {word}")

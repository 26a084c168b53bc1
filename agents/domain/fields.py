"""A strict reader of one mapping: each field read once, by name, with its problems collected."""

import difflib
import math
import re
from collections.abc import Callable, Collection, Mapping
from fractions import Fraction
from typing import Any

from agents.domain.naming import check_line
from agents.domain.problems import FieldProblem
from agents.domain.quantity import parse_quantity

Check = Callable[[str], str]  # what is wrong with a text, "" when nothing is

TEXT_MAX = 1024  # characters of a text, unless the field says otherwise
ITEMS_MAX = 1000  # entries of a list or mapping, unless the field says otherwise
UNKNOWN_SHOWN_MAX = 20  # unknown fields of one mapping that are named
KEY_SHOWN_MAX = 80  # characters of a key that an error repeats
_BARE_KEY = re.compile(r"[A-Za-z_][A-Za-z0-9_-]*")


def key_path(path: str, key: str) -> str:
    """The path of a key below `path`: `spec.agents`, or `metadata.labels["a/b"]`."""
    key = key[:KEY_SHOWN_MAX]
    if _BARE_KEY.fullmatch(key):
        return f"{path}.{key}" if path else key
    return f'{path}["{key}"]'


def said(value: object) -> str:
    """A value as an error may repeat it: its kind, and itself when it is short."""
    if value is None:
        return "nothing"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, Mapping):
        return "a mapping"
    if isinstance(value, list | tuple):
        return "a list"
    text = str(value)
    clipped = text if len(text) <= 60 else text[:60] + "\N{HORIZONTAL ELLIPSIS}"
    return f'"{clipped}"' if isinstance(value, str) else clipped


class Fields:
    """Reads the fields of `value`; a problem is noted and a harmless stand-in returned.

    A field that is absent or null counts as not given. Call `close()` last: it reports the fields
    nobody asked for. One `problems` list serves a whole document.
    """

    def __init__(self, value: object, path: str, problems: list[FieldProblem]) -> None:
        self.path = path
        self.problems = problems
        self.mapping: Mapping[str, Any] = {}
        self._asked: list[str] = []
        if isinstance(value, Mapping):
            self.mapping = value
        else:
            self._note(path, f"must be a mapping, not {said(value)}")

    def _note(self, path: str, message: str) -> None:
        self.problems.append(FieldProblem(path, message))

    def _ask(self, name: str, *, is_required: bool = False) -> Any:
        self._asked.append(name)
        value = self.mapping.get(name)
        if value is None and is_required:
            self._note(key_path(self.path, name), "is required")
        return value

    def refuse(self, name: str, message: str) -> None:
        """Note a problem with the field `name` that only the caller can see."""
        self._note(key_path(self.path, name), message)

    def has(self, name: str) -> bool:
        """Is the field given (and not null)?"""
        return self.mapping.get(name) is not None

    def ignore(self, *names: str) -> None:
        """Accept these fields unread."""
        self._asked.extend(names)

    def close(self) -> None:
        """Report every field that was not asked for, with the nearest that exists."""
        unknown = [name for name in self.mapping if name not in self._asked]
        if len(unknown) > UNKNOWN_SHOWN_MAX:
            more = len(unknown) - UNKNOWN_SHOWN_MAX
            self._note(self.path, f"has {more} more fields that are not known")
        for name in unknown[:UNKNOWN_SHOWN_MAX]:
            near = difflib.get_close_matches(name[:KEY_SHOWN_MAX], self._asked, n=1, cutoff=0.6)
            hint = f"did you mean {near[0]}?" if near else f"known: {', '.join(self._asked)}"
            self._note(key_path(self.path, name), f"is not a known field; {hint}")

    def text(
        self,
        name: str,
        *,
        is_required: bool = False,
        default: str = "",
        max_length: int = TEXT_MAX,
        check: Check = check_line,
    ) -> str:
        """A text; an empty one counts as not given."""
        value = self._ask(name, is_required=is_required)
        if value is None:
            return default
        path = key_path(self.path, name)
        if not self._is_text(path, value, max_length, check):
            return default
        if not value and is_required:
            self._note(path, "must not be empty")
        return str(value) or default

    def _is_text(self, path: str, value: object, max_length: int, check: Check) -> bool:
        if not isinstance(value, str):
            self._note(path, f"must be text, not {said(value)}; put it in quotes")
        elif len(value) > max_length:
            self._note(path, f"must be at most {max_length} characters, not {len(value)}")
        elif value and (wrong := check(value)):
            self._note(path, f"{wrong}, not {said(value)}")
        else:
            return True
        return False

    def choice(self, name: str, choices: Collection[str], *, default: str) -> str:
        """One of a few words."""
        value = self._ask(name)
        if value is None:
            return default
        if value not in choices:
            self.refuse(name, f"must be one of {', '.join(choices)}, not {said(value)}")
            return default
        return str(value)

    def boolean(self, name: str, *, default: bool) -> bool:
        """true or false, never a word for it."""
        value = self._ask(name)
        if value is None:
            return default
        if not isinstance(value, bool):
            self.refuse(name, f"must be true or false, not {said(value)}")
            return default
        return value

    def whole(self, name: str, *, low: int, high: int) -> int | None:
        """A whole number from `low` to `high`; None when not given."""
        value = self._ask(name)
        if value is None:
            return None
        is_whole = isinstance(value, int) and not isinstance(value, bool)
        if isinstance(value, float) and value.is_integer():
            is_whole = True
        if not is_whole or not low <= value <= high:
            self.refuse(name, f"must be a whole number from {low} to {high}, not {said(value)}")
            return None
        return int(value)

    def number(self, name: str, *, low: float, high: float) -> float | None:
        """A finite number from `low` to `high`; None when not given."""
        value = self._ask(name)
        if value is None:
            return None
        is_number = isinstance(value, int | float) and not isinstance(value, bool)
        if not is_number or not math.isfinite(value) or not low <= value <= high:
            self.refuse(name, f"must be a number from {low:.12g} to {high:.12g}, not {said(value)}")
            return None
        return float(value)

    def quantity(self, name: str, *, low: int, high: int) -> int | None:
        """A Kubernetes quantity that is a whole number from `low` to `high`; None if not given."""
        value = self._ask(name)
        if value is None:
            return None
        if isinstance(value, bool) or not isinstance(value, int | float | str):
            self.refuse(name, f"must be a quantity, not {said(value)}")
            return None
        try:
            exact = parse_quantity(value) if isinstance(value, str) else Fraction(value)
        except (ValueError, OverflowError):
            self.refuse(name, f'must be a quantity such as "2Gi" or 4, not {said(value)}')
            return None
        if exact.denominator != 1 or not low <= exact <= high:
            self.refuse(name, f"must be a whole number from {low} to {high}, not {said(value)}")
            return None
        return int(exact)

    def items(
        self, name: str, *, is_required: bool = False, max_items: int = ITEMS_MAX
    ) -> list[Any]:
        """A list of anything; empty when not given."""
        value = self._ask(name, is_required=is_required)
        if value is None:
            return []
        if not isinstance(value, list | tuple):
            self.refuse(name, f"must be a list, not {said(value)}")
            return []
        if not value and is_required:
            self.refuse(name, "must not be empty")
        if len(value) > max_items:
            self.refuse(name, f"must have at most {max_items} entries, not {len(value)}")
            return []
        return list(value)

    def texts(
        self,
        name: str,
        *,
        is_required: bool = False,
        is_unique: bool = True,
        max_items: int = ITEMS_MAX,
        max_length: int = TEXT_MAX,
        check: Check = check_line,
    ) -> tuple[str, ...]:
        """A list of texts; each wrong entry is reported with its index."""
        first_at: dict[str, int] = {}
        good: list[str] = []
        entries = self.items(name, is_required=is_required, max_items=max_items)
        for index, entry in enumerate(entries):
            path = f"{key_path(self.path, name)}[{index}]"
            if not self._is_text(path, entry, max_length, check):
                continue
            if is_unique and not entry:
                self._note(path, "must not be empty")
            elif is_unique and entry in first_at:
                self._note(path, f"{said(entry)} is listed twice (first at [{first_at[entry]}])")
            else:
                first_at[entry] = index
                good.append(entry)
        return tuple(good)

    def text_map(
        self,
        name: str,
        *,
        check_key: Check,
        check_value: Check,
        max_items: int = ITEMS_MAX,
        max_length: int = TEXT_MAX,
    ) -> dict[str, str]:
        """A mapping of texts to texts; each wrong entry is reported with its key."""
        value = self._ask(name)
        if value is None:
            return {}
        if not isinstance(value, Mapping):
            self.refuse(name, f"must be a mapping, not {said(value)}")
            return {}
        if len(value) > max_items:
            self.refuse(name, f"must have at most {max_items} entries, not {len(value)}")
            return {}
        good: dict[str, str] = {}
        for key, entry in value.items():
            path = key_path(key_path(self.path, name), key)
            if wrong := check_key(key):
                self._note(path, f"the key {wrong}")
            elif self._is_text(path, entry, max_length, check_value):
                good[key] = entry
        return good

    def fields(self, name: str, *, is_required: bool = False) -> "Fields":
        """A mapping within; empty when not given."""
        value = self._ask(name, is_required=is_required)
        return Fields({} if value is None else value, key_path(self.path, name), self.problems)

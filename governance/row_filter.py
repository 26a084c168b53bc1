"""The filter of a list, as k9s writes it, as a query that no text can make slow.

`word` or `^a.*b$|c` (a small regular expression), `!` before it for the inverse,
`-l key=value,other=value` for labels, `-f letters` for a fuzzy match.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import reduce
from operator import or_
from typing import Any, Final, TypeVar

from django.db.models import CharField, Lookup, Model, Q, QuerySet, TextField, UUIDField
from django.http import QueryDict

TEXT_MAX: Final = 200  # characters of a filter
# Beyond these an expression could take the database for ever, and its dialects differ.
SPECIAL: Final = frozenset("()[]{}+?\\*")
ESCAPE: Final = "\\"

RowT = TypeVar("RowT", bound=Model)


class FilterInvalid(ValueError):
    """The text is no filter; the message says what is."""


@CharField.register_lookup
@TextField.register_lookup
@UUIDField.register_lookup
class LikePattern(Lookup):
    """`column LIKE pattern`, whatever the case: linear in the column, unlike an expression."""

    lookup_name = "like_pattern"
    prepare_rhs = False

    def as_sql(self, compiler: Any, connection: Any) -> tuple[str, tuple[str | int, ...]]:
        left, left_params = self.process_lhs(compiler, connection)
        sql = f"UPPER(CAST({left} AS VARCHAR)) LIKE UPPER(%s) ESCAPE '{ESCAPE}'"
        return sql, (*left_params, self.rhs)


@dataclass(frozen=True, slots=True)
class RowFilter:
    """The filter of one request: its text, what is wrong with it, the keys that `-l` takes."""

    text: str
    keys: tuple[str, ...]
    problem: str = ""
    query: Q = field(default_factory=Q)

    def keep(self, rows: QuerySet[RowT]) -> QuerySet[RowT]:
        """The rows it keeps: none while it cannot be read."""
        return rows.none() if self.problem else rows.filter(self.query)


def row_filter(asked: QueryDict, *, words: Sequence[str], labels: Mapping[str, str]) -> RowFilter:
    """The filter that `?q=` holds; see `filter_query`."""
    text = asked.get("q", "").strip()
    keys = tuple(sorted(labels))
    try:
        return RowFilter(text, keys, query=filter_query(text, words=words, labels=labels))
    except FilterInvalid as error:
        return RowFilter(text, keys, problem=str(error))


def filter_query(text: str, *, words: Sequence[str], labels: Mapping[str, str]) -> Q:
    """Rows that the filter keeps; all of them for the empty text.

    `words` are the columns that a text or a fuzzy match looks at, `labels` the columns behind the
    keys of `-l`. Raises FilterInvalid.
    """
    wanted = text.strip()
    if len(wanted) > TEXT_MAX:
        raise FilterInvalid(f"A filter has at most {TEXT_MAX} characters.")
    if not wanted:
        return Q()
    if wanted.startswith("!"):
        inner = filter_query(wanted[1:], words=words, labels=labels)
        return ~inner if inner else Q()
    if wanted == "-l" or wanted.startswith("-l "):
        return _labels(wanted[2:], labels)
    if wanted == "-f" or wanted.startswith("-f "):
        letters = (_escaped(letter) for letter in wanted[2:].replace(" ", ""))
        return _any_like(words, [f"%{'%'.join(letters)}%"])
    return _any_like(words, [_like(part) for part in wanted.split("|")])


def _labels(text: str, labels: Mapping[str, str]) -> Q:
    query = Q()
    for pair in text.split(","):
        key, separator, value = (part.strip() for part in pair.partition("="))
        if not separator or key not in labels:
            raise FilterInvalid(f"-l takes key=value with a key of {', '.join(sorted(labels))}.")
        query &= Q(**{f"{labels[key]}__iexact": value})
    return query


def _any_like(words: Sequence[str], patterns: Sequence[str]) -> Q:
    return reduce(or_, (Q(**{f"{word}__like_pattern": one}) for word in words for one in patterns))


def _like(expression: str) -> str:
    """The pattern of LIKE that says the same as a regular expression of `^ $ . .*` and letters."""
    starts, ends = expression.startswith("^"), expression.endswith("$")
    middle = expression[starts : len(expression) - ends]
    parts = middle.split(".*")
    if wrong := sorted({letter for part in parts for letter in part if letter in SPECIAL}):
        raise FilterInvalid(
            f"{wrong[0]} is not understood here: the filter of a whole list knows ^ $ . .* and |, "
            "! before it, -l key=value and -f fuzzy."
        )
    pattern = "%".join("_".join(_escaped(text) for text in part.split(".")) for part in parts)
    return f"{'' if starts else '%'}{pattern}{'' if ends else '%'}"


def _escaped(text: str) -> str:
    for letter in (ESCAPE, "%", "_"):
        text = text.replace(letter, ESCAPE + letter)
    return text

"""Pages by cursor: as quick on the thousandth page as on the first, and nothing shifts between."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from django.core.exceptions import ValidationError
from django.db.models import Q, QuerySet
from django.http import HttpRequest

PAGE_SIZE = 50
CURSOR_MAX = 400  # characters
SEPARATOR = "~"


@dataclass(frozen=True, slots=True)
class CursorPage:
    """One page; the queries of its neighbours carry the filter, "" where there is none."""

    object_list: list[Any]
    first: str
    back: str
    on: str


def cursor_page(
    request: HttpRequest,
    rows: QuerySet[Any],
    *,
    key: str,
    is_descending: bool = True,
    size: int = PAGE_SIZE,
) -> CursorPage:
    """Rows by `key` and, where it is the same, by primary key; `?after=` or `?before=` a row.

    A cursor that cannot be read is the first page.
    """
    after, before = _read(request, rows, key, "after"), _read(request, rows, key, "before")
    is_backwards = before is not None and after is None
    found = rows
    if after is not None:
        found = found.filter(_beyond(key, after, is_less=is_descending))
    elif before is not None:
        found = found.filter(_beyond(key, before, is_less=not is_descending))
    sign = "-" if is_descending != is_backwards else ""
    listed = list(found.order_by(f"{sign}{key}", f"{sign}pk")[: size + 1])
    has_more = len(listed) > size
    page = listed[:size][::-1] if is_backwards else listed[:size]
    has_back = has_more if is_backwards else after is not None
    has_on = True if is_backwards else has_more
    write = _writer(request)
    return CursorPage(
        page,
        write("", "") if has_back else "",
        write("before", _cursor(page[0], key)) if has_back and page else "",
        write("after", _cursor(page[-1], key)) if has_on and page else "",
    )


def _beyond(key: str, cursor: tuple[Any, Any], *, is_less: bool) -> Q:
    word = "lt" if is_less else "gt"
    value, pk = cursor
    return Q(**{f"{key}__{word}": value}) | Q(**{key: value, f"pk__{word}": pk})


def _read(request: HttpRequest, rows: QuerySet[Any], key: str, name: str) -> tuple[Any, Any] | None:
    value, separator, pk = request.GET.get(name, "")[:CURSOR_MAX].rpartition(SEPARATOR)
    if not separator:
        return None
    fields = rows.model._meta
    try:
        return fields.get_field(key).to_python(value), fields.pk.to_python(pk)
    except (ValidationError, ValueError):
        return None


def _cursor(row: Any, key: str) -> str:
    value = getattr(row, key)
    text = value.isoformat() if hasattr(value, "isoformat") else str(value)
    return f"{text}{SEPARATOR}{row.pk}"


def _writer(request: HttpRequest) -> Callable[[str, str], str]:
    kept = request.GET.copy()
    for name in ("after", "before", "page", "format", "table"):
        kept.pop(name, None)

    def write(name: str, cursor: str) -> str:
        query = kept.copy()
        if name:
            query[name] = cursor
        return f"?{query.urlencode()}"

    return write

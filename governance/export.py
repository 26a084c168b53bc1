"""Any table as CSV or JSON: the rows a page lists, written so that no spreadsheet runs them."""

import csv
import datetime as dt
import decimal
import enum
import io
import json
import math
from collections.abc import Callable, Iterable, Mapping
from http import HTTPStatus
from itertools import islice
from typing import Any, Final
from uuid import UUID

from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse
from django.utils import timezone

EXPORT_ROWS_MAX: Final = 10_000  # one answer is built in memory: some 10 MB at the widest table
CHUNK_ROWS: Final = 1000  # rows fetched from the database at a time
FORMATS: Final = ("csv", "json")
# What begins a formula in a spreadsheet, with the full-width forms some of them accept:
# https://owasp.org/www-community/attacks/CSV_Injection
FORMULA_STARTS: Final = (
    "=",
    "+",
    "-",
    "@",
    "\t",
    "\r",
    "\n",
    "\uff1d",
    "\uff0b",
    "\uff0d",
    "\uff20",
)

# A column is the row's attribute of that (dotted) name, or what a function makes of the row.
Columns = Mapping[str, str | Callable[[Any], Any]]


def file_answer(name: str, media_type: str, content: bytes) -> HttpResponse:
    """A file that browsers save under this name."""
    disposition = {"Content-Disposition": f'attachment; filename="{name}"'}
    return HttpResponse(content, content_type=media_type, headers=disposition)


def table_export(
    request: HttpRequest, *, name: str, columns: Columns, rows: QuerySet[Any] | Iterable[Any]
) -> HttpResponse | None:
    """The table as a download when the request asks for it (`?format=csv|json`), else None.

    `name` is the table's, in the file name and in `?table=` where a page has several. `rows` is
    everything that the page's filter left and the person may see; at most EXPORT_ROWS_MAX of them
    are written, and an answer that was cut says so in its file name (and, as JSON, in `cut`).
    """
    wanted = request.GET.get("format", "")
    if not wanted or request.GET.get("table", name) != name:
        return None
    if wanted not in FORMATS:
        return HttpResponse(
            f"format: one of {', '.join(FORMATS)}.",
            content_type="text/plain; charset=utf-8",
            status=HTTPStatus.UNPROCESSABLE_ENTITY,
        )
    source = rows.iterator(chunk_size=CHUNK_ROWS) if isinstance(rows, QuerySet) else iter(rows)
    found = list(islice(source, EXPORT_ROWS_MAX + 1))
    is_cut = len(found) > EXPORT_ROWS_MAX
    table = [
        {title: _cell(row, column) for title, column in columns.items()}
        for row in found[:EXPORT_ROWS_MAX]
    ]
    if wanted == "csv":
        response = HttpResponse(_csv(columns, table), content_type="text/csv; charset=utf-8")
    else:
        response = HttpResponse(
            _json(name, table, is_cut=is_cut), content_type="application/json; charset=utf-8"
        )
    cut = f"-first-{EXPORT_ROWS_MAX}" if is_cut else ""
    filename = f"{name}{cut}-{timezone.now():%Y%m%dT%H%M%SZ}.{wanted}"
    response["Content-Disposition"] = f'attachment; filename="{filename}"'
    response["Cache-Control"] = "no-store"
    return response


def spreadsheet_cell(value: Any) -> str | int | float | decimal.Decimal:
    """A value as a CSV cell: numbers stay numbers, a text that would be a formula is quoted."""
    match value:
        case None:
            return ""
        case bool():
            return "true" if value else "false"
        case enum.Enum():
            return spreadsheet_cell(value.value)
        case int() | float() | decimal.Decimal():
            return value
        case str():
            text = value
        case _:
            text = _text(value)
    return f"'{text}" if text.lstrip(" ").startswith(FORMULA_STARTS) else text


def _cell(row: Any, column: str | Callable[[Any], Any]) -> Any:
    if callable(column):
        return _known(column(row))
    for part in column.split("."):
        row = row.get(part) if isinstance(row, Mapping) else getattr(row, part)
    return _known(row)


def _known(value: Any) -> Any:
    """JSON has no word for a number that is none; it is unknown, and so is no value."""
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _csv(columns: Columns, table: list[dict[str, Any]]) -> str:
    """RFC 4180; every text is quoted, so that no other separator splits it either."""
    out = io.StringIO()
    writer = csv.writer(out, quoting=csv.QUOTE_NONNUMERIC)
    writer.writerow(columns)
    writer.writerows([[spreadsheet_cell(value) for value in row.values()] for row in table])
    return out.getvalue()


def _json(name: str, table: list[dict[str, Any]], *, is_cut: bool) -> str:
    document = {
        "table": name,
        "exported_at": _text(timezone.now()),
        "count": len(table),
        "cut": is_cut,
        "rows": table,
    }
    return json.dumps(document, ensure_ascii=False, default=_text)


def _text(value: Any) -> str:
    """A value that is neither text nor number: a time in UTC, an id, a document."""
    match value:
        case dt.datetime():
            return value.astimezone(dt.UTC).isoformat().replace("+00:00", "Z")
        case UUID() | dt.date():
            return str(value)
        case dict() | list() | tuple():
            return json.dumps(value, ensure_ascii=False, default=_text)
        case _:
            return str(value)

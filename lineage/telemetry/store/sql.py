"""Tells an INSERT's rows from its SQL, as ClickHouse's HTTP protocol sends both in one body."""

import re
from dataclasses import dataclass

# Order matters: whatever can hide a keyword (comment, string, quoted name) is matched first.
TOKEN = re.compile(
    rb"""\s+|--[^\n]*|\#[^\n]*|/\*.*?\*/"""
    rb"""|(?P<quoted>'(?:[^'\\]|\\.|'')*'|"(?:[^"\\]|\\.)*"|`(?:[^`\\]|\\.)*`)"""
    rb"""|(?P<word>[A-Za-z_][A-Za-z0-9_]*)|(?P<other>.)""",
    re.DOTALL,
)
FORMAT_NAME = re.compile(rb"\s*([A-Za-z_][A-Za-z0-9_]*)[ \t\r]*\n?")
TRAILING_FORMAT = re.compile(rb"\bFORMAT\s+([A-Za-z_][A-Za-z0-9_]*)\s*;?\s*\Z", re.IGNORECASE)
READ_WORDS = frozenset({b"SELECT", b"WITH", b"SHOW", b"DESCRIBE", b"DESC", b"EXISTS", b"EXPLAIN"})
# An INSERT's own clauses are short; rows begin well before this many bytes.
MAX_INSERT_HEAD_BYTES = 64 << 10


@dataclass(frozen=True, slots=True)
class Statement:
    """One statement; for an INSERT with rows, `data` holds them encoded in `format`."""

    sql: bytes | str
    format: str = ""
    data: bytes | None = None
    is_read: bool = True


def quoted(text: str) -> str:
    """A ClickHouse string literal."""
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'").replace("\n", "\\n") + "'"


def output_format(sql: bytes | str, default: str) -> str:
    """The format a statement answers in."""
    match = TRAILING_FORMAT.search(sql.encode() if isinstance(sql, str) else sql)
    return match[1].decode() if match else default


def parse(query: bytes, body: bytes) -> Statement:
    """Make one statement of the `query` parameter and the request's body.

    ClickHouse takes the SQL from the parameter, the body, or the parameter followed by the body.
    """
    text = query + b"\n" + body if query and body else query or body
    first = _first_word(text)
    if first != b"INSERT":
        return Statement(text, is_read=first in READ_WORDS)
    found = _insert_format(text)
    if found is None:
        return Statement(text, is_read=False)
    head_end, name, rows_start = found
    head = text[:head_end].decode("utf-8", "replace")
    rows = text[rows_start:]
    if not rows:  # INSERT ... SELECT ... FORMAT x carries no rows
        return Statement(text, is_read=False)
    return Statement(head, format=name, data=rows, is_read=False)


def _first_word(text: bytes) -> bytes:
    for token in TOKEN.finditer(text, 0, min(len(text), MAX_INSERT_HEAD_BYTES)):
        if token["word"]:
            return token["word"].upper()
        if token["other"] not in (None, b"("):
            break
    return b""


def _insert_format(text: bytes) -> tuple[int, str, int] | None:
    """Where the SQL ends, the format's name, and where rows begin."""
    for token in TOKEN.finditer(text, 0, min(len(text), MAX_INSERT_HEAD_BYTES)):
        word = (token["word"] or b"").upper()
        if word == b"VALUES":
            return None
        if word == b"FORMAT":
            match = FORMAT_NAME.match(text, token.end())
            if match is not None:
                return token.start(), match[1].decode(), match.end()
    return None

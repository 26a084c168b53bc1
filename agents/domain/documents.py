"""Reads manifests: YAML or JSON text into plain mappings, strictly, whatever the text tries.

The YAML is read as events, so that depth, aliases and tags are judged before anything is built;
plain scalars follow the JSON-compatible core schema of YAML 1.2 (`no` and `1:30` are text).
"""

import json
import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, NoReturn

import yaml

from agents.domain.problems import FieldProblem, ManifestError

MAX_BYTES: Final = 1 << 20  # a manifest is typed by people; the API server's limit is 1.5 MiB
MAX_DOCUMENTS: Final = 100
MAX_DEPTH: Final = 32  # our deepest field is at depth 4
MAX_NODES: Final = 200_000  # bounds the memory a megabyte of `[,,,` may become
INTEGER_MAX: Final = 2**53 - 1  # beyond it JSON readers round (RFC 8785, section 3.2.2.3)

_LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_NULLS = frozenset(("", "~", "null", "Null", "NULL"))
_BOOLEANS = {"true": True, "True": True, "TRUE": True, "false": False, "False": False}
_BOOLEANS["FALSE"] = False
# A leading zero means octal to one YAML reader, decimal to the next and text to a third: text here.
_INTEGER = re.compile(r"[-+]?(?:0|[1-9][0-9]*)|0o[0-7]+|0x[0-9a-fA-F]+")
_FLOAT = re.compile(r"[-+]?(?:\.[0-9]+|(?:0|[1-9][0-9]*)(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?")
_NOT_FINITE = re.compile(r"[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)")
_NOT_FINITE_JSON = re.compile(r"NaN|-?Infinity")  # what lax JSON writers write; text in YAML
# YAML 1.2 section 5.1: the characters a text may hold, of which we take no lone surrogate.
_FORBIDDEN = re.compile("[^\t\n\r\x20-\x7e\x85\xa0-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
_SURROGATE = re.compile("[\ud800-\udfff]")
_STR_TAG = "tag:yaml.org,2002:str"


def load_documents(
    text: str | bytes, *, max_bytes: int = MAX_BYTES, max_documents: int = MAX_DOCUMENTS
) -> list[Mapping[str, Any]]:
    """The documents of a YAML stream or a JSON text, each a mapping; empty ones are left out.

    `max_bytes` is of the UTF-8 text. Raises `ManifestError`, whose message says line and column.
    """
    source = _decoded(text, max_bytes)
    documents = _json_documents(source)
    if documents is None:
        documents = _Builder(source, max_documents).documents()
    if not documents:
        _refuse("The text holds no document.")
    return documents


def _refuse(message: str, *, line: int = 0, column: int = 0, path: str = "") -> NoReturn:
    place = f"line {line}, column {column}: " if line else ""
    raise ManifestError([FieldProblem(path, place + message)])


def _decoded(text: str | bytes, max_bytes: int) -> str:
    # A text has at least as many bytes as characters: a huge one is not encoded to be measured.
    encoded = text if isinstance(text, bytes) or len(text) > max_bytes else _encoded(text)
    if len(encoded) > max_bytes:
        _refuse(f"The text is over {max_bytes} bytes long.")
    if isinstance(text, bytes):
        text = _utf8(text)
    text = text.removeprefix("\N{ZERO WIDTH NO-BREAK SPACE}")  # byte order mark
    if bad := _FORBIDDEN.search(text):
        line = text.count("\n", 0, bad.start()) + 1
        column = bad.start() - (text.rfind("\n", 0, bad.start()) + 1) + 1
        _refuse(f"The character U+{ord(bad.group()):04X} is not allowed.", line=line, column=column)
    return text


def _utf8(raw: bytes) -> str:
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        column = error.start - (raw.rfind(b"\n", 0, error.start) + 1) + 1
        _refuse("The text is not UTF-8.", line=line, column=column)


def _encoded(text: str) -> bytes:
    return text.encode("utf-8", errors="surrogatepass")


# --- JSON -----------------------------------------------------------------------------------------


class _NotPlainJson(Exception):
    """Let the YAML reader have it: it either understands or says where it does not."""


def _json_documents(source: str) -> list[Mapping[str, Any]] | None:
    """The one object of a JSON text, or None when the YAML reader should look at it.

    JSON is YAML but for two things that JSON writers do and libyaml refuses: tabs between tokens
    and surrogate pairs in escapes.
    """
    if not source.lstrip().startswith("{"):
        return None
    try:
        document = json.loads(
            source,
            object_pairs_hook=_unique_pairs,
            parse_constant=_reject_json,
            parse_int=_json_integer,
            parse_float=_json_float,
        )
    except (ValueError, RecursionError, _NotPlainJson):
        return None
    _check_json(document)
    return [document]


def _reject_json(_: str) -> NoReturn:
    raise _NotPlainJson


def _unique_pairs(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    mapping = dict(pairs)
    if len(mapping) != len(pairs):
        raise _NotPlainJson
    return mapping


def _json_integer(digits: str) -> int:
    if len(digits) > 17 or abs(int(digits)) > INTEGER_MAX:
        raise _NotPlainJson
    return int(digits)


def _json_float(digits: str) -> float:
    value = float(digits)
    if not math.isfinite(value):
        raise _NotPlainJson
    return value


def _check_json(document: Any) -> None:
    """Depth, node count and surrogates, without recursion."""
    stack: list[tuple[Any, int]] = [(document, 1)]
    nodes = 0
    while stack:
        node, depth = stack.pop()
        nodes += 1
        if depth > MAX_DEPTH:
            _refuse(f"The document is nested more than {MAX_DEPTH} levels deep.")
        if nodes > MAX_NODES:
            _refuse(f"The document has more than {MAX_NODES} values.")
        if isinstance(node, str) and _SURROGATE.search(node):
            _refuse("A text holds a lone surrogate, which is not Unicode.")
        if isinstance(node, dict):
            stack.extend((key, depth) for key in node)
            stack.extend((value, depth + 1) for value in node.values())
        elif isinstance(node, list):
            stack.extend((value, depth + 1) for value in node)


# --- YAML -----------------------------------------------------------------------------------------


@dataclass(slots=True)
class _Open:
    """A collection that is being filled."""

    collection: dict[str, Any] | list[Any]
    key: str | None = None
    lines: dict[str, int] = field(default_factory=dict)  # key -> line it stands on


class _Builder:
    """Builds documents from the events of one YAML stream."""

    def __init__(self, source: str, max_documents: int) -> None:
        self._source = source
        self._max_documents = max_documents
        self._is_json = source.lstrip().startswith("{")
        self._stack: list[_Open] = []
        self._nodes = 0
        self._root: Any = None
        self._root_line = 0
        self._seen = 0

    def documents(self) -> list[Mapping[str, Any]]:
        found: list[Mapping[str, Any]] = []
        for event in self._events():
            if isinstance(event, yaml.DocumentStartEvent):
                self._root, self._root_line = None, _line(event)
            elif isinstance(event, yaml.DocumentEndEvent):
                self._end_document(found)
            elif isinstance(event, yaml.AliasEvent):
                self._fail(event, "An alias (*) is not accepted; write the value out.")
            elif isinstance(event, yaml.NodeEvent):
                self._node(event)
            elif isinstance(event, yaml.CollectionEndEvent):
                self._stack.pop()
        return found

    def _events(self) -> Iterator[Any]:
        try:
            yield from yaml.parse(self._source, Loader=_LOADER)
        except yaml.MarkedYAMLError as error:
            mark = error.problem_mark or error.context_mark
            message = _plain_words(self._source, error, mark)
            line, column = (mark.line + 1, mark.column + 1) if mark else (0, 0)
            _refuse(message, line=line, column=column)
        except yaml.YAMLError:
            _refuse("The text is not YAML.")
        except RecursionError:
            _refuse(f"The document is nested more than {MAX_DEPTH} levels deep.")

    def _fail(self, event: Any, message: str) -> NoReturn:
        mark = event.start_mark
        _refuse(message, line=mark.line + 1, column=mark.column + 1)

    def _end_document(self, found: list[Mapping[str, Any]]) -> None:
        if self._root is None:
            return
        self._seen += 1
        if self._seen > self._max_documents:
            _refuse(f"The text holds more than {self._max_documents} documents.")
        if not isinstance(self._root, dict):
            _refuse("A document must be a mapping of fields.", line=self._root_line, column=1)
        found.append(self._root)

    def _node(self, event: Any) -> None:
        self._nodes += 1
        if self._nodes > MAX_NODES:
            self._fail(event, f"The text has more than {MAX_NODES} values.")
        if event.anchor is not None:
            self._fail(event, "An anchor (&) is not accepted; write each value out.")
        if event.tag is not None and event.tag not in (_STR_TAG, "!"):
            self._fail(event, f"The tag {_clip(event.tag)} is not accepted; leave it out.")
        if isinstance(event, yaml.ScalarEvent):
            self._place(event, self._scalar(event))
            return
        opened = _Open({} if isinstance(event, yaml.MappingStartEvent) else [])
        self._place(event, opened.collection)
        self._stack.append(opened)
        if len(self._stack) > MAX_DEPTH:
            self._fail(event, f"The document is nested more than {MAX_DEPTH} levels deep.")

    def _place(self, event: Any, value: Any) -> None:
        if not self._stack:
            self._root = value
            return
        parent = self._stack[-1]
        if isinstance(parent.collection, list):
            parent.collection.append(value)
        elif parent.key is None:
            parent.key = self._key(event, value, parent)
        else:
            parent.collection[parent.key] = value
            parent.key = None

    def _key(self, event: Any, key: Any, parent: _Open) -> str:
        if not isinstance(key, str):
            self._fail(event, "A key must be text; put it in quotes.")
        if key in parent.lines:
            self._fail(
                event, f'The key "{_clip(key)}" is given twice (first in line {parent.lines[key]}).'
            )
        parent.lines[key] = _line(event)
        return key

    def _scalar(self, event: Any) -> Any:
        text: str = event.value
        is_plain = not event.style and event.tag is None  # libyaml says "" for plain
        if _SURROGATE.search(text):  # libyaml refuses such an escape itself, PyYAML does not
            self._fail(event, "A text holds a lone surrogate, which is not Unicode.")
        if not is_plain:
            return text
        if text in _NULLS:
            return None
        if text in _BOOLEANS:
            return _BOOLEANS[text]
        if _NOT_FINITE.fullmatch(text) or (self._is_json and _NOT_FINITE_JSON.fullmatch(text)):
            self._fail(event, f"{text} is not a number that can be used; write a finite number.")
        if _INTEGER.fullmatch(text):
            return self._integer(event, text)
        if _FLOAT.fullmatch(text):
            return self._float(event, text)
        return text

    def _integer(self, event: Any, text: str) -> int:
        base = {"0o": 8, "0x": 16}.get(text[:2], 10)
        # Sixty digits hold any number in bounds with leading zeros; int() of megabytes is slow.
        value = int(text, base) if len(text) <= 60 else INTEGER_MAX + 1
        if abs(value) > INTEGER_MAX:
            self._fail(event, f"The number is beyond {INTEGER_MAX}; if it is text, quote it.")
        return value

    def _float(self, event: Any, text: str) -> float:
        value = float(text)
        if not math.isfinite(value):
            self._fail(event, "The number is too large.")
        return value


def _line(event: Any) -> int:
    return int(event.start_mark.line) + 1


def _clip(text: str) -> str:
    return text if len(text) <= 60 else text[:60] + "\N{HORIZONTAL ELLIPSIS}"


def _plain_words(source: str, error: yaml.MarkedYAMLError, mark: Any) -> str:
    """The parser's complaint as a sentence, with the fix for the commonest: a tab."""
    if mark is not None:
        lines = source.split("\n")
        line = lines[mark.line] if mark.line < len(lines) else ""
        if "\t" in line[: mark.column + 1]:
            return "A tab cannot indent YAML; use spaces."
    words = " ".join(part for part in (error.problem, error.context) if part)
    return f"The text is not YAML: {words or 'it ends too early'}."

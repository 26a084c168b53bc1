"""Changes single values inside the text of a manifest and leaves every other character alone.

The text is composed into nodes that know where they stand; a change replaces, inserts or removes
one slice of it. Whatever came out is read again and must mean exactly what was asked for.
"""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher
from typing import Any, Final

import yaml

from agents.domain.documents import load_documents
from agents.domain.problems import ManifestError

Path = tuple[str | int, ...]

BYTE_ORDER_MARK: Final = "\N{ZERO WIDTH NO-BREAK SPACE}"
INDENT: Final = 2  # spaces of a mapping we open
_LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_STEP: Final = re.compile(r'\.?([A-Za-z_][A-Za-z0-9_-]*)|\["([^"]*)"\]|\[(\d+)\]')
_BARE: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_./-]*")
_WORD: Final = re.compile(r"[-+.~\w]+")
# Line breaks and invisible marks to a YAML reader, which a JSON writer leaves as they are.
_ESCAPED: Final = re.compile("[\x7f-\xa0\u2028\u2029\ufeff]")


class UneditableText(ValueError):
    """The text cannot be changed in that place without touching more; the message says why."""


@dataclass(frozen=True, slots=True)
class Plain:
    """A scalar to be written as it stands, without quotes: a number or true or false."""

    source: str

    @property
    def value(self) -> Any:
        """What a reader takes it for."""
        return load_documents(f"v: {self.source}")[0]["v"]


@dataclass(frozen=True, slots=True)
class Place:
    """Where something stands in a text; lines and columns count from 1."""

    line: int
    column: int
    length: int = 1


def is_word_of_another_type(text: str) -> bool:
    """Would the text, without quotes, be read as a number, true, false or null?"""
    if not _WORD.fullmatch(text):
        return False
    try:
        return not isinstance(load_documents(f"v: {text}")[0]["v"], str)
    except ManifestError:
        return False


def parse_path(text: str) -> Path:
    """`spec.agents[1]` or `metadata.labels["a/b"]` as steps."""
    steps: list[str | int] = []
    for bare, quoted, index in _STEP.findall(text):
        steps.append(int(index) if index else quoted or bare)
    return tuple(steps)


def value_at(document: Any, path: Path) -> Any:
    """The value there, None when there is none. Raises KeyError where no mapping is on the way."""
    for step in path:
        if document is None:
            return None
        if not isinstance(document, Mapping):
            raise KeyError(step)
        document = document.get(step)
    return document


class ManifestText:
    """One manifest as text. Raises ManifestError unless it is exactly one readable document."""

    def __init__(self, text: str) -> None:
        self._mark = BYTE_ORDER_MARK if text.startswith(BYTE_ORDER_MARK) else ""
        self._read(text.removeprefix(BYTE_ORDER_MARK))

    def _read(self, text: str) -> None:
        documents = load_documents(text)
        if len(documents) != 1:
            raise UneditableText(f"The text holds {len(documents)} documents, not one.")
        self._text = text
        self.document = documents[0]
        try:
            roots = list(yaml.compose_all(text, Loader=_LOADER))
        except yaml.YAMLError as error:  # JSON with tabs between its tokens, or with \ud800 pairs
            raise UneditableText("This JSON can only be changed as text.") from error
        self._root = next(root for root in roots if isinstance(root, yaml.MappingNode))

    @property
    def text(self) -> str:
        """The whole text as it is now."""
        return self._mark + self._text

    # --- Reading ------------------------------------------------------------------------------

    def source_of(self, path: Path) -> str:
        """The scalar there as it is written, without its quotes; "" where there is none."""
        node = self._node(path)
        return str(node.value) if isinstance(node, yaml.ScalarNode) else ""

    def place_of(self, path: Path) -> Place:
        """Where the path stands, or the nearest thing on the way to it that exists."""
        node: Any = self._root
        key: Any = None
        for step in path:
            found = _child(node, step)
            if found is None:
                break
            key, node = found
        target = key if key is not None and not isinstance(node, yaml.ScalarNode) else node
        if isinstance(target, yaml.ScalarNode) and _from(target) == _to(target):
            target = key if key is not None else target
        first = self._text[_from(target) : _to(target)].split("\n")[0].rstrip()
        mark = target.start_mark
        return Place(mark.line + 1, mark.column + 1, max(len(first), 1))

    def quote_of(self, path: Path) -> int:
        """How many characters stand before the text of the scalar there: its quote, or nothing."""
        node = self._node(path)
        return 1 if isinstance(node, yaml.ScalarNode) and node.style in ("'", '"') else 0

    def _node(self, path: Path) -> Any:
        node: Any = self._root
        for step in path:
            found = _child(node, step)
            if found is None:
                return None
            node = found[1]
        return node

    # --- Changing -----------------------------------------------------------------------------

    def set(self, path: Path, value: str | Plain, *, after: str | None = None) -> None:
        """Write one scalar; mappings on the way are made. `after` names the key to stand behind.

        Raises UneditableText.
        """
        plain = value.value if isinstance(value, Plain) else value
        wanted = _with(self.document, path, plain, after=after)
        missing = 0
        while missing < len(path) and self._node(path[: len(path) - missing]) is None:
            missing += 1
        parent = path[: len(path) - missing]
        node = self._node(parent)
        if not missing:
            self._replace(node, self._scalar(value, node.style if _is_scalar(node) else None))
        elif isinstance(node, yaml.MappingNode):
            self._insert_key(node, path[len(parent) :], value, after if missing == 1 else None)
        elif _is_scalar(node) and value_at(self.document, parent) is None:
            self._replace(node, self._flow(path[len(parent) :], value))
        else:
            raise UneditableText("It is not a mapping, so nothing can be put into it.")
        self._settle(wanted)

    def remove(self, path: Path) -> None:
        """Remove one key with its line; a mapping that becomes empty goes with it, if it may.

        Raises UneditableText.
        """
        while len(path) > 2 and len(self._node(path[:-1]).value) == 1:
            path = path[:-1]
        wanted = _without(self.document, path)
        mapping = self._node(path[:-1])
        keys = [key.value for key, _ in mapping.value]
        index = keys.index(path[-1])
        key, value = mapping.value[index]
        if len(keys) == 1:
            self._splice(_from(mapping), self._end(mapping), "{}")
        elif mapping.flow_style:
            self._cut(mapping.value, index, start=_from(key), end=_to(value))
        else:
            self._splice(self._line_start(_from(key)), self._next_line(self._end(value)), "")
        self._settle(wanted)

    def set_items(self, path: Path, items: Sequence[str]) -> None:
        """Make the list there these texts, entry by entry. Raises UneditableText."""
        node = self._node(path)
        if not isinstance(node, yaml.SequenceNode):
            self._set_new_list(path, items)
            return
        held = list(value_at(self.document, path))
        for operation in reversed(SequenceMatcher(None, held, items, autojunk=False).get_opcodes()):
            tag, low, high, first, last = operation
            if tag == "equal":
                continue
            common = min(high - low, last - first)
            for index in range(high - 1, low + common - 1, -1):
                self._remove_item(path, index)
            for offset in range(last - first - 1, common - 1, -1):
                self._insert_item(path, low + common, items[first + offset])
            for offset in range(common):
                self._set_item(path, low + offset, items[first + offset])

    def _set_new_list(self, path: Path, items: Sequence[str]) -> None:
        listed = "[" + ", ".join(self._scalar(item, None) for item in items) + "]"
        self.set(path, Plain(listed))

    def _set_item(self, path: Path, index: int, item: str) -> None:
        held = list(value_at(self.document, path))
        node = self._node(path).value[index]
        self._replace(node, self._scalar(item, node.style))
        held[index] = item
        self._settle(_with(self.document, path, held))

    def _remove_item(self, path: Path, index: int) -> None:
        held = list(value_at(self.document, path))
        del held[index]
        wanted = _with(self.document, path, held)
        node = self._node(path)
        item = node.value[index]
        if not held:
            self._splice(_from(node), self._end(node), "[]")
        elif node.flow_style:
            pairs = [(one, one) for one in node.value]
            self._cut(pairs, index, start=_from(item), end=_to(item))
        else:
            self._splice(self._line_start(_from(item)), self._next_line(self._end(item)), "")
        self._settle(wanted)

    def _insert_item(self, path: Path, index: int, item: str) -> None:
        held = list(value_at(self.document, path))
        held.insert(index, item)
        wanted = _with(self.document, path, held)
        node = self._node(path)
        styles = {one.style for one in node.value}
        written = self._scalar(item, styles.pop() if len(styles) == 1 else None)
        if not node.value:
            self._splice(_from(node), _to(node), f"[{written}]")
        elif index:
            before = node.value[index - 1]
            between = "," + self._gap(node, before) if node.flow_style else self._dash(before)
            at = _to(before) if node.flow_style else self._line_end(self._end(before))
            self._splice(at, at, between + written)
        elif node.flow_style:
            at = _from(node.value[0])
            self._splice(at, at, written + "," + self._gap(node, node.value[0]))
        else:
            at = self._line_start(_from(node.value[0]))
            dash = self._text[at : _from(node.value[0])]
            self._splice(at, at, dash + written + self._break)
        self._settle(wanted)

    def _dash(self, item: Any) -> str:
        return self._break + self._text[self._line_start(_from(item)) : _from(item)]

    def _gap(self, collection: Any, entry: Any) -> str:
        """What stands between entries of a flow collection: a space, or a line's indentation."""
        if entry.start_mark.line == collection.start_mark.line:
            return " "
        return self._break + " " * int(entry.start_mark.column)

    def _cut(self, pairs: Sequence[Any], index: int, *, start: int, end: int) -> None:
        """Take an entry with its comma out of a flow collection of at least two."""
        if index:
            self._splice(_to(pairs[index - 1][1]), end, "")
        else:
            self._splice(start, _from(pairs[1][0]), "")

    def _insert_key(self, mapping: Any, path: Path, value: str | Plain, after: str | None) -> None:
        names = [key.value for key, _ in mapping.value]
        if mapping.flow_style or not names:
            self._insert_flow_key(mapping, names, path, value, after)
            return
        column = mapping.value[0][0].start_mark.column
        lines = self._block(path, value, column)
        if after == "":
            at = self._line_start(_from(mapping.value[0][0]))
            self._splice(at, at, lines + self._break)
            return
        index = names.index(after) if after in names else len(names) - 1
        at = self._line_end(self._end(mapping.value[index][1]))
        self._splice(at, at, self._break + lines)

    def _insert_flow_key(
        self, mapping: Any, names: list[str], path: Path, value: str | Plain, after: str | None
    ) -> None:
        entry = self._flow(path, value)[1:-1]
        if not names:
            self._splice(_from(mapping), _to(mapping), "{" + entry + "}")
        elif after == "":
            key = mapping.value[0][0]
            self._splice(_from(key), _from(key), entry + "," + self._gap(mapping, key))
        else:
            index = names.index(after) if after in names else len(names) - 1
            key, held = mapping.value[index]
            at = _to(held)
            self._splice(at, at, "," + self._gap(mapping, key) + entry)

    def _block(self, path: Path, value: str | Plain, column: int) -> str:
        """`key:` lines, one deeper for each step, the last with its value."""
        lines = []
        for depth, step in enumerate(path):
            is_last = depth == len(path) - 1
            tail = " " + self._scalar(value, None) if is_last else ""
            lines.append(" " * (column + depth * INDENT) + f"{self._key(str(step))}:{tail}")
        return self._break.join(lines)

    def _flow(self, path: Path, value: str | Plain) -> str:
        written = self._scalar(value, None)
        for step in reversed(path):
            written = f"{{{self._key(str(step))}: {written}}}"
        return written

    def _replace(self, node: Any, written: str) -> None:
        start = _from(node)
        is_glued = start and self._text[start - 1] == ":"
        self._splice(start, self._end(node), (" " if is_glued else "") + written)

    def _splice(self, start: int, end: int, text: str) -> None:
        self._text = self._text[:start] + text + self._text[end:]

    def _settle(self, wanted: Any) -> None:
        """Read the changed text again: it must mean what was asked for, and nothing else."""
        try:
            self._read(self._text)
        except ManifestError as error:
            raise UneditableText(f"This can only be changed in the YAML. ({error})") from error
        if _ordered(self.document) != _ordered(wanted):
            raise UneditableText("This can only be changed in the YAML, not in the form.")

    # --- Places -------------------------------------------------------------------------------

    def _end(self, node: Any) -> int:
        """Where the last character of a node stands, comments and empty lines not counted."""
        while not _is_scalar(node) and not node.flow_style and node.value:
            last = node.value[-1]
            node = last[1] if isinstance(node, yaml.MappingNode) else last
        if _is_scalar(node) and node.style in ("|", ">"):
            return _from(node) + len(self._text[_from(node) : _to(node)].rstrip())
        return _to(node)

    def _line_start(self, index: int) -> int:
        return self._text.rfind("\n", 0, index) + 1

    def _line_end(self, index: int) -> int:
        end = self._text.find("\n", index)
        end = len(self._text) if end < 0 else end
        return end - 1 if end > index and self._text[end - 1] == "\r" else end

    def _next_line(self, index: int) -> int:
        end = self._text.find("\n", index)
        return len(self._text) if end < 0 else end + 1

    @property
    def _break(self) -> str:
        return "\r\n" if "\r\n" in self._text else "\n"

    # --- Spelling -----------------------------------------------------------------------------

    @property
    def _is_json(self) -> bool:
        return self._text.lstrip().startswith("{") and self._root.value[0][0].style == '"'

    def _key(self, key: str) -> str:
        if self._is_json or not _BARE.fullmatch(key) or is_word_of_another_type(key):
            return double_quoted(key)
        return key

    def _scalar(self, value: str | Plain, style: str | None) -> str:
        """As its neighbours are written: the quotes that are there stay, as far as they can."""
        if isinstance(value, Plain):
            return str(value.source)
        if style == '"' or self._is_json:
            return double_quoted(value)
        if style == "'" and value.isprintable():
            return "'" + value.replace("'", "''") + "'"
        return value if _is_plain_safe(value) else double_quoted(value)


def double_quoted(text: str) -> str:
    """The text as a JSON string, which is a YAML string."""
    written = json.dumps(text, ensure_ascii=False)
    return _ESCAPED.sub(lambda found: f"\\u{ord(found.group()):04x}", written)


def _is_plain_safe(text: str) -> bool:
    """Is the text read as itself without quotes, in a block as in a list?"""
    if not text or not text.isprintable():
        return False
    try:
        alone = load_documents(f"v: {text}")[0]["v"]
        listed = load_documents(f"v: [{text}, x]")[0]["v"]
    except ManifestError:
        return False
    return bool(alone == text and listed == [text, "x"])


def _child(node: Any, step: str | int) -> tuple[Any, Any] | None:
    """The key and the value of one step down; a list's entry is its own key."""
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            if key.value == step:
                return key, value
    elif isinstance(node, yaml.SequenceNode) and _is_index(step, node):
        return node.value[int(step)], node.value[int(step)]
    return None


def _is_scalar(node: Any) -> bool:
    return isinstance(node, yaml.ScalarNode)


def _from(node: Any) -> int:
    return int(node.start_mark.index)


def _to(node: Any) -> int:
    return int(node.end_mark.index)


def _ordered(value: Any) -> Any:
    """The value with the order of keys in it, and with the types told apart (1 is not true)."""
    if isinstance(value, Mapping):
        return [(key, _ordered(one)) for key, one in value.items()]
    if isinstance(value, list):
        return [_ordered(one) for one in value]
    return type(value).__name__, value


def _with(document: Any, path: Path, value: Any, *, after: str | None = None) -> Any:
    """A copy of the document with one value set."""
    if not path:
        return value
    held = dict(document or {})
    step = path[0]
    if step in held:
        return {**held, step: _with(held[step], path[1:], value, after=after)}
    entry = {step: _with(None, path[1:], value)}
    names = list(held)
    if len(path) > 1 or after is None or (after and after not in held):
        return {**held, **entry}
    cut = names.index(after) + 1 if after else 0
    return {
        **{name: held[name] for name in names[:cut]},
        **entry,
        **{name: held[name] for name in names[cut:]},
    }


def _without(document: Any, path: Path) -> Any:
    held = dict(document)
    if len(path) == 1:
        del held[path[0]]
        return held
    held[path[0]] = _without(held[path[0]], path[1:])
    return held


def _is_index(step: str | int, node: Any) -> bool:
    return isinstance(step, int) and step < len(node.value)

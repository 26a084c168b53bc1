"""Errors of the one-line grammars: where the text went wrong and what was expected there."""

import re
from typing import ClassVar, NoReturn

# Anything that is not printable text on one line: C0, DEL, C1, line and paragraph separators,
# lone surrogates (they have no UTF-8 form) and the marks that hide or reorder text on a screen.
UNPRINTABLE = re.compile(
    "[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff\u200b-\u200f\u202a-\u202e\u2060-\u2069\ufeff]"
)
_WIDE_SPACE = re.compile("[\u00a0\u1680\u2000-\u200a\u202f\u205f\u3000]")
FOUND_SHOWN_MAX = 40  # characters of the offending text repeated in an error


class TextSyntaxError(ValueError):
    """A one-line text that its grammar refuses.

    `position` counts characters from 0 in `text`; `expected` and `found` are phrases.
    """

    noun = "text"

    def __init__(self, position: int, expected: str, found: str, *, text: str = "") -> None:
        self.position = position
        self.expected = expected
        self.found = found
        self.text = text
        super().__init__(
            f"{self.noun}: expected {expected} at character {position + 1}, found {found}"
        )

    def pointer(self) -> str:
        """Two lines: the text, and a caret under the place."""
        line = UNPRINTABLE.sub("\N{REPLACEMENT CHARACTER}", self.text)
        return f"{line}\n{' ' * self.position}^"


def plain_spaces(text: str) -> str:
    """`text` with every kind of space as U+0020, character for character, none at the end."""
    return _WIDE_SPACE.sub(" ", text).rstrip()


def shown(text: str) -> str:
    """`text` quoted for an error, clipped, with nothing in it that could break the line."""
    if not text:
        return "the end"
    clean = UNPRINTABLE.sub("\N{REPLACEMENT CHARACTER}", text)
    if len(clean) > FOUND_SHOWN_MAX:
        clean = clean[:FOUND_SHOWN_MAX] + "\N{HORIZONTAL ELLIPSIS}"
    return f'"{clean}"'


class Cursor:
    """A place in one text, for the parsers of one-line grammars: it consumes or raises.

    A grammar names its `error` and how many characters its texts may have.
    """

    error: ClassVar[type[TextSyntaxError]]
    text_max: ClassVar[int]
    chunk: ClassVar[re.Pattern[str]]  # what is shown as found when nothing fits

    def __init__(self, text: str) -> None:
        self.text = text
        self.position = 0

    def fail(self, position: int, expected: str, found: str) -> NoReturn:
        """Raise the grammar's error at `position`."""
        raise self.error(position, expected, shown(found), text=self.text[: self.text_max])

    def start(self) -> None:
        """Refuse texts that are too long or hold what cannot be printed; go to the first word."""
        if len(self.text) > self.text_max:
            expected = f"at most {self.text_max} characters"
            self.fail(self.text_max, expected, self.text[self.text_max :])
        # A YAML block scalar ends in a line break: harmless at the end, confusing anywhere else.
        self.text = plain_spaces(self.text)
        if bad := UNPRINTABLE.search(self.text):
            self.fail(bad.start(), "printable text on one line", bad.group())
        self.skip_space()

    def skip_space(self) -> None:
        """Go to the next character that is no space."""
        while self.text.startswith(" ", self.position):
            self.position += 1

    def take(self, pattern: re.Pattern[str]) -> str | None:
        """What the pattern matches here, consumed with the spaces behind it."""
        match = pattern.match(self.text, self.position)
        if match is None:
            return None
        self.position = match.end()
        self.skip_space()
        return match.group()

    def rest(self) -> str:
        """The next piece of the text, for an error."""
        chunk = self.chunk.match(self.text, self.position)
        return chunk.group() if chunk else self.text[self.position : self.position + 1]

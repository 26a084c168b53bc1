"""Errors of the one-line grammars: where the text went wrong and what was expected there."""

import re

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

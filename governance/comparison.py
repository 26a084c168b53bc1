"""Two versions of a bundle side by side: which lines of which file differ, for a table."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher

CONTEXT_LINES = 3  # as every diff shows
MAX_COMPARED_LINES = 10_000  # beyond, difflib may take seconds: the rest is shown as replaced
MAX_ROWS = 4000  # of one file in one page


@dataclass(frozen=True, slots=True)
class Row:
    """One row: `kind` is same, removed, added, changed or gap; numbers are 0 where there is none.

    A gap stands for `left_number` equal lines that are left out.
    """

    kind: str
    left_number: int = 0
    left: str = ""
    right_number: int = 0
    right: str = ""


@dataclass(frozen=True, slots=True)
class FileComparison:
    """One file: `kind` is added, removed or changed; counts are of lines."""

    path: str
    kind: str
    added: int
    removed: int
    rows: tuple[Row, ...]
    rows_left_out: int = 0


def compare_files(left: Mapping[str, str], right: Mapping[str, str]) -> list[FileComparison]:
    """Every file that differs, by path; `left` is the older text by path, `right` the newer."""
    return [
        _compare(path, left.get(path), right.get(path))
        for path in sorted({*left, *right})
        if left.get(path) != right.get(path)
    ]


def _compare(path: str, old: str | None, new: str | None) -> FileComparison:
    left, right = _lines(old), _lines(new)
    rows = list(_rows(left, right))
    kind = "added" if old is None else "removed" if new is None else "changed"
    return FileComparison(
        path=path,
        kind=kind,
        added=sum(row.kind in ("added", "changed") for row in rows),
        removed=sum(row.kind in ("removed", "changed") for row in rows),
        rows=tuple(rows[:MAX_ROWS]),
        rows_left_out=max(len(rows) - MAX_ROWS, 0),
    )


def _lines(text: str | None) -> list[str]:
    return [] if not text else text.removesuffix("\n").split("\n")


def _rows(left: Sequence[str], right: Sequence[str]) -> Iterator[Row]:
    ends = len(left), len(right)
    for tag, first, last, start, end in _opcodes(left, right):
        if tag == "equal":
            yield from _equal(left, first, last, start, is_last=(last, end) == ends)
            continue
        paired = min(last - first, end - start)
        for step in range(paired):
            one, other = first + step, start + step
            yield Row("changed", one + 1, left[one], other + 1, right[other])
        for one in range(first + paired, last):
            yield Row("removed", one + 1, left[one])
        for other in range(start + paired, end):
            yield Row("added", right_number=other + 1, right=right[other])


def _opcodes(left: Sequence[str], right: Sequence[str]) -> list[tuple[str, int, int, int, int]]:
    """difflib's opcodes; between a common head and tail, which cost nothing to find."""
    head = 0
    while head < min(len(left), len(right)) and left[head] == right[head]:
        head += 1
    tail = 0
    most = min(len(left), len(right)) - head
    while tail < most and left[-1 - tail] == right[-1 - tail]:
        tail += 1
    ends = len(left) - tail, len(right) - tail
    middle, other = left[head : ends[0]], right[head : ends[1]]
    found: list[tuple[str, int, int, int, int]] = []
    if head:
        found.append(("equal", 0, head, 0, head))
    if len(middle) + len(other) > MAX_COMPARED_LINES:
        found.append(("replace", head, ends[0], head, ends[1]))
    else:
        found += [
            (tag, head + a, head + b, head + c, head + d)
            for tag, a, b, c, d in SequenceMatcher(None, middle, other).get_opcodes()
        ]
    if tail:
        found.append(("equal", ends[0], len(left), ends[1], len(right)))
    return found


def _equal(
    lines: Sequence[str], first: int, last: int, start: int, *, is_last: bool
) -> Iterator[Row]:
    """Equal lines, of which only those near a difference are shown."""
    before = 0 if first == 0 else CONTEXT_LINES
    after = 0 if is_last else CONTEXT_LINES
    hidden = range(first + before, last - after)
    # A gap that hides a single line would be no shorter than the line.
    is_folded = len(hidden) > 1
    for position in range(first, last):
        if is_folded and position in hidden:
            if position == hidden.start:
                yield Row("gap", len(hidden))
            continue
        number = start + position - first
        yield Row("same", position + 1, lines[position], number + 1, lines[position])

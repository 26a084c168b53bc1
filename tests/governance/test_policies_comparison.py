"""Differences side by side: every line in its place, context folded, bounded in time."""

import random
import time

from governance.comparison import MAX_COMPARED_LINES, MAX_ROWS, compare_files

OLD = "".join(f"line {number}\n" for number in range(1, 31))
SECONDS_AT_MOST = 3.0  # for the largest texts that are compared line by line


def rows(old: str | None, new: str | None) -> list[tuple[str, int, int]]:
    left = {} if old is None else {"a": old}
    right = {} if new is None else {"a": new}
    (file,) = compare_files(left, right)
    return [(row.kind, row.left_number, row.right_number) for row in file.rows]


def test_equal_files_are_left_out():
    assert compare_files({"a": OLD, "b": "x"}, {"a": OLD, "b": "y"})[0].path == "b"
    assert compare_files({"a": OLD}, {"a": OLD}) == []


def test_a_changed_line_stands_beside_what_it_was_with_context():
    found = rows(OLD, OLD.replace("line 15\n", "line fifteen\n"))
    assert found == [
        ("gap", 11, 0),
        *[("same", number, number) for number in (12, 13, 14)],
        ("changed", 15, 15),
        *[("same", number, number) for number in (16, 17, 18)],
        ("gap", 12, 0),
    ]


def test_lines_at_the_end_keep_their_context():
    assert rows(OLD, OLD + "more\n")[-4:] == [
        *[("same", number, number) for number in (28, 29, 30)],
        ("added", 0, 31),
    ]
    assert rows(OLD, OLD.replace("line 30\n", ""))[-1] == ("removed", 30, 0)


def test_files_that_come_and_go():
    (gone,) = compare_files({"a": "x\ny\n"}, {})
    (come,) = compare_files({}, {"a": "x\ny\n"})
    assert (gone.kind, gone.removed, gone.added) == ("removed", 2, 0)
    assert (come.kind, come.removed, come.added) == ("added", 0, 2)


def test_what_is_shown_rebuilds_both_texts():
    source = random.Random(7)
    for _ in range(200):
        old = [source.choice("abcd") for _ in range(source.randrange(1, 40))]
        new = [source.choice("abcd") for _ in range(source.randrange(1, 40))]
        if old == new:
            continue
        left, right = "\n".join(old) + "\n", "\n".join(new) + "\n"
        (file,) = compare_files({"a": left}, {"a": right})
        shown = {row.left_number: row.left for row in file.rows if row.left_number}
        shown_now = {row.right_number: row.right for row in file.rows if row.right_number}
        hidden = sum(row.left_number for row in file.rows if row.kind == "gap")
        assert all(old[n - 1] == text for n, text in shown.items() if text)
        assert all(new[n - 1] == text for n, text in shown_now.items())
        assert len(shown_now) + hidden == len(new)


def test_texts_made_to_be_slow_are_not():
    source = random.Random(1)
    half = MAX_COMPARED_LINES // 2
    for kinds in (2, 60, 150, 1000):
        old = "\n".join(str(source.randrange(kinds)) for _ in range(half))
        new = "\n".join(str(source.randrange(kinds)) for _ in range(half))
        started = time.monotonic()
        compare_files({"a": old}, {"a": new})
        assert time.monotonic() - started < SECONDS_AT_MOST, kinds


def test_the_longest_texts_are_cut_and_counted():
    old, new = ("\n".join(f"{word}{n}" for n in range(20_000)) for word in "ab")
    (file,) = compare_files({"a": old}, {"a": new})
    assert (len(file.rows), file.rows_left_out) == (MAX_ROWS, 20_000 - MAX_ROWS)
    assert (file.added, file.removed) == (20_000, 20_000)

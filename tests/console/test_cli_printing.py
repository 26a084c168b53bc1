"""How amounts, ages, tables and trees look."""

import datetime as dt

import pytest

from console.cli.printing import Branch, Table, print_tree, printable
from console.cli.quantities import age, amount, duration, gpu_time, short_digest, size, until, usd


@pytest.mark.parametrize(
    ("total", "said"),
    [
        (0, "0s"),
        (119, "119s"),
        (120, "2m"),
        (200, "3m20s"),
        (600, "10m"),
        (3 * 3600 - 1, "179m"),
        (3 * 3600 + 60, "3h1m"),
        (8 * 3600, "8h"),
        (48 * 3600, "2d"),
        (52 * 3600, "2d4h"),
        (8 * 86400, "8d"),
        (730 * 86400, "2y"),
        (800 * 86400, "2y70d"),
    ],
)
def test_durations_read_as_kubectl_has_them(total: int, said: str) -> None:
    assert duration(total) == said


def test_ages_and_what_is_left() -> None:
    now = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)
    assert age("2025-12-31T23:59:00.5Z", now=now) == "59s"
    assert age("2026-01-01T00:00:09Z", now=now) == "0s"  # its clock is ahead of ours
    assert (age(None), until(None)) == ("-", "-")
    assert until("2026-01-01T04:00:00Z", now=now) == "4h"
    assert until("2025-12-31T00:00:00+00:00", now=now) == "over"


def test_amounts_have_the_unit_that_people_use() -> None:
    assert gpu_time(12_500) == "12.5 GPU-s"
    assert gpu_time(150_000) == "2.5 GPU-min"
    assert gpu_time(3 * 3_600_000) == "3 GPU-h"
    assert gpu_time(30_000, like=50 * 60_000) == "0.5 GPU-min"
    assert gpu_time(1_000, like=50 * 60_000) == "1 GPU-s"  # little is not nothing
    assert gpu_time(0) == "0 GPU-s"
    assert gpu_time(None) == amount("tokens", None) == usd(None) == size(None) == "unknown"
    assert amount("tokens", 1_234_567) == "1,234,567 tokens"
    assert (usd(2_500_000), usd(1_234)) == ("2.50 USD", "0.001234 USD")
    assert (size(0), size(1_500), size(2 * 10**12)) == ("0 B", "1.5 kB", "2 TB")
    assert short_digest("sha256:" + "ab" * 32) == "sha256:abababababab"
    assert short_digest("") == "-"


def test_control_characters_are_made_visible() -> None:
    assert printable("a\x1b]0;x\x07\u202e\nb") == "a\\x1b]0;x\\x07\\u202e\\nb"
    assert printable("a\n\tb\r", keep="\n\t") == "a\n\tb\\r"
    assert printable("grüße") == "grüße"


def test_columns_line_up_and_only_grow() -> None:
    table = Table(("A", "B"))
    table.fit([["longer", "x"]])
    assert [table.line(row) for row in (("A", "B"), ("longer", "x"), ("c", "d"))] == [
        "A        B",
        "longer   x",
        "c        d",
    ]


def test_a_tree_of_any_depth(capsys: pytest.CaptureFixture[str]) -> None:
    root = Branch("top")
    first = root.add("one")
    first.add("below")
    root.add("two")
    print_tree(root)
    lines = capsys.readouterr().out.splitlines()
    assert [line.strip("├└│─|`- ") for line in lines] == ["top", "one", "below", "two"]
    assert [len(line) - len(line.lstrip("├└│─|`- ")) for line in lines] == [0, 3, 6, 3]
    deep = end = Branch("0")
    for number in range(3000):
        end = end.add(str(number))
    print_tree(deep)
    assert len(capsys.readouterr().out.splitlines()) == 3001

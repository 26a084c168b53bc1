"""Run the benchmarks and print one table: `python -m bench [NAME …]`."""

import contextlib
import dataclasses
import importlib
import json
import subprocess
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
ROOT = HERE.parent
TIMEOUT_SECONDS = 900.0
COLUMNS = ("name", "value", "unit", "peer / limit", "ratio")
UNITS = {"_ms": "ms", "_seconds": "s", "_bytes": "B", "_per_second": "/s"}
ONE = "--one"  # how this program calls itself for a single module

Row = Mapping[str, Any]


def measure(module: str) -> list[Row]:
    """The rows of one module, measured in this process; its own prints go to stderr."""
    with contextlib.redirect_stdout(sys.stderr):
        return rows_of(importlib.import_module(f"bench.bench_{module}").run())


def rows_of(answer: Any) -> list[Row]:
    """What a module returned, as rows."""
    if isinstance(answer, Mapping):
        return [
            {"name": key, "value": value, "unit": unit_of(key)} for key, value in answer.items()
        ]
    return [dataclasses.asdict(row) if dataclasses.is_dataclass(row) else row for row in answer]


def unit_of(name: str) -> str:
    """The unit a name ends in, "" when it names none."""
    return next((unit for ending, unit in UNITS.items() if name.endswith(ending)), "")


def measure_apart(module: str) -> tuple[list[Row], bool]:
    """The rows of one module run in a process of its own, and whether it went well."""
    try:
        done = subprocess.run(
            [sys.executable, "-m", "bench", ONE, module],
            cwd=ROOT, stdout=subprocess.PIPE, text=True, check=False, timeout=TIMEOUT_SECONDS,
        )  # fmt: skip
        answer = json.loads(done.stdout.splitlines()[-1])
    except subprocess.TimeoutExpired:
        answer = {"failed": f"did not end within {TIMEOUT_SECONDS:g} s"}
    except (IndexError, json.JSONDecodeError):
        answer = {"failed": "ended without an answer"}
    if "rows" in answer:
        return [{**row, "name": f"{module}: {row['name']}"} for row in answer["rows"]], True
    word, why = next(iter(answer.items()))
    return [{"name": f"{module}: {word}: {why}"}], word == "skipped"


def answer_one(module: str) -> None:
    """Measure one module and print its rows as one line of JSON."""
    try:
        print(json.dumps({"rows": measure(module)}, default=str))
    except RuntimeError as error:
        word = "skipped" if str(error).startswith("needs ") else "failed"
        print(json.dumps({word: str(error)}))


def table(rows: Iterable[Row]) -> str:
    """The rows in aligned columns."""
    cells = [COLUMNS]
    for row in rows:
        peer = row.get("peer", row.get("limit", ""))
        values = (row.get("name"), row.get("value"), row.get("unit"), peer, row.get("ratio"))
        cells.append(tuple(show(value) for value in values))
    widths = [max(len(line[column]) for line in cells) for column in range(len(COLUMNS))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
             for line in cells]  # fmt: skip
    return "\n".join([lines[0], "  ".join("-" * width for width in widths), *lines[1:]])


def show(value: Any) -> str:
    """A cell: large numbers with separators, small ones with three digits that mean something."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return "" if value is None else str(value)
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"


def main(arguments: Sequence[str]) -> int:
    """Run the modules named, or all; 1 when one failed."""
    if arguments[:1] == [ONE]:
        answer_one(arguments[1])
        return 0
    known = sorted(path.stem.removeprefix("bench_") for path in HERE.glob("bench_*.py"))
    if unknown := set(arguments) - set(known):
        print(f"no benchmark {sorted(unknown)}: there are {', '.join(known)}", file=sys.stderr)
        return 2
    rows: list[Row] = []
    is_fine = True
    for module in arguments or known:
        print(f"measuring {module} …", file=sys.stderr, flush=True)
        measured, went_well = measure_apart(module)
        rows += measured
        is_fine &= went_well
    print(table(rows))
    return 0 if is_fine else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

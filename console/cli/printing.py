"""What goes to the terminal: tables, JSON, YAML, trees, questions; never a control character."""

import json
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import click

GAP = 3  # spaces between columns, as kubectl has it
FORMATS = ("table", "wide", "json", "yaml", "name")
COLORS = {
    "Running": "cyan",
    "Satisfied": "green",
    "Paused": "yellow",
    "AwaitingApproval": "yellow",
    "Exhausted": "red",
    "Failed": "red",
    "Denied": "red",
    "running": "cyan",
    "succeeded": "green",
    "approved": "green",
    "active": "green",
    "allow": "green",
    "pending": "yellow",
    "warn": "yellow",
    "require_approval": "yellow",
    "deny": "red",
    "denied": "red",
    "failed": "red",
    "ok": "green",
    "FAIL": "red",
}


def printable(text: str, *, keep: str = "") -> str:
    """The text with every control character made visible: what agents wrote steers no terminal."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() or c in keep else repr(c)[1:-1] for c in text)


@dataclass(slots=True)
class Table:
    """Rows under titles; the widths only grow, so that a watched table stays readable."""

    titles: Sequence[str]
    widths: list[int] = field(default_factory=list)

    def fit(self, rows: Iterable[Sequence[str]]) -> None:
        if not self.widths:
            self.widths = [len(title) for title in self.titles]
        for row in rows:
            for index, cell in enumerate(row):
                self.widths[index] = max(self.widths[index], len(cell))

    def line(self, row: Sequence[str]) -> str:
        self.fit([row])
        last = len(row) - 1
        cells = [
            _colored(cell) + " " * (self.widths[i] - len(cell) + GAP if i < last else 0)
            for i, cell in enumerate(row)
        ]
        return "".join(cells).rstrip()


def _colored(cell: str) -> str:
    color = COLORS.get(cell)
    return click.style(cell, fg=color) if color else cell


def print_table(titles: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """A table on stdout, titles first."""
    clean = [[printable(cell) for cell in row] for row in rows]
    table = Table(titles)
    table.fit(clean)
    for row in [list(titles), *clean]:
        click.echo(table.line(row))


def print_pairs(pairs: Sequence[tuple[str, str]], *, err: bool = False) -> None:
    """`Label:   value` lines, aligned."""
    width = max((len(label) for label, _ in pairs), default=0) + 1
    for label, value in pairs:
        click.echo(f"{label + ':':<{width}}   {printable(value)}".rstrip(), err=err)


def print_document(document: Any, *, form: str) -> None:
    """A JSON value as JSON or YAML."""
    click.echo(document_text(document, form=form), nl=False)


def document_text(document: Any, *, form: str, is_compact: bool = False) -> str:
    """The text of a document with its last newline; compact JSON is one line."""
    if form == "json":
        indent = None if is_compact else 2
        return json.dumps(document, indent=indent, ensure_ascii=False) + "\n"
    import yaml  # noqa: PLC0415 - costs as much start time as the rest of the program

    text: str = yaml.safe_dump(document, sort_keys=False, allow_unicode=True)
    return text


def is_document(form: str) -> bool:
    """Whether the form is for programs: JSON or YAML."""
    return form in ("json", "yaml")


def tell(text: str) -> None:
    """A remark for people, on stderr so that pipes carry only the answer."""
    click.echo(f"clearance: {printable(text)}", err=True)


@dataclass(slots=True)
class Branch:
    """One fact and the facts behind it."""

    text: str
    below: "list[Branch]" = field(default_factory=list)

    def add(self, text: str) -> "Branch":
        branch = Branch(text)
        self.below.append(branch)
        return branch


def print_tree(root: Branch) -> None:
    """An indented tree; plain ASCII where the terminal cannot do better."""
    encoding = (getattr(sys.stdout, "encoding", "") or "").lower()
    glyphs = ("├─ ", "└─ ", "│  ") if "utf" in encoding else ("|- ", "`- ", "|  ")
    # A causal chain may be thousands deep: a stack of our own instead of Python's.
    stack = [(root, "", "")]
    while stack:
        branch, lead, below_lead = stack.pop()
        click.echo(f"{lead}{printable(branch.text)}")
        last = len(branch.below) - 1
        for index in range(last, -1, -1):
            mark, rest = (glyphs[1], "   ") if index == last else (glyphs[0], glyphs[2])
            stack.append((branch.below[index], below_lead + mark, below_lead + rest))

"""`clearance apply` and `clearance plan`: manifests to the server."""

import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from console.cli.exits import ExitCode, ServerRefused, rule_line
from console.cli.invocation import (
    Invocation,
    connection_options,
    output_option,
    pass_invocation,
)
from console.cli.printing import is_document, print_document, print_pairs, print_table, tell
from console.cli.quantities import MS_PER_SECOND, UNKNOWN, gpu_time, seconds

SUFFIXES = (".yaml", ".yml", ".json")
STDIN = "-"
# Enough to order files; the server parses them. Agents must be known before Goals name them.
GOAL_KIND = re.compile(rb"""^[ \t{]*["']?kind["']?[ \t]*:[ \t]*["']?Goal\b""", re.MULTILINE)


def read_manifests(names: Sequence[str]) -> list[tuple[str, bytes]]:
    """Each file with its text: files of agents first, else in the order given and by name."""
    found: list[tuple[str, bytes]] = []
    for name in names:
        if name == STDIN:
            found.append(("stdin", sys.stdin.buffer.read()))
        elif Path(name).is_dir():
            files = sorted(p for p in Path(name).iterdir() if p.suffix in SUFFIXES)
            if not files:
                raise click.UsageError(f"{name} holds no {', '.join(SUFFIXES)} file.")
            found.extend((str(path), _read(path)) for path in files)
        else:
            found.append((name, _read(Path(name))))
    return sorted(found, key=lambda one: GOAL_KIND.search(one[1]) is not None)


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise click.UsageError(f"cannot read {path}: {error.strerror}.") from None


_file_option = click.option(
    "-f", "--filename", "names", multiple=True, required=True, help="File, folder or - for stdin."
)


@click.command()
@_file_option
@click.option("--dry-run", "is_dry", is_flag=True, help="Check only; nothing is kept.")
@output_option("table", "json", "yaml", "name")
@connection_options
@pass_invocation
def apply(invocation: Invocation, *, names: tuple[str, ...], is_dry: bool, form: str) -> None:
    """Create or change Agents and Goals from manifests (YAML or JSON, several documents each).

    A file takes effect whole or not at all. Files of agents go first. A file that is refused does
    not stop the others; the worst exit code is kept.
    """
    applied: list[dict[str, Any]] = []
    refusals: list[ServerRefused] = []
    for name, text in read_manifests(names):
        try:
            query = {"dry_run": "true"} if is_dry else {}
            rows = invocation.client.post_manifest("/apply", text, **query)
        except ServerRefused as error:
            error.message = f"{name}: {error.message}"
            error.show()
            refusals.append(error)
            continue
        applied.extend(rows)
        if not is_document(form):
            for row in rows:
                _print_applied(row, form=form, is_dry=is_dry)
    if is_document(form):
        print_document({"kind": "List", "items": applied}, form=form)
    if refusals:
        raise click.exceptions.Exit(max(error.code for error in refusals))


def _print_applied(row: dict[str, Any], *, form: str, is_dry: bool) -> None:
    name = f"{row['kind'].lower()}/{row['name']}"
    if form == "name":
        click.echo(name)
    else:
        click.echo(f"{name} {row['outcome']}{' (dry run)' if is_dry else ''}")
    for note in row["notes"]:
        tell(f"{name}: {note}")


@click.command()
@_file_option
@output_option("table", "json", "yaml")
@connection_options
@pass_invocation
def plan(invocation: Invocation, *, names: tuple[str, ...], form: str) -> None:
    """Show the tasks a Goal would become, their price and what policy says; nothing is kept.

    Exits 3 when policy denies.
    """
    manifests = read_manifests(names)
    if len(manifests) != 1:
        raise click.UsageError("one Goal is planned at a time: name one file.")
    ((name, text),) = manifests
    try:
        found = invocation.client.post_manifest("/plan", text)
    except ServerRefused as error:
        error.message = f"{name}: {error.message}"
        raise
    if is_document(form):
        print_document(found, form=form)
    else:
        _print_plan(found)
    if found["outcome"] == "deny":
        raise click.exceptions.Exit(ExitCode.DENIED)


def _print_plan(found: dict[str, Any]) -> None:
    graph = found["graph"]
    goal = graph["goal"]
    print_pairs(
        [
            ("Goal", f"{goal['namespace']}/{goal['name']}"),
            ("Objective", graph["spec"]["objective"]),
            ("Budget", graph["spec"]["budget"]),
            ("Graph", graph["digest"]),
        ]
    )
    click.echo()
    verdicts = _verdicts(found["decisions"])
    titles = ("TASK", "AGENT", "AFTER", "GPUS", "GPU-TIME P50/P90", "SOURCE", "TIME P50/P90")
    rows = [_task_row(task, verdicts.get(task["name"], "")) for task in graph["tasks"]]
    print_table((*titles, "SOURCE", "VERDICT"), rows)
    click.echo()
    _print_total(graph["estimate"], tasks=len(rows))
    _print_verdicts(found)


SEVERITY = ("allow", "warn", "require_approval", "deny")


def _verdicts(decisions: list[dict[str, Any]]) -> dict[str, str]:
    """The worst outcome by subject; a shadow bundle decides nothing."""
    worst: dict[str, str] = {}
    for decision in decisions:
        if decision["stage"] == "shadow":
            continue
        outcome = decision["outcome"]
        if decision["stage"] == "warn" and outcome in SEVERITY[2:]:
            outcome = "warn"
        known = worst.get(decision["subject"], "allow")
        worst[decision["subject"]] = max(known, outcome, key=SEVERITY.index)
    return worst


def _task_row(task: dict[str, Any], verdict: str) -> list[str]:
    estimate = task["estimate"]
    return [
        task["name"],
        task["agent"]["name"],
        ", ".join(task["dependsOn"]) or "-",
        str(task["gpus"]),
        _range(estimate["gpu_seconds"], _gpu_seconds),
        estimate["gpu_seconds"]["source"],
        _range(estimate["seconds"], seconds),
        estimate["seconds"]["source"],
        verdict or UNKNOWN,
    ]


def _gpu_seconds(value: float | None) -> str:
    return gpu_time(None if value is None else value * MS_PER_SECOND)


def _range(forecast: dict[str, Any], text: Any) -> str:
    if forecast["p50"] is None:
        return UNKNOWN
    return f"{text(forecast['p50'])} / {text(forecast['p90'])}"


def _print_total(estimate: dict[str, Any], *, tasks: int) -> None:
    pairs = []
    for label, name, text in (
        ("Total GPU time", "gpu_seconds", _gpu_seconds),
        ("Total time", "seconds", seconds),
    ):
        total = estimate[name]
        said = _range(total, text)
        if total["p50"] is None:
            known = tasks - total["unknown_tasks"]
            said += f": {total['unknown_tasks']} of {tasks} tasks are unknown"
            if known:
                said += f", the others take {text(total['known_p50'])} / {text(total['known_p90'])}"
        pairs.append((label, f"{said} (P50 / P90)"))
    path = estimate["critical_path_seconds"]
    pairs.append(("At least", f"{_range(path, seconds)} (longest chain of tasks)"))
    print_pairs(pairs)


def _print_verdicts(found: dict[str, Any]) -> None:
    click.echo(f"\nPolicy: {found['outcome']}")
    for decision in found["decisions"]:
        subject = "graph" if decision["point"] == "graph" else decision["subject"]
        suffix = "" if decision["stage"] == "enforce" else f" [{decision['stage']}]"
        for message in decision["messages"]:
            print_pairs([(f"  {subject}", rule_line(message) + suffix)])

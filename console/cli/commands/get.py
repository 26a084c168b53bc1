"""`clearance get`: lists and single objects, once or watched."""

from typing import Any

import click

from console.cli.invocation import (
    Invocation,
    connection_options,
    output_option,
    pass_invocation,
)
from console.cli.lookup import find_row, goal_uid, in_namespace
from console.cli.printing import Table, document_text, is_document, print_document, printable, tell
from console.cli.resources import BY_NAME, RESOURCES, Resource
from console.cli.watch import Patience, watch_rows

FILTERS = ("goal", "state", "phase", "outcome", "action", "actor", "kind")
WATCH_SECONDS = 2.0
LIMIT = 500  # rows; the newest


class _View:
    """One form of output for one kind; keeps the widths of a table while it is watched."""

    def __init__(self, resource: Resource, form: str, *, is_everywhere: bool) -> None:
        self.resource, self.form = resource, form
        self.is_wide = form == "wide"
        self.is_everywhere = is_everywhere
        titles = resource.titles(is_wide=self.is_wide, is_everywhere=is_everywhere)
        self._table = Table(titles)
        self._has_head = False

    def show(self, rows: list[dict[str, Any]]) -> None:
        """Rows as lines: of a table, of names, or one document each."""
        if is_document(self.form):
            for row in rows:
                lead = "---\n" if self.form == "yaml" else ""
                click.echo(lead + document_text(row, form=self.form, is_compact=True), nl=False)
        elif self.form == "name":
            for row in rows:
                click.echo(f"{self.resource.kind}/{printable(self.resource.key(row))}")
        else:
            self._show_table(rows)

    def _show_table(self, rows: list[dict[str, Any]]) -> None:
        cells = [[printable(cell) for cell in self._cells(row)] for row in rows]
        self._table.fit(cells)
        if not self._has_head:
            click.echo(self._table.line(self._table.titles))
            self._has_head = True
        for line in cells:
            click.echo(self._table.line(line))

    def _cells(self, row: dict[str, Any]) -> list[str]:
        return self.resource.cells(row, is_wide=self.is_wide, is_everywhere=self.is_everywhere)


@click.command()
@click.argument("kind", metavar="KIND", type=click.Choice(sorted(BY_NAME)))
@click.argument("name", required=False)
@click.option("-A", "--all-namespaces", "is_everywhere", is_flag=True, help="All namespaces.")
@click.option("-w", "--watch", "is_watched", is_flag=True, help="Print rows when they change.")
@click.option(
    "--interval",
    type=click.FloatRange(min=0.05, max=3600),
    default=WATCH_SECONDS,
    show_default=True,
    help="Seconds between looks while watching.",
)
@click.option(
    "--limit",
    type=click.IntRange(min=0),
    default=LIMIT,
    show_default=True,
    help="At most that many rows, the newest; 0 is all.",
)
@click.option("--goal", help="Of this Goal only.")
@click.option("--state", help="In this state only (attempts, approvals, gpus).")
@click.option("--phase", help="In this phase only (goals).")
@click.option("--outcome", help="With this outcome only (decisions).")
@click.option("--action", help="Of this action only (journal).")
@click.option("--actor", help="Of this actor only (journal).")
@click.option("--kind", "artifact_kind", help="Of this kind only (artifacts).")
@output_option()
@connection_options
@pass_invocation
def get(
    invocation: Invocation,
    /,
    *,
    kind: str,
    name: str | None,
    is_everywhere: bool,
    is_watched: bool,
    interval: float,
    limit: int,
    form: str,
    artifact_kind: str | None,
    **given: str | None,
) -> None:
    """List objects, or show one by its name, uid or the beginning of its uid."""
    resource = BY_NAME[kind]
    filters = _filters(invocation, resource, {**given, "kind": artifact_kind})
    view = _View(resource, form, is_everywhere=is_everywhere)

    def read() -> list[dict[str, Any]]:
        if name is not None:
            return [find_row(invocation, resource, name)]
        return list(
            in_namespace(invocation, resource, is_everywhere=is_everywhere, limit=limit, **filters)
        )

    if is_watched:
        watch_rows(
            Patience(pause_seconds=interval),
            read=read,
            key=lambda row: f"{resource.namespace(row)}/{resource.key(row)}",
            state=lambda row: (
                row if is_document(form) else resource.state(row, is_wide=view.is_wide)
            ),
            show=view.show,
        )
    rows = read()
    _show_once(view, rows, is_single=name is not None)
    if not rows and not is_document(form):
        where = "" if is_everywhere else f" in namespace {invocation.namespace}"
        tell(f"no {resource.plural}{where if resource.is_namespaced else ''}.")
    if name is None and limit and len(rows) == limit:
        tell(f"only the newest {limit} are shown; --limit 0 shows all.")


def show_rows(resource: Resource, rows: list[dict[str, Any]], *, form: str) -> None:
    """Rows of every namespace, as a table, as names or as one document."""
    _show_once(_View(resource, form, is_everywhere=True), rows, is_single=False)


def _show_once(view: _View, rows: list[dict[str, Any]], *, is_single: bool) -> None:
    if is_document(view.form):
        document = rows[0] if is_single else {"kind": "List", "items": rows}
        print_document(document, form=view.form)
    elif rows:
        view.show(rows)


def _filters(
    invocation: Invocation, resource: Resource, given: dict[str, str | None]
) -> dict[str, str]:
    filters = {}
    for flag, value in given.items():
        if value is None:
            continue
        if flag not in resource.filters:
            kinds = ", ".join(r.plural for r in RESOURCES if flag in r.filters)
            raise click.UsageError(f"--{flag} is for {kinds}, not for {resource.plural}.")
        filters[resource.filters[flag]] = goal_uid(invocation, value) if flag == "goal" else value
    return filters

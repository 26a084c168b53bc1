"""`clearance catalogue`: what of the cluster looks like an agent, and what to make of it."""

from typing import Any

import click

from console.cli.client import segment
from console.cli.exits import CliError, ExitCode
from console.cli.invocation import (
    Invocation,
    connection_options,
    output_option,
    pass_invocation,
)
from console.cli.printing import is_document, print_document, print_table, printable

SHOWN = ("registered", "ignored", "other", "all")
LIMIT = 500  # rows, the likeliest agents first
TITLES = (
    "NAMESPACE", "KIND", "NAME", "SCORE", "STANDING", "ACCOUNT", "PODS", "GPUS", "EVIDENCE",
)  # fmt: skip
PREFIX_MIN = 4  # characters of a uid that name an entry


@click.group(invoke_without_command=True)
@click.option("--show", type=click.Choice(SHOWN), help="Instead of what looks like an agent.")
@click.option("--kind", default="", help="Of this kind only, such as CronJob.")
@click.option("-A", "--all-namespaces", "is_everywhere", is_flag=True, help="All namespaces.")
@click.option("--limit", type=click.IntRange(min=0), default=LIMIT, show_default=True)
@output_option()
@connection_options
@pass_invocation
@click.pass_context
def catalogue(
    context: click.Context,
    invocation: Invocation,
    *,
    show: str | None,
    kind: str,
    is_everywhere: bool,
    limit: int,
    form: str,
) -> None:
    """List what of the cluster looks like an agent, with the evidence.

    Nothing in the cluster is changed: `propose` prints YAML that you apply yourself, as
    `clearance catalogue propose NAME | kubectl apply --server-side -f -`.
    """
    if context.invoked_subcommand is not None:
        return
    namespace = "" if is_everywhere else invocation.namespace
    rows = list(
        invocation.client.rows(
            "/catalogue", limit=limit, show=show or "", kind=kind, namespace=namespace
        )
    )
    _show(rows, form=form)


def _show(rows: list[dict[str, Any]], *, form: str) -> None:
    if is_document(form):
        print_document({"kind": "List", "items": rows}, form=form)
        return
    if form == "name":
        for row in rows:
            click.echo(f"{_reference(row)}")
        return
    cells = [
        [
            row["namespace"], row["kind"], row["name"], str(row["score"]), row["standing"],
            row["service_account"], row["state"] or "none", str(row["gpus"]),
            _evidence(row, is_wide=form == "wide"),
        ]
        for row in rows
    ]  # fmt: skip
    print_table(TITLES, [[printable(cell) for cell in line] for line in cells])


def _evidence(row: dict[str, Any], *, is_wide: bool) -> str:
    return "; ".join(one["text"] if is_wide else one["code"] for one in row["evidence"])


def _reference(row: dict[str, Any]) -> str:
    return f"{printable(row['kind'])}/{printable(row['namespace'])}/{printable(row['name'])}"


@catalogue.command()
@click.argument("name")
@connection_options
@pass_invocation
def propose(invocation: Invocation, *, name: str) -> None:
    """Print a service account, its rights, the patch that uses it and a registration, as YAML.

    NAME is NAME, KIND/NAME, KIND/NAMESPACE/NAME or a uid.
    """
    row = _find(invocation, name)
    with invocation.client.stream(f"/catalogue/{segment(row['uid'])}/proposal") as answer:
        click.echo(answer.read().decode(), nl=False)


@catalogue.command()
@click.argument("name")
@connection_options
@pass_invocation
def register(invocation: Invocation, *, name: str) -> None:
    """Register the agent that is proposed, here and not in the cluster."""
    row = _find(invocation, name)
    made = invocation.client.post(f"/catalogue/{segment(row['uid'])}/register")
    click.echo(f"agent/{made['agent']} {made['outcome']}")


@catalogue.command()
@click.argument("name")
@click.option("--reason", required=True, help="Why it is no agent; kept in the journal.")
@connection_options
@pass_invocation
def ignore(invocation: Invocation, *, name: str, reason: str) -> None:
    """Say that it is no agent."""
    row = _find(invocation, name)
    invocation.client.post(f"/catalogue/{segment(row['uid'])}/ignore", {"reason": reason})
    click.echo(f"{_reference(row)} ignored")


@catalogue.command()
@click.argument("name")
@connection_options
@pass_invocation
def restore(invocation: Invocation, *, name: str) -> None:
    """Look at it again."""
    row = _find(invocation, name)
    invocation.client.post(f"/catalogue/{segment(row['uid'])}/restore")
    click.echo(f"{_reference(row)} is looked at again")


def _find(invocation: Invocation, wanted: str) -> dict[str, Any]:
    """The one entry that is meant. Raises CliError, UsageError."""
    *place, name = wanted.split("/")
    kind = place[0] if place else ""
    namespace = place[1] if len(place) > 1 else invocation.namespace
    if len(place) > 2 or not name:
        raise click.UsageError("NAME: write NAME, KIND/NAME, KIND/NAMESPACE/NAME or a uid.")
    found = [
        row
        for row in invocation.client.rows("/catalogue", show="all", namespace=namespace)
        if (row["name"] == name and kind.lower() in ("", row["kind"].lower()))
        or (not place and len(name) >= PREFIX_MIN and row["uid"].startswith(name))
    ]
    if not found:
        raise CliError(
            f"there is no workload {wanted!r} in namespace {namespace} that you may see.",
            code=ExitCode.NOT_FOUND,
        )
    if len(found) > 1:
        several = ", ".join(f"{row['kind']}/{row['name']}" for row in found[:5])
        raise click.UsageError(f"{wanted!r} is several: {several}. Write KIND/NAME.")
    return found[0]

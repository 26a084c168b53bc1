"""`clearance revoke`: take the identities of an agent, or of one attempt, away at once."""

import sys
from typing import Any

import click

from console.cli.client import segment
from console.cli.exits import CliError, ExitCode
from console.cli.invocation import Invocation, connection_options, output_option, pass_invocation
from console.cli.lookup import find_row
from console.cli.printing import is_document, print_document
from console.cli.resources import ATTEMPTS


@click.command()
@click.argument("kind", type=click.Choice(("agent", "attempt")))
@click.argument("name")
@click.option("--reason", required=True, help="Why; kept in the journal.")
@click.option("-y", "--yes", "is_sure", is_flag=True, help="Do not ask again.")
@output_option("name", "json", "yaml")
@connection_options
@pass_invocation
def revoke(
    invocation: Invocation, *, kind: str, name: str, reason: str, is_sure: bool, form: str
) -> None:
    """Revoke every identity of an AGENT, or that of an ATTEMPT; nothing they send counts any more.

    What is started later gets an identity of its own; `kill --agent` ends the programs as well.
    """
    if kind == "agent":
        namespace, _, short = name.removeprefix("agent/").rpartition("/")
        where = namespace or invocation.namespace
        path, said = f"/agents/{segment(where)}/{segment(short)}", f"agent/{where}/{short}"
    else:
        found = find_row(invocation, ATTEMPTS, name)
        path, said = f"/attempts/{segment(found['uid'])}", f"attempt/{found['uid']}"
    if not is_sure:
        _confirm(said)
    answer: Any = invocation.client.post(f"{path}/revoke", {"reason": reason})
    if is_document(form):
        print_document(answer, form=form)
    else:
        click.echo(f"{said} revoked")


def _confirm(said: str) -> None:
    """Ask on stderr; only y or yes goes on. Raises CliError."""
    click.echo(f"Revoke {said}? It cannot be given back. [y/N] ", err=True, nl=False)
    line = sys.stdin.readline()
    if not line:
        raise CliError("nobody is there to confirm; add --yes.", code=ExitCode.USAGE)
    if line.strip().lower() not in ("y", "yes"):
        raise CliError("not confirmed; nothing was revoked.")

"""`clearance journal`: search what happened, verify that nothing of it was changed."""

from collections.abc import Iterator
from typing import Any

import click

from console.cli.commands.get import get, show_rows
from console.cli.exits import ExitCode
from console.cli.invocation import (
    Invocation,
    connection_options,
    output_option,
    pass_invocation,
)
from console.cli.printing import is_document, print_document, printable, tell
from console.cli.resources import JOURNAL

PAGE = 200


@click.group()
def journal() -> None:
    """The journal: every change of state, in a chain that is signed."""


@journal.command()
@click.argument("query", nargs=-1)
@click.option("--limit", type=click.IntRange(min=0), default=500, show_default=True)
@output_option()
@connection_options
@pass_invocation
def search(invocation: Invocation, *, query: tuple[str, ...], limit: int, form: str) -> None:
    """Search with qualifiers, as the Audit page does: actor: action: goal: created:24h, or words.

    For example: clearance journal search action:release.* created:7d
    """
    rows = list(_found(invocation, " ".join(query), limit=limit))
    show_rows(JOURNAL, rows, form=form)
    if not rows:
        tell("no record that you may see matches.")


def _found(invocation: Invocation, query: str, *, limit: int) -> Iterator[dict[str, Any]]:
    before: int | None = None
    count = 0
    while True:
        size = min(PAGE, limit - count) if limit else PAGE
        page = invocation.client.get("/journal/search", q=query, before=before, size=size)
        yield from page["results"]
        count += len(page["results"])
        before = page["older"]
        if before is None:
            return
        if limit and count >= limit:
            tell(f"the newest {limit}; --limit 0 shows all.")
            return


@journal.command()
@click.option("--from-start", is_flag=True, help="Begin at record 0, whatever was verified before.")
@click.option("--status", "is_status", is_flag=True, help="Only say what was verified so far.")
@output_option("table", "json", "yaml")
@connection_options
@pass_invocation
def verify(invocation: Invocation, *, from_start: bool, is_status: bool, form: str) -> None:
    """Verify the whole chain on the server: every hash, link and signed root; exits 1 on a flaw."""
    client = invocation.client
    if is_status:
        check = client.get("/journal/verification")
    else:
        check = client.post("/journal/verification", {"from_start": from_start})
        reached = -1
        while check["flaw_seq"] is None and reached < check["size"] < check["records"]:
            reached = check["size"]
            tell(f"{check['size']} of {check['records']} records hold ...")
            check = client.post("/journal/verification", {"from_start": False})
    if is_document(form):
        print_document(check, form=form)
    else:
        click.echo(_words(check))
    if check["flaw_seq"] is not None:
        raise click.exceptions.Exit(ExitCode.REFUSED)


def _words(check: dict[str, Any]) -> str:
    if check["flaw_seq"] is not None:
        return f"BROKEN at record {check['flaw_seq']}: {printable(check['flaw_why'])}"
    if check["checked_at"] is None:
        return "not verified yet"
    rest = check["records"] - check["size"]
    more = f"; {rest} not verified yet" if rest > 0 else ""
    return (
        f"{check['size']} records hold, under {check['checkpoints']} signed roots, "
        f"verified {check['checked_at']}{more}"
    )


@journal.command()
@output_option()
@connection_options
@click.pass_context
def checkpoints(context: click.Context, *, form: str) -> None:
    """List the newest signed checkpoints."""
    context.invoke(get, kind="checkpoints", form=form)

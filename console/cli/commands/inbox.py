"""`clearance inbox`, `ask`, `reply` and `delegation`: what waits, questions, lent rights."""

from typing import Any

import click

from console.cli.client import segment
from console.cli.commands.approvals import end_moment
from console.cli.invocation import (
    Invocation,
    connection_options,
    output_option,
    pass_invocation,
)
from console.cli.lookup import find_row
from console.cli.printing import is_document, print_document, print_table, printable
from console.cli.quantities import UNKNOWN, until, usd
from console.cli.resources import APPROVALS, asked


@click.command()
@click.option("--mine", is_flag=True, help="Only what you should answer.")
@output_option("table", "json", "yaml")
@connection_options
@pass_invocation
def inbox(invocation: Invocation, *, mine: bool, form: str) -> None:
    """What waits for an answer, soonest damage first; unknown damage last."""
    rows = invocation.client.get("/approvals/inbox", mine=str(mine).lower())
    if is_document(form):
        print_document(rows, form=form)
        return
    titles = ("APPROVAL", "TITLE", "ASKS", "DAMAGE", "IN", "USD/MIN", "EXPIRES-IN", "WAITS-ON")
    print_table(titles, [_line(row) for row in rows])


def _line(row: dict[str, Any]) -> tuple[str, ...]:
    card, stake = row["approval"], row["stake"]
    return (
        card["uid"],
        printable(card["title"]),
        asked(card),
        stake["damage"] or UNKNOWN,
        until(stake["damage_at"]) if stake["damage_at"] else UNKNOWN,
        usd(stake["micro_usd_per_minute"]),
        until(card["expires_at"]),
        card["waits_on"] or "-",
    )


@click.command()
@click.argument("approval")
@click.argument("question")
@click.option("--to", required=True, help="A person behind the request, or operators.")
@connection_options
@pass_invocation
def ask(invocation: Invocation, *, approval: str, question: str, to: str) -> None:
    """Ask before answering; the request stays open and its time runs on."""
    card = find_row(invocation, APPROVALS, approval)
    path = f"/approvals/{segment(card['uid'])}/ask"
    said = invocation.client.post(path, {"to": to, "text": question})
    click.echo(f"approval/{card['uid']} waits on {said['asked']}")


@click.command()
@click.argument("approval")
@click.argument("text")
@connection_options
@pass_invocation
def reply(invocation: Invocation, *, approval: str, text: str) -> None:
    """Answer what was asked about a request."""
    card = find_row(invocation, APPROVALS, approval)
    invocation.client.post(f"/approvals/{segment(card['uid'])}/reply", {"text": text})
    click.echo(f"approval/{card['uid']} replied")


@click.group()
def delegation() -> None:
    """Rights to approve that were lent until an end date."""


@delegation.command("give")
@click.argument("person")
@click.option("--until", "end", required=True, metavar="WHEN", help="2d, 8h, or a moment.")
@click.option("--reason", required=True, help="Why; kept with the delegation.")
@output_option("name", "json", "yaml")
@connection_options
@pass_invocation
def give(invocation: Invocation, *, person: str, end: str, reason: str, form: str) -> None:
    """Lend your own right to approve in one namespace to PERSON, for at most 30 days."""
    document = {
        "to": person,
        "namespace": invocation.namespace,
        "until": end_moment(end).isoformat(),
        "reason": reason,
    }
    made = invocation.client.post("/delegations", document)
    if is_document(form):
        print_document(made, form=form)
    else:
        click.echo(f"delegation/{made['uid']} {made['delegate']} for {made['delegator']}")


@delegation.command("list")
@output_option("table", "json", "yaml")
@connection_options
@pass_invocation
def list_delegations(invocation: Invocation, *, form: str) -> None:
    """Who may approve for whom, newest first."""
    rows = list(invocation.client.rows("/delegations", limit=500))
    if is_document(form):
        print_document(rows, form=form)
        return
    titles = ("DELEGATION", "FROM", "TO", "NAMESPACE", "ENDS-IN", "REVOKED-BY", "REASON")
    print_table(
        titles,
        [
            (
                row["uid"],
                printable(row["delegator"]),
                printable(row["delegate"]),
                row["namespace"],
                until(row["ends_at"]),
                printable(row["revoked_by"]) or "-",
                printable(row["reason"]),
            )
            for row in rows
        ],
    )


@delegation.command("revoke")
@click.argument("uid", type=click.UUID)
@connection_options
@pass_invocation
def revoke(invocation: Invocation, *, uid: object) -> None:
    """Take a lent right back at once."""
    ended = invocation.client.delete(f"/delegations/{segment(str(uid))}")
    click.echo(f"delegation/{ended['uid']} revoked")

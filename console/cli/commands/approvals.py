"""`clearance approve` and `clearance deny`: an answer to exactly what was shown."""

import sys
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
from console.cli.lookup import find_row
from console.cli.printing import is_document, print_document, print_pairs, printable
from console.cli.quantities import UNKNOWN, amount, until
from console.cli.resources import APPROVALS, asked

_yes_option = click.option("-y", "--yes", "is_sure", is_flag=True, help="Do not ask again.")
_reason_option = click.option("--reason", required=True, help="Why; kept with the decision.")


@click.command()
@click.argument("approval")
@click.option("--grant", metavar="AMOUNT", help='Less than was asked, such as "20 GPU-seconds".')
@_reason_option
@_yes_option
@output_option("name", "json", "yaml")
@connection_options
@pass_invocation
def approve(
    invocation: Invocation,
    *,
    approval: str,
    grant: str | None,
    reason: str,
    is_sure: bool,
    form: str,
) -> None:
    """Approve what the card shows, or less of it."""
    card = _shown_card(invocation, approval)
    document = {"reason": reason, "request_digest": card["request_digest"]}
    question = "Approve this?"
    if grant is not None:
        granted = granted_amount(card, grant)
        document["grant"] = granted
        question = f"Approve {amount(card['request']['unit'], granted)}?"
    _confirm(question, is_sure=is_sure)
    _send(invocation, card, "approve", document, form=form)


@click.command()
@click.argument("approval")
@_reason_option
@_yes_option
@output_option("name", "json", "yaml")
@connection_options
@pass_invocation
def deny(invocation: Invocation, *, approval: str, reason: str, is_sure: bool, form: str) -> None:
    """Deny what the card shows."""
    card = _shown_card(invocation, approval)
    _confirm("Deny this?", is_sure=is_sure)
    document = {"reason": reason, "request_digest": card["request_digest"]}
    _send(invocation, card, "deny", document, form=form)


def granted_amount(card: dict[str, Any], text: str) -> int:
    """The amount in the unit of the request. Raises UsageError for another dimension."""
    from goals.domain.budget import BudgetSyntaxError, parse_budget  # noqa: PLC0415 - rarely used

    request = card["request"]
    if request.get("kind") != "budget":
        raise click.UsageError("--grant: only a budget can be granted in part.")
    try:
        amounts = parse_budget(text).amounts()
    except BudgetSyntaxError as error:
        raise click.UsageError(f"--grant: {error}") from None
    unit = request["unit"]
    if set(amounts) != {unit}:
        raise click.UsageError(
            f"--grant: this asks for {amount(unit, int(request['ask']))}; grant that alone."
        )
    return amounts[unit]


def _shown_card(invocation: Invocation, name: str) -> dict[str, Any]:
    """The approval, shown on stderr. Raises CliError when it is decided already."""
    card = find_row(invocation, APPROVALS, name)
    print_card(card)
    if card["state"] != "pending":
        by = f" by {card['decided_by']}" if card["decided_by"] else ""
        raise CliError(
            f"this approval is already {card['state']}{by}: {card['reason'] or 'no reason given'}",
            code=ExitCode.CONFLICT,
        )
    return card


def print_card(card: dict[str, Any]) -> None:
    """Facts of the system first; what an agent wrote in a box that says so."""
    click.echo(click.style(printable(card["title"]), bold=True), err=True)
    pairs = [
        ("Approval", card["uid"]),
        ("Namespace", card["namespace"]),
        ("Requested by", card["requested_by"]),
        ("Expires in", until(card["expires_at"])),
        ("Asks for", asked(card)),
    ]
    pairs += [
        (str(fact["label"]), UNKNOWN if fact["value"] is None else str(fact["value"]))
        for fact in card["facts"]
    ]
    pairs.append(("Request", card["request_digest"]))
    print_pairs([(label, value) for label, value in pairs if value != "-"], err=True)
    if card["agent_words"]:
        click.echo("\n+-- written by the agent, unverified", err=True)
        for line in card["agent_words"].splitlines():
            click.echo(f"| {printable(line)}", err=True)
        click.echo("+--", err=True)


def _confirm(question: str, *, is_sure: bool) -> None:
    """Ask on stderr; only y or yes goes on. Raises CliError."""
    if is_sure:
        return
    click.echo(f"{question} [y/N] ", err=True, nl=False)
    line = sys.stdin.readline()
    if not line:
        click.echo("", err=True)
        raise CliError(
            "nobody is there to confirm; add --yes to answer without being asked.",
            code=ExitCode.USAGE,
        )
    if line.strip().lower() not in ("y", "yes"):
        raise CliError("not confirmed; nothing was sent.")


def _send(
    invocation: Invocation, card: dict[str, Any], verb: str, document: dict[str, Any], *, form: str
) -> None:
    answered = invocation.client.post(f"/approvals/{segment(card['uid'])}/{verb}", document)
    if is_document(form):
        print_document(answered, form=form)
    else:
        click.echo(f"approval/{answered['uid']} {answered['state']}")

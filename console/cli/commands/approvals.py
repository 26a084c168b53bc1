"""`clearance approve`, `degrade` and `deny`: an answer to exactly what was shown."""

import datetime as dt
import re
import sys
from typing import Any, Final

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
from console.cli.quantities import UNKNOWN, amount, until, usd
from console.cli.resources import APPROVALS, asked

_yes_option = click.option("-y", "--yes", "is_sure", is_flag=True, help="Do not ask again.")
_reason_option = click.option("--reason", required=True, help="Why; kept with the decision.")
_grant_option = click.option(
    "--grant", metavar="AMOUNT", help='Less than was asked, such as "20 GPU-seconds".'
)
_until_option = click.option(
    "--until",
    "end",
    metavar="WHEN",
    help="What is not used by then goes back and the Goal asks again: 4h, 90m, 2d, or a moment "
    "such as 2026-01-31T18:00:00Z.",
)
SPAN: Final = re.compile(r"(\d{1,6})([mhd])", re.ASCII)
SPAN_SECONDS: Final = {"m": 60, "h": 3600, "d": 86_400}


@click.command()
@click.argument("approval")
@_grant_option
@_until_option
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
    end: str | None,
    reason: str,
    is_sure: bool,
    form: str,
) -> None:
    """Approve what the card shows, less of it, or until a time."""
    card = _shown_card(invocation, approval)
    document, what = _answer(card, reason=reason, grant=grant, end=end)
    _confirm(f"Approve {what}?", is_sure=is_sure)
    _send(invocation, card, "approve", document, form=form)


@click.command()
@click.argument("approval")
@click.option("--gpus", type=click.IntRange(min=1), help="GPUs at most for one task.")
@click.option("--parallel", type=click.IntRange(min=1), help="Tasks at most at once.")
@click.option("--last-iteration", is_flag=True, help="No further iteration.")
@click.option("--model", metavar="NAME", help="A smaller model, for the agents that list it.")
@_grant_option
@_until_option
@_reason_option
@_yes_option
@output_option("name", "json", "yaml")
@connection_options
@pass_invocation
def degrade(
    invocation: Invocation,
    *,
    approval: str,
    gpus: int | None,
    parallel: int | None,
    last_iteration: bool,
    model: str | None,
    grant: str | None,
    end: str | None,
    reason: str,
    is_sure: bool,
    form: str,
) -> None:
    """Approve, and let the Goal go on with less: fewer GPUs, fewer tasks, a smaller model."""
    less = {"gpus": gpus, "parallel": parallel, "last_iteration": last_iteration, "model": model}
    taken = {name: value for name, value in less.items() if value}
    if not taken:
        raise click.UsageError(
            "say with what it goes on: --gpus, --parallel, --last-iteration or --model."
        )
    card = _shown_card(invocation, approval)
    document, what = _answer(card, reason=reason, grant=grant, end=end)
    words = ", ".join(f"{name.replace('_', ' ')} {value}" for name, value in taken.items())
    _confirm(f"Approve {what}, with less ({words})?", is_sure=is_sure)
    _send(invocation, card, "degrade", {**document, "degrade": taken}, form=form)


def _answer(
    card: dict[str, Any], *, reason: str, grant: str | None, end: str | None
) -> tuple[dict[str, Any], str]:
    """The answer as it is sent, and in words. Raises UsageError."""
    document: dict[str, Any] = {"reason": reason, "request_digest": card["request_digest"]}
    what = "this"
    if grant is not None:
        document["grant"] = granted_amount(card, grant)
        what = amount(card["request"]["unit"], document["grant"])
    if end is not None:
        moment = end_moment(end)
        document["until"] = moment.isoformat()
        what += f" until {moment:%Y-%m-%d %H:%M} UTC"
    return document, what


def end_moment(text: str, *, now: dt.datetime | None = None) -> dt.datetime:
    """A span from now such as 4h, or a moment with its zone, in UTC. Raises UsageError."""
    if span := SPAN.fullmatch(text.strip()):
        seconds = int(span[1]) * SPAN_SECONDS[span[2]]
        return (now or dt.datetime.now(dt.UTC)) + dt.timedelta(seconds=seconds)
    try:
        moment = dt.datetime.fromisoformat(text)
    except ValueError:
        moment = None
    if moment is None or moment.tzinfo is None:
        raise click.UsageError("--until: 4h, 90m, 2d, or a moment such as 2026-01-31T18:00:00Z.")
    return moment.astimezone(dt.UTC)


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
        ("While it waits", _stake_words(card.get("stake"))),
        ("People that must approve", str(card["quorum"]) if card["quorum"] > 1 else "-"),
        ("Waits on", card["waits_on"] or "-"),
        ("Asks for", asked(card)),
        *_model_pairs(card.get("stake")),
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


def _model_pairs(stake: dict[str, Any] | None) -> list[tuple[str, str]]:
    """The smaller models that `degrade --model` could name."""
    ways = (stake or {}).get("ways") or {}
    models = ways.get("models", [])
    return [("Smaller model", f"{one['model']['name']}: {one['words']}") for one in models]


def _stake_words(stake: dict[str, Any] | None) -> str:
    if stake is None:
        return "-"
    words = []
    if stake["gpus_held"]:
        cost = stake["micro_usd_per_minute"]
        words.append(f"{stake['gpus_held']} GPUs are held, {usd(cost)} a minute")
    if stake["damage_at"]:
        words.append(f"{stake['damage']} in {until(stake['damage_at'])}")
    return "; ".join(words) or UNKNOWN


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
        is_signed = verb != "deny" and answered["state"] == "pending"
        state = f"signed, {answered['quorum']} must" if is_signed else answered["state"]
        click.echo(f"approval/{answered['uid']} {state}")

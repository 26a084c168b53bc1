"""`clearance pack`: evidence packs of a time, and which packs were taken."""

import datetime as dt
import re

import click

from console.cli.commands.evidence import save_pack
from console.cli.commands.get import get
from console.cli.invocation import (
    Invocation,
    connection_options,
    output_option,
    pass_invocation,
)

EVERY_NAMESPACE = "*"
SPAN = re.compile(r"([1-9][0-9]{0,4})([mhd])")
UNITS = {"m": "minutes", "h": "hours", "d": "days"}


@click.group()
def pack() -> None:
    """Evidence packs: `evidence goal` takes that of a Goal, `verify` checks one."""


@pack.command("create")
@click.option("--last", metavar="TIME", help="The time until now: 15m, 24h, 7d.")
@click.option(
    "--since", metavar="TIME", help="Its beginning: 2026-01-31 or 2026-01-31T12:00 (UTC)."
)
@click.option("--until", metavar="TIME", help="Its end, not in it; now when left out.")
@click.option("--all-namespaces", "-A", "is_whole", is_flag=True, help="The whole journal.")
@click.option("-o", "--output", "target", help="File to write; - is stdout.  [WHERE-evidence.zip]")
@connection_options
@pass_invocation
def create(
    invocation: Invocation,
    *,
    last: str | None,
    since: str | None,
    until: str | None,
    is_whole: bool,
    target: str | None,
) -> None:
    """Fetch the evidence pack of a time: a ZIP that is verified without the server."""
    if (last is None) == (since is None) or (last is not None and until is not None):
        raise click.UsageError("Say --last TIME, or --since TIME and perhaps --until TIME.")
    begins = _moment("--since", since) if since is not None else _ago(last or "")
    document = {
        "since": begins.isoformat(),
        "namespace": EVERY_NAMESPACE if is_whole else invocation.namespace,
    }
    if until is not None:
        document["until"] = _moment("--until", until).isoformat()
    name = "journal" if is_whole else invocation.namespace
    save_pack(invocation, "/packs", target or f"{name}-evidence.zip", document)


@pack.command("list")
@click.option("--limit", type=click.IntRange(min=0), default=500, show_default=True)
@output_option()
@connection_options
@click.pass_context
def list_packs(context: click.Context, *, limit: int, form: str) -> None:
    """List the packs that were taken, newest first."""
    context.invoke(get, kind="packs", is_everywhere=True, limit=limit, form=form)


def _ago(text: str) -> dt.datetime:
    found = SPAN.fullmatch(text)
    if found is None:
        raise click.UsageError(f"--last: {text!r} is no time; write 15m, 24h or 7d.")
    length = dt.timedelta(**{UNITS[found[2]]: int(found[1])})
    return dt.datetime.now(dt.UTC) - length


def _moment(flag: str, text: str) -> dt.datetime:
    try:
        moment = dt.datetime.fromisoformat(text)
    except ValueError:
        raise click.UsageError(
            f"{flag}: {text!r} is no time; write 2026-01-31 or 2026-01-31T12:00."
        ) from None
    return moment if moment.tzinfo else moment.replace(tzinfo=dt.UTC)

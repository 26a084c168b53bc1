"""`clearance logs`: what an attempt's program printed."""

import sys
from functools import partial
from typing import Any

import click

from console.cli.invocation import Invocation, connection_options, pass_invocation
from console.cli.lookup import find_row
from console.cli.printing import printable
from console.cli.resources import ATTEMPTS
from console.cli.watch import Patience

CHUNK_BYTES = 1 << 20  # the most the API gives at once
FOLLOW_SECONDS = 1.0


@click.command()
@click.argument("attempt")
@click.option("-f", "--follow", "is_followed", is_flag=True, help="Go on until the attempt ends.")
@click.option(
    "--interval",
    type=click.FloatRange(min=0.05, max=3600),
    default=FOLLOW_SECONDS,
    show_default=True,
    help="Seconds between looks while following.",
)
@connection_options
@pass_invocation
def logs(invocation: Invocation, *, attempt: str, is_followed: bool, interval: float) -> None:
    """Print the output of an attempt, named by its uid (or its beginning) or workload."""
    found = find_row(invocation, ATTEMPTS, attempt)
    path = f"/attempts/{found['uid']}"
    patience = Patience(pause_seconds=interval)
    printer = _Printer()
    offset = 0
    while True:
        # Asked before the output is read: what was printed before the end is not missed.
        is_over = not is_followed or _is_over(patience.ask(lambda: invocation.client.get(path)))
        while chunk := patience.ask(partial(_read, invocation, path, offset)):
            offset += len(chunk)
            printer.write(chunk)
        if is_over:
            break
        patience.pause()
    printer.end()


def _is_over(attempt: dict[str, Any]) -> bool:
    return attempt["finished_at"] is not None


def _read(invocation: Invocation, path: str, offset: int) -> bytes:
    with invocation.client.stream(f"{path}/output", offset=offset, limit=CHUNK_BYTES) as response:
        return response.read()


class _Printer:
    """Bytes as they came into a pipe; on a terminal without what could steer it."""

    def __init__(self) -> None:
        self._is_terminal = sys.stdout.isatty()
        self._rest = b""

    def write(self, chunk: bytes) -> None:
        if not self._is_terminal:
            stream = sys.stdout.buffer
            stream.write(chunk)
            stream.flush()
            return
        # A character may be split between two chunks: whole lines are decoded at once.
        lines, newline, self._rest = (self._rest + chunk).rpartition(b"\n")
        self._show(lines + newline)

    def end(self) -> None:
        self._show(self._rest)

    def _show(self, raw: bytes) -> None:
        if raw:
            click.echo(printable(raw.decode("utf-8", "replace"), keep="\n\t"), nl=False)

"""Watching: print a row when it changes, through restarts of the server."""

import time
from collections.abc import Callable, Iterable
from typing import Any, TypeVar

from console.cli.exits import CliError, ServerRefused, Unreachable
from console.cli.printing import tell

Answer = TypeVar("Answer")

MISSES_MAX_PAUSE_SECONDS = 10.0


class Patience:
    """Asks again while the server is away, and says once that it is away and once that it is back.

    A server error counts as away: behind a restart the database may take a moment longer.
    """

    def __init__(self, *, pause_seconds: float, sleep: Callable[[float], None] = time.sleep):
        self.pause_seconds = pause_seconds
        self._sleep = sleep
        self._misses = 0

    def ask(self, question: Callable[[], Answer]) -> Answer:
        """The answer, however long the server is away. Raises CliError for any refusal."""
        while True:
            try:
                answer = question()
            except CliError as error:
                if not _is_transient(error):
                    raise
                if self._misses == 0:
                    tell(f"{error.message}; trying again")
                self._misses += 1
                pause = self.pause_seconds * min(self._misses, 5)
                self._sleep(min(pause, MISSES_MAX_PAUSE_SECONDS))
                continue
            if self._misses:
                tell("connected again")
                self._misses = 0
            return answer

    def pause(self) -> None:
        self._sleep(self.pause_seconds)


def _is_transient(error: CliError) -> bool:
    if isinstance(error, ServerRefused):
        return error.status >= 500 or error.status == 429
    return isinstance(error, Unreachable)


def watch_rows(
    patience: Patience,
    *,
    read: Callable[[], Iterable[dict[str, Any]]],
    key: Callable[[dict[str, Any]], str],
    state: Callable[[dict[str, Any]], object],
    show: Callable[[list[dict[str, Any]]], None],
) -> None:
    """Show all rows, oldest first, then each row again when its state differs; never returns.

    `read` gives the newest rows first. `show` is called with the rows that are new or changed.
    """
    known: dict[str, object] = {}
    is_first = True
    while True:
        rows = list(reversed(patience.ask(lambda: list(read()))))
        states = {key(row): state(row) for row in rows}
        changed = [row for row in rows if known.get(key(row)) != states[key(row)]]
        if changed or is_first:
            show(changed)
        known, is_first = states, False
        patience.pause()

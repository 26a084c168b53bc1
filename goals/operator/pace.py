"""How often an operator does what it does: one place, so that tests may live faster."""

from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, slots=True)
class Pace:
    """All in seconds."""

    poll_rows: float = 1.0  # how soon a change of a row is seen
    relist: float = 600.0  # whatever a watch lost is found by then
    watch: int = 240  # the server ends it then
    first_pause: float = 0.5  # of an informer, after a failure; doubles with each
    longest_pause: float = 30.0
    first_retry: float = 0.2  # of one key, after a failure; doubles with each
    longest_retry: float = 60.0
    again: float = 2.0  # while something outside is awaited
    refused: float = 15.0  # what was refused may be right later: its agents may be registered


USUAL: Final = Pace()

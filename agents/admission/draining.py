"""From the spool into the database, each decision once, whenever the database answers."""

import logging
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Final

from django.db import (
    DatabaseError,
    DataError,
    IntegrityError,
    InterfaceError,
    close_old_connections,
)

from agents.admission.spool import Spool, decisions_of, line_of
from governance.models import Decision
from governance.services.decisions import record_once

logger = logging.getLogger(__name__)

DRAIN_SECONDS: Final = 1.0
BATCH: Final = 50  # decisions of one transaction: the journal is locked for as long
READ_BYTES: Final = 1 << 20
ODD_SUFFIX: Final = ".odd"  # lines that no database takes, kept for people


def _recorded(decisions: Sequence[Decision]) -> int:
    close_old_connections()  # one that broke is opened anew
    return record_once(decisions)


class Drain:
    """Empties the segments of a spool. `record` writes decisions, each once."""

    def __init__(
        self, spool: Spool, *, record: Callable[[Sequence[Decision]], int] = _recorded
    ) -> None:
        self._spool = spool
        self._record = record
        self.recorded = 0
        self.failing = False  # the last try did not get through

    def run(self, stop: threading.Event) -> None:
        """Drain until told to stop."""
        while not stop.wait(DRAIN_SECONDS):
            self.step()

    def step(self) -> None:
        """Write down all that waits; what the database does not take now waits on."""
        try:
            # While the database is away segments are not closed early: they would only be many.
            self._spool.rotate(is_idle=not self.failing)
            for path, file in self._spool.taken():
                self._empty(path, file)
            self.failing = False
        except (DatabaseError, InterfaceError) as error:
            self.failing = True
            logger.warning("decisions wait: the database does not take them (%s)", _name(error))
        except OSError as error:
            self.failing = True
            logger.error("decisions wait: %s", error)
        except Exception:  # nothing is lost by it: what was not written is still in the spool
            self.failing = True
            logger.exception("decisions wait")
        self._spool.count()

    def _empty(self, path: Path, file: int) -> None:
        """Record a segment, then remove it; killed in between, it is recorded again, in vain."""
        batch: list[Decision] = []
        for line in _lines(file):
            try:
                batch += decisions_of(line)
            except (ValueError, KeyError, TypeError):
                self._set_aside(path, line)
            if len(batch) >= BATCH:
                self._write(path, batch)
                batch = []
        self._write(path, batch)
        path.unlink(missing_ok=True)

    def _write(self, path: Path, batch: Sequence[Decision]) -> None:
        if not batch:
            return
        try:
            self.recorded += self._record(batch)
        except (DataError, IntegrityError) as error:
            if len(batch) == 1:
                logger.error("decision %s is not taken: %s", batch[0].uid, _name(error))
                self._set_aside(path, line_of(batch))
                return
            for one in batch:
                self._write(path, [one])

    def _set_aside(self, path: Path, line: bytes) -> None:
        logger.error("%s holds a line that is no decision; it is kept beside it", path.name)
        with path.with_suffix(ODD_SUFFIX).open("ab") as odd:
            odd.write(line)


def _lines(file: int) -> Iterator[bytes]:
    """Whole lines; what has no end was being written when its process ended, and not answered."""
    rest = b""
    while chunk := os.read(file, READ_BYTES):
        *lines, rest = (rest + chunk).split(b"\n")
        for line in lines:
            if line:
                yield line + b"\n"


def _name(error: Exception) -> str:
    return type(error).__name__

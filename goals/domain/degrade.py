"""Going on with less: what an approver may take from a Goal instead of stopping it."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

FIELDS: Final = frozenset({"gpus", "parallel", "last_iteration"})


class DegradeInvalid(ValueError):
    """Not a way to go on with less; the message names the field and what it takes."""


@dataclass(frozen=True, slots=True)
class Degradation:
    """Caps for the rest of a generation; None and False leave as it is.

    `gpus` at most for one task, `parallel` tasks at most at once, and whether the iteration under
    way is the last.
    """

    gpus: int | None = None
    parallel: int | None = None
    last_iteration: bool = False

    def gpus_of(self, wanted: int) -> int:
        """GPUs a task gets that wants so many."""
        return wanted if self.gpus is None else min(wanted, self.gpus)

    def tightened(self, other: "Degradation") -> "Degradation":
        """Both at once: an earlier answer is not widened by a later one."""
        return Degradation(
            _least(self.gpus, other.gpus),
            _least(self.parallel, other.parallel),
            self.last_iteration or other.last_iteration,
        )

    def words(self) -> str:
        """What it does, for people."""
        said = []
        if self.gpus is not None:
            said.append(f"at most {self.gpus} GPU{'s' * (self.gpus != 1)} for each task")
        if self.parallel is not None:
            said.append(f"at most {self.parallel} task{'s' * (self.parallel != 1)} at once")
        if self.last_iteration:
            said.append("no further iteration")
        return ", ".join(said)


def parse_degradation(document: Any) -> Degradation:
    """The degradation an answer states. Raises DegradeInvalid."""
    if not isinstance(document, Mapping) or not document:
        raise DegradeInvalid(f"degrade: at least one of {', '.join(sorted(FIELDS))}.")
    if unknown := sorted(set(document) - FIELDS):
        raise DegradeInvalid(f"degrade.{unknown[0]}: not one of {', '.join(sorted(FIELDS))}.")
    last = document.get("last_iteration", False)
    if not isinstance(last, bool):
        raise DegradeInvalid("degrade.last_iteration: true or false.")
    found = Degradation(_cap(document, "gpus"), _cap(document, "parallel"), last)
    if found == Degradation():
        raise DegradeInvalid("degrade: nothing of it asks for less.")
    return found


def _cap(document: Mapping[str, Any], name: str) -> int | None:
    value = document.get(name)
    if value is None:
        return None
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise DegradeInvalid(f"degrade.{name}: a whole number from 1.")
    return value


def _least(one: int | None, other: int | None) -> int | None:
    given = [value for value in (one, other) if value is not None]
    return min(given, default=None)

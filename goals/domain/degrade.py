"""Going on with less: what an approver may take from a Goal instead of stopping it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from governance.domain import less_words

FIELDS: Final = frozenset({"gpus", "parallel", "last_iteration", "model"})


class DegradeInvalid(ValueError):
    """Not a way to go on with less; the message names the field and what it takes."""


@dataclass(frozen=True, slots=True)
class Degradation:
    """Caps for the rest of a generation; None and False leave as it is.

    `gpus` at most for one task, `parallel` tasks at most at once, whether the iteration under way
    is the last, and the `models` that were named: an agent goes on with the smallest of them that
    it lists, and what it lists after that one.
    """

    gpus: int | None = None
    parallel: int | None = None
    last_iteration: bool = False
    models: tuple[str, ...] = ()

    def gpus_of(self, wanted: int) -> int:
        """GPUs a task gets that wants so many."""
        return wanted if self.gpus is None else min(wanted, self.gpus)

    def models_of(self, listed: Sequence[str]) -> tuple[str, ...]:
        """What an agent may use of the models it lists; all of them when it lists none of ours."""
        named = [place for place, one in enumerate(listed) if one in self.models]
        return tuple(listed[max(named, default=0) :])

    def applied(self, node: Mapping[str, Any]) -> dict[str, Any]:
        """A task's node of the graph document as it is to run now."""
        agent = node["agent"]
        models = list(self.models_of(agent.get("models", ())))
        less = {**agent, "models": models} if models else agent
        return {**node, "gpus": self.gpus_of(node["gpus"]), "agent": less}

    def tightened(self, other: "Degradation") -> "Degradation":
        """Both at once: an earlier answer is not widened by a later one."""
        return Degradation(
            _least(self.gpus, other.gpus),
            _least(self.parallel, other.parallel),
            self.last_iteration or other.last_iteration,
            tuple(dict.fromkeys(self.models + other.models)),
        )

    def words(self) -> str:
        """What it does, for people."""
        return less_words(
            {
                "gpus": self.gpus,
                "parallel": self.parallel,
                "last_iteration": self.last_iteration,
                "model": list(self.models),
            }
        )


def parse_degradation(document: Any) -> Degradation:
    """The degradation an answer states. Raises DegradeInvalid."""
    if not isinstance(document, Mapping) or not document:
        raise DegradeInvalid(f"degrade: at least one of {', '.join(sorted(FIELDS))}.")
    if unknown := sorted(set(document) - FIELDS):
        raise DegradeInvalid(f"degrade.{unknown[0]}: not one of {', '.join(sorted(FIELDS))}.")
    last = document.get("last_iteration", False)
    if not isinstance(last, bool):
        raise DegradeInvalid("degrade.last_iteration: true or false.")
    found = Degradation(_cap(document, "gpus"), _cap(document, "parallel"), last, _models(document))
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


def _models(document: Mapping[str, Any]) -> tuple[str, ...]:
    """One model's name, or several where several approvers named different ones."""
    given = document.get("model")
    if given is None:
        return ()
    named = given if isinstance(given, list) else [given]
    if not named or not all(isinstance(one, str) and one for one in named):
        raise DegradeInvalid("degrade.model: the name of a model that an agent lists.")
    return tuple(dict.fromkeys(named))


def _least(one: int | None, other: int | None) -> int | None:
    given = [value for value in (one, other) if value is not None]
    return min(given, default=None)

"""Words of the kill switch: what it may be thrown over."""

from dataclasses import dataclass
from enum import StrEnum
from uuid import UUID


class KillScope(StrEnum):
    """How much a switch is thrown over."""

    AGENT = "agent"  # one registered agent, in whatever Goals it runs
    GOAL = "goal"  # one Goal and its sub-goals
    NAMESPACE = "namespace"
    EVERYTHING = "everything"


@dataclass(frozen=True, slots=True)
class KillTarget:
    """What a switch is thrown over. `name` is an agent's name or a Goal's uid, "" otherwise.

    The namespace of everything is "".
    """

    scope: KillScope
    namespace: str = ""
    name: str = ""
    label: str = ""  # for people: what to call it

    def __str__(self) -> str:
        if self.scope is KillScope.EVERYTHING:
            return "everything"
        return f"{self.scope} {self.label or self.name or self.namespace}"

    @property
    def goal_uid(self) -> UUID | None:
        return UUID(self.name) if self.scope is KillScope.GOAL else None

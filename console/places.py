"""The places of the console: what the main navigation and the palette offer, in one table."""

from dataclasses import dataclass
from typing import Final

from django.urls import reverse


@dataclass(frozen=True, slots=True)
class Place:
    """One page of the main navigation; `key` is what its views call `nav`.

    `letter` goes there after `g`; "" where none does.
    """

    key: str
    label: str
    route: str
    letter: str = ""

    @property
    def url(self) -> str:
        """Where it is."""
        return reverse(self.route)


PLACES: Final = (
    Place("tower", "Tower", "tower", "t"),
    Place("gpus", "GPUs", "gpu_list", "c"),
    Place("goals", "Goals", "goal_list", "g"),
    Place("approvals", "Approvals", "approval_list", "a"),
    Place("agents", "Agents", "agent_list", "e"),
    Place("catalogue", "Catalogue", "catalogue_list", "i"),
    Place("policies", "Policies", "policy_list", "p"),
    Place("lineage", "Lineage", "lineage", "l"),
    Place("audit", "Audit", "audit", "j"),
    Place("people", "People", "people_list", "u"),
)

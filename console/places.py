"""The places of the console: what the main navigation and the palette offer, in one table."""

from dataclasses import dataclass
from typing import Final

from django.urls import reverse


@dataclass(frozen=True, slots=True)
class Place:
    """One page of the main navigation; `key` is what its views call `nav`."""

    key: str
    label: str
    route: str

    @property
    def url(self) -> str:
        """Where it is."""
        return reverse(self.route)


PLACES: Final = (
    Place("tower", "Tower", "tower"),
    Place("goals", "Goals", "goal_list"),
    Place("approvals", "Approvals", "approval_list"),
    Place("agents", "Agents", "agent_list"),
    Place("policies", "Policies", "policy_list"),
    Place("releases", "Releases", "release_list"),
    Place("journal", "Journal", "record_list"),
)

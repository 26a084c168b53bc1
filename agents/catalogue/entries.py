"""The catalogue as people see it: entries of the namespaces they may see, by standing."""

from typing import Final
from uuid import UUID

from django.db.models import Q, QuerySet

from agents.catalogue.domain import LOOKS_LIKE, Standing
from agents.models import ClusterWorkload
from governance.access import NotVisible, Principal, within
from governance.domain import Permission

FILTER_WORDS: Final = ("name", "namespace", "kind", "service_account")
FILTER_LABELS: Final = {
    "name": "name",
    "namespace": "namespace",
    "kind": "kind",
    "account": "service_account",
    "state": "state",
}
# What the page offers to show, in the words of its address.
SHOWN: Final = {
    "": Standing.LOOKS,
    "registered": Standing.REGISTERED,
    "ignored": Standing.IGNORED,
    "other": Standing.OTHER,
    "all": None,
}


def visible_entries(principal: Principal) -> QuerySet[ClusterWorkload]:
    """Entries of the catalogue in the namespaces that the person may see, likeliest first."""
    is_there = Q(is_listed=True) | ~Q(state="")  # what is gone stays for what a person made of it
    is_marked = Q(agent__isnull=False) | Q(ignored_at__isnull=False)
    found = ClusterWorkload.objects.filter(within(principal, Permission.VIEW), is_there | is_marked)
    return found.select_related("agent").order_by("-score", "namespace", "kind", "name")


def standing_query(standing: Standing | None) -> Q:
    """What keeps the entries of that standing; None keeps all."""
    is_registered, is_ignored = Q(agent__isnull=False), Q(ignored_at__isnull=False)
    looks = Q(score__gte=LOOKS_LIKE)
    match standing:
        case Standing.REGISTERED:
            return is_registered
        case Standing.IGNORED:
            return ~is_registered & is_ignored
        case Standing.LOOKS:
            return ~is_registered & ~is_ignored & looks
        case Standing.OTHER:
            return ~is_registered & ~is_ignored & ~looks
    return Q()


def standing_of(row: ClusterWorkload) -> Standing:
    """Where an entry stands."""
    if row.agent_id is not None:
        return Standing.REGISTERED
    if row.ignored_at is not None:
        return Standing.IGNORED
    return Standing.LOOKS if row.score >= LOOKS_LIKE else Standing.OTHER


def get_visible_entry(principal: Principal, uid: UUID) -> ClusterWorkload:
    """An entry by its uid, those that are only on the map too. Raises NotVisible."""
    found = ClusterWorkload.objects.filter(within(principal, Permission.VIEW), pk=uid)
    row = found.select_related("agent").first()
    if row is None:
        raise NotVisible(f"There is no workload {uid} of the cluster that you may see.")
    return row

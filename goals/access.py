"""From a request to a Goal: missing and forbidden look the same."""

from uuid import UUID

from django.db.models import QuerySet

from goals.models import Goal, Release
from governance.access import NotVisible, Principal, within
from governance.domain import Permission


def visible_goals(principal: Principal) -> QuerySet[Goal]:
    """Goals the person may see; deleted ones are hidden."""
    return Goal.objects.filter(within(principal, Permission.VIEW), deleted_at__isnull=True)


def get_visible_goal(principal: Principal, reference: str) -> Goal:
    """By uid, `namespace/name`, or a name that is unique among what is visible.

    A deleted Goal is still found by uid: its records are kept. Raises NotVisible.
    """
    uid = _uid(reference)
    if uid is not None:
        found = list(Goal.objects.filter(within(principal, Permission.VIEW), pk=uid))
    elif "/" in reference:
        namespace, _, name = reference.partition("/")
        found = list(visible_goals(principal).filter(namespace=namespace, name=name))
    else:
        found = list(visible_goals(principal).filter(name=reference)[:2])
    if len(found) > 1:
        raise NotVisible(f"Several namespaces have a Goal {reference!r}: say namespace/name.")
    if not found:
        raise NotVisible(f"There is no Goal {reference!r} that you may see.")
    return found[0]


def get_operable_goal(principal: Principal, reference: str) -> Goal:
    """A visible Goal the person may steer. Raises NotVisible, NotAllowed."""
    goal = get_visible_goal(principal, reference)
    principal.require(Permission.OPERATE, namespace=goal.namespace)
    return goal


def visible_releases(principal: Principal) -> QuerySet[Release]:
    return Release.objects.filter(within(principal, Permission.VIEW))


def get_visible_release(principal: Principal, uid: UUID) -> Release:
    """Raises NotVisible."""
    release = visible_releases(principal).filter(pk=uid).first()
    if release is None:
        raise NotVisible(f"There is no release {uid} that you may see.")
    return release


def _uid(reference: str) -> UUID | None:
    try:
        return UUID(reference)
    except ValueError:
        return None

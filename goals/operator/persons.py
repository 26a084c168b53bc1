"""Who asked for a resource with kubectl, as people are called here.

Admission writes them down in governed namespaces (`agents.admission.persons`). Anywhere else nobody
knows, and the cluster itself is said to have asked.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from django.conf import settings

from agents.admission.persons import are_current, read_persons
from goals.models import Goal
from governance.access import Principal
from lineage.domain import Actor, ActorKind

NAME_MAX = 150  # of a user here, and so of who can be barred
SYSTEM_PREFIX = "system:"  # service accounts and parts of the cluster: nobody who signs in here


def asker(found: Mapping[str, Any], *, fallback: Principal, is_new: bool) -> Principal:
    """Who asks what a resource says: who applied it first if it is new, else who changed it last.

    `fallback` where that is not known. Kubernetes has checked that they may.
    """
    name = read_persons(found).requested_by if is_new else _latest(found)
    if not name:
        return fallback
    person = person_of(name)
    kind = ActorKind.SYSTEM if name.startswith(SYSTEM_PREFIX) else ActorKind.HUMAN
    return replace(fallback, actor=Actor(kind, person), username=person)


def _latest(found: Mapping[str, Any]) -> str:
    return read_persons(found).latest if are_current(found) else ""


def editors(found: Mapping[str, Any]) -> tuple[str, ...]:
    """Everybody who changed what a resource asks, as far as admission was asked."""
    return tuple(person_of(one) for one in read_persons(found).edited_by)


def is_asked_by(goal: Goal, found: Mapping[str, Any]) -> bool:
    """Is the Goal's requester whom the resource names?"""
    name = read_persons(found).requested_by
    return bool(name) and goal.requested_by == person_of(name)


def person_of(name: str) -> str:
    """A user of the cluster as people are called here: without the API server's prefix."""
    return name.removeprefix(settings.KUBERNETES_USER_PREFIX)[:NAME_MAX]

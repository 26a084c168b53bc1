"""Reads of people: who they are, what they may do, where they are signed in."""

from dataclasses import dataclass
from typing import Any

from django.contrib.auth.models import User
from django.contrib.sessions.models import Session
from django.db.models import Count, Q, QuerySet
from django.utils import timezone

from governance.domain import EVERY_NAMESPACE, Role
from governance.models import Membership, PersonSession
from governance.services.people import Grant


@dataclass(frozen=True, slots=True)
class Person:
    """One row of the page."""

    user: User
    grants: list[Grant]
    must_change: bool
    living_sessions: int
    living_tokens: int


def people(text: str = "") -> QuerySet[User]:
    """People by name, those who may sign in first."""
    found = User.objects.select_related("credential").order_by("-is_active", "username")
    if text:
        found = found.filter(Q(username__icontains=text) | Q(memberships__role__icontains=text))
    return found.distinct()


def person_rows(users: list[User]) -> list[Person]:
    """The rows of a page of people, in four queries however many they are."""
    pks = [user.pk for user in users]
    grants: dict[int, list[Grant]] = {pk: [] for pk in pks}
    for pk, namespace, role in Membership.objects.filter(user__in=pks).values_list(
        "user_id", "namespace", "role"
    ):
        grants[pk].append(Grant(namespace, Role(role)))
    for user in users:
        everything = Grant(EVERY_NAMESPACE, Role.ADMIN)
        if user.is_superuser and everything not in grants[user.pk]:
            grants[user.pk].append(everything)
    sessions = _session_counts(pks)
    tokens = _token_counts(pks)
    return [
        Person(
            user=user,
            grants=sorted(grants[user.pk]),
            must_change=_must_change(user),
            living_sessions=sessions.get(user.pk, 0),
            living_tokens=tokens.get(user.pk, 0),
        )
        for user in users
    ]


def person_documents(users: list[User]) -> list[dict[str, Any]]:
    """People as the API says them."""
    return [
        {
            "username": row.user.username,
            "full_name": row.user.first_name,
            "is_active": row.user.is_active,
            "must_change_password": row.must_change,
            "roles": [str(grant) for grant in row.grants],
            "last_sign_in_at": row.user.last_login,
            "created_at": row.user.date_joined,
            "sessions": row.living_sessions,
            "tokens": row.living_tokens,
        }
        for row in person_rows(users)
    ]


def _must_change(user: User) -> bool:
    credential = getattr(user, "credential", None)
    return credential is not None and credential.must_change


def _session_counts(pks: list[int]) -> dict[int, int]:
    alive = Session.objects.filter(expire_date__gt=timezone.now()).values("session_key")
    rows = PersonSession.objects.filter(user__in=pks, session_key__in=alive).order_by()
    return dict(rows.values_list("user_id").annotate(number=Count("pk")))


def _token_counts(pks: list[int]) -> dict[int, int]:
    alive = Q(api_tokens__revoked_at__isnull=True) & (
        Q(api_tokens__expires_at__isnull=True) | Q(api_tokens__expires_at__gt=timezone.now())
    )
    rows = User.objects.filter(pk__in=pks).annotate(
        number=Count("api_tokens", filter=alive & Q(api_tokens__isnull=False))
    )
    return dict(rows.values_list("pk", "number"))

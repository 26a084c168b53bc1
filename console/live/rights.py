"""Which namespaces the holder of a session may see, asked for many sessions at once."""

from collections.abc import Iterable, Mapping

from django.contrib.auth import HASH_SESSION_KEY, SESSION_KEY
from django.contrib.auth.models import User
from django.contrib.sessions.models import Session
from django.utils import timezone
from django.utils.crypto import constant_time_compare

from governance.access import principal_of
from governance.domain import Permission

Namespaces = frozenset[str] | None  # None: all of them


def visible_by_session(session_keys: Iterable[str]) -> Mapping[str, Namespaces]:
    """What each session may see. Left out: ended sessions, people shut out or without any right."""
    alive = Session.objects.filter(
        session_key__in=list(session_keys), expire_date__gt=timezone.now()
    )
    contents = {session.session_key: session.get_decoded() for session in alive}
    people = {
        str(user.pk): user
        for user in User.objects.filter(
            pk__in={held[SESSION_KEY] for held in contents.values() if SESSION_KEY in held},
            is_active=True,
        )
    }
    spaces = {pk: principal_of(user).namespaces(Permission.VIEW) for pk, user in people.items()}
    found: dict[str, Namespaces] = {}
    for key, held in contents.items():
        pk = str(held.get(SESSION_KEY, ""))
        if pk not in people or not _is_current(people[pk], held):
            continue
        if spaces[pk] is None or spaces[pk]:
            found[key] = spaces[pk]
    return found


def _is_current(user: User, held: Mapping[str, object]) -> bool:
    """A session ends with the password that opened it, as it does for Django's own pages."""
    said = str(held.get(HASH_SESSION_KEY, ""))
    return constant_time_compare(said, user.get_session_auth_hash())

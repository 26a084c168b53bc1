"""Which namespaces the holder of a session may see, asked for many sessions at once."""

from collections.abc import Iterable, Mapping
from typing import Final

from django.contrib.auth import HASH_SESSION_KEY, SESSION_KEY
from django.contrib.auth.models import User
from django.contrib.sessions.models import Session
from django.utils import timezone
from django.utils.crypto import constant_time_compare

from governance.access import principals_of
from governance.domain import Permission

Namespaces = frozenset[str] | None  # None: all of them
IN_LIST: Final = 500  # sessions asked for in one query


def spaces_by_session(session_keys: Iterable[str]) -> Mapping[str, Namespaces]:
    """What each session may see, nothing where its holder has lost every right.

    Left out: ended sessions, and those of people who are shut out or have another password since.
    """
    held = _contents(sorted(set(session_keys)))
    wanted = sorted({str(said[SESSION_KEY]) for said in held.values() if SESSION_KEY in said})
    people = [
        user
        for start in range(0, len(wanted), IN_LIST)
        for user in User.objects.filter(pk__in=wanted[start : start + IN_LIST], is_active=True)
    ]
    by_pk = {str(user.pk): user for user in people}
    spaces = {
        str(pk): principal.namespaces(Permission.VIEW)
        for pk, principal in principals_of(people).items()
    }
    return {
        key: spaces[pk]
        for key, said in held.items()
        if (pk := str(said.get(SESSION_KEY, ""))) in by_pk and _is_current(by_pk[pk], said)
    }


def visible_by_session(session_keys: Iterable[str]) -> Mapping[str, Namespaces]:
    """What each session may see. Left out: ended sessions, people shut out or without any right."""
    found = spaces_by_session(session_keys)
    return {key: spaces for key, spaces in found.items() if spaces is None or spaces}


def _contents(keys: list[str]) -> dict[str, Mapping[str, object]]:
    alive = (
        session
        for start in range(0, len(keys), IN_LIST)
        for session in Session.objects.filter(
            session_key__in=keys[start : start + IN_LIST], expire_date__gt=timezone.now()
        )
    )
    return {session.session_key: session.get_decoded() for session in alive}


def _is_current(user: User, held: Mapping[str, object]) -> bool:
    """A session ends with the password that opened it, as it does for Django's own pages."""
    said = str(held.get(HASH_SESSION_KEY, ""))
    return constant_time_compare(said, user.get_session_auth_hash())

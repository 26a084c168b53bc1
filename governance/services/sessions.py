"""Sessions of people: where they are signed in, and how to end that."""

import time
from collections import OrderedDict
from typing import Final
from uuid import UUID

from django.contrib.auth.models import User
from django.contrib.sessions.models import Session
from django.core.exceptions import ValidationError
from django.core.validators import validate_ipv46_address
from django.db import DatabaseError
from django.db.models import QuerySet
from django.http import HttpRequest
from django.utils import timezone

from governance.access import NotVisible, Principal
from governance.domain import EVERY_NAMESPACE, Permission
from governance.models import PersonSession
from governance.services.journal import append_record, journaled

SEEN_STEP_SECONDS: Final = 60.0  # how exact `last_seen_at` is
SEEN_MAX: Final = 10_000  # sessions a process remembers having noted
SHOWN_MAX: Final = 100  # of one person
UNKNOWN_DEVICE: Final = "unknown device"

# The order counts: every browser claims to be the ones before it.
_BROWSERS: Final = (
    ("Edg/", "Edge"),
    ("OPR/", "Opera"),
    ("Firefox/", "Firefox"),
    ("Chrome/", "Chrome"),
    ("Safari/", "Safari"),
    ("curl/", "curl"),
    ("python-httpx", "Python"),
)
_SYSTEMS: Final = (
    ("Android", "Android"),
    ("iPhone", "iPhone"),
    ("iPad", "iPad"),
    ("Windows", "Windows"),
    ("Mac OS X", "macOS"),
    ("CrOS", "ChromeOS"),
    ("Linux", "Linux"),
)
_seen: OrderedDict[str, float] = OrderedDict()


def device_of(user_agent: str) -> str:
    """A coarse word for a browser, e.g. "Firefox on Linux"; no fingerprint is kept."""
    browser = next((word for mark, word in _BROWSERS if mark in user_agent), "")
    system = next((word for mark, word in _SYSTEMS if mark in user_agent), "")
    if browser and system:
        return f"{browser} on {system}"
    return browser or system or UNKNOWN_DEVICE


def note_session(request: HttpRequest, user: User) -> None:
    """Remember where a person just signed in; what has expired of theirs is forgotten."""
    key = request.session.session_key
    if not key:
        return
    known = PersonSession.objects.filter(user=user)
    alive = living_keys(known)
    known.exclude(session_key__in={*alive, key}).delete()
    PersonSession.objects.update_or_create(
        session_key=key,
        defaults={
            "user": user,
            "device": device_of(request.META.get("HTTP_USER_AGENT", "")),
            "address": _address(request),
            "created_at": timezone.now(),
            "last_seen_at": timezone.now(),
        },
    )
    _remember(key)


def touch_session(key: str) -> None:
    """Note that a session is in use, once a minute and process."""
    last = _seen.get(key)
    if last is not None and time.monotonic() - last < SEEN_STEP_SECONDS:
        return
    _remember(key)
    try:
        PersonSession.objects.filter(session_key=key).update(last_seen_at=timezone.now())
    except DatabaseError:
        return  # a page is worth more than the minute it was looked at


def rename_session(old: str, new: str) -> None:
    """The same sign-in under the key that Django gives after a change of password."""
    PersonSession.objects.filter(session_key=old).update(session_key=new)


def forget_session(key: str) -> None:
    """The session was signed out."""
    PersonSession.objects.filter(session_key=key).delete()
    _seen.pop(key, None)


def sessions_of(user: User) -> list[PersonSession]:
    """The living sessions of a person, last used first."""
    rows = PersonSession.objects.filter(user=user)
    alive = living_keys(rows)
    return list(rows.filter(session_key__in=alive)[:SHOWN_MAX])


def living_keys(rows: QuerySet[PersonSession]) -> set[str]:
    """Keys of those rows whose session has neither ended nor expired."""
    keys = rows.values_list("session_key", flat=True)
    alive = Session.objects.filter(session_key__in=keys, expire_date__gt=timezone.now())
    return set(alive.values_list("session_key", flat=True))


def end_session(uid: UUID, *, by: Principal) -> None:
    """End a session at once; its owner or an administrator may. Raises NotVisible."""
    row = PersonSession.objects.select_related("user").filter(pk=uid).first()
    is_owner = row is not None and row.user.get_username() == by.username
    is_admin = by.may(Permission.ADMINISTER, namespace=EVERY_NAMESPACE)
    if row is None or not (is_owner or is_admin):
        raise NotVisible(f"There is no session {uid} that you may end.")
    with journaled():
        if _end([row.session_key]):
            _journal(row.user, by, ended=1)


def end_other_sessions(user: User, *, keep: str, by: Principal) -> int:
    """End every session of a person but the one they ask from; returns how many."""
    with journaled():
        keys = PersonSession.objects.filter(user=user).exclude(session_key=keep)
        ended = _end(list(keys.values_list("session_key", flat=True)))
        if ended:
            _journal(user, by, ended=ended)
    return ended


def end_all_sessions(user: User) -> int:
    """End every session of a person in the caller's transaction; returns how many."""
    rows = PersonSession.objects.filter(user=user)
    return _end(list(rows.values_list("session_key", flat=True)))


def _end(keys: list[str]) -> int:
    Session.objects.filter(session_key__in=keys).delete()
    deleted, _ = PersonSession.objects.filter(session_key__in=keys).delete()
    return deleted


def _journal(user: User, by: Principal, *, ended: int) -> None:
    append_record(
        action="session.ended",
        actor=by.actor,
        object_kind="person",
        object_id=user.get_username(),
        namespace=EVERY_NAMESPACE,
        body={"sessions": ended},
    )


def _remember(key: str) -> None:
    _seen[key] = time.monotonic()
    _seen.move_to_end(key)
    while len(_seen) > SEEN_MAX:
        _seen.popitem(last=False)


def _address(request: HttpRequest) -> str | None:
    address = request.META.get("REMOTE_ADDR") or ""
    try:
        validate_ipv46_address(address)
    except ValidationError:
        return None
    return str(address)

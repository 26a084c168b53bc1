"""Whether an upload comes with a credential that holds, judged before a byte of it is read."""

from collections.abc import Mapping
from http.cookies import CookieError, SimpleCookie
from importlib import import_module

from django.conf import settings
from django.contrib.auth import SESSION_KEY
from django.db import close_old_connections
from django.http import HttpRequest

from agents.authentication import BearerCredential, Unauthenticated
from agents.services.identity import IdentityNotAvailable, IdentityRefused

BEARER = "bearer "


def is_credential_held(headers: Mapping[bytes, bytes]) -> bool:
    """Whether the bearer token or the session is a living one; `headers` by lower-case name.

    Django keeps a whole body on disk before the API sees who sent it: without this, anybody could
    fill the disk. What the credential allows is still for the API to judge, and so is one that
    cannot be checked now. Reads the database.
    """
    close_old_connections()
    authorization = headers.get(b"authorization", b"").decode("latin-1")
    if authorization:
        return authorization.lower().startswith(BEARER) and _is_bearer_held(
            authorization[len(BEARER) :].strip()
        )
    key = _session_key(headers.get(b"cookie", b"").decode("latin-1"))
    return bool(key) and SESSION_KEY in import_module(settings.SESSION_ENGINE).SessionStore(key)


def _is_bearer_held(token: str) -> bool:
    try:
        return BearerCredential().authenticate(HttpRequest(), token) is not None
    except IdentityNotAvailable:
        return True
    except (Unauthenticated, IdentityRefused):
        return False


def _session_key(header: str) -> str:
    cookie: SimpleCookie = SimpleCookie()
    try:
        cookie.load(header)
    except CookieError:
        return ""
    found = cookie.get(settings.SESSION_COOKIE_NAME)
    return found.value if found is not None else ""

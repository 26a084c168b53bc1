"""The principal of a signed-in request, looked up once per request."""

from django.http import HttpRequest

from governance.access import Principal, principal_of
from governance.services.sessions import touch_session

_SLOT = "clearance.principal"
PASSWORD_DUE = "clearance.password_due"  # noqa: S105 - of a session begun with a one-time password


def session_principal(request: HttpRequest) -> Principal:
    """Who is signed in. The caller has made sure that somebody is."""
    principal = request.META.get(_SLOT)
    if not isinstance(principal, Principal):
        principal = principal_of(request.user)  # type: ignore[arg-type]  # signed in: not anonymous
        request.META[_SLOT] = principal
        if request.session.session_key:
            touch_session(request.session.session_key)
    return principal


def is_password_due(request: HttpRequest) -> bool:
    """Whether the session was begun with a one-time password that is still to be changed."""
    return bool(request.session.get(PASSWORD_DUE))

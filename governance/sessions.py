"""The principal of a signed-in request, looked up once per request."""

from django.http import HttpRequest

from governance.access import Principal, principal_of

_SLOT = "clearance.principal"


def session_principal(request: HttpRequest) -> Principal:
    """Who is signed in. The caller has made sure that somebody is."""
    principal = request.META.get(_SLOT)
    if not isinstance(principal, Principal):
        principal = principal_of(request.user)  # type: ignore[arg-type]  # signed in: not anonymous
        request.META[_SLOT] = principal
    return principal

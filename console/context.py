"""What every template may use: the nonce of the request, preferences, the shell's navigation."""

from typing import Any

from django.http import HttpRequest
from django.utils.functional import SimpleLazyObject

from console.places import PLACES
from console.preferences import KEYS, THEME
from governance.access import visible_approvals
from governance.domain import ApprovalState, Permission
from governance.sessions import session_principal


def shell(request: HttpRequest) -> dict[str, Any]:
    """Context of the page's frame; the database is asked only when the frame is drawn."""
    return {
        "csp_nonce": getattr(request, "csp_nonce", ""),
        "theme": THEME.of(request),
        "themes": THEME.choices,
        "keys": KEYS.of(request),
        "keys_choices": KEYS.choices,
        "places": PLACES,
        "pending_approvals": SimpleLazyObject(lambda: pending_approvals(request)),
        "has_feed": SimpleLazyObject(lambda: _may_hear(request)),
        "may_make_goals": SimpleLazyObject(lambda: _may_make_goals(request)),
    }


def pending_approvals(request: HttpRequest) -> int:
    """How many unanswered approvals this person may see."""
    user = getattr(request, "user", None)
    if user is None or not user.is_authenticated:
        return 0
    found = visible_approvals(session_principal(request))
    return found.filter(state=ApprovalState.PENDING).count()


def _may_hear(request: HttpRequest) -> bool:
    """Whether there is a namespace to hear of; without one the socket would be refused for ever."""
    spaces = session_principal(request).namespaces(Permission.VIEW)
    return spaces is None or bool(spaces)


def _may_make_goals(request: HttpRequest) -> bool:
    """Whether there is a namespace in which this person may ask for a Goal."""
    spaces = session_principal(request).namespaces(Permission.OPERATE)
    return spaces is None or bool(spaces)

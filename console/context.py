"""What every template may use: the nonce of the request, the theme, the shell's navigation."""

from typing import Any

from django.http import HttpRequest
from django.utils.functional import SimpleLazyObject

from console.places import PLACES
from governance.access import visible_approvals
from governance.domain import ApprovalState
from governance.sessions import session_principal

THEME_COOKIE = "theme"
THEMES = ("system", "light", "dark")


def theme_of(request: HttpRequest) -> str:
    """The theme the person chose, "system" when none or an unknown one is stored."""
    chosen = request.COOKIES.get(THEME_COOKIE, "system")
    return chosen if chosen in THEMES else "system"


def shell(request: HttpRequest) -> dict[str, Any]:
    """Context of the page's frame; the database is asked only when the frame is drawn."""
    return {
        "csp_nonce": getattr(request, "csp_nonce", ""),
        "theme": theme_of(request),
        "themes": THEMES,
        "places": PLACES,
        "pending_approvals": SimpleLazyObject(lambda: _pending(request)),
    }


def _pending(request: HttpRequest) -> int:
    user = getattr(request, "user", None)
    if user is None or not user.is_authenticated:
        return 0
    found = visible_approvals(session_principal(request))
    return found.filter(state=ApprovalState.PENDING).count()

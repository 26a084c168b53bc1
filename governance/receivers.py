"""What governance does at news from its right and from Django's sign-in."""

from typing import Any

from django.contrib.auth.models import User
from django.http import HttpRequest

from governance.access import must_change_password
from governance.services.journal import append_record
from governance.services.sessions import forget_session, note_session
from governance.sessions import PASSWORD_DUE


def journal_provenance(sender: object, **news: Any) -> None:
    """Write the journal record of a provenance change, in the sender's transaction."""
    news.pop("signal", None)
    append_record(**news)


def note_sign_in(sender: object, *, request: HttpRequest, user: User, **rest: Any) -> None:
    """Remember from where somebody signed in, and whether their password must be changed."""
    if must_change_password(user):
        request.session[PASSWORD_DUE] = True
    note_session(request, user)


def note_sign_out(sender: object, *, request: HttpRequest, **rest: Any) -> None:
    """A session that was signed out is listed no more."""
    key = getattr(request.session, "session_key", None)
    if key:
        forget_session(key)

"""Sign-in throttling: too many failures close the door for a while."""

import datetime as dt

from django.http import HttpRequest
from django.utils import timezone

from console.models import LoginFailure

WINDOW = dt.timedelta(minutes=5)
# NIST SP 800-63B 5.2.2 asks for a limit well under 100; a person mistypes a few times.
FAILURES_PER_NAME = 10
FAILURES_PER_ADDRESS = 50


class LoginThrottled(Exception):
    """Too many failures; the text says how long to wait."""


def check_login_allowed(request: HttpRequest, username: str) -> None:
    """Raise LoginThrottled when a name or an address has failed too often."""
    recent = LoginFailure.objects.filter(at__gt=timezone.now() - WINDOW)
    address = request.META.get("REMOTE_ADDR") or None
    if recent.filter(username=username[:150]).count() >= FAILURES_PER_NAME or (
        address and recent.filter(address=address).count() >= FAILURES_PER_ADDRESS
    ):
        minutes = int(WINDOW.total_seconds() // 60)
        raise LoginThrottled(f"Too many failed sign-ins: wait {minutes} minutes and try again.")


def note_login(request: HttpRequest, username: str, *, succeeded: bool) -> None:
    """Remember a failure; a success forgets those of the name. Old ones are dropped."""
    LoginFailure.objects.filter(at__lte=timezone.now() - WINDOW).delete()
    if succeeded:
        LoginFailure.objects.filter(username=username[:150]).delete()
    else:
        LoginFailure.objects.create(
            username=username[:150], address=request.META.get("REMOTE_ADDR") or None
        )

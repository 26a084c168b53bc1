"""An unexpected error has an id: whoever met it quotes it, and the log has the traceback by it."""

import logging
import secrets

from django.http import HttpRequest

ID_BYTES = 4  # eight hex characters, to be said on the telephone: one of 4 billion
BROKEN = "Something went wrong on our side"
SAFE = frozenset({"GET", "HEAD", "OPTIONS"})  # methods that change nothing


def name_incident(request: HttpRequest) -> str:
    """The id of what broke in this request, such as `5f3a-91c2`; one request has one."""
    known: str = getattr(request, "incident", "")
    if known:
        return known
    text = secrets.token_hex(ID_BYTES)
    named = f"{text[:4]}-{text[4:]}"
    request.incident = named  # type: ignore[attr-defined]
    return named


def broken_detail(request: HttpRequest, incident: str) -> str:
    """What somebody is told who met it: what is certain, what to look at, what to quote."""
    kept = "" if request.method in SAFE else "See whether it was kept before you send it again. "
    return f"The error was logged. {kept}Whoever runs Clearance finds it by {incident}."


class NameIncident(logging.Filter):
    """Puts the id before what Django or we log of the request."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Every record goes on; one of a request that broke begins with its id."""
        named = getattr(getattr(record, "request", None), "incident", "")
        if named and not hasattr(record, "incident"):  # several handlers, one prefix
            record.incident = named
            record.msg = f"incident {named}: {record.msg}"
        return True

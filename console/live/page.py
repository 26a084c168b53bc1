"""The Tower page: the live map and its past, and the list of what waits for a human."""

import datetime as dt
from http import HTTPStatus

from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.utils import timezone
from django.utils.dateparse import parse_datetime
from django.views.decorators.http import require_GET
from django.views.decorators.vary import vary_on_headers

from console.live.past import PAST_HOURS, past_frame
from console.live.waiting import waiting_for_people
from goals.services.kill import visible_switches
from goals.views.steer import SCOPES
from governance.access import NotVisible
from governance.domain import Permission
from governance.sessions import session_principal

STATES = (  # code order of agents.fleet.domain.STATES, with the shapes of the badges
    ("pending", "idle", "○"),
    ("running", "active", "▶"),
    ("paused", "warning", "‖"),
    ("succeeded", "good", "✓"),
    ("failed", "danger", "✕"),
    ("stopped", "idle", "■"),
    ("lost", "warning", "?"),
)
BAYS = (  # name, shape, title, phase of the list of Goals, whether it begins open
    ("queued", "○", "Queued", "Planned", True),
    ("running", "▶", "Running", "Running", True),
    ("paused", "‖", "Paused", "Paused", True),
    ("landed", "✓", "Landed, last 24 h", "Satisfied", False),
    ("diverted", "⊘", "Diverted, last 24 h", "Failed", False),
)
FRAME_TYPE = "application/vnd.clearance.fleet"
PAST_CACHE_SECONDS = 300  # the past does not change; what is known of it hardly does
SWITCHES = 10  # shown on the Tower; the page of the kill switch has more


@require_GET
@vary_on_headers("HX-Request")
def tower(request: HttpRequest) -> HttpResponse:
    """Every agent run on one live map, flight strips beside it, what waits for a human first."""
    principal = session_principal(request)
    spaces = principal.namespaces(Permission.VIEW)
    context = {
        "room": waiting_for_people(principal),
        "switches": list(visible_switches(principal).filter(lifted_at__isnull=True)[:SWITCHES]),
        "states": STATES,
        "bays": BAYS,
        "kill_scopes": SCOPES,
        "may_view": spaces is None or bool(spaces),
        "may_create": any(Permission.OPERATE in held for held in principal.permissions.values()),
        "nav": "tower",
    }
    part = "#live" if request.headers.get("HX-Request") else ""
    return render(request, f"console/tower.html{part}", context)


@require_GET
def tower_past(request: HttpRequest) -> HttpResponse:
    """The map as it was at `?at=` (RFC 3339, of the past day, to the minute), as one frame."""
    principal = session_principal(request)
    spaces = principal.namespaces(Permission.VIEW)
    if spaces is not None and not spaces:
        raise NotVisible("There is no namespace that you may see.")
    try:
        asked = parse_datetime(request.GET.get("at", ""))
    except ValueError:
        asked = None
    now = timezone.now()
    if asked is None or asked.tzinfo is None:
        return _unreadable("at: give a moment such as 2026-01-31T02:14:00Z.")
    if not now - dt.timedelta(hours=PAST_HOURS, minutes=1) <= asked <= now:
        return _unreadable(f"at: give a moment of the past {PAST_HOURS} hours.")
    frame = past_frame(asked.replace(second=0, microsecond=0), spaces)
    response = HttpResponse(frame, content_type=FRAME_TYPE)
    response["Cache-Control"] = f"private, max-age={PAST_CACHE_SECONDS}"
    return response


def _unreadable(sentence: str) -> HttpResponse:
    status = HTTPStatus.UNPROCESSABLE_ENTITY
    return HttpResponse(sentence, content_type="text/plain; charset=utf-8", status=status)

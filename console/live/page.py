"""The Tower page: the frame of the live map, and the list of what waits for a human."""

from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.views.decorators.http import require_GET
from django.views.decorators.vary import vary_on_headers

from console.live.waiting import waiting_for_people
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


@require_GET
@vary_on_headers("HX-Request")
def tower(request: HttpRequest) -> HttpResponse:
    """Every agent run on one live map, flight strips beside it, what waits for a human first."""
    principal = session_principal(request)
    spaces = principal.namespaces(Permission.VIEW)
    context = {
        "room": waiting_for_people(principal),
        "states": STATES,
        "bays": BAYS,
        "may_view": spaces is None or bool(spaces),
        "may_create": any(Permission.OPERATE in held for held in principal.permissions.values()),
        "nav": "tower",
    }
    part = "#live" if request.headers.get("HX-Request") else ""
    return render(request, f"console/tower.html{part}", context)

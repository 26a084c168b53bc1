"""Pages of the fleet: registered agents and one attempt."""

import datetime as dt
from uuid import UUID

from django.conf import settings
from django.core.paginator import Paginator
from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.utils import timezone
from django.views.decorators.http import require_GET
from django.views.decorators.vary import vary_on_headers

from agents.cluster import get_cluster
from agents.cluster.base import ClusterError
from agents.models import Attempt, IssuedSvid
from agents.selectors import visible_agents, visible_attempts
from goals.agent_pages import pulses
from goals.conduct_pages import conduct_view
from goals.models import Goal, LedgerEntry
from goals.pages import gpu_sources, metering_word
from governance.access import NotVisible
from governance.domain import Permission
from governance.export import table_export
from governance.row_filter import row_filter
from governance.sessions import session_principal
from lineage.models import Artifact, Edge

PAGE_SIZE = 50
TAIL_BYTES = 16_384  # of a program's output on the page; the API has all of it
LAST_ATTEMPTS = 3
FILTER_WORDS = ("name", "namespace", "role", "image", "service_account")
FILTER_LABELS = {
    "agent": "name",
    "namespace": "namespace",
    "role": "role",
    "image": "image",
    "account": "service_account",
}
COLUMNS = {
    name: name
    for name in (
        "uid", "namespace", "name", "role", "image", "service_account", "generation",
        "registered_by", "created_at", "updated_at",
    )
}  # fmt: skip


@require_GET
@vary_on_headers("HX-Request")
def agent_list(request: HttpRequest) -> HttpResponse:
    """Registered agents: role, image, identity, scope and their last attempts."""
    principal = session_principal(request)
    chosen = row_filter(request.GET, words=FILTER_WORDS, labels=FILTER_LABELS)
    found = chosen.keep(visible_agents(principal))
    if export := table_export(request, name="agents", columns=COLUMNS, rows=found):
        return export
    page = Paginator(found, PAGE_SIZE).get_page(request.GET.get("page"))
    agents = list(page.object_list)
    newest: dict[UUID, list[Attempt]] = {agent.pk: [] for agent in agents}
    recent = visible_attempts(principal).filter(agent__in=agents).order_by("-created_at")
    for attempt in recent[: PAGE_SIZE * 20]:
        if len(newest[attempt.agent_id]) < LAST_ATTEMPTS:
            newest[attempt.agent_id].append(attempt)
    beating = pulses(agents)
    rows = [
        (
            agent,
            agent.manifest.get("spec", {}).get("scope", {}),
            newest[agent.pk],
            beating[agent.pk],
        )
        for agent in agents
    ]
    context = {"page": page, "rows": rows, "filter": chosen, "nav": "agents"}
    spaces = principal.namespaces(Permission.VIEW)
    context["may_view"] = spaces is None or bool(spaces)
    part = "#live" if request.headers.get("HX-Request") else ""
    return render(request, f"agents/agent_list.html{part}", context)


@require_GET
@vary_on_headers("HX-Request")
def attempt_detail(request: HttpRequest, uid: UUID) -> HttpResponse:
    """One attempt: identity and its life, exit, GPUs, output, ledger entries, what it made."""
    attempt = (
        visible_attempts(session_principal(request)).filter(pk=uid).select_related("agent").first()
    )
    if attempt is None:
        raise NotVisible(f"There is no attempt {uid} that you may see.")
    svids = list(IssuedSvid.objects.filter(attempt=attempt)[:PAGE_SIZE])
    output, output_bytes = output_tail(attempt)
    entries = LedgerEntry.objects.filter(attempt_uid=attempt.uid).select_related("account")
    context = {
        "attempt": attempt,
        "goal": Goal.objects.filter(pk=attempt.goal_uid).first(),
        "svids": svids,
        "conduct": conduct_view(attempt),
        "identity": _identity_word(attempt, svids),
        "metering": metering_word(attempt, gpu_sources()),
        "output": output,
        "output_bytes": output_bytes,
        "is_forgotten": _is_forgotten(attempt),
        "kept_seconds": settings.WORKLOAD_RETENTION_SECONDS,
        "entries": list(entries.order_by("-created_at")[:PAGE_SIZE]),
        "artifacts": list(Artifact.objects.filter(attempt_uid=attempt.uid)[:PAGE_SIZE]),
        "outputs": list(attempt.outputs.order_by("name")),
        "used": list(
            Edge.objects.filter(
                source_kind="attempt", source_id=str(attempt.uid), relation="used"
            ).values_list("target_id", flat=True)
        ),
        "nav": "goals",
    }
    part = "#live" if request.headers.get("HX-Request") else ""
    return render(request, f"agents/attempt_detail.html{part}", context)


def output_tail(attempt: Attempt) -> tuple[str | None, int | None]:
    """The end of what the program printed and how much it printed; None when nobody can say."""
    cluster = get_cluster()
    try:
        status = cluster.get(attempt.workload)
        if status is None:
            return None, None
        offset = max(status.output_bytes - TAIL_BYTES, 0)
        raw = cluster.output(attempt.workload, offset=offset, limit=TAIL_BYTES)
    except ClusterError:
        return None, None
    return raw.decode("utf-8", errors="replace"), max(status.output_bytes, len(raw))


def _is_forgotten(attempt: Attempt) -> bool:
    """Whether what its program printed is no longer kept by intention."""
    kept = dt.timedelta(seconds=settings.WORKLOAD_RETENTION_SECONDS)
    return attempt.finished_at is not None and attempt.finished_at < timezone.now() - kept


def _identity_word(attempt: Attempt, svids: list[IssuedSvid]) -> str:
    """Where the identity stands: "revoked", "valid", "expired" or "not issued"."""
    if attempt.identity_revoked_at is not None:
        return "revoked"
    if not svids:
        return "not issued"
    is_alive = any(svid.expires_at > timezone.now() for svid in svids)
    return "valid" if is_alive else "expired"

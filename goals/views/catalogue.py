"""Pages of the catalogue: what in the cluster looks like an agent, why, and what to make of it."""

from dataclasses import dataclass
from http import HTTPStatus
from typing import Any, Final
from uuid import UUID

from django.conf import settings
from django.contrib import messages
from django.core.paginator import Paginator
from django.db.models import Count, Q
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.utils import timezone
from django.views.decorators.http import require_GET, require_POST
from django.views.decorators.vary import vary_on_headers

from agents.catalogue.domain import LOOKS_LIKE, Standing
from agents.catalogue.entries import (
    FILTER_LABELS,
    FILTER_WORDS,
    SHOWN,
    get_visible_entry,
    standing_of,
    standing_query,
    visible_entries,
)
from agents.catalogue.proposals import UNKNOWN_IMAGE, propose, proposed_name
from agents.gpus.domain import STALE_SECONDS
from agents.models import ClusterSurvey, ClusterWorkload
from agents.services.catalogue import (
    CatalogueConflict,
    entry_of,
    ignore_entry,
    register_entry,
    restore_entry,
)
from agents.survey.domain import Kind
from goals.forms import RevokeForm
from governance.access import Principal, ask_whom
from governance.domain import Permission
from governance.export import table_export
from governance.row_filter import row_filter
from governance.sessions import session_principal

PAGE_SIZE: Final = 50
SCAN_STALE_SECONDS: Final = 180.0  # three looks were missed
KUBERNETES: Final = "kubernetes:"
WORDS: Final = {
    "": "Looks like an agent",
    "registered": "Registered",
    "ignored": "Ignored",
    "other": "Nothing speaks for an agent",
    "all": "All",
}
TONES: Final = {
    Standing.REGISTERED: ("good", "✓"),
    Standing.LOOKS: ("warning", "◇"),
    Standing.IGNORED: ("idle", "-"),
    Standing.OTHER: ("idle", "○"),
}
COLUMNS: Final = {
    **{
        name: name
        for name in (
            "uid", "kind", "namespace", "name", "score", "state", "reason", "pods", "gpus",
            "service_account", "images", "ignored_by", "ignored_reason", "changed_at",
        )
    },
    "standing": lambda row: standing_of(row).value,
    "evidence": lambda row: "; ".join(one["text"] for one in row.evidence),
    "agent": lambda row: "" if row.agent is None else str(row.agent),
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Source:
    """Where the rows come from and how old they are. Ages in seconds, None for never."""

    is_cluster: bool
    cluster: str
    trouble: str
    scan_trouble: str
    heard_seconds: float | None
    scanned_seconds: float | None
    nodes: int
    pods: int
    is_truncated: bool

    @property
    def is_stale(self) -> bool:
        return self.scanned_seconds is None or self.scanned_seconds > SCAN_STALE_SECONDS

    @property
    def is_heard(self) -> bool:
        return self.heard_seconds is not None and self.heard_seconds <= STALE_SECONDS


def source_now() -> Source:
    """What is known of the survey of the cluster."""
    row = ClusterSurvey.objects.first() or ClusterSurvey()
    now = timezone.now()

    def age(moment: Any) -> float | None:
        return None if moment is None else max(0.0, (now - moment).total_seconds())

    return Source(
        is_cluster=settings.CLUSTER_URL.startswith(KUBERNETES),
        cluster=row.cluster or settings.CLUSTER_URL.removeprefix(KUBERNETES),
        trouble=row.trouble,
        scan_trouble=row.scan_trouble,
        heard_seconds=age(row.heard_at),
        scanned_seconds=age(row.scanned_at),
        nodes=row.nodes,
        pods=row.pods,
        is_truncated=row.is_truncated,
    )


@require_GET
@vary_on_headers("HX-Request")
def catalogue_list(request: HttpRequest) -> HttpResponse:
    """What runs in the cluster, what of it looks like an agent, and what people made of it."""
    principal = session_principal(request)
    shown = request.GET.get("show", "")
    shown = shown if shown in SHOWN else ""
    chosen = row_filter(request.GET, words=FILTER_WORDS, labels=FILTER_LABELS)
    every = visible_entries(principal)
    found = chosen.keep(every.filter(standing_query(SHOWN[shown])))
    if export := table_export(request, name="catalogue", columns=COLUMNS, rows=found):
        return export
    page = Paginator(found, PAGE_SIZE).get_page(request.GET.get("page"))
    counted = every.order_by().aggregate(
        **{word or "looks": Count("pk", filter=standing_query(what) or Q(pk__isnull=False))
           for word, what in SHOWN.items()}
    )  # fmt: skip
    spaces = principal.namespaces(Permission.VIEW)
    context = {
        "page": page,
        "rows": [_badged(row) for row in page.object_list],
        "filter": chosen,
        "shown": shown,
        "choices": [(value, WORDS[value], counted[value or "looks"]) for value in SHOWN],
        "source": source_now(),
        "may_view": spaces is None or bool(spaces),
        "nav": "catalogue",
    }
    part = "#live" if request.headers.get("HX-Request") else ""
    return render(request, f"agents/catalogue_list.html{part}", context)


@require_GET
def catalogue_detail(request: HttpRequest, uid: UUID) -> HttpResponse:
    """One entry: the evidence, and what is proposed for it."""
    principal = session_principal(request)
    return _page(request, principal, get_visible_entry(principal, uid), RevokeForm())


@require_GET
def catalogue_proposal(request: HttpRequest, uid: UUID) -> HttpResponse:
    """The proposal as a file for kubectl."""
    row = get_visible_entry(session_principal(request), uid)
    proposal = propose(entry_of(row))
    answer = HttpResponse(proposal.text, content_type="application/yaml; charset=utf-8")
    name = f"{row.kind.lower()}-{proposed_name(entry_of(row).holder)}.yaml"
    answer["Content-Disposition"] = f'attachment; filename="{name}"'
    return answer


@require_POST
def catalogue_register(request: HttpRequest, uid: UUID) -> HttpResponse:
    """Register the agent that is proposed."""
    principal, row = _operable(request, uid)
    try:
        registered = register_entry(row, actor=principal.actor)
    except CatalogueConflict as conflict:
        return _page(
            request, principal, row, RevokeForm(), problem=str(conflict), status=HTTPStatus.CONFLICT
        )
    agent = registered.agent
    messages.success(request, f"{agent.name} is registered in {agent.namespace}.")
    return redirect("agent_detail", agent.namespace, agent.name)


@require_POST
def catalogue_ignore(request: HttpRequest, uid: UUID) -> HttpResponse:
    """Say that it is no agent."""
    principal, row = _operable(request, uid)
    form = RevokeForm(request.POST)
    if not form.is_valid():
        return _page(request, principal, row, form, status=HTTPStatus.UNPROCESSABLE_ENTITY)
    try:
        ignore_entry(row, reason=form.cleaned_data["reason"], actor=principal.actor)
    except CatalogueConflict as conflict:
        return _page(
            request, principal, row, form, problem=str(conflict), status=HTTPStatus.CONFLICT
        )
    messages.success(request, f"{row.name} is ignored from now on.")
    return redirect("catalogue_list")


@require_POST
def catalogue_restore(request: HttpRequest, uid: UUID) -> HttpResponse:
    """Take back that it is no agent."""
    principal, row = _operable(request, uid)
    restore_entry(row, actor=principal.actor)
    messages.success(request, f"{row.name} is looked at again.")
    return redirect("catalogue_detail", row.pk)


def _operable(request: HttpRequest, uid: UUID) -> tuple[Principal, ClusterWorkload]:
    principal = session_principal(request)
    row = get_visible_entry(principal, uid)
    principal.require(Permission.OPERATE, namespace=row.namespace)
    return principal, row


def _badged(row: ClusterWorkload) -> dict[str, Any]:
    standing = standing_of(row)
    tone, shape = TONES[standing]
    return {"row": row, "standing": standing.value, "tone": tone, "shape": shape}


def _page(
    request: HttpRequest, principal: Principal, row: ClusterWorkload, form: RevokeForm, *,
    problem: str = "", status: HTTPStatus = HTTPStatus.OK,
) -> HttpResponse:  # fmt: skip
    proposal = propose(entry_of(row))
    may_operate = principal.may(Permission.OPERATE, namespace=row.namespace)
    why_not = "" if may_operate else _needs_operator(row)
    is_unknown = proposal.manifest.image == UNKNOWN_IMAGE
    context = {
        **_badged(row),
        "looks_like": LOOKS_LIKE,
        "facts": row.facts,
        "proposal": proposal,
        "source": source_now(),
        "form": form,
        "problem": problem,
        "why_not": why_not,
        "why_not_register": why_not or (_unknown_image(row) if is_unknown else ""),
        "is_account": row.kind == Kind.SERVICE_ACCOUNT,
        "nav": "catalogue",
    }
    return render(request, "agents/catalogue_detail.html", context, status=status)


def _needs_operator(row: ClusterWorkload) -> str:
    whom = ask_whom(Permission.OPERATE, namespace=row.namespace)
    return f"This needs the role operator in namespace {row.namespace}; {whom}"


def _unknown_image(row: ClusterWorkload) -> str:
    if row.kind == Kind.SERVICE_ACCOUNT:
        return "An account has no image: register what runs as it."
    return "Its image is not known here: fill it in and apply the manifest with clearance apply."

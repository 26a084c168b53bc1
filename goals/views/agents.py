"""Pages of one agent: what it may do, its live identities, its history, its drift."""

from collections.abc import Sequence
from http import HTTPStatus
from typing import Any
from uuid import UUID

from django.contrib import messages
from django.core.paginator import Paginator
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.urls import reverse
from django.views.decorators.http import require_GET, require_POST
from django.views.decorators.vary import vary_on_headers

from agents.domain.states import ACTIVE_STATES
from agents.models import Agent, Attempt
from agents.selectors import visible_attempts
from agents.services.drift import AttemptDrift, drift_of
from agents.services.revocation import revoke_agent_identities, revoke_identity
from agents.services.withdrawal import withdraw_agent_identities, withdraw_at_once
from goals.agent_pages import decision_counts, live_svids, released_digests, revision_views
from goals.conduct_pages import conduct_views
from goals.forms import RevokeForm
from governance.access import NotVisible, Principal, visible_records, within
from governance.domain import Permission
from governance.export import table_export
from governance.sessions import session_principal

PAGE_SIZE = 25
TELLING = 10  # running attempts that drifted or read something, on one page
RECORDS = 10
SINGLES = 8  # attempts that can be revoked one by one here; each has its own page too
ATTEMPT_COLUMNS = {
    name: name
    for name in (
        "uid", "goal_uid", "task", "number", "iteration", "state", "spiffe_id", "gpus", "gpu_ms",
        "created_at", "started_at", "finished_at", "identity_revoked_at",
        "identity_revoked_reason",
    )
}  # fmt: skip


@require_GET
@vary_on_headers("HX-Request")
def agent_detail(request: HttpRequest, namespace: str, name: str) -> HttpResponse:
    """One agent: rights, drift, identities that are accepted now, registrations, attempts."""
    principal = session_principal(request)
    agent = _visible_agent(principal, namespace, name)
    attempts = Attempt.objects.filter(agent=agent).order_by("-created_at")
    if export := table_export(request, name="attempts", columns=ATTEMPT_COLUMNS, rows=attempts):
        return export
    return _page(request, agent, RevokeForm())


@require_GET
def agent_by_uid(request: HttpRequest, uid: UUID) -> HttpResponse:
    """What a record of the journal names leads to the agent's page."""
    agent = Agent.objects.filter(within(session_principal(request), Permission.VIEW), uid=uid)
    found = agent.first()
    if found is None:
        raise NotVisible(f"There is no agent {uid} that you may see.")
    return redirect("agent_detail", found.namespace, found.name)


@require_POST
def agent_revoke(request: HttpRequest, namespace: str, name: str) -> HttpResponse:
    """End the identities of everything that runs of an agent."""
    principal = session_principal(request)
    agent = _visible_agent(principal, namespace, name)
    principal.require(Permission.OPERATE, namespace=agent.namespace)
    form = RevokeForm(request.POST)
    if not form.is_valid():
        return _page(request, agent, form, status=HTTPStatus.UNPROCESSABLE_ENTITY)
    reason = form.cleaned_data["reason"]
    revoked = revoke_agent_identities(agent, reason=reason, actor=principal.actor)
    withdraw_agent_identities(agent)
    noun = "identity" if revoked == 1 else "identities"
    messages.success(request, f"{revoked} {noun} of {agent.name} revoked.")
    return redirect("agent_detail", agent.namespace, agent.name)


@require_POST
def attempt_revoke(request: HttpRequest, uid: UUID) -> HttpResponse:
    """End the identity of one attempt."""
    principal = session_principal(request)
    attempt = visible_attempts(principal).filter(pk=uid).select_related("agent").first()
    if attempt is None:
        raise NotVisible(f"There is no attempt {uid} that you may see.")
    principal.require(Permission.OPERATE, namespace=attempt.namespace)
    form = RevokeForm(request.POST)
    if not form.is_valid():
        return _page(request, attempt.agent, form, status=HTTPStatus.UNPROCESSABLE_ENTITY)
    is_news = revoke_identity(attempt, reason=form.cleaned_data["reason"], actor=principal.actor)
    withdraw_at_once([attempt])
    said = "is revoked" if is_news else "was revoked already"
    messages.success(request, f"The identity of {attempt.task} #{attempt.number} {said}.")
    return redirect("agent_detail", attempt.namespace, attempt.agent_name)


def _visible_agent(principal: Principal, namespace: str, name: str) -> Agent:
    """An agent, retired ones too: their history stays. Raises NotVisible."""
    found = Agent.objects.filter(within(principal, Permission.VIEW))
    agent = found.filter(namespace=namespace, name=name).first()
    if agent is None:
        raise NotVisible(f"There is no agent {namespace}/{name} that you may see.")
    return agent


def _page(
    request: HttpRequest, agent: Agent, form: RevokeForm, *, status: HTTPStatus = HTTPStatus.OK
) -> HttpResponse:
    principal = session_principal(request)
    spec = agent.manifest.get("spec", {})
    attempts = Attempt.objects.filter(agent=agent).order_by("-created_at")
    standing = attempts.filter(state__in=ACTIVE_STATES, identity_revoked_at__isnull=True)
    limits = spec.get("resources", {}).get("limits", {})
    drift = drift_of(agent, released=released_digests(agent.namespace))
    may_revoke = principal.may(Permission.OPERATE, namespace=agent.namespace)
    outcomes, denials = decision_counts(agent, principal)
    records = visible_records(principal).filter(object_kind="agent", object_id=str(agent.uid))
    context: dict[str, Any] = {
        "agent": agent,
        "spec": spec,
        "limits": limits,
        "gpu_limits": [(name, number) for name, number in limits.items() if name != "memory"],
        "scope": [(kind, entries) for kind, entries in spec.get("scope", {}).items() if entries],
        "drift": drift,
        "telling": Paginator(_telling(drift), TELLING).get_page(request.GET.get("drift")),
        "drifted": sum(one.has_drifted for one in drift),
        "conduct": conduct_views(agent),
        "svids": live_svids(agent, page=request.GET.get("identities")),
        "running": attempts.filter(state__in=ACTIVE_STATES).count(),
        "standing": standing.count(),
        "standing_attempts": standing[:SINGLES],
        "revisions": revision_views(agent),
        "page": Paginator(attempts, PAGE_SIZE).get_page(request.GET.get("page")),
        "records": records.order_by("-seq").defer("canonical")[:RECORDS],
        "outcomes": outcomes,
        "denials": denials,
        "form": form,
        "why_not": "" if may_revoke else _why_not(principal, agent),
        "revoke_url": reverse("agent_revoke", args=[agent.namespace, agent.name]),
        "nav": "agents",
    }
    is_part = request.headers.get("HX-Request") and status == HTTPStatus.OK
    part = "#live" if is_part else ""
    return render(request, f"agents/agent_detail.html{part}", context, status=status)


def _telling(drift: Sequence[AttemptDrift]) -> list[AttemptDrift]:
    """The attempts of which there is something to say, those that drifted first."""
    found = [one for one in drift if one.has_drifted or one.digests]
    return sorted(found, key=lambda one: not one.has_drifted)


def _why_not(principal: Principal, agent: Agent) -> str:
    whom = principal.whom_to_ask(Permission.OPERATE, namespace=agent.namespace)
    return f"Revoking needs the role operator in namespace {agent.namespace}; {whom}"

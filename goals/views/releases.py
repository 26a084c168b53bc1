"""Pages of what is served: environments, releases, artifacts."""

from http import HTTPStatus
from uuid import UUID

from django.contrib import messages
from django.core.paginator import Paginator
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.urls import reverse
from django.views.decorators.http import require_GET, require_POST
from django.views.decorators.vary import vary_on_headers

from agents.recalls import get_recallable_artifact, may_recall
from agents.selectors import artifacts_within, get_artifact
from goals.access import get_visible_release, visible_releases
from goals.domain.states import ReleaseState
from goals.forms import RecallForm, RollbackForm
from goals.lineage.consequences import consequences
from goals.models import Goal, Release
from goals.services.releases import ReleaseDenied, ReleaseError, rollback_release
from governance.access import NotVisible, within
from governance.domain import Permission
from governance.export import table_export
from governance.row_filter import row_filter
from governance.sessions import session_principal
from governance.time_range import time_range
from lineage.models import Artifact, Edge
from lineage.services.artifacts import recall_artifact
from lineage.services.recall import RecallError, SamePerson, lift_recall, open_recall

PAGE_SIZE = 25
FILTER_WORDS = ("service", "environment", "namespace", "digest", "released_by_id", "state")
FILTER_LABELS = {name: name for name in ("service", "environment", "namespace", "state")}
RELEASE_COLUMNS = {
    name: name
    for name in (
        "uid", "namespace", "service", "environment", "number", "state", "digest",
        "previous_digest", "is_rollback", "reason", "released_by_kind", "released_by_id",
        "goal_uid", "attempt_uid", "decision_uid", "approval_uid", "created_at", "ended_at",
    )
}  # fmt: skip
ARTIFACT_COLUMNS = {
    name: name
    for name in (
        "namespace", "kind", "name", "digest", "blob_digest", "media_type", "size_bytes", "signer",
        "goal_uid", "attempt_uid", "created_at", "recalled_at", "recall_reason",
    )
}  # fmt: skip
BUNDLES = {"blob": "blob_bundle", "statement": "statement_bundle"}


@require_GET
@vary_on_headers("HX-Request")
def release_list(request: HttpRequest) -> HttpResponse:
    """What each environment serves now, the history, and the artifacts there are."""
    principal = session_principal(request)
    chosen = row_filter(request.GET, words=FILTER_WORDS, labels=FILTER_LABELS)
    span = time_range(request.GET)
    matching = chosen.keep(visible_releases(principal))
    releases = matching.filter(span.q("created_at"))
    artifacts = artifacts_within(within(principal, Permission.VIEW))
    for name, columns, rows in (
        ("releases", RELEASE_COLUMNS, releases),
        ("artifacts", ARTIFACT_COLUMNS, artifacts),
    ):
        if export := table_export(request, name=name, columns=columns, rows=rows):
            return export
    active = matching.filter(state=ReleaseState.ACTIVE).order_by("namespace", "service")
    context = {
        "active": list(active[:200]),
        "page": Paginator(releases, PAGE_SIZE).get_page(request.GET.get("page")),
        "artifacts": Paginator(artifacts, PAGE_SIZE).get_page(request.GET.get("artifacts")),
        "filter": chosen,
        "range": span,
        "nav": "lineage",
    }
    part = "#live" if request.headers.get("HX-Request") else ""
    return render(request, f"goals/release_list.html{part}", context)


@require_GET
def release_detail(request: HttpRequest, uid: UUID) -> HttpResponse:
    """One release: what it serves, on which evidence, who put it there."""
    release = get_visible_release(session_principal(request), uid)
    return _release_page(request, release, RollbackForm())


@require_POST
def release_rollback(request: HttpRequest, uid: UUID) -> HttpResponse:
    """Serve again what this release served; today's policy judges it."""
    principal = session_principal(request)
    release = get_visible_release(principal, uid)
    principal.require(Permission.OPERATE, namespace=release.namespace)
    form = RollbackForm(request.POST)
    if not form.is_valid():
        return _release_page(request, release, form, status=HTTPStatus.UNPROCESSABLE_ENTITY)
    try:
        made = rollback_release(release, actor=principal.actor, reason=form.cleaned_data["reason"])
    except ReleaseDenied as error:
        return _release_page(request, release, form, denied=error, status=HTTPStatus.FORBIDDEN)
    except ReleaseError as error:
        form.add_error(None, str(error))
        return _release_page(request, release, form, status=HTTPStatus.CONFLICT)
    messages.success(request, f"{made.service}/{made.environment} is {made.state}.")
    return redirect("release_detail", made.uid)


def _release_page(
    request: HttpRequest,
    release: Release,
    form: RollbackForm,
    *,
    denied: ReleaseDenied | None = None,
    status: HTTPStatus = HTTPStatus.OK,
) -> HttpResponse:
    principal = session_principal(request)
    where = {
        "namespace": release.namespace,
        "service": release.service,
        "environment": release.environment,
    }
    goal = Goal.objects.filter(pk=release.goal_uid).first() if release.goal_uid else None
    refused = ""
    if release.state == ReleaseState.ACTIVE:
        refused = "This is what is served now."
    elif not principal.may(Permission.OPERATE, namespace=release.namespace):
        whom = principal.whom_to_ask(Permission.OPERATE, namespace=release.namespace)
        refused = f"Rolling back needs the role operator in namespace {release.namespace}; {whom}"
    context = {
        "release": release,
        "current": Release.objects.filter(**where, state=ReleaseState.ACTIVE).first(),
        "artifact": Artifact.objects.filter(
            namespace=release.namespace, digest=release.digest
        ).first(),
        "goal": goal,
        "form": form,
        "denied": denied,
        "refused": refused,
        "nav": "lineage",
    }
    return render(request, "goals/release_detail.html", context, status=status)


@require_GET
def artifact_detail(request: HttpRequest, digest: str) -> HttpResponse:
    """One artifact: signatures, where it came from, where it is served, its recall."""
    artifact = get_artifact(within(session_principal(request), Permission.VIEW), digest)
    return _artifact_page(request, artifact, RecallForm())


@require_POST
def artifact_recall(request: HttpRequest, digest: str) -> HttpResponse:
    """Mark a digest as bad; doing it again changes nothing."""
    principal = session_principal(request)
    artifact = get_recallable_artifact(principal, digest)
    form = RecallForm(request.POST)
    if not form.is_valid():
        return _artifact_page(request, artifact, form, status=HTTPStatus.UNPROCESSABLE_ENTITY)
    reason = form.cleaned_data["reason"]
    if recall_artifact(artifact, reason=reason, actor=principal.actor):
        messages.success(request, f"{artifact.name} is recalled.")
    return redirect(f"{reverse('artifact_detail', args=[digest])}#recall")


@require_POST
def artifact_lift(request: HttpRequest, digest: str) -> HttpResponse:
    """Let a recalled digest be used again, by another person than the one who recalled it."""
    principal = session_principal(request)
    artifact = get_recallable_artifact(principal, digest)
    form = RecallForm(request.POST)
    if not form.is_valid():
        return _artifact_page(request, artifact, form, status=HTTPStatus.UNPROCESSABLE_ENTITY)
    try:
        lift_recall(artifact, reason=form.cleaned_data["reason"], actor=principal.actor)
    except RecallError as error:
        form.add_error(None, str(error))
        status = HTTPStatus.FORBIDDEN if isinstance(error, SamePerson) else HTTPStatus.CONFLICT
        return _artifact_page(request, artifact, form, status=status)
    messages.success(request, f"{artifact.name} may be used again.")
    return redirect("artifact_detail", digest)


def _artifact_page(
    request: HttpRequest,
    artifact: Artifact,
    form: RecallForm,
    *,
    status: HTTPStatus = HTTPStatus.OK,
) -> HttpResponse:
    principal = session_principal(request)
    edges = Edge.objects.filter(namespace=artifact.namespace)
    digest = artifact.digest
    recall = open_recall(artifact)
    refused = may_recall(principal, namespace=artifact.namespace)
    if recall and not refused and recall.recalled_by_id == principal.actor.id:
        refused = "You recalled this digest: somebody else must lift it (four eyes)."
    context = {
        "artifact": artifact,
        "goal": Goal.objects.filter(pk=artifact.goal_uid).first() if artifact.goal_uid else None,
        "releases": list(
            visible_releases(principal).filter(namespace=artifact.namespace, digest=digest)[
                :PAGE_SIZE
            ]
        ),
        "incoming": list(edges.filter(target_kind="artifact", target_id=digest)[:PAGE_SIZE]),
        "outgoing": list(edges.filter(source_kind="artifact", source_id=digest)[:PAGE_SIZE]),
        "form": form,
        "recall": recall,
        "refused": refused,
        "after": consequences(artifact),
        "may_operate": principal.may(Permission.OPERATE, namespace=artifact.namespace),
        "nav": "lineage",
    }
    return render(request, "goals/artifact_detail.html", context, status=status)


@require_GET
def artifact_bundle(request: HttpRequest, digest: str, kind: str) -> HttpResponse:
    """The sigstore bundle over the blob or over the in-toto statement, as a file."""
    artifact = get_artifact(within(session_principal(request), Permission.VIEW), digest)
    text = getattr(artifact, BUNDLES[kind]) if kind in BUNDLES else ""
    if not text:
        raise NotVisible(f"The artifact {digest} has no {kind} bundle.")
    response = HttpResponse(text, content_type="application/json")
    name = f"{artifact.name}-{kind}.sigstore.json"
    response["Content-Disposition"] = f'attachment; filename="{name}"'
    return response

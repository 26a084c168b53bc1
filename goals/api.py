"""API of Goals: apply, plan, steer, release, and the chain of facts behind each."""

from typing import Annotated, Any
from uuid import UUID

from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse
from ninja import Router, Status
from ninja.pagination import CursorPagination, paginate
from pydantic import Field

from agents.api import self_document
from agents.authentication import caller_of
from agents.domain.documents import load_documents
from agents.domain.problems import FieldProblem, ManifestError
from goals.access import (
    get_operable_goal,
    get_visible_goal,
    get_visible_release,
    visible_goals,
    visible_releases,
)
from goals.domain.manifest import parse_goal
from goals.domain.states import EntryKind, Unit
from goals.downloads import pack_response
from goals.models import Goal, LedgerEntry, Price, Release
from goals.packs_api import packs_router
from goals.schemas import (
    AppliedOut,
    EntryOut,
    GoalOut,
    PriceIn,
    PriceOut,
    ReasonIn,
    ReleaseIn,
    ReleaseOut,
    ReservationIn,
    ReservationOut,
    SpanOut,
    TaskOut,
)
from goals.selectors import goal_resource, ledger_of, tasks_of
from goals.services.apply import (
    cancel_goal,
    check_goal,
    delete_goal,
    pause_goal,
    resume_goal,
)
from goals.services.evidence_exports import export_evidence
from goals.services.ledger import Source, account_of, post_entry
from goals.services.manifests import AppliedDocument, apply_manifests, parse_documents
from goals.services.planning import graph_document, preview_graph
from goals.services.prices import set_price
from goals.services.releases import (
    ReleaseRequest,
    current_release,
    request_release,
    rollback_release,
)
from goals.services.why import why
from governance.access import NotVisible, Principal, narrowed_by, within
from governance.domain import EVERY_NAMESPACE, Permission
from lineage.models import Edge
from lineage.telemetry import get_telemetry
from lineage.telemetry.base import Span

router = Router(tags=["goals"])
router.add_router("", packs_router)


@router.post("/apply", response=list[AppliedOut])
def apply(request: HttpRequest, dry_run: bool = False) -> list[AppliedDocument]:
    """Apply manifests (YAML or JSON, several documents) of kind Goal and Agent: all or none.

    Agents take effect before the Goals that name them, wherever they stand in the file. A dry run
    answers the same and keeps nothing.
    """
    principal = caller_of(request).person
    manifests = parse_documents(load_documents(request.body))
    return apply_manifests(manifests, principal=principal, is_dry_run=dry_run)


@router.post("/plan")
def plan(request: HttpRequest) -> dict[str, Any]:
    """The graph a Goal would get now, its price and what policy says; nothing is kept."""
    principal = caller_of(request).person
    documents = load_documents(request.body)
    goals = [parse_goal(d) for d in documents if d.get("kind") == "Goal"]
    if len(goals) != 1:
        raise ManifestError([FieldProblem("kind", "exactly one Goal is planned at a time.")])
    (manifest,) = goals
    principal.require(Permission.VIEW, namespace=manifest.namespace)
    graph = check_goal(manifest)
    judgement = preview_graph(graph, requested_by=principal.username)
    return {
        "graph": graph.priced_document(),
        "outcome": judgement.outcome.value,
        "decisions": [
            {
                "point": d.point,
                "subject": d.subject_id,
                "bundle": d.bundle_name,
                "bundle_digest": d.bundle_digest,
                "stage": d.stage,
                "outcome": d.outcome,
                "messages": d.messages,
                "error": d.error,
            }
            for d in judgement.decisions
        ],
    }


@router.get("/goals", response=list[GoalOut])
@paginate(CursorPagination, ordering=("-created_at",))
def list_goals(request: HttpRequest, namespace: str = "", phase: str = "") -> QuerySet[Goal]:
    """Goals as resources, newest first."""
    found = visible_goals(caller_of(request).person).prefetch_related("accounts")
    if namespace:
        found = found.filter(namespace=namespace)
    return found.filter(phase=phase) if phase else found


@router.get("/goals/{path:reference}/graph")
def get_graph(request: HttpRequest, reference: str) -> dict[str, Any]:
    """The current task graph with its digest and estimates."""
    goal = get_visible_goal(caller_of(request).person, reference)
    graph = goal.graphs.filter(digest=goal.graph_digest).first()
    if graph is None:
        raise NotVisible(f"{goal} has no graph yet.")
    return {
        "digest": graph.digest,
        "document": graph_document(goal),
        "canonical": graph.canonical,
        "estimates": graph.estimates,
    }


@router.get("/goals/{path:reference}/tasks", response=list[TaskOut])
def get_tasks(request: HttpRequest, reference: str) -> list[Any]:
    """Tasks of the current graph, in all iterations."""
    return tasks_of(get_visible_goal(caller_of(request).person, reference))


@router.get("/goals/{path:reference}/ledger", response=list[EntryOut])
def get_ledger(request: HttpRequest, reference: str) -> list[LedgerEntry]:
    """Every ledger entry, oldest first."""
    return ledger_of(get_visible_goal(caller_of(request).person, reference))


@router.get("/goals/{path:reference}/spans")
def get_spans(
    request: HttpRequest,
    reference: str,
    cursor: str = "",
    limit: Annotated[int, Field(ge=1, le=1000)] = 100,
) -> dict[str, Any]:
    """Spans of a Goal by start time."""
    goal = get_visible_goal(caller_of(request).person, reference)
    page = get_telemetry().goal_spans(goal.namespace, str(goal.uid), cursor=cursor, limit=limit)
    return {
        "results": [span_document(span) for span in page.spans],
        "next_cursor": page.next_cursor,
    }


@router.get("/goals/{path:reference}/provenance")
def get_provenance(request: HttpRequest, reference: str) -> list[dict[str, Any]]:
    """Edges of the provenance graph that belong to a Goal."""
    goal = get_visible_goal(caller_of(request).person, reference)
    return [
        {
            "source": {"kind": e.source_kind, "id": e.source_id},
            "relation": e.relation,
            "target": {"kind": e.target_kind, "id": e.target_id},
            "signed": e.is_signed,
        }
        for e in Edge.objects.filter(goal_uid=goal.uid).order_by("pk")
    ]


@router.get("/goals/{path:reference}/evidence")
def get_evidence(request: HttpRequest, reference: str) -> HttpResponse:
    """The evidence pack of a Goal: a ZIP that is verified without us. The journal remembers it."""
    principal = caller_of(request).person
    goal = get_visible_goal(principal, reference)
    return pack_response(export_evidence(goal, actor=principal.actor), name=goal.name)


@router.post("/goals/{path:reference}/pause", response=GoalOut)
def pause(request: HttpRequest, reference: str) -> dict[str, Any]:
    """Pause everything of a Goal, keeping its state."""
    principal = caller_of(request).person
    return goal_resource(pause_goal(get_operable_goal(principal, reference), principal=principal))


@router.post("/goals/{path:reference}/resume", response=GoalOut)
def resume(request: HttpRequest, reference: str) -> dict[str, Any]:
    """Let a paused Goal run on."""
    principal = caller_of(request).person
    return goal_resource(resume_goal(get_operable_goal(principal, reference), principal=principal))


@router.post("/goals/{path:reference}/cancel", response=GoalOut)
def cancel(request: HttpRequest, reference: str, payload: ReasonIn) -> dict[str, Any]:
    """Land a Goal; everything of it ends first."""
    principal = caller_of(request).person
    goal = get_operable_goal(principal, reference)
    return goal_resource(cancel_goal(goal, principal=principal, reason=payload.reason))


@router.delete("/goals/{path:reference}", response=GoalOut)
def delete(request: HttpRequest, reference: str) -> dict[str, Any]:
    """Land a Goal, then hide it; its records are kept."""
    principal = caller_of(request).person
    return goal_resource(delete_goal(get_operable_goal(principal, reference), principal=principal))


@router.get("/goals/{path:reference}", response=GoalOut)
def get_goal(request: HttpRequest, reference: str) -> dict[str, Any]:
    """One Goal by uid, namespace/name or name."""
    return goal_resource(get_visible_goal(caller_of(request).person, reference))


@router.get("/self")
def get_self(request: HttpRequest) -> dict[str, Any]:
    """What an attempt at work may know of itself."""
    attempt = caller_of(request).agent
    goal = Goal.objects.get(pk=attempt.goal_uid)
    return {
        **self_document(attempt),
        "goal": {
            "uid": str(goal.uid),
            "name": goal.name,
            "objective": goal.objective,
            "generation": goal.generation,
            "iteration": attempt.iteration,
        },
    }


@router.post("/self/reservations", response={201: ReservationOut})
def reserve(request: HttpRequest, payload: ReservationIn) -> Status[dict[str, Any]]:
    """Reserve tokens of the Goal's budget before they are used."""
    caller = caller_of(request)
    attempt = caller.agent
    entry = post_entry(
        account_of(attempt.goal_uid, Unit.TOKENS),
        kind=EntryKind.RESERVE,
        amount=payload.amount,
        key=f"{attempt.uid}:agent:{payload.key}",
        source=Source(actor=caller.actor, attempt_uid=attempt.uid, note="asked for by the agent"),
    )
    return Status(201, {"uid": entry.uid, "unit": "tokens", "amount": entry.amount})


@router.get("/releases", response=list[ReleaseOut])
@paginate(CursorPagination, ordering=("-created_at",))
def list_releases(
    request: HttpRequest,
    service: str = "",
    environment: str = "",
    namespace: str = "",
    goal: UUID | None = None,
) -> QuerySet[Release]:
    """Releases, newest first."""
    return narrowed_by(
        visible_releases(caller_of(request).person),
        service=service,
        environment=environment,
        namespace=namespace,
        goal_uid=goal,
    )


@router.get("/releases/current", response=ReleaseOut)
def get_current(
    request: HttpRequest, service: str, environment: str, namespace: str = "default"
) -> Release:
    """What an environment serves now."""
    caller = caller_of(request)
    if caller.attempt is not None:
        namespace = caller.attempt.namespace
    else:
        caller.person.require(Permission.VIEW, namespace=namespace)
    release = current_release(namespace, service=service, environment=environment)
    if release is None:
        raise NotVisible(f"Nothing is released to {service}/{environment} in {namespace}.")
    return release


@router.post("/releases", response={201: ReleaseOut})
def make_release(request: HttpRequest, payload: ReleaseIn) -> Status[Release]:
    """Serve a digest in an environment, if policy allows it."""
    caller = caller_of(request)
    attempt = caller.attempt
    namespace = attempt.namespace if attempt else payload.namespace
    if attempt is None:
        caller.person.require(Permission.OPERATE, namespace=namespace)
    release = request_release(
        ReleaseRequest(
            namespace=namespace,
            service=payload.service,
            environment=payload.environment,
            digest=payload.digest,
            actor=caller.actor,
            reason=payload.reason,
            evidence=payload.evidence,
            attempt=attempt,
            span_id=payload.span_id,
        )
    )
    return Status(201, release)


@router.post("/releases/{uid}/rollback", response={201: ReleaseOut})
def rollback(request: HttpRequest, uid: UUID, payload: ReasonIn) -> Status[Release]:
    """Serve again what an earlier release served; judged by today's policy."""
    principal = caller_of(request).person
    release = get_visible_release(principal, uid)
    principal.require(Permission.OPERATE, namespace=release.namespace)
    made = rollback_release(release, actor=principal.actor, reason=payload.reason)
    return Status(201, made)


@router.get("/spans/{span_id}/causes", response=list[SpanOut])
def get_causes(request: HttpRequest, span_id: str) -> list[dict[str, Any]]:
    """The chain from a span up to its first observation."""
    namespace = _namespace_of_span(caller_of(request).person, span_id)
    return [span_document(span) for span in get_telemetry().causes(namespace, span_id)]


@router.get("/spans/{span_id}/effects", response=list[SpanOut])
def get_effects(request: HttpRequest, span_id: str) -> list[dict[str, Any]]:
    """Everything downstream of a span."""
    namespace = _namespace_of_span(caller_of(request).person, span_id)
    return [span_document(span) for span in get_telemetry().effects(namespace, span_id)]


@router.get("/changes", response=list[SpanOut])
def get_changes(
    request: HttpRequest, target: str, namespace: str = "default"
) -> list[dict[str, Any]]:
    """Who changed a target, newest first."""
    caller_of(request).person.require(Permission.VIEW, namespace=namespace)
    return [span_document(span) for span in get_telemetry().who_changed(namespace, target)]


@router.get("/why/{path:reference}")
def get_why(request: HttpRequest, reference: str) -> dict[str, Any]:
    """The chain behind a span or a Goal, from measurement to identity and digest."""
    return why(caller_of(request).person, reference)


def _namespace_of_span(principal: Principal, span_id: str) -> str:
    """The namespace, among those the person may see, that has the span. Raises NotVisible."""
    names = Goal.objects.filter(within(principal, Permission.VIEW)).values_list(
        "namespace", flat=True
    )
    for namespace in names.order_by("namespace").distinct():
        if get_telemetry().span(namespace, span_id) is not None:
            return namespace
    raise NotVisible(f"There is no span {span_id!r} that you may see.")


def span_document(span: Span) -> dict[str, Any]:
    """A span as the API says it."""
    return {
        "trace_id": span.trace_id,
        "span_id": span.span_id,
        "parent_span_id": span.parent_span_id,
        "name": span.name,
        "start_at": span.start_at,
        "end_at": span.end_at,
        "status": span.status,
        "status_message": span.status_message,
        "parent_observation": span.parent_observation,
        "confidence": span.confidence,
        "agent": span.owner.agent,
        "task": span.owner.task,
        "attempt_uid": span.owner.attempt_uid,
        "goal_uid": span.owner.goal_uid,
        "attributes": dict(span.attributes),
    }


@router.get("/prices", response=list[PriceOut])
def list_prices(request: HttpRequest) -> QuerySet[Price]:
    """The price table; the newest of a kind and name counts."""
    caller_of(request).person.namespaces(Permission.VIEW)
    return Price.objects.all()


@router.post("/prices", response={201: PriceOut})
def add_price(request: HttpRequest, payload: PriceIn) -> Status[Price]:
    """Set a price from now on."""
    principal = caller_of(request).person
    principal.require(Permission.ADMINISTER, namespace=EVERY_NAMESPACE)
    price = set_price(
        kind=payload.kind, name=payload.name, micro_usd=payload.micro_usd, actor=principal.actor
    )
    return Status(201, price)

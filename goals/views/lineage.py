"""The lineage explorer: a question, its answer in a sentence, then the graph behind it."""

from http import HTTPStatus
from typing import Any

from django.http import HttpRequest, HttpResponse, QueryDict
from django.shortcuts import render
from django.views.decorators.http import require_GET
from django.views.decorators.vary import vary_on_headers

from goals.access import visible_releases
from goals.domain.states import ReleaseState
from goals.lineage.answers import BY_KEY, QUESTIONS, Answer, Question
from goals.lineage.drawing import Drawing, draw
from goals.lineage.nodes import Described, describe
from goals.lineage.subjects import NODE_KINDS, TEXT_MAX, SubjectUnknown
from goals.models import Release
from governance.access import Principal
from governance.export import table_export
from governance.sessions import session_principal
from governance.time_range import TimeRange, time_range
from lineage.domain import NodeKind, NodeRef
from lineage.models import Edge
from lineage.selectors import Direction, Neighbourhood, Walk, Window, neighbourhood

DEPTH_MAX = 8  # steps at once; beyond it a person opens nodes
OPENED_MAX = 60  # nodes a person has opened, counting repeats
LATEST_SHOWN = 12
DIRECTIONS = frozenset(direction.value for direction in Direction)
EDGE_COLUMNS = {
    name: name
    for name in (
        "created_at", "source_kind", "source_id", "relation", "target_kind", "target_id",
        "is_signed", "goal_uid",
    )
}  # fmt: skip


@require_GET
@vary_on_headers("HX-Request")
def explorer(request: HttpRequest) -> HttpResponse:
    """The questions; with `?ask=` and `?of=` one of them answered, with its graph and table."""
    principal = session_principal(request)
    question = BY_KEY.get(request.GET.get("ask", ""))
    text = request.GET.get("of", "").strip()[:TEXT_MAX]
    chosen = time_range(request.GET)
    context: dict[str, Any] = {
        "questions": QUESTIONS,
        "question": question,
        "of": text,
        "range": chosen,
        "nav": "lineage",
    }
    status = HTTPStatus.OK
    if question is None or not text:
        context["latest"] = _latest(principal)
    else:
        try:
            answer = question.answer(principal, text, chosen)
        except SubjectUnknown as error:
            status = HTTPStatus.UNPROCESSABLE_ENTITY
            context["problem"] = str(error)
        else:
            found = _walked(answer, request.GET, chosen)
            if export := table_export(
                request, name="edges", columns=EDGE_COLUMNS, rows=_newest(found)
            ):
                return export
            context |= _shown(request, question, answer, found)
    part = "#answer" if request.headers.get("HX-Request") else ""
    return render(request, f"goals/lineage.html{part}", context, status=status)


@require_GET
def completions(request: HttpRequest) -> HttpResponse:
    """What a question's field may be filled with, as the options of its list."""
    principal = session_principal(request)
    question = BY_KEY.get(request.GET.get("ask", ""))
    text = request.GET.get("of", "").strip()[:TEXT_MAX]
    found = question.complete(principal, text) if question else []
    return render(request, "goals/lineage_completions.html", {"completions": found})


def _latest(principal: Principal) -> list[Release]:
    """The last changes of any environment."""
    served = (ReleaseState.ACTIVE, ReleaseState.SUPERSEDED)
    found = visible_releases(principal).filter(state__in=served).order_by("-created_at")
    return list(found[:LATEST_SHOWN])


def _walked(answer: Answer, asked: QueryDict, chosen: TimeRange) -> Neighbourhood:
    depth = asked.get("depth", "")
    wanted = asked.get("direction", "")
    walk = Walk(
        answer.namespace,
        depth=min(int(depth), DEPTH_MAX) if depth.isdigit() and depth.isascii() else answer.depth,
        direction=Direction(wanted) if wanted in DIRECTIONS else answer.direction,
        relations=answer.relations,
        opened=_opened(asked),
        window=Window(chosen.since, chosen.until),
    )
    return neighbourhood(answer.starts, walk)


def _opened(asked: QueryDict) -> dict[NodeRef, int]:
    opened: dict[NodeRef, int] = {}
    for text in asked.getlist("open")[:OPENED_MAX]:
        kind, _, node_id = text.partition(":")
        if kind in NODE_KINDS and node_id:
            ref = NodeRef(NodeKind(kind), node_id)
            opened[ref] = opened.get(ref, 0) + 1
    return opened


def _newest(found: Neighbourhood) -> list[Edge]:
    return sorted(found.edges.values(), key=lambda edge: edge.pk, reverse=True)


def _shown(
    request: HttpRequest, question: Question, answer: Answer, found: Neighbourhood
) -> dict[str, Any]:
    described = describe(found.steps, namespace=answer.namespace)
    edges = _newest(found)
    return {
        "answer": answer,
        "drawing": _drawing(request.GET, found, described, answer),
        "rows": [_row(edge, described) for edge in edges],
        "signed": sum(edge.is_signed for edge in edges),
        "is_cut": found.is_cut,
        "directions": tuple(Direction),
        "direction": request.GET.get("direction") or answer.direction.value,
        "depth": request.GET.get("depth") or answer.depth,
        "depths": range(1, DEPTH_MAX + 1),
        "words_of_agents": any(one.attempt_uid for one in answer.releases),
    }


def _drawing(
    asked: QueryDict, found: Neighbourhood, described: Described, answer: Answer
) -> Drawing:
    base = asked.copy()
    for name in ("format", "table"):
        base.pop(name, None)
    opens, focuses = {}, {}
    for ref, node in described.nodes.items():
        opening = base.copy()
        opening.appendlist("open", node.key)
        opens[ref] = opening.urlencode()
        focus = QueryDict(mutable=True)
        focus["ask"], focus["of"] = "around", node.key
        focuses[ref] = focus.urlencode()
    return draw(
        found,
        described,
        starts=frozenset(answer.starts),
        open_queries=opens,
        focus_queries=focuses,
    )


def _row(edge: Edge, described: Described) -> dict[str, Any]:
    source = NodeRef(NodeKind(edge.source_kind), edge.source_id)
    target = NodeRef(NodeKind(edge.target_kind), edge.target_id)
    words, url = described.signature(edge)
    return {
        "edge": edge,
        "source": described.nodes[source],
        "relation": edge.relation.replace("_", " "),
        "target": described.nodes[target],
        "signature": words,
        "bundle_url": url,
    }

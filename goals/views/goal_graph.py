"""The task graph at the level of detail that fits a page, and what was planned beside what ran."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from django.core.paginator import Page, Paginator
from django.http import HttpRequest

from goals.drawing import Drawing, draw_graph
from goals.models import Goal
from goals.pages import GraphView, TaskFacts
from governance.policy.base import Outcome
from governance.services.decisions import SEVERITY

DRAWN_MAX = 48  # boxes that still can be told apart; more are drawn as stages
STAGES_MAX = 16  # columns of stages, however long the longest chain
ROWS = 50  # tasks a page of the table
MS = 1000


@dataclass(frozen=True, slots=True)
class Stage:
    """Tasks of one column of the graph and one role, drawn as one box."""

    key: str
    title: str
    role: str
    tasks: int
    states: tuple[tuple[str, int], ...]
    attempts: int
    gpu_ms: int
    outcome: str | None


@dataclass(frozen=True, slots=True)
class GraphPage:
    """What is drawn, and one page of the table twin."""

    drawing: Drawing
    is_folded: bool
    stage: Stage | None  # that is opened
    page: Page[TaskFacts]
    count: int


@dataclass(frozen=True, slots=True)
class Comparison:
    """What was planned against what ran; a planned amount is None when unknown."""

    tasks: int
    started: int
    succeeded: int
    attempts: int
    passes: int
    planned_gpu_ms: int | None
    gpu_ms: int
    planned_seconds: float | None
    seconds: float | None

    @property
    def retries(self) -> int:
        """Attempts beyond the first of each task and pass."""
        return max(self.attempts - self.started, 0)

    @property
    def gpu_percent(self) -> int | None:
        """Spent as percent of planned."""
        return round(self.gpu_ms * 100 / self.planned_gpu_ms) if self.planned_gpu_ms else None

    @property
    def time_percent(self) -> int | None:
        """Time taken as percent of the longest planned chain."""
        if self.seconds is None or not self.planned_seconds:
            return None
        return round(self.seconds * 100 / self.planned_seconds)


def graph_page(request: HttpRequest, graph: GraphView) -> GraphPage:
    """The whole graph when it is small; else its stages, or the tasks of the one in `?stage=`."""
    tasks = graph.tasks
    stage: Stage | None = None
    if len(tasks) <= DRAWN_MAX:
        drawing, is_folded = _drawn(tasks, len(tasks)), False
    else:
        keys = _stages(tasks)
        groups: dict[str, list[TaskFacts]] = {}
        for task in tasks:
            groups.setdefault(keys[task.name], []).append(task)
        wanted = request.GET.get("stage", "")
        if wanted in groups:
            stage, tasks = _stage(wanted, groups[wanted]), tuple(groups[wanted])
            drawing, is_folded = _drawn(tasks[:DRAWN_MAX], len(tasks)), False
        else:
            drawing, is_folded = _folded(groups, keys, graph.tasks), True
    page = Paginator(tasks, ROWS).get_page(request.GET.get("page"))
    return GraphPage(drawing, is_folded, stage, page, len(graph.tasks))


def _stages(tasks: Sequence[TaskFacts]) -> dict[str, str]:
    """The key of each task's stage: its band of the longest chain before it, and its role."""
    depth: dict[str, int] = {}
    for task in tasks:
        depth[task.name] = max((depth[n] + 1 for n in task.depends_on if n in depth), default=0)
    band = -(-(max(depth.values(), default=0) + 1) // STAGES_MAX)
    return {task.name: f"{depth[task.name] // band + 1}-{task.role}" for task in tasks}


def _stage(key: str, tasks: Sequence[TaskFacts]) -> Stage:
    number, _, role = key.partition("-")
    states: dict[str, int] = {}
    for task in tasks:
        word = task.state or "not started"
        states[word] = states.get(word, 0) + 1
    outcomes = [Outcome(task.outcome) for task in tasks if task.outcome]
    return Stage(
        key=key,
        title=f"Stage {number}, {role}" if role else f"Stage {number}",
        role=role,
        tasks=len(tasks),
        states=tuple(sorted(states.items(), key=lambda item: -item[1])),
        attempts=sum(task.attempts for task in tasks),
        gpu_ms=sum(task.gpu_ms for task in tasks),
        outcome=max(outcomes, key=SEVERITY.__getitem__).value if outcomes else None,
    )


def _folded(
    groups: Mapping[str, Sequence[TaskFacts]], keys: Mapping[str, str], tasks: Sequence[TaskFacts]
) -> Drawing:
    waits: dict[str, set[str]] = {key: set() for key in groups}
    for task in tasks:
        own = keys[task.name]
        waits[own].update(keys[name] for name in task.depends_on if keys.get(name, own) != own)
    order = sorted(groups, key=lambda key: int(key.partition("-")[0]))
    facts: dict[str, Any] = {key: _stage(key, groups[key]) for key in order}
    return draw_graph({key: sorted(waits[key]) for key in order}, facts)


def _drawn(tasks: Sequence[TaskFacts], count: int) -> Drawing:
    drawing = draw_graph({t.name: t.depends_on for t in tasks}, {t.name: t for t in tasks})
    return Drawing(
        drawing.width, drawing.height, drawing.nodes, drawing.edges, count - len(drawing.nodes)
    )


def compared(goal: Goal, graph: GraphView) -> Comparison:
    """Of the current graph, all passes together."""
    total = graph.total.get("gpu_seconds", {}).get("p50")
    chain = graph.total.get("critical_path_seconds", {}).get("p50")
    passes = max(goal.iteration, 1)
    until = goal.landed_at
    seconds = (until - goal.started_at).total_seconds() if until and goal.started_at else None
    return Comparison(
        tasks=len(graph.tasks),
        started=sum(1 for task in graph.tasks if task.attempts),
        succeeded=sum(1 for task in graph.tasks if task.state == "succeeded"),
        attempts=sum(task.attempts for task in graph.tasks),
        passes=goal.iteration,
        planned_gpu_ms=None if total is None else round(total * MS * passes),
        gpu_ms=sum(task.gpu_ms for task in graph.tasks),
        planned_seconds=None if chain is None else chain * passes,
        seconds=seconds,
    )

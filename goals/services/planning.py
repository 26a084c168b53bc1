"""Plan and judge: from a spec to a task graph, to a verdict on every node of it."""

import contextlib
import json
from collections.abc import Mapping, Sequence
from typing import Any

from django.db.models import F, Window
from django.db.models.functions import RowNumber

from agents.cluster import get_cluster, security_in
from agents.cluster.base import ClusterError
from agents.domain.manifest import AgentManifest, parse_agent
from agents.domain.problems import ManifestError
from agents.domain.states import AttemptState
from agents.models import Agent, Attempt
from agents.workloads import PodTemplate
from goals.domain.graph import PlanError, RunCost, TaskGraph, plan_graph
from goals.domain.manifest import GoalManifest, parse_goal
from goals.domain.states import Phase, Unit
from goals.models import Goal, Graph
from goals.services.approval_facts import graph_facts, quorum_asked
from goals.services.conditions import set_condition, set_phase
from goals.services.landing import start_landing
from goals.services.lease import Lease, fenced
from goals.services.metering import GPU_PRICE, PriceUnknown, account_or_none, price_of
from governance.domain import ApprovalKind
from governance.policy.base import Outcome, PolicyPoint
from governance.services.approvals import Question, open_approval
from governance.services.decisions import (
    Case,
    Judgement,
    Subject,
    evaluate,
    preview,
    quorum_of,
    record_judgement,
    worst,
)
from lineage.domain import NodeKind, NodeRef, Relation
from lineage.services.graph import link, link_all

ROWS_PER_INSERT = 500
HISTORY_RUNS = 50  # newest runs of an agent that its price is estimated from
API_VERSION = "orchestration.ai/v1"


def manifest_of(goal: Goal) -> GoalManifest:
    """The Goal's manifest, as it was applied."""
    return parse_goal(
        {
            "apiVersion": API_VERSION,
            "kind": "Goal",
            "metadata": {
                "name": goal.name,
                "namespace": goal.namespace,
                "labels": goal.labels,
                "annotations": goal.annotations,
            },
            # The stored spec writes every default out; what says nothing is left out again.
            "spec": {name: value for name, value in goal.spec.items() if value not in ("", None)},
        }
    )


def agents_in(namespace: str, names: Sequence[str] | None = None) -> dict[str, AgentManifest]:
    """Manifests of the registered agents among `names`, or of all of the namespace."""
    rows = Agent.objects.filter(namespace=namespace, retired_at__isnull=True)
    if names is not None:
        rows = rows.filter(name__in=names)
    return {row.name: parse_agent(row.manifest) for row in rows}


def run_history(namespace: str, names: Sequence[str]) -> dict[str, list[RunCost]]:
    """What the last successful runs of each agent cost, newest first."""
    newest_first = Window(
        RowNumber(), partition_by=F("agent_name"), order_by=F("finished_at").desc()
    )
    runs = (
        Attempt.objects.filter(namespace=namespace, state=AttemptState.SUCCEEDED)
        .annotate(nth=newest_first)
        .filter(nth__lte=HISTORY_RUNS)
        .order_by("agent_name", "nth")
        .values_list("agent_name", "running_ms", "gpu_ms")
    )
    wanted = set(names)
    history: dict[str, list[RunCost]] = {name: [] for name in names}
    for name, running_ms, gpu_ms in runs:
        if name in wanted:
            cost = RunCost(
                seconds=running_ms / 1000, gpu_seconds=gpu_ms / 1000, tokens=None, micro_usd=None
            )
            history[name].append(cost)
    return history


def build_graph(manifest: GoalManifest, *, goal_uid: str, generation: int) -> TaskGraph:
    """The task graph of a manifest. Raises PlanError."""
    names = manifest.spec.agents

    def plan(agents: Mapping[str, AgentManifest]) -> TaskGraph:
        return plan_graph(
            goal=manifest,
            goal_uid=goal_uid,
            generation=generation,
            iteration=1,
            agents=agents,
            history=run_history(manifest.namespace, names),
        )

    try:
        return plan(agents_in(manifest.namespace, names))
    except PlanError:
        # Every agent of the namespace: the error can name one that would produce what is missing.
        return plan(agents_in(manifest.namespace))


def pod_template(
    node: Mapping[str, Any], *, namespace: str, goal: str, goal_uid: str
) -> PodTemplate:
    """The pod of one node of a graph document."""
    agent = node["agent"]
    return PodTemplate(
        namespace=namespace,
        goal=goal,
        goal_uid=goal_uid,
        task=node["name"],
        agent=agent["name"],
        role=agent["role"],
        service_account=agent["serviceAccount"],
        image=agent["image"],
        command=tuple(agent["command"]),
        gpus=node["gpus"],
        memory_bytes=node["memoryBytes"],
        labels=agent["labels"],
        models=tuple(agent.get("models", ())),
        security=security_in(namespace),
    )


def judge_graph(document: Mapping[str, Any], *, goal: Goal, digest: str) -> Judgement:
    """Judge the whole graph and every workload in it; nothing is recorded yet.

    Raises `ClusterError`s.
    """
    where: dict[str, Any] = {
        "namespace": goal.namespace,
        "goal_uid": goal.uid,
        "graph_digest": digest,
    }
    # A cluster that does not answer is waited for: a hiccup is no reason to deny a Goal for ever.
    subject = _graph_subject(document, digest, goal.requested_by, _gpu_counts())
    whole = evaluate(Case(PolicyPoint.GRAPH, **where), [subject])
    each = evaluate(Case(PolicyPoint.WORKLOAD, **where), _pod_subjects(document))
    return _joined(whole, each)


def preview_graph(graph: TaskGraph, *, requested_by: str) -> Judgement:
    """What policy would say of a graph now; nothing is recorded."""
    document = graph.document()
    gpus: tuple[int | None, int | None] = (None, None)
    with contextlib.suppress(ClusterError):  # unknown: a rule that needs the numbers says so
        gpus = _gpu_counts()
    subject = _graph_subject(document, graph.digest, requested_by, gpus)
    whole = preview(PolicyPoint.GRAPH, [subject])
    each = preview(PolicyPoint.WORKLOAD, _pod_subjects(document))
    return _joined(whole, each)


def _joined(whole: Judgement, each: Judgement) -> Judgement:
    return Judgement(worst([whole.outcome, each.outcome]), (*whole.decisions, *each.decisions))


def _graph_subject(
    document: Mapping[str, Any],
    digest: str,
    requested_by: str,
    gpus: tuple[int | None, int | None],
) -> Subject:
    return Subject("graph", digest, graph_input(document, requested_by=requested_by, gpus=gpus))


def _pod_subjects(document: Mapping[str, Any]) -> list[Subject]:
    goal = document["goal"]
    return [
        Subject(
            "task",
            node["name"],
            pod_template(
                node, namespace=goal["namespace"], goal=goal["name"], goal_uid=goal["uid"]
            ).document(),
        )
        for node in document["tasks"]
    ]


def _gpu_counts() -> tuple[int, int]:
    """GPUs there are and GPUs in use. Raises `ClusterError`s."""
    gpus = get_cluster().gpus()
    return len(gpus), sum(1 for gpu in gpus if gpu.held_by)


def graph_input(
    document: Mapping[str, Any],
    *,
    requested_by: str,
    gpus: tuple[int | None, int | None] = (None, None),
) -> dict[str, Any]:
    """What policy sees of a graph: the document plus GPUs in all and in use, None if unknown."""
    total, in_use = gpus
    return {
        "goal": {
            **document["goal"],
            "objective": document["spec"]["objective"],
            "requested_by": requested_by,
            "require_approval": document["spec"]["requireApproval"],
        },
        "generation": document["goal"]["generation"],
        "budget": {
            "gpu_ms": document["budget"]["gpuMilliseconds"],
            "tokens": document["budget"]["tokens"],
            "micro_usd": document["budget"]["microUsd"],
        },
        "tasks": [
            {
                "name": node["name"],
                "agent": {
                    "name": node["agent"]["name"],
                    "role": node["agent"]["role"],
                    "service_account": node["agent"]["serviceAccount"],
                    "image": node["agent"]["image"],
                    "scope": node["agent"]["scope"],
                    "models": node["agent"].get("models", []),
                },
                "gpus": node["gpus"],
                "depends_on": node["dependsOn"],
            }
            for node in document["tasks"]
        ],
        "cluster": {"gpus_total": total, "gpus_in_use": in_use},
    }


def estimates_of(graph: TaskGraph) -> dict[str, Any]:
    """Estimates by task name; "" is the whole graph."""
    priced = graph.priced_document()
    each = {task["name"]: task["estimate"] for task in priced["tasks"]}
    return {**each, "": priced["estimate"]}


def plan_step(goal: Goal, lease: Lease) -> bool:
    """Draft -> Planned: build the graph. Always progress."""
    try:
        graph = build_graph(manifest_of(goal), goal_uid=str(goal.uid), generation=goal.generation)
    except (PlanError, ManifestError) as error:
        with fenced(lease):
            set_condition(goal, "Planned", False, reason="PlanFailed", message=str(error))
            start_landing(goal, Phase.FAILED, reason="PlanFailed", message=str(error))
        return True
    canonical = graph.canonical().decode("utf-8")
    with fenced(lease):
        Graph.objects.get_or_create(
            goal=goal,
            digest=graph.digest,
            defaults={
                "generation": goal.generation,
                "canonical": canonical,
                "estimates": estimates_of(graph),
            },
        )
        link(
            NodeRef(NodeKind.GOAL, str(goal.uid)),
            Relation.PLANNED,
            NodeRef(NodeKind.GRAPH, graph.digest),
            namespace=goal.namespace,
            goal_uid=goal.uid,
        )
        set_condition(
            goal,
            "Planned",
            True,
            reason="GraphBuilt",
            message=f"{_tasks(len(graph.nodes))}, graph {graph.digest}.",
        )
        set_phase(
            goal,
            Phase.PLANNED,
            reason="GraphBuilt",
            graph_digest=graph.digest,
            observed_generation=goal.generation,
        )
    return True


def graph_document(goal: Goal) -> dict[str, Any]:
    """The document of the Goal's current graph."""
    canonical = goal.graphs.values_list("canonical", flat=True).get(digest=goal.graph_digest)
    document: dict[str, Any] = json.loads(canonical)
    return document


def _tasks(count: int) -> str:
    return "1 task" if count == 1 else f"{count:,} tasks"


def judge_step(goal: Goal, lease: Lease) -> bool:
    """Planned -> Running, AwaitingApproval or Denied: what policy says of the graph."""
    document = graph_document(goal)
    if unpriced := _unpriced(goal, document):
        with fenced(lease):
            set_condition(goal, "Admitted", False, reason="PriceUnknown", message=unpriced)
            start_landing(goal, Phase.DENIED, reason="PriceUnknown", message=unpriced)
        return True
    judgement = judge_graph(document, goal=goal, digest=goal.graph_digest)
    with fenced(lease):
        record_judgement(judgement)
        link_all(
            NodeRef(NodeKind.GOAL, str(goal.uid)),
            Relation.JUDGED_BY,
            [NodeRef(NodeKind.DECISION, str(one.uid)) for one in judgement.decisions],
            namespace=goal.namespace,
            goal_uid=goal.uid,
        )
        _act_on(goal, judgement, document)
    return True


def _unpriced(goal: Goal, document: Mapping[str, Any]) -> str:
    """Why the graph may not run for want of a price, or "" (an unknown price denies)."""
    has_money = account_or_none(goal, Unit.MICRO_USD) is not None
    if not has_money or not any(node["gpus"] for node in document["tasks"]):
        return ""
    try:
        price_of("gpu", GPU_PRICE)
    except PriceUnknown as error:
        return f"The budget names money and the tasks use GPUs: {error}"
    return ""


def _act_on(goal: Goal, judgement: Judgement, document: Mapping[str, Any]) -> None:
    wants_approval = judgement.outcome is Outcome.REQUIRE_APPROVAL or goal.spec.get(
        "requireApproval", False
    )
    if judgement.outcome is Outcome.DENY:
        message = _sentence(judgement.messages(Outcome.DENY))
        set_condition(goal, "Admitted", False, reason="PolicyDenied", message=message)
        start_landing(goal, Phase.DENIED, reason="PolicyDenied", message=message)
    elif wants_approval:
        asked = judgement.messages(Outcome.REQUIRE_APPROVAL)
        message = _sentence(asked) or "The Goal asks for approval before anything runs."
        quorum = quorum_of(judgement)
        open_approval(graph_question(goal, document, why=message, quorum=quorum))
        set_condition(goal, "Admitted", None, reason="AwaitingApproval", message=message)
        set_phase(goal, Phase.AWAITING_APPROVAL, reason="ApprovalRequired", message=message)
    else:
        warnings = _sentence(judgement.messages(Outcome.WARN))
        set_condition(goal, "Admitted", True, reason="PolicyAllowed", message=warnings)
        set_phase(goal, Phase.RUNNING, reason="Admitted", message=warnings)


def _sentence(messages: Sequence[Mapping[str, Any]]) -> str:
    lines = []
    for message in messages:
        where = (
            f" ({message['rule']}, {message['path']}:{message['line']})" if message["rule"] else ""
        )
        # The graph as a whole goes by its digest, which says nothing to a reader.
        whole = message["subject"].startswith("sha256:")
        about = "" if whole else f"{message['subject']}: "
        lines.append(f"{about}{message['text']}{where}")
    return "; ".join(dict.fromkeys(lines))[:2000]


def graph_question(
    goal: Goal, document: Mapping[str, Any], *, why: str, quorum: int = 1
) -> Question:
    """The question whether this exact graph may run, put to at least `quorum` people."""
    return Question(
        kind=ApprovalKind.GRAPH,
        namespace=goal.namespace,
        goal_uid=goal.uid,
        subject_kind="goal",
        subject_id=str(goal.uid),
        title=f"Run {goal.namespace}/{goal.name}",
        request={
            "kind": "graph",
            "goal": str(goal.uid),
            "generation": goal.generation,
            "graph_digest": goal.graph_digest,
            "budget": goal.spec["budget"],
        },
        requested_by=goal.requested_by,
        barred=barred_from(goal),
        facts=graph_facts(goal, document, why=why),
        quorum=max(quorum, quorum_asked(goal)),
    )


def barred_from(goal: Goal) -> list[str]:
    """Who may not decide about this Goal: who asked, sponsors or changed it (four eyes)."""
    return [name for name in {goal.requested_by, goal.sponsor, *goal.editors} if name]

"""The task graph of a Goal: planned from its agents, canonical, identified by its digest.

The digest covers what will run and what it may spend and touch: any change of it voids an
approval. It does not cover what changes from run to run without changing the work: the iteration
and the estimates. Those are shown beside it (`TaskGraph.priced_document`).
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from types import MappingProxyType
from typing import Any, Final

from agents.domain.manifest import AgentManifest
from agents.domain.metadata import API_VERSION
from goals.domain.dependencies import PlanError, resolve_dependencies, topological_order
from goals.domain.forecast import (
    DIMENSIONS,
    Forecast,
    RunCost,
    Source,
    TaskEstimate,
    Total,
    estimate_task,
    sum_forecasts,
)
from goals.domain.manifest import GoalManifest

__all__ = ["PlanError", "RunCost", "TaskGraph", "TaskNode", "plan_graph"]

KIND: Final = "TaskGraph"
_ENCODER: Final = json.JSONEncoder(ensure_ascii=False, sort_keys=True, separators=(",", ":"))
_NO_HISTORY: Final[Mapping[str, Sequence[RunCost]]] = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class TaskNode:
    """One task: one agent doing its part once. `name` is the agent's name."""

    name: str
    agent: AgentManifest
    depends_on: tuple[str, ...]  # task names, in the order listed
    estimate: TaskEstimate

    @property
    def gpus(self) -> int:
        return self.agent.gpus

    @property
    def consumes(self) -> tuple[str, ...]:
        return self.agent.consumes

    @property
    def produces(self) -> tuple[str, ...]:
        return self.agent.produces

    def document(self) -> dict[str, Any]:
        """All that decides what runs; estimates are no part of it."""
        agent = self.agent
        return {
            "name": self.name,
            "dependsOn": list(self.depends_on),
            "agent": {
                "name": agent.name,
                "namespace": agent.namespace,
                "labels": dict(agent.labels),
                "role": agent.role,
                "image": agent.image,
                "command": list(agent.command),
                "serviceAccount": agent.service_account,
                "env": dict(agent.env),
                "scope": {key: list(entries) for key, entries in agent.scope.items()},
                # Left out where none is named, as graphs were written before there were any.
                **({"models": list(agent.models)} if agent.models else {}),
            },
            "gpus": agent.gpus,
            "memoryBytes": agent.memory_bytes,
            "consumes": list(agent.consumes),
            "external": list(agent.external),
            "produces": list(agent.produces),
        }


@dataclass(frozen=True, slots=True)
class GraphEstimate:
    """What one pass through the graph is expected to cost, retries and iterations not counted.

    `critical_path_seconds` is the longest chain of tasks: the least time however many machines.
    """

    seconds: Total
    gpu_seconds: Total
    tokens: Total
    micro_usd: Total
    critical_path_seconds: Forecast

    def document(self) -> dict[str, Any]:
        document = {name: getattr(self, name).document() for name in DIMENSIONS}
        return {**document, "critical_path_seconds": self.critical_path_seconds.document()}


@dataclass(frozen=True)
class TaskGraph:
    """A planned Goal. `nodes` are in topological order."""

    goal: GoalManifest
    goal_uid: str
    generation: int
    iteration: int
    nodes: tuple[TaskNode, ...]

    @cached_property
    def by_name(self) -> Mapping[str, TaskNode]:
        return MappingProxyType({node.name: node for node in self.nodes})

    def order(self) -> tuple[str, ...]:
        """Task names, every task after those it waits for."""
        return tuple(node.name for node in self.nodes)

    def document(self) -> dict[str, Any]:
        """The graph as plain JSON: what is hashed, judged and approved."""
        return {**self._head(), "tasks": [node.document() for node in self.nodes]}

    def _head(self) -> dict[str, Any]:
        budget = self.goal.spec.budget
        return {
            "apiVersion": API_VERSION,
            "kind": KIND,
            "goal": {
                "uid": self.goal_uid,
                "name": self.goal.name,
                "namespace": self.goal.namespace,
                "labels": dict(self.goal.labels),
                "generation": self.generation,
            },
            "spec": self.goal.spec_document(),
            "budget": {
                "gpuMilliseconds": budget.gpu_ms,
                "tokens": budget.tokens,
                "microUsd": budget.micro_usd,
            },
        }

    def canonical(self) -> bytes:
        """`document()` in the JSON Canonicalization Scheme (RFC 8785)."""
        return self._canonical

    @cached_property
    def _canonical(self) -> bytes:
        # The document holds text, true, false, null and whole numbers below 2**53, and its keys
        # are ASCII. For such documents json's C encoder writes exactly RFC 8785 (the schemes
        # differ only in floats and in the order of keys beyond U+FFFF), five times as fast as the
        # rfc8785 package; a test holds the two against each other. Task by task, because ten
        # thousand task documents alive at once cost as much again in garbage collection.
        head = _ENCODER.encode(self._head())
        tasks = ",".join([_ENCODER.encode(node.document()) for node in self.nodes])
        # "tasks" sorts after every key of the head.
        return f'{head[:-1]},"tasks":[{tasks}]}}'.encode()

    @cached_property
    def digest(self) -> str:
        """`sha256:` and the SHA-256 of `canonical()`, in lower-case hex."""
        return "sha256:" + hashlib.sha256(self.canonical()).hexdigest()

    def priced_document(self) -> dict[str, Any]:
        """`document()` with digest, iteration and estimates, as people are shown it."""
        document = self.document()
        for task, node in zip(document["tasks"], self.nodes, strict=True):
            task["estimate"] = node.estimate.document()
        return {
            **document,
            "digest": self.digest,
            "iteration": self.iteration,
            "estimate": self.total_estimate().document(),
        }

    def total_estimate(self) -> GraphEstimate:
        """The sum over all tasks, once each; unknown stays unknown."""
        estimates = [node.estimate for node in self.nodes]
        return GraphEstimate(
            seconds=sum_forecasts(estimate.seconds for estimate in estimates),
            gpu_seconds=sum_forecasts(estimate.gpu_seconds for estimate in estimates),
            tokens=sum_forecasts(estimate.tokens for estimate in estimates),
            micro_usd=sum_forecasts(estimate.micro_usd for estimate in estimates),
            critical_path_seconds=self._critical_path_seconds(),
        )

    def _critical_path_seconds(self) -> Forecast:
        p50s: dict[str, float] = {}
        p90s: dict[str, float] = {}
        for node in self.nodes:
            seconds = node.estimate.seconds
            if seconds.p50 is None or seconds.p90 is None:
                return Forecast()
            p50s[node.name] = seconds.p50 + max((p50s[name] for name in node.depends_on), default=0)
            p90s[node.name] = seconds.p90 + max((p90s[name] for name in node.depends_on), default=0)
        sources = {node.estimate.seconds.source for node in self.nodes}
        source = Source.HISTORY if sources == {Source.HISTORY} else Source.DECLARED
        return Forecast(max(p50s.values()), max(p90s.values()), source)


def plan_graph(
    *,
    goal: GoalManifest,
    goal_uid: str,
    generation: int,
    iteration: int,
    agents: Mapping[str, AgentManifest],
    history: Mapping[str, Sequence[RunCost]] = _NO_HISTORY,
) -> TaskGraph:
    """Translate a Goal into its task graph; the same arguments always give the same digest.

    `agents` are the registered ones by name (more than the Goal lists makes better errors);
    `history` the finished runs of each. Raises `PlanError` with every problem of the first kind
    found: unknown agents, two producers, missing producers, a cycle.
    """
    depends_on = resolve_dependencies(goal.spec.agents, agents)
    nodes = tuple(
        TaskNode(
            name=name,
            agent=agents[name],
            depends_on=depends_on[name],
            estimate=estimate_task(agents[name], history.get(name, ())),
        )
        for name in topological_order(depends_on)
    )
    return TaskGraph(goal, goal_uid, generation, iteration, nodes)

"""How long a 10,000-task graph takes to plan, canonicalise and hash."""

import statistics
import time

from agents.domain.manifest import AgentManifest, parse_agent
from goals.domain.graph import TaskGraph, plan_graph
from goals.domain.manifest import GoalManifest, parse_goal

TASKS = 10_000
LIMIT_MS = 500.0
ROUNDS = 5


def wide_goal(tasks: int = TASKS) -> tuple[GoalManifest, dict[str, AgentManifest]]:
    """A Goal and its agents: task n consumes what tasks n // 2 and n // 3 produce."""
    agents = {}
    for number in range(tasks):
        consumed = sorted({number // 2, number // 3}) if number > 1 else []
        agent = parse_agent(
            {
                "apiVersion": "orchestration.ai/v1",
                "kind": "Agent",
                "metadata": {"name": f"agent-{number}", "labels": {"team": "bench"}},
                "spec": {
                    "image": f"registry.example/agents/agent-{number}@sha256:{number:064x}",
                    "command": ["python", "-m", "agent", str(number)],
                    "serviceAccountName": f"agent-{number}",
                    "env": {"SHARD": str(number)},
                    "resources": {"limits": {"nvidia.com/gpu": number % 3, "memory": "2Gi"}},
                    "consumes": [f"thing-{other}" for other in consumed],
                    "produces": [f"thing-{number}"],
                    "estimate": {"seconds": 60, "tokens": 1000},
                    "scope": {"releases": ["checkout/production"], "artifacts": ["model"]},
                },
            }
        )
        agents[agent.name] = agent
    goal = parse_goal(
        {
            "apiVersion": "orchestration.ai/v1",
            "kind": "Goal",
            "metadata": {"name": "ten-thousand-tasks"},
            "spec": {
                "objective": "p99 latency < 120 ms for /checkout",
                "budget": "50 GPU-minutes",
                "agents": list(agents),
            },
        }
    )
    return goal, agents


def planned(goal: GoalManifest, agents: dict[str, AgentManifest]) -> TaskGraph:
    return plan_graph(goal=goal, goal_uid="0" * 32, generation=1, iteration=1, agents=agents)


def run() -> dict[str, float]:
    """Median milliseconds of planning alone and of planning, canonicalising and hashing."""
    goal, agents = wide_goal()
    plan_ms: list[float] = []
    all_ms: list[float] = []
    size = 0
    for _ in range(ROUNDS):
        start = time.perf_counter()
        graph = planned(goal, agents)
        plan_ms.append((time.perf_counter() - start) * 1000)
        assert graph.digest.startswith("sha256:")
        all_ms.append((time.perf_counter() - start) * 1000)
        size = len(graph.canonical())
    figures = {
        "tasks": float(TASKS),
        "plan_ms": statistics.median(plan_ms),
        "plan_and_digest_ms": statistics.median(all_ms),
        "limit_ms": LIMIT_MS,
        "canonical_bytes": float(size),
    }
    print(
        f"graph of {TASKS} tasks: plan {figures['plan_ms']:.0f} ms, "
        f"plan + canonical + digest {figures['plan_and_digest_ms']:.0f} ms "
        f"({figures['plan_and_digest_ms'] / LIMIT_MS:.2f} of the {LIMIT_MS:.0f} ms limit), "
        f"{size / 1e6:.1f} MB canonical"
    )
    return figures


if __name__ == "__main__":
    run()

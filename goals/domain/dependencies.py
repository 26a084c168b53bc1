"""Who waits for whom: resolves what agents consume and produce into an acyclic order.

Rules. A task waits for the producer of each thing it consumes. A thing has exactly one producer
in a graph; two are an error, because nobody could say whose output a consumer would see. A thing
marked external comes from outside and orders nothing, unless a task of the graph produces it. An
agent that declares neither consumes nor produces waits for the agent listed before it. Tasks that
nothing else orders may run at once, and are shown in the order listed.
"""

import difflib
import heapq
from collections.abc import Mapping, Sequence
from typing import Final

from agents.domain.manifest import AgentManifest

TASKS_MAX: Final = 10_000
EDGES_MAX: Final = 200_000  # a graph of 10,000 tasks with 20 inputs each
CYCLE_SHOWN_MAX: Final = 20  # tasks of a cycle that an error spells out
PROBLEMS_SHOWN_MAX: Final = 20


class PlanError(ValueError):
    """A Goal that cannot be planned; `problems` are sentences, each naming agent and thing."""

    def __init__(self, problems: Sequence[str]) -> None:
        self.problems = tuple(problems)
        shown = " ".join(self.problems[:PROBLEMS_SHOWN_MAX])
        more = len(self.problems) - PROBLEMS_SHOWN_MAX
        super().__init__(f"{shown} ({more} more problems.)" if more > 0 else shown)


def resolve_dependencies(
    listed: Sequence[str], agents: Mapping[str, AgentManifest]
) -> dict[str, tuple[str, ...]]:
    """For each listed agent, the agents it waits for, in the order listed.

    `agents` are all that could be named: more than the listed ones makes better errors.
    Raises `PlanError`.
    """
    if len(listed) > TASKS_MAX:
        raise PlanError([f"The graph has {len(listed)} tasks; at most {TASKS_MAX} are allowed."])
    unknown = [name for name in listed if name not in agents]
    if unknown:
        raise PlanError([_unknown_agent(name, agents) for name in unknown])
    producers = _producers(listed, agents)
    depends_on: dict[str, tuple[str, ...]] = {}
    missing: list[tuple[str, str]] = []
    position = {name: index for index, name in enumerate(listed)}
    edges = 0
    for index, name in enumerate(listed):
        agent = agents[name]
        if not agent.consumes and not agent.produces:
            depends_on[name] = (listed[index - 1],) if index else ()
            continue
        missing += [
            (name, thing)
            for thing in agent.consumes
            if thing not in producers and thing not in agent.external
        ]
        found = {producers[thing] for thing in agent.consumes if thing in producers}
        depends_on[name] = tuple(sorted(found, key=position.__getitem__))
        edges += len(found)
    if missing:
        raise PlanError(_missing(missing, agents))
    if edges > EDGES_MAX:
        raise PlanError([f"The graph has {edges} dependencies; at most {EDGES_MAX} are allowed."])
    return depends_on


def topological_order(depends_on: Mapping[str, Sequence[str]]) -> tuple[str, ...]:
    """Every task after those it waits for; the order of the mapping breaks ties.

    Raises `PlanError`, which spells out one cycle.
    """
    names = list(depends_on)
    position = {name: index for index, name in enumerate(names)}
    waiting = {name: len(needed) for name, needed in depends_on.items()}
    dependents: dict[str, list[str]] = {name: [] for name in names}
    for name, needed in depends_on.items():
        for other in needed:
            dependents[other].append(name)
    ready = [position[name] for name in names if not waiting[name]]
    order: list[str] = []
    while ready:
        name = names[heapq.heappop(ready)]
        order.append(name)
        for dependent in dependents[name]:
            waiting[dependent] -= 1
            if not waiting[dependent]:
                heapq.heappush(ready, position[dependent])
    if len(order) < len(names):
        done = set(order)
        raise PlanError([_cycle(depends_on, [name for name in names if name not in done])])
    return tuple(order)


def _producers(listed: Sequence[str], agents: Mapping[str, AgentManifest]) -> dict[str, str]:
    producers: dict[str, str] = {}
    problems: list[str] = []
    for name in listed:
        for thing in agents[name].produces:
            first = producers.setdefault(thing, name)
            if first != name:
                problems.append(
                    f'Agents "{first}" and "{name}" both produce "{thing}"; '
                    "give one of them another name, or leave one agent out."
                )
    if problems:
        raise PlanError(problems)
    return producers


def _unknown_agent(name: str, agents: Mapping[str, AgentManifest]) -> str:
    near = difflib.get_close_matches(name, agents, n=1, cutoff=0.6)
    hint = f'did you mean "{near[0]}"?' if near else "register it, or leave it out."
    return f'Agent "{name}" is not registered; {hint}'


def _missing(missing: Sequence[tuple[str, str]], agents: Mapping[str, AgentManifest]) -> list[str]:
    could: dict[str, list[str]] = {}
    for name, agent in agents.items():
        for thing in agent.produces:
            could.setdefault(thing, []).append(f'"{name}"')
    problems = []
    for name, thing in missing:
        makers = could.get(thing)
        fix = (
            f"add {' or '.join(sorted(makers))}, which could, to spec.agents."
            if makers
            else "no registered agent does; register one that does, or mark it external."
        )
        problems.append(f'Agent "{name}" consumes "{thing}", which no listed agent produces; {fix}')
    return problems


def _cycle(depends_on: Mapping[str, Sequence[str]], stuck: Sequence[str]) -> str:
    """One cycle among tasks that never became ready: each of them waits for another of them."""
    among = set(stuck)
    seen: dict[str, int] = {}
    path: list[str] = []
    name = stuck[0]
    while name not in seen:
        seen[name] = len(path)
        path.append(name)
        name = next(other for other in depends_on[name] if other in among)
    cycle = [*path[seen[name] :], name]
    if len(cycle) == 2:
        return f'Agent "{name}" consumes what it produces itself: it would wait for itself.'
    if len(cycle) > CYCLE_SHOWN_MAX:
        more = len(cycle) - CYCLE_SHOWN_MAX
        cycle = [*cycle[: CYCLE_SHOWN_MAX - 1], f"({more} more)", cycle[-1]]
    return "The agents wait for each other in a circle: " + " waits for ".join(cycle) + "."

"""Task graphs: dependencies, refusals, the digest, estimates, size."""

import dataclasses
import hashlib
import json
import time
from collections.abc import Mapping, Sequence

import pytest
import rfc8785
from hypothesis import given
from hypothesis import strategies as st

from agents.domain.manifest import AgentManifest, Estimate
from goals.domain.budget import parse_budget
from goals.domain.forecast import Forecast, Source, nearest_rank
from goals.domain.graph import PlanError, RunCost, TaskGraph, plan_graph
from goals.domain.manifest import GoalManifest, GoalSpec
from goals.domain.objective import parse_objective


def agent(
    name: str, consumes: Sequence[str] = (), produces: Sequence[str] = (), **fields: object
) -> AgentManifest:
    blank = AgentManifest(
        name, "default", {}, {}, "standard", f"local/{name}:1", service_account=name
    )
    return dataclasses.replace(
        blank,
        consumes=tuple(consumes),
        produces=tuple(produces),
        **fields,  # type: ignore[arg-type]
    )


def goal(agents: Sequence[str], budget: str = "50 GPU-minutes") -> GoalManifest:
    spec = GoalSpec(
        parse_objective("p99 latency < 120 ms for /checkout"), parse_budget(budget), tuple(agents)
    )
    return GoalManifest("reduce-p99-latency", "default", {}, {}, spec)


def plan(
    agents: Sequence[AgentManifest],
    listed: Sequence[str] | None = None,
    history: Mapping[str, Sequence[RunCost]] | None = None,
    iteration: int = 1,
    generation: int = 1,
    budget: str = "50 GPU-minutes",
) -> TaskGraph:
    return plan_graph(
        goal=goal([a.name for a in agents] if listed is None else listed, budget),
        goal_uid="11111111-2222-3333-4444-555555555555",
        generation=generation,
        iteration=iteration,
        agents={a.name: a for a in agents},
        history=history or {},
    )


def waits(graph: TaskGraph) -> dict[str, tuple[str, ...]]:
    return {node.name: node.depends_on for node in graph.nodes}


SEED = (
    agent("profiler", produces=["profile"], gpus=0, estimate=Estimate(seconds=20)),
    agent("optimizer", ["profile"], ["candidate"], gpus=1, estimate=Estimate(seconds=40, tokens=0)),
    agent("canary_deployer", ["candidate", "profile"], estimate=Estimate(seconds=30)),
)


def test_seed_agents_depend_by_what_they_consume() -> None:
    for listed in (
        ["profiler", "optimizer", "canary_deployer"],
        ["canary_deployer", "optimizer", "profiler"],
    ):
        graph = plan(SEED, listed)
        assert graph.order() == ("profiler", "optimizer", "canary_deployer")
        assert waits(graph)["optimizer"] == ("profiler",)
        assert set(waits(graph)["canary_deployer"]) == {"profiler", "optimizer"}


def test_agents_that_declare_nothing_run_in_the_order_listed() -> None:
    graph = plan([agent("c"), agent("a"), agent("b")])
    assert waits(graph) == {"c": (), "a": ("c",), "b": ("a",)}


def test_independent_tasks_run_at_once_and_are_shown_as_listed() -> None:
    graph = plan([agent("b", produces=["y"]), agent("a", produces=["x"]), agent("n")])
    assert waits(graph) == {"b": (), "a": (), "n": ("a",)}


def test_external_things_order_nothing_unless_produced_here() -> None:
    reader = agent("reader", ["orders"], external=("orders",))
    assert waits(plan([reader])) == {"reader": ()}
    both = plan([reader, agent("maker", produces=["orders"])])
    assert waits(both)["reader"] == ("maker",)


@pytest.mark.parametrize(
    ("agents", "listed", "message"),
    [
        (SEED, ["profiler", "optimiser"], 'Agent "optimiser" is not registered; did you mean "opt'),
        (SEED, ["zzz"], 'Agent "zzz" is not registered; register it, or leave it out.'),
        (
            SEED,
            ["optimizer"],
            'Agent "optimizer" consumes "profile", which no listed agent produces; '
            'add "profiler", which could, to spec.agents.',
        ),
        ([agent("a", ["x"])], ["a"], "no registered agent does; register one that does, or mark"),
        (
            [agent("a", produces=["x"]), agent("b", produces=["x"])],
            ["a", "b"],
            'Agents "a" and "b" both produce "x"',
        ),
        ([agent("a", ["x"], ["x"])], ["a"], 'Agent "a" consumes what it produces itself'),
        (
            [agent("a", ["z"], ["x"]), agent("b", ["x"], ["y"]), agent("c", ["y"], ["z"])],
            ["a", "b", "c"],
            "in a circle: a waits for c waits for b waits for a.",
        ),
        (
            [agent("d", ["y"]), agent("a", ["y"], ["x"]), agent("b", ["x"], ["y"])],
            ["d", "a", "b"],
            "in a circle: b waits for a waits for b.",
        ),
    ],
)
def test_what_cannot_be_planned(
    agents: Sequence[AgentManifest], listed: Sequence[str], message: str
) -> None:
    with pytest.raises(PlanError) as caught:
        plan(agents, listed)
    assert message in str(caught.value)


def test_every_missing_producer_is_reported() -> None:
    with pytest.raises(PlanError) as caught:
        plan([agent("a", ["x", "y"]), agent("b", ["z"])])
    assert len(caught.value.problems) == 3


def test_a_long_cycle_is_spelt_out_in_short() -> None:
    ring = [agent(f"a{n}", [f"t{(n - 1) % 5000}"], [f"t{n}"]) for n in range(5000)]
    with pytest.raises(PlanError) as caught:
        plan(ring)
    assert "more) waits for a0." in str(caught.value)
    assert len(str(caught.value)) < 1000


def test_too_many_tasks_or_edges() -> None:
    many = {f"a{n}": agent(f"a{n}", produces=[f"t{n}"]) for n in range(10_001)}
    with pytest.raises(PlanError, match="10001 tasks; at most 10000"):
        plan(list(many.values()))
    makers = list(many.values())[:500]
    things = [f"t{n}" for n in range(500)]
    with pytest.raises(PlanError, match="dependencies; at most 200000"):
        plan([*makers, *(agent(f"c{n}", things) for n in range(500))])


# --- digest ---------------------------------------------------------------------------------------


def test_digest_is_of_the_canonical_document() -> None:
    graph = plan(SEED)
    assert graph.canonical() == rfc8785.dumps(graph.document())
    assert graph.digest == "sha256:" + hashlib.sha256(graph.canonical()).hexdigest()
    assert graph.digest == plan(SEED).digest
    assert json.loads(graph.canonical()) == graph.document()


@pytest.mark.parametrize(
    "change",
    [
        {"image": "local/optimizer:2"},
        {"service_account": "root"},
        {"role": "experimental"},
        {"command": ("sh",)},
        {"env": {"A": "1"}},
        {"labels": {"a": "b"}},
        {"gpus": 2},
        {"memory_bytes": 1 << 30},
        {"scope": {"releases": ("checkout/production",), "artifacts": (), "targets": ()}},
        {"produces": ("candidate", "more")},
        {"consumes": ("profile", "orders"), "external": ("orders",)},
    ],
    ids=lambda change: next(iter(change)),
)
def test_any_change_of_an_agent_changes_the_digest(change: dict[str, object]) -> None:
    optimizer = dataclasses.replace(SEED[1], **change)  # type: ignore[arg-type]
    assert plan([SEED[0], optimizer, SEED[2]]).digest != plan(SEED).digest


def test_budget_and_generation_change_the_digest() -> None:
    assert plan(SEED, budget="51 GPU-minutes").digest != plan(SEED).digest
    assert plan(SEED, generation=2).digest != plan(SEED).digest


def test_iteration_and_history_do_not_void_an_approval() -> None:
    history = {"profiler": [RunCost(seconds=1.5)] * 3}
    later = plan(SEED, iteration=2, history=history)
    assert later.digest == plan(SEED).digest
    assert later.priced_document()["iteration"] == 2
    assert later.priced_document() != plan(SEED).priced_document()


texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=10)


@given(st.lists(texts, max_size=4), st.dictionaries(st.sampled_from("ABCab_"), texts))
def test_canonical_form_is_rfc_8785(command: list[str], env: dict[str, str]) -> None:
    graph = plan([agent("a", command=tuple(command), env=env, gpus=3)])
    assert graph.canonical() == rfc8785.dumps(graph.document())


@given(
    st.integers(1, 12).flatmap(lambda n: st.tuples(st.just(n), st.randoms(use_true_random=False)))
)
def test_every_acyclic_graph_is_planned_in_order(drawn: tuple[int, object]) -> None:
    count, random = drawn
    agents = [
        agent(
            f"a{n}",
            [f"t{m}" for m in range(n) if random.random() < 0.4],
            [f"t{n}"],
        )
        for n in range(count)
    ]
    listed = [a.name for a in agents]
    random.shuffle(listed)
    graph = plan(agents, listed)
    seen: set[str] = set()
    for node in graph.nodes:
        assert {f"a{thing[1:]}" for thing in node.consumes} == set(node.depends_on) <= seen
        seen.add(node.name)
    assert seen == set(listed)
    json.dumps(graph.priced_document(), allow_nan=False)


# --- estimates ------------------------------------------------------------------------------------


def test_history_speaks_from_the_third_run_on() -> None:
    runs = [RunCost(seconds=s, gpu_seconds=s, tokens=None, micro_usd=7) for s in (9.0, 1.0, 5.0)]
    two = plan(SEED, history={"optimizer": runs[:2]}).by_name["optimizer"].estimate
    assert two.seconds == Forecast(40, 40, Source.DECLARED)
    assert two.gpu_seconds == Forecast(40.0, 40.0, Source.DECLARED)  # seconds x 1 GPU
    three = plan(SEED, history={"optimizer": runs}).by_name["optimizer"].estimate
    assert three.seconds == Forecast(5.0, 9.0, Source.HISTORY)
    assert three.tokens == Forecast(0, 0, Source.DECLARED)
    assert three.micro_usd == Forecast(7, 7, Source.HISTORY)


def test_unknown_is_never_zero() -> None:
    estimate = plan([agent("a", gpus=2), agent("b")]).by_name
    assert estimate["a"].estimate.gpu_seconds == Forecast(None, None, Source.UNKNOWN)
    assert estimate["b"].estimate.gpu_seconds == Forecast(0.0, 0.0, Source.DECLARED)  # has no GPU
    total = plan(SEED).total_estimate()
    assert (total.tokens.p50, total.tokens.known_p50, total.tokens.unknown_tasks) == (None, 0.0, 2)
    assert (total.seconds.p50, total.seconds.unknown_tasks) == (90.0, 0)
    assert total.gpu_seconds.p50 == 40.0


def test_critical_path() -> None:
    diamond = [
        agent("a", produces=["a"], estimate=Estimate(seconds=10)),
        agent("b", ["a"], ["b"], estimate=Estimate(seconds=20)),
        agent("c", ["a"], ["c"], estimate=Estimate(seconds=5)),
        agent("d", ["b", "c"], estimate=Estimate(seconds=1)),
    ]
    history = {"c": [RunCost(seconds=s) for s in (5, 5, 100)]}
    assert plan(diamond, history=history).total_estimate().critical_path_seconds == Forecast(
        31.0, 111.0, Source.DECLARED
    )
    unknown = [*diamond[:3], agent("d", ["b", "c"])]
    assert plan(unknown).total_estimate().critical_path_seconds == Forecast()


@given(st.lists(st.floats(0, 1e6), min_size=1), st.integers(1, 100))
def test_nearest_rank(values: list[float], percent: int) -> None:
    ordered = sorted(values)
    value = nearest_rank(ordered, percent)
    assert value in ordered
    assert sum(other <= value for other in ordered) * 100 >= percent * len(ordered)
    assert sum(other < value for other in ordered) * 100 < percent * len(ordered)


def test_ten_thousand_tasks_in_a_chain_and_in_layers() -> None:
    chain = [agent(f"a{n}", [f"t{n - 1}"] if n else [], [f"t{n}"]) for n in range(10_000)]
    start = time.perf_counter()
    graph = plan(chain, [a.name for a in reversed(chain)])
    assert graph.order()[-1] == "a9999"
    assert len(graph.digest) == 71
    assert graph.total_estimate().critical_path_seconds.p50 is None
    assert time.perf_counter() - start < 5  # quadratic would take minutes; see bench/bench_graph.py

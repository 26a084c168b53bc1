"""Reading manifests strictly, and what an agent declares."""

import json
from collections.abc import Mapping
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from agents.domain.documents import MAX_DEPTH
from agents.domain.manifest import (
    AgentManifest,
    Estimate,
    ManifestError,
    load_documents,
    parse_agent,
)
from agents.domain.quantity import bytes_quantity, parse_quantity

AGENT = """\
apiVersion: orchestration.ai/v1
kind: Agent
metadata: {name: canary_deployer, labels: {team: checkout}, creationTimestamp: null}
spec:
  role: revenue-critical
  image: registry.example:5000/agents/canary:1.0
  command: [python, -m, canary, ""]
  serviceAccountName: canary-deployer
  env: [{name: MODE, value: "1"}, {name: EMPTY}]
  resources: {limits: {nvidia.com/gpu: "1", memory: 2.5Gi}}
  consumes: [candidate-model, {name: orders, external: true}]
  produces: [release]
  estimate: {seconds: 60, gpuSeconds: 60.5, tokens: 0, usd: 0.02}
  scope: {releases: [checkout/production], artifacts: [model], targets: [checkout-risk]}
  watch: [latency]
  models: [gpt-4.1, "org/small:7b"]
status: {phase: Ready}
"""


def document(text: str = AGENT) -> Mapping[str, Any]:
    (only,) = load_documents(text)
    return only


def changed(**spec: Any) -> dict[str, Any]:
    base = document()
    return {**base, "spec": {**base["spec"], **spec}}


def limits(name: str, value: object) -> dict[str, Any]:
    return {"resources": {"limits": {name: value}}}


GPU_PATH = 'spec.resources.limits["nvidia.com/gpu"]'
MEMORY_PATH = "spec.resources.limits.memory"


def problems(value: Mapping[str, Any]) -> dict[str, str]:
    with pytest.raises(ManifestError) as caught:
        parse_agent(value)
    assert caught.value.problems
    return {problem.path: problem.message for problem in caught.value.problems}


def test_everything_an_agent_declares() -> None:
    assert parse_agent(document()) == AgentManifest(
        name="canary_deployer",
        namespace="default",
        labels={"team": "checkout"},
        annotations={},
        role="revenue-critical",
        image="registry.example:5000/agents/canary:1.0",
        command=("python", "-m", "canary", ""),
        service_account="canary-deployer",
        env={"MODE": "1", "EMPTY": ""},
        gpus=1,
        memory_bytes=5 << 29,
        consumes=("candidate-model", "orders"),
        external=("orders",),
        produces=("release",),
        estimate=Estimate(seconds=60.0, gpu_seconds=60.5, tokens=0, micro_usd=20_000),
        scope={
            "releases": ("checkout/production",),
            "artifacts": ("model",),
            "targets": ("checkout-risk",),
        },
        watch=("latency",),
        models=("gpt-4.1", "org/small:7b"),
    )


def test_the_least_an_agent_declares() -> None:
    agent = parse_agent(
        {
            "apiVersion": "orchestration.ai/v1",
            "kind": "Agent",
            "metadata": {"name": "a"},
            "spec": {"image": "a"},
        }
    )
    assert (agent.role, agent.service_account, agent.gpus) == ("standard", "", 0)
    assert agent.estimate == Estimate(None, None, None, None)
    assert agent.memory_bytes is None


@pytest.mark.parametrize(
    ("spec", "path", "message"),
    [
        ({"image": "Not An Image"}, "spec.image", "image reference"),
        ({"image": None}, "spec.image", "is required"),
        ({"gpus": 1}, "spec.gpus", "is not a known field"),
        ({"serviceAccount": "x"}, "spec.serviceAccount", "did you mean serviceAccountName?"),
        ({"serviceAccountName": "a_b"}, "spec.serviceAccountName", "RFC 1123"),
        ({"role": "Experimental"}, "spec.role", "RFC 1123"),
        ({"command": "python"}, "spec.command", "must be a list"),
        ({"command": ["a", 1]}, "spec.command[1]", "put it in quotes"),
        ({"command": ["a\x00"]}, "spec.command[0]", "NUL"),
        ({"env": {"A-B": "x"}}, "spec.env.A-B", "the key must be letters"),
        ({"env": {"CLEARANCE_API_URL": "x"}}, "spec.env.CLEARANCE_API_URL", "CLEARANCE_"),
        ({"env": [{"name": "A"}, {"name": "A"}]}, "spec.env[1].name", "listed twice"),
        (limits("nvidia.com/gpu", "500m"), GPU_PATH, "whole number"),
        (limits("nvidia.com/gpu", -1), GPU_PATH, "from 0 to 1024"),
        (limits("nvidia.com/gpu", True), GPU_PATH, "quantity"),
        (limits("memory", "2 gigs"), MEMORY_PATH, "quantity"),
        (limits("memory", "99Ei"), MEMORY_PATH, "whole number from"),
        (limits("memory", float("nan")), MEMORY_PATH, "quantity"),
        ({"resources": {"gpus": 1}}, "spec.resources.gpus", "is not a known field; known: limits"),
        ({"resources": []}, "spec.resources", "must be a mapping, not a list"),
        ({"consumes": ["a", {"name": "a"}]}, "spec.consumes[1]", "listed twice"),
        ({"consumes": [{"external": True}]}, "spec.consumes[0].name", "is required"),
        ({"consumes": [{"name": "a", "external": "yes"}]}, "spec.consumes[0].external", "true or"),
        ({"produces": ["a", "a"]}, "spec.produces[1]", "listed twice (first at [0])"),
        ({"produces": ["A b"]}, "spec.produces[0]", "lower-case"),
        ({"estimate": {"seconds": -1}}, "spec.estimate.seconds", "from 0 to 31622400"),
        ({"estimate": {"seconds": float("inf")}}, "spec.estimate.seconds", "number from 0"),
        ({"estimate": {"tokens": 1.5}}, "spec.estimate.tokens", "whole number"),
        ({"estimate": {"usd": "0.0000001"}}, "spec.estimate.usd", "exact to the millionth"),
        ({"estimate": {"usd": "1e999999999"}}, "spec.estimate.usd", "an amount"),
        ({"estimate": {"usd": "99999999999"}}, "spec.estimate.usd", "from 0 to"),
        ({"scope": {"releases": ["checkout"]}}, "spec.scope.releases[0]", "service/environment"),
        ({"models": "big"}, "spec.models", "must be a list"),
        ({"models": ["big", "big"]}, "spec.models[1]", "listed twice (first at [0])"),
        ({"models": ["big one"]}, "spec.models[0]", "a model's name"),
        ({"models": ["x" * 129]}, "spec.models[0]", "at most 128"),
        ({"models": [""]}, "spec.models[0]", "must not be empty"),
        ({"models": [f"m{n}" for n in range(17)]}, "spec.models", "at most 16"),
        ({"env": {"CLEARANCE_MODEL": "x"}}, "spec.env.CLEARANCE_MODEL", "which Clearance sets"),
    ],
)
def test_each_problem_names_its_field(spec: dict[str, Any], path: str, message: str) -> None:
    found = problems(changed(**spec))
    assert message in found[path]


def test_all_problems_at_once() -> None:
    found = problems({"apiVersion": "v2", "metadata": {"name": "A", "labels": {"-": "x y"}}})
    assert set(found) == {
        "apiVersion",
        "kind",
        "metadata.name",
        'metadata.labels["-"]',
        "spec",
        "spec.image",
    }


names = st.from_regex(r"[a-z0-9]([a-z0-9_-]{0,8}[a-z0-9])?", fullmatch=True)
labels = st.from_regex(r"[a-z0-9]([a-z0-9-]{0,8}[a-z0-9])?", fullmatch=True)
texts = st.text(st.characters(exclude_categories=["Cs", "Cc"]), max_size=12)
things = st.lists(names, max_size=4, unique=True).map(tuple)


@st.composite
def agent_manifests(draw: st.DrawFn) -> AgentManifest:
    consumes = draw(things)
    return AgentManifest(
        name=draw(names),
        namespace=draw(labels),
        labels=draw(st.dictionaries(labels, labels, max_size=2)),
        annotations=draw(st.dictionaries(labels, texts, max_size=2)),
        role=draw(labels),
        image=draw(st.sampled_from(["a", "a/b:1", "h.example:5000/a@sha256:" + "0" * 64])),
        command=draw(st.lists(texts, max_size=3).map(tuple)),
        service_account=draw(st.just("") | labels),
        env=draw(st.dictionaries(st.sampled_from(["A", "b_1"]), texts)),
        gpus=draw(st.integers(0, 1024)),
        memory_bytes=draw(st.none() | st.integers(1 << 20, 1 << 44)),
        consumes=consumes,
        external=tuple(thing for thing in consumes if draw(st.booleans())),
        produces=draw(things),
        estimate=Estimate(
            draw(st.none() | st.floats(0, 1e6)),
            draw(st.none() | st.floats(0, 1e6)),
            draw(st.none() | st.integers(0, 10**12)),
            draw(st.none() | st.integers(0, 10**15)),
        ),
        scope={
            "releases": draw(st.lists(labels.map(lambda a: f"{a}/p"), unique=True).map(tuple)),
            "artifacts": draw(things),
            "targets": draw(things),
        },
        watch=draw(things),
        models=draw(st.lists(st.sampled_from(["a", "b:1", "c/d", "[e]"]), unique=True).map(tuple)),
    )


class QuotingDumper(yaml.SafeDumper):
    """PyYAML leaves texts bare that only YAML 1.1 reads as text, such as 1e5."""


QuotingDumper.add_representer(
    str, lambda dumper, text: dumper.represent_scalar("tag:yaml.org,2002:str", text, style='"')
)


@given(agent_manifests())
def test_document_and_back_loses_nothing(agent: AgentManifest) -> None:
    plain = agent.to_document()
    assert parse_agent(plain) == agent
    assert parse_agent(document(json.dumps(plain, indent="\t"))) == agent
    assert parse_agent(document(yaml.dump(plain, Dumper=QuotingDumper))) == agent


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "holds no document"),
        ("---\n---\n", "holds no document"),
        ("- a", "line 1, column 1: A document must be a mapping"),
        ("text", "must be a mapping"),
        ("a: 1\nb: 2\na: 3", 'line 3, column 1: The key "a" is given twice (first in line 1)'),
        ('{"a": {"b": 1,\n "b": 2}}', 'line 2, column 2: The key "b" is given twice'),
        ("a: &x 1", "line 1, column 4: An anchor (&) is not accepted"),
        ("a: *x", "line 1, column 4: An alias (*) is not accepted"),
        ("a: !!python/object/apply:os.system [x]", "tag tag:yaml.org,2002:python/object"),
        ("a: !!binary aGk=", "line 1, column 4: The tag"),
        ("a:\n\t- b", "line 2, column 1: A tab cannot indent YAML"),
        ("a: .nan", "line 1, column 4: .nan is not a number"),
        ("a: -.inf", "is not a number"),
        ('{"a": -Infinity}', "line 1, column 7: -Infinity is not a number"),
        ('{"a": NaN}', "line 1, column 7: NaN is not a number"),
        ('{"a": 1e999}', "line 1, column 7: The number is too large"),
        ("a: 9007199254740992", "line 1, column 4: The number is beyond"),
        ("a: " + "9" * 5000, "The number is beyond"),
        ("1: a", "line 1, column 1: A key must be text"),
        ("true: a", "A key must be text"),
        ("? [a]\n: b", "line 1, column 3: A key must be text"),
        ("a: [1", "line 2, column 1: The text is not YAML"),
        ("a: b: c", "line 1, column 5: The text is not YAML"),
        ("a: \x01", "line 1, column 4: The character U+0001 is not allowed"),
        ("a: \ud800", "line 1, column 4: The character U+D800 is not allowed"),
        ('{"a": "\\ud800"}', "lone surrogate"),
        (b"a: 1\nb: \xff", "line 2, column 4: The text is not UTF-8"),
        ("a: " + "[" * 500_000, "nested more than"),
        ('{"a":' * 100_000, "nested more than"),
        ('{"a":' * 40 + "1" + "}" * 40, "nested more than"),
        ("a: [" + "," * 1_000_000, "not YAML"),
        ("a: [" + "1," * 400_000 + "]", "more than 200000 values"),
        ("x" * (1 << 20) + "x", "over 1048576 bytes"),
        ("\N{SNOWMAN}" * 400_000, "over 1048576 bytes"),
        ("--- {a: 1}\n" * 101, "more than 100 documents"),
    ],
    ids=range(35),
)
def test_bad_text_is_refused_with_its_place(text: str | bytes, message: str) -> None:
    with pytest.raises(ManifestError) as caught:
        load_documents(text)
    (problem,) = caught.value.problems
    assert message in problem.message
    assert len(problem.message) < 300


def test_plain_scalars_are_those_of_json() -> None:
    text = "---\n{a: no, b: 1:30, c: 2026-01-02, d: ~, e: true, f: 0x10, g: 1.5, h: '1', "
    text += "i: 010, j: =, k: NaN, l: 1e5}"
    assert load_documents(text) == [
        {
            "a": "no",
            "b": "1:30",
            "c": "2026-01-02",
            "d": None,
            "e": True,
            "f": 16,
            "g": 1.5,
            "h": "1",
            "i": "010",
            "j": "=",
            "k": "NaN",
            "l": 1e5,
        }
    ]


def test_json_that_yaml_readers_refuse() -> None:
    assert load_documents('{\n\t"a": "\\ud83d\\ude00\\/"\n}') == [{"a": "\N{GRINNING FACE}/"}]


def test_several_documents_and_a_byte_order_mark() -> None:
    assert load_documents(b"\xef\xbb\xbfa: 1\n---\n# nothing\n---\nb: 2\n") == [{"a": 1}, {"b": 2}]


json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**53) + 1, 2**53 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | texts,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(texts, inner, max_size=4),
    max_leaves=MAX_DEPTH // 2,
)


@given(st.dictionaries(texts, json_values, max_size=4))
def test_any_json_object_reads_as_itself(value: dict[str, Any]) -> None:
    assert load_documents(json.dumps(value)) == [value]
    assert load_documents("# comment\n" + json.dumps(value, ensure_ascii=False)) == [value]


def loaded_or_error(text: str | bytes) -> list[Mapping[str, Any]] | ManifestError:
    try:
        return load_documents(text)
    except ManifestError as error:
        return error


@given(
    st.text(max_size=80)
    | st.binary(max_size=80)
    | st.text("{}[]:,-&*!|>'\"%@` \n\t#ab1?", max_size=30)
)
def test_any_text_loads_or_says_why(text: str | bytes) -> None:
    outcome = loaded_or_error(text)
    if isinstance(outcome, ManifestError):
        assert outcome.problems
    else:
        assert all(isinstance(loaded, dict) for loaded in outcome)
        json.dumps(outcome, allow_nan=False)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("2Gi", 2 << 30),
        ("500m", 0.5),
        ("1e3", 1000),
        ("1E", 10**18),
        ("1Ei", 1 << 60),
        (".5k", 500),
    ],
)
def test_quantities(text: str, value: float) -> None:
    assert parse_quantity(text) == value


@pytest.mark.parametrize("text", ["", "Gi", "1 Gi", "1gi", "--1", "1e", "1e999", "nan", "0x10"])
def test_bad_quantities(text: str) -> None:
    with pytest.raises(ValueError, match="quantity"):
        parse_quantity(text)


@given(st.integers(0, 1 << 62))
def test_byte_quantities_are_exact(count: int) -> None:
    assert parse_quantity(bytes_quantity(count)) == count

"""The form and the YAML are one document: each way and back again changes nothing else."""

import re
from pathlib import Path

import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from agents.domain.documents import load_documents
from agents.domain.problems import ManifestError
from goals.domain.manifest_form import BY_NAME, FIELDS, field_of, read_form, write_form
from goals.domain.manifest_text import ManifestText, UneditableText

ROOT = Path(__file__).resolve().parents[2]
WRITTEN = """\
# Asked by the shop team, see the runbook.
apiVersion: orchestration.ai/v1
kind: Goal
metadata:
  name: reduce-p99-latency   # keep it short
  labels: {team: 'shop', "tier": gold}   # flow
spec:
  # what counts
  objective: "p99 latency < 120 ms for /checkout"
  budget: 50 GPU-minutes  # agreed on Monday

  agents:
    - profiler # looks
    # the one that works
    - 'optimizer'
    - canary_deployer
  throttle:
    softLimitPercent: 70
  later: {unknown: [1, 2]}   # a field of tomorrow
  retries: 0x2
status:
  phase: Running
"""
FLOW = (
    "{apiVersion: orchestration.ai/v1, kind: Goal, metadata: {name: a},\n"
    ' spec: {agents: [a, "b"], retries: 1}}'
)
JSON = """\
{
  "kind": "Goal",
  "metadata": {"name": "a"},
  "spec": {
    "agents": ["a"],
    "budget": "1 USD"
  }
}
"""
TEXTS = [
    WRITTEN,
    WRITTEN.replace("\n", "\r\n"),
    FLOW,
    JSON,
    "kind: Goal\n",
    "kind: Goal\nspec:\nmetadata: {}",
]

UNSHOWN = ("name", "agents", "objective", "retries")

line = st.text(
    st.characters(
        exclude_categories=["Cs", "Cc"], exclude_characters="\u2028\u2029\x85\ufffe\uffff"
    ),
    max_size=20,
)
entry = line.map(str.strip).filter(bool).filter(lambda text: len(text.splitlines()) == 1)
key = st.from_regex(r"[a-z0-9A-Z./_-]{1,8}", fullmatch=True)


def values_of(kind: str, choices: tuple[str, ...]) -> st.SearchStrategy[str]:
    match kind:
        case "whole":
            return (
                st.integers(-5000, 5000).map(str)
                | line
                | st.sampled_from(["0x1F", "true", "~", '"5"', ".inf", "1e3"])
            )
        case "flag":
            return st.sampled_from(["", "true", "false"])
        case "choice":
            return st.sampled_from(["", *choices])
        case "lines":
            return st.lists(entry, max_size=6).map("\n".join)
        case "pairs":
            return st.dictionaries(key, entry, max_size=5).map(
                lambda found: "\n".join(f"{k}={v}" for k, v in found.items())
            )
        case _:
            return line


forms = st.fixed_dictionaries({}, optional={f.name: values_of(f.kind, f.choices) for f in FIELDS})


def shown(text: str) -> dict[str, str]:
    return {name: reading.value for name, reading in read_form(text).items()}


@pytest.mark.parametrize("text", TEXTS)
def test_a_form_that_nobody_touched_is_the_text_to_the_byte(text: str) -> None:
    assert write_form(text, shown(text)) == (text, [])


@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
@given(text=st.sampled_from(TEXTS), values=forms)
def test_from_the_form_to_yaml_and_back_is_the_same_form(text: str, values: dict[str, str]) -> None:
    written, problems = write_form(text, values)
    refused = {field_of(problem.path) for problem in problems}
    found = shown(written)
    before = shown(text)
    for name, value in values.items():
        expected = before[name] if name in refused else value
        assert found[name] == expected, (name, written)
    assert not refused, problems
    assert write_form(written, found) == (written, [])


@settings(max_examples=100, deadline=None, suppress_health_check=list(HealthCheck))
@given(values=forms)
def test_there_and_back_is_the_text_but_for_quotes_it_needed(values: dict[str, str]) -> None:
    """Undoing in the form what was done in it leaves comments, order and lines as they were."""
    kept = {
        name: v
        for name, v in values.items()
        if v and shown(WRITTEN)[name] and BY_NAME[name].kind != "pairs"
    }
    assume(kept)
    kept.pop("agents", None)
    written, _ = write_form(WRITTEN, kept)
    restored, _ = write_form(written, {name: shown(WRITTEN)[name] for name in kept})
    assert load_documents(restored) == load_documents(WRITTEN)
    assert re.sub("[\"']", "", restored) == re.sub("[\"']", "", WRITTEN)


@pytest.mark.parametrize(
    ("name", "value", "old", "new"),
    [
        (
            "name",
            "other",
            "  name: reduce-p99-latency   # keep it short",
            "  name: other   # keep it short",
        ),
        (
            "objective",
            'a "b" < 1',
            '  objective: "p99 latency < 120 ms for /checkout"',
            '  objective: "a \\"b\\" < 1"',
        ),
        (
            "budget",
            "2 USD",
            "  budget: 50 GPU-minutes  # agreed on Monday",
            "  budget: 2 USD  # agreed on Monday",
        ),
        ("retries", "5", "  retries: 0x2", "  retries: 5"),
        ("agents", "profiler\nit's\ncanary_deployer", "    - 'optimizer'", "    - 'it''s'"),
        (
            "labels",
            "team=ops\ntier=gold",
            "  labels: {team: 'shop', \"tier\": gold}   # flow",
            "  labels: {team: 'ops', \"tier\": gold}   # flow",
        ),
        ("throttle-softLimitPercent", "7", "    softLimitPercent: 70", "    softLimitPercent: 7"),
    ],
)
def test_one_field_changes_one_node(name: str, value: str, old: str, new: str) -> None:
    written, problems = write_form(WRITTEN, {**shown(WRITTEN), name: value})
    assert problems == []
    assert written == WRITTEN.replace(old, new)
    assert WRITTEN.count(old) == 1


def test_entries_come_and_go_with_their_lines() -> None:
    written, _ = write_form(WRITTEN, {"agents": "first\nprofiler\ncanary_deployer\nlast"})
    listed = written[written.index("  agents:") : written.index("  throttle:")]
    assert listed == (
        "  agents:\n    - first\n    - profiler # looks\n    # the one that works\n"
        "    - canary_deployer\n    - last\n"
    )


def test_what_is_emptied_goes_with_the_mapping_it_leaves_empty() -> None:
    written, _ = write_form(WRITTEN, {"throttle-softLimitPercent": "", "labels": ""})
    assert "throttle" not in written
    assert "labels" not in written
    assert "later: {unknown: [1, 2]}   # a field of tomorrow" in written


def test_json_stays_json() -> None:
    import json

    written, problems = write_form(JSON, {"sponsor": "ann", "agents": "a\nb", "labels": "x=y"})
    assert problems == []
    assert json.loads(written)["spec"] == {
        "agents": ["a", "b"],
        "budget": "1 USD",
        "sponsor": "ann",
    }
    assert json.loads(written)["metadata"] == {"name": "a", "labels": {"x": "y"}}


def test_what_the_form_cannot_show_is_left_alone() -> None:
    text = (
        "kind: Goal\nmetadata: {name: 5}\nspec:\n  agents: {a: 1}\n"
        "  objective: |\n    two\n    lines\n  retries: [1]\n"
    )
    readings = read_form(text)
    assert {name for name, one in readings.items() if one.why_not} == {
        "name",
        "agents",
        "objective",
        "retries",
    }
    assert write_form(text, dict.fromkeys(UNSHOWN, "changed")) == (text, [])


@pytest.mark.parametrize(("labels", "said"), [("a", "not key=value"), ("a=1\na=2", "given twice")])
def test_what_cannot_be_written_is_said_at_its_field(labels: str, said: str) -> None:
    written, (problem,) = write_form(WRITTEN, {"labels": labels, "name": "other"})
    assert problem.path == "metadata.labels"
    assert said in problem.message
    assert "name: other" in written


def test_a_text_with_several_documents_or_none_has_no_form() -> None:
    with pytest.raises(UneditableText, match="2 documents"):
        read_form("kind: Goal\n---\nkind: Goal\n")
    with pytest.raises(ManifestError):
        read_form("kind: [")
    with pytest.raises(UneditableText, match="indentation"):
        read_form("kind: Goal\nmetadata:\nname: a\nspec:\nobjective: b\n")


@pytest.mark.parametrize(
    ("path", "line", "column"),
    [
        ("metadata.name", 5, 9),
        ("spec.agents[1]", 15, 7),
        ('metadata.labels["tier"]', 6, 34),
        ("spec.later", 19, 3),
        ("spec.sponsor", 7, 1),
        ("nothing", 2, 1),
    ],
)
def test_a_problem_knows_its_line_and_column(path: str, line: int, column: int) -> None:
    from goals.domain.manifest_text import parse_path

    place = ManifestText(WRITTEN).place_of(parse_path(path))
    assert (place.line, place.column) == (line, column)


def test_the_examples_have_forms() -> None:
    for path in (ROOT / "examples").glob("*/goal.yaml"):
        text = path.read_text()
        assert write_form(text, shown(text)) == (text, [])
        assert shown(text)["name"] == load_documents(text)[0]["metadata"]["name"]

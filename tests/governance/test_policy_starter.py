"""The starter bundle: its own Rego tests pass, its digest is content, its rules judge as said."""

from dataclasses import replace

import pytest

from governance.policy.base import Outcome, PolicyPoint
from governance.policy.bundle import STARTER_DATA, bundle_digest, load_starter_bundle
from governance.policy.regorus import RegorusPolicy

TASKS = 10_000


@pytest.fixture(scope="module")
def engine():
    regorus = RegorusPolicy(workers=1)
    yield regorus
    regorus.close()


def graph(count: int) -> dict:
    return {
        "goal": {"uid": "u", "name": "g", "namespace": "n", "require_approval": False},
        "tasks": [
            {
                "name": f"task-{number}",
                "agent": {"name": "a", "role": "standard", "service_account": "a"},
                "gpus": 0,
                "depends_on": [f"task-{number - 1}"] if number else [],
            }
            for number in range(count)
        ],
        "cluster": {"gpus_total": 4, "gpus_in_use": 0},
    }


def test_every_rego_test_passes(engine):
    results = engine.run_tests(load_starter_bundle())
    assert [result for result in results if not result.passed] == []
    assert len(results) >= 50


def test_every_rule_file_has_tests(engine):
    results = engine.run_tests(load_starter_bundle())
    tested = {result.path for result in results}
    written = {module.path for module in load_starter_bundle().modules}
    assert {path for path in written if path.endswith("_test.rego")} == tested


def test_a_weaker_rule_fails_its_tests(engine):
    starter = load_starter_bundle()
    strict, lax = "gpus > experimental", "gpus > 9 + experimental"
    weaker = tuple(
        replace(module, source=module.source.replace(strict, lax)) for module in starter.modules
    )
    results = engine.run_tests(replace(starter, modules=weaker))
    failed = {result.rule.rpartition(".")[2] for result in results if not result.passed}
    assert failed == {"test_three_are_denied", "test_containers_are_summed"}


def test_digest_is_of_the_content_whatever_the_order():
    starter = load_starter_bundle()
    assert starter.digest == bundle_digest(tuple(reversed(starter.modules)), STARTER_DATA)
    assert starter.digest.startswith("sha256:")
    assert len(starter.digest) == len("sha256:") + 64
    changed = [*starter.modules[1:], replace(starter.modules[0], source="package x\n")]
    assert bundle_digest(changed, STARTER_DATA) != starter.digest
    assert bundle_digest(starter.modules, {}) != starter.digest


def test_every_point_is_judged(engine):
    starter = load_starter_bundle()
    for point in PolicyPoint:
        (verdict,) = engine.evaluate(starter, point, [{}])
        assert verdict.error == "", point


def test_large_graph_is_judged_and_one_bad_task_is_named(engine):
    document = graph(TASKS)
    document["tasks"][TASKS // 2]["agent"] = {"name": "b", "role": "standard"}
    (verdict,) = engine.evaluate(load_starter_bundle(), PolicyPoint.GRAPH, [document])
    (message,) = verdict.messages
    assert verdict.outcome is Outcome.DENY
    assert f'"task-{TASKS // 2}"' in message.text
    assert (message.path, message.line) == ("identity_graph.rego", 12)


def test_graph_of_bad_tasks_is_denied_within_bounds(engine):
    document = graph(TASKS)
    for task in document["tasks"]:
        task["agent"] = {"name": "b"}
    (verdict,) = engine.evaluate(load_starter_bundle(), PolicyPoint.GRAPH, [document])
    assert verdict.outcome is Outcome.DENY
    assert len(verdict.messages) == TASKS

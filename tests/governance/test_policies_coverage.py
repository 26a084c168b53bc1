"""Coverage of Rego tests: a line is covered when some test reached it, on the author's lines."""

import pytest

from governance.policy.base import PolicyModule
from governance.policy.bundle import build_bundle
from governance.policy.regorus import RegorusPolicy

RULES = """package clearance.graph

import rego.v1

import data.lib.names as n

limit := 5

deny contains msg if {
	input.x > limit
	msg := n.text("too many")
}

warn contains msg if {
	input.y
	msg := "never"
}
"""
NAMES = """package lib.names
text(x) = y { y := sprintf("%s!", [x]) }
unused(x) = y { y := x }
"""
TESTS = """package clearance.graph_test

import rego.v1

import data.clearance.graph

test_denied if {
	graph.deny with input as {"x": 9}
}

test_crashes if {
	graph.limit == loop(1)
}

loop(x) := loop2(x)
loop2(x) := loop(x)
"""
UNPACKAGED = 'deny[msg] {\n\tinput.kind == "Pod"\n\tmsg := "no"\n}\n'


@pytest.fixture(scope="module")
def engine():
    one = RegorusPolicy(workers=1)
    yield one
    one.close()


def covered(engine, **sources):
    modules = [PolicyModule(f"{name}.rego", text) for name, text in sources.items()]
    run = engine.cover_tests(build_bundle(modules))
    return run.results, {file.path: file for file in run.coverage}


def test_lines_that_a_test_reached_and_lines_that_none_did(engine):
    source = TESTS.partition("test_crashes")[0]
    results, files = covered(engine, graph=RULES, names=NAMES, graph_test=source)
    assert [result.passed for result in results] == [True]
    assert files["graph.rego"].covered == (7, 9, 10, 11)
    assert files["graph.rego"].missed == (14, 15, 16)
    assert (files["names.rego"].covered, files["names.rego"].missed) == ((2,), (3,))


def test_a_test_that_ends_the_sandbox_takes_no_other_coverage_with_it(engine):
    results, files = covered(engine, graph=RULES, names=NAMES, graph_test=TESTS)
    assert {result.rule.rpartition(".")[2]: result.passed for result in results} == {
        "test_denied": True,
        "test_crashes": False,
    }
    assert 10 in files["graph.rego"].covered


def test_lines_are_the_authors_where_a_package_line_was_added(engine):
    test = (
        "package w_test\n\nimport rego.v1\n\ntest_a if "
        '{ data.clearance.workload.deny with input as {"kind": "Pod"} }\n'
    )
    _, files = covered(engine, bare=UNPACKAGED, w_test=test)
    assert files["bare.rego"].covered == (1, 2, 3)


def test_results_are_those_without_coverage(engine):
    bundle = build_bundle(
        [
            PolicyModule("graph.rego", RULES),
            PolicyModule("names.rego", NAMES),
            PolicyModule("g_test.rego", TESTS),
        ]
    )
    plain = [(r.rule, r.passed) for r in engine.run_tests(bundle)]
    assert plain == [(r.rule, r.passed) for r in engine.cover_tests(bundle).results]

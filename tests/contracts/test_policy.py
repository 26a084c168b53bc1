"""One suite for every policy engine: the twin, regorus in its sandbox, and a real OPA."""

import json
import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from django.core.exceptions import ImproperlyConfigured

from governance.policy import get_policy_engine, policy_engine_from
from governance.policy.base import (
    Diagnostic,
    Outcome,
    PolicyBundle,
    PolicyEngine,
    PolicyError,
    PolicyModule,
    PolicyPoint,
)
from governance.policy.bundle import build_bundle, load_starter_bundle
from governance.policy.memory import MemoryPolicy, refuse
from governance.policy.opa import OpaPolicy
from governance.policy.regorus import RegorusPolicy

pytestmark = pytest.mark.contract

SEED = """# OPA/Rego example
deny[msg] {
input.kind == "Pod"
input.metadata.labels.agent_role == "experimental"
input.spec.containers[_].resources.limits.gpu > 2
msg := "experimental agents limited to 2 GPUs"
}
"""
V1 = """package clearance.workload

import rego.v1

limit := data.limits.gpus

deny contains msg if {
	input.kind == "Pod"
	msg := "first"
}

deny contains msg if {
	some container in input.spec.containers
	container.resources.limits.gpu > limit
	msg := sprintf("more than %v", [limit])
}

warn contains "has no owner" if not input.metadata.labels.owner

require_approval contains "is privileged" if input.spec.hostPID
"""
START_SECONDS = 15.0


def pod(*, gpu: object = None, role: str = "experimental", **spec: object) -> dict[str, object]:
    limits = {} if gpu is None else {"limits": {"nvidia.com/gpu": gpu}}
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "p", "labels": {"agent_role": role, "agent_id": "a"}},
        "spec": {
            "serviceAccountName": "a",
            "containers": [{"name": "c", "image": "app:v1", "resources": limits}],
            **spec,
        },
    }


def bundle(source: str, *, path: str = "policy.rego", **data: object) -> PolicyBundle:
    return build_bundle([PolicyModule(path, source)], data=data)


def opa_program() -> str:
    cached = Path.home() / ".cache/clearance/bin/opa"
    found = os.environ.get("OPA_BIN") or shutil.which("opa")
    if not found and cached.exists():
        found = str(cached)
    if not found:
        pytest.skip("needs OPA: set OPA_BIN or put opa on PATH")
    return found


@pytest.fixture(scope="module")
def opa_url() -> Iterator[str]:
    program = opa_program()
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [program, "run", "--server", f"--addr=127.0.0.1:{port}", "--log-level=error"]
    quiet = subprocess.DEVNULL
    with subprocess.Popen([*command, "--disable-telemetry"], stdout=quiet, stderr=quiet) as server:
        try:
            url = f"http://127.0.0.1:{port}"
            deadline = time.monotonic() + START_SECONDS
            while not _is_healthy(url):
                assert time.monotonic() < deadline, "OPA did not start"
                time.sleep(0.05)
            yield url
        finally:
            server.kill()


def _is_healthy(url: str) -> bool:
    try:
        return httpx.get(f"{url}/health", trust_env=False).is_success
    except httpx.TransportError:
        return False


@pytest.fixture(scope="module", params=["regorus", "opa"])
def rego(request: pytest.FixtureRequest) -> Iterator[PolicyEngine]:
    url = request.getfixturevalue("opa_url") if request.param == "opa" else "regorus:?workers=1"
    engine = policy_engine_from(url)
    yield engine
    engine.close()


@pytest.fixture(params=["memory", "regorus", "opa"])
def engine(request: pytest.FixtureRequest) -> Iterator[PolicyEngine]:
    if request.param == "memory":
        twin = MemoryPolicy()
        twin.script(PolicyPoint.WORKLOAD, lambda _b, _p, given: _seed_verdict(given))
        yield twin
        return
    url = request.getfixturevalue("opa_url") if request.param == "opa" else "regorus:?workers=1"
    real = policy_engine_from(url)
    yield real
    real.close()


def _seed_verdict(given):
    limits = given["spec"]["containers"][0]["resources"].get("limits", {})
    allowed = int(limits.get("nvidia.com/gpu", 0)) <= 2
    return refuse("allowed", outcome=Outcome.ALLOW) if allowed else refuse("limited to 2 GPUs")


# --- Every engine -------------------------------------------------------------------------------


def test_one_verdict_per_input_in_order(engine):
    inputs = [pod(gpu="3"), pod(gpu="1"), pod(gpu=4), pod()]
    verdicts = engine.evaluate(bundle(SEED), PolicyPoint.WORKLOAD, inputs)
    assert [verdict.outcome for verdict in verdicts] == [
        Outcome.DENY,
        Outcome.ALLOW,
        Outcome.DENY,
        Outcome.ALLOW,
    ]


def test_input_that_is_no_json_denies_alone(engine):
    inputs = [pod(), {"kind": {1, 2}}, {"gpus": float("nan")}, pod()]
    verdicts = engine.evaluate(bundle(SEED), PolicyPoint.WORKLOAD, inputs)
    assert [verdict.error for verdict in verdicts] == ["", "invalid", "invalid", ""]
    assert verdicts[1].outcome is Outcome.DENY
    assert "cannot be judged" in verdicts[1].messages[0].text


def test_empty_bundle_denies(engine):
    (verdict,) = engine.evaluate(build_bundle([]), PolicyPoint.WORKLOAD, [pod()])
    assert (verdict.outcome, verdict.error) == (Outcome.DENY, "missing")


def test_no_inputs_no_verdicts(engine):
    assert list(engine.evaluate(bundle(SEED), PolicyPoint.WORKLOAD, [])) == []


def test_closed_engine_may_be_used_again(engine):
    engine.close()
    (verdict,) = engine.evaluate(bundle(SEED), PolicyPoint.WORKLOAD, [pod(gpu=3)])
    assert verdict.outcome is Outcome.DENY
    assert verdict.error == ""


# --- The twin -----------------------------------------------------------------------------------


def test_twin_told_to_fail_denies_once():
    twin = MemoryPolicy()
    twin.fail_next(RuntimeError("engine gone"))
    (first,) = twin.evaluate(bundle(SEED), PolicyPoint.WORKLOAD, [pod()])
    (second,) = twin.evaluate(bundle(SEED), PolicyPoint.WORKLOAD, [pod()])
    assert (first.outcome, first.error) == (Outcome.DENY, "crash")
    assert second.outcome is Outcome.ALLOW
    twin.fail_next(RuntimeError("engine gone"))
    with pytest.raises(PolicyError, match="engine gone"):
        twin.check(bundle(SEED))


def test_twin_denies_a_bundle_with_diagnostics():
    twin = MemoryPolicy()
    broken = bundle(SEED)
    twin.script_check(broken, [Diagnostic("policy.rego", 1, 1, "does not parse")])
    (verdict,) = twin.evaluate(broken, PolicyPoint.WORKLOAD, [pod()])
    assert (verdict.outcome, verdict.error) == (Outcome.DENY, "invalid")


# --- Engines that read Rego -----------------------------------------------------------------------


@pytest.mark.parametrize("gpu", [3, "3"])
def test_seed_text_runs_unmodified(rego, gpu):
    (verdict,) = rego.evaluate(bundle(SEED, path="seed.rego"), PolicyPoint.WORKLOAD, [pod(gpu=gpu)])
    (message,) = verdict.messages
    assert verdict.outcome is Outcome.DENY
    assert message.text == "experimental agents limited to 2 GPUs"
    assert (message.path, message.line) == ("seed.rego", 2)
    assert message.rule == "clearance.workload.deny"


def test_seed_text_allows_one_gpu_given_as_text(rego):
    (verdict,) = rego.evaluate(bundle(SEED), PolicyPoint.WORKLOAD, [pod(gpu="1")])
    assert verdict.outcome is Outcome.ALLOW
    assert verdict.messages == ()


def test_every_clause_carries_its_own_line(rego):
    given = pod(gpu=5, hostPID=True)
    (verdict,) = rego.evaluate(bundle(V1, limits={"gpus": 2}), PolicyPoint.WORKLOAD, [given])
    said = [(message.outcome.value, message.line, message.text) for message in verdict.messages]
    assert verdict.outcome is Outcome.DENY
    assert said == [
        ("deny", 7, "first"),
        ("deny", 12, "more than 2"),
        ("require_approval", 20, "is privileged"),
        ("warn", 18, "has no owner"),
    ]


def test_worst_message_wins(rego):
    source = V1.replace('msg := "first"', 'input.never\n\tmsg := "first"')
    given = pod(hostPID=True)
    (verdict,) = rego.evaluate(bundle(source, limits={"gpus": 2}), PolicyPoint.WORKLOAD, [given])
    assert verdict.outcome is Outcome.REQUIRE_APPROVAL


@pytest.mark.parametrize("kind", ["Job", "Deployment", "CronJob"])
def test_pod_inside_a_workload_is_judged(rego, kind):
    inner = pod(gpu="3")
    template = {"metadata": inner["metadata"], "spec": inner["spec"]}
    spec = (
        {"jobTemplate": {"spec": {"template": template}}}
        if kind == "CronJob"
        else {"template": template}
    )
    given = {"apiVersion": "batch/v1", "kind": kind, "metadata": {"name": "w"}, "spec": spec}
    (verdict,) = rego.evaluate(bundle(SEED), PolicyPoint.WORKLOAD, [given])
    assert [message.text for message in verdict.messages] == [
        "experimental agents limited to 2 GPUs"
    ]


def test_pods_in_a_list_are_judged(rego):
    given = {"apiVersion": "v1", "kind": "List", "items": [pod(), pod(gpu=3)]}
    (verdict,) = rego.evaluate(bundle(SEED), PolicyPoint.WORKLOAD, [given])
    assert verdict.outcome is Outcome.DENY


def test_gatekeeper_style_runs(rego):
    source = """package k8srequiredowner

violation[{"msg": msg, "details": {}}] {
	not input.review.object.metadata.labels[input.parameters.label]
	input.review.kind.kind == "Pod"
	msg := sprintf("set the label %v", [input.parameters.label])
}
"""
    owned = bundle(source, parameters={"label": "owner"})
    (verdict,) = rego.evaluate(owned, PolicyPoint.WORKLOAD, [pod()])
    (message,) = verdict.messages
    assert (message.outcome, message.text, message.line) == (
        Outcome.DENY,
        "set the label owner",
        3,
    )


def test_kube_mgmt_style_and_admission_review_run(rego):
    source = """package kubernetes.admission

deny[msg] {
	input.request.kind.kind == "Pod"
	input.request.object.spec.containers[_].resources.limits.gpu > 2
	msg := concat(" ", ["operation", input.request.operation])
}
"""
    review = {
        "apiVersion": "admission.k8s.io/v1",
        "kind": "AdmissionReview",
        "request": {
            "uid": "1",
            "operation": "UPDATE",
            "kind": {"kind": "Pod"},
            "object": pod(gpu=3),
        },
    }
    verdicts = rego.evaluate(bundle(source), PolicyPoint.WORKLOAD, [pod(gpu=3), review])
    assert [verdict.messages[0].text for verdict in verdicts] == [
        "operation CREATE",
        "operation UPDATE",
    ]


def test_two_files_of_one_package_and_an_import(rego):
    first = "package clearance.graph\n\nimport rego.v1\n\nimport data.library\n\n"
    modules = [
        PolicyModule("a.rego", first + "deny contains msg if some msg in library.complaints\n"),
        PolicyModule(
            "b.rego",
            "package clearance.graph\nimport rego.v1\n\ndeny contains name\n\nname := input.n\n",
        ),
        PolicyModule("lib0.rego", "package library\n\ncomplaints[m] { input.never; m := 1 }\n"),
        PolicyModule(
            "lib1.rego", "package library\n\ncomplaints[m] { m := word }\n\nword = input.word\n"
        ),
    ]
    given = {"n": "from b", "word": "from library"}
    (verdict,) = rego.evaluate(build_bundle(modules), PolicyPoint.GRAPH, [given])
    said = [(message.path, message.line, message.text) for message in verdict.messages]
    assert said == [("a.rego", 7, "from library"), ("b.rego", 4, "from b")]


def test_function_of_a_later_file_is_found(rego):
    modules = [
        PolicyModule("a.rego", "package clearance.graph\n\ndeny[m] { m := data.z.f(input.x) }\n"),
        PolicyModule("z.rego", 'package z\n\nf(x) = y { y := concat("", ["<", x, ">"]) }\n'),
    ]
    (verdict,) = rego.evaluate(build_bundle(modules), PolicyPoint.GRAPH, [{"x": "q"}])
    assert [message.text for message in verdict.messages] == ["<q>"]


def test_modules_of_other_points_are_not_asked(rego):
    graph_only = bundle('package clearance.graph\ndeny["no"] { true }\n')
    (graph,) = rego.evaluate(graph_only, PolicyPoint.GRAPH, [{}])
    (release,) = rego.evaluate(graph_only, PolicyPoint.RELEASE, [{}])
    assert (graph.outcome, graph.error) == (Outcome.DENY, "")
    assert (release.outcome, release.error) == (Outcome.DENY, "missing")
    assert "clearance.release" in release.messages[0].text


def test_builtin_error_denies_and_names_the_rule(rego):
    source = """package clearance.release

import rego.v1

deny contains "fine" if input.bad

deny contains "never said" if {
	to_number(input.size) > 3
}
"""
    inputs = [{"size": "many"}, {"size": "5"}, {"size": "2"}]
    bad, said, passed = rego.evaluate(bundle(source), PolicyPoint.RELEASE, inputs)
    assert (bad.outcome, bad.error) == (Outcome.DENY, "invalid")
    assert "clearance.release.deny could not be evaluated" in bad.messages[0].text
    assert "policy.rego:8" in bad.messages[0].text
    assert bad.messages[0].line == 7
    assert [message.text for message in said.messages] == ["never said"]
    assert passed.outcome is Outcome.ALLOW


def test_broken_bundle_denies_and_check_says_where(rego):
    broken = bundle('package clearance.graph\n\ndeny["x"] { true }\n\n  foo := )\n')
    (diagnostic,) = rego.check(broken)
    (verdict,) = rego.evaluate(broken, PolicyPoint.GRAPH, [{}])
    assert (diagnostic.path, diagnostic.line) == ("policy.rego", 5)
    assert diagnostic.column > 1
    assert (verdict.outcome, verdict.error) == (Outcome.DENY, "invalid")
    assert "policy.rego:5" in verdict.messages[0].text


def test_check_keeps_lines_of_a_module_without_package(rego):
    (diagnostic,) = rego.check(bundle(SEED + "deny[msg] { msg := }\n"))
    assert diagnostic.line == 8


def test_check_names_unknown_functions_and_variables(rego):
    source = "package clearance.graph\nimport rego.v1\n\nx if input.never == lib.no_such(1)\n"
    (unknown,) = rego.check(bundle(source))
    (unsafe,) = rego.check(bundle("package p\n\nx { y > 1 }\n"))
    assert (unknown.line, unknown.text) == (4, "unknown function lib.no_such")
    assert unsafe.line == 3
    assert "y" in unsafe.text


def test_good_bundle_has_no_diagnostics(rego):
    assert rego.check(load_starter_bundle()) == []


def test_run_tests_tells_passed_from_failed(rego):
    source = """package clearance.graph

deny["no"] { input.bad }

test_denies { deny["no"] with input as {"bad": true} }

test_wrong { deny["no"] with input as {} }
"""
    results = {result.rule: result for result in rego.run_tests(bundle(source))}
    assert results["clearance.graph.test_denies"].passed
    assert not results["clearance.graph.test_wrong"].passed
    assert results["clearance.graph.test_wrong"].line == 7


def test_run_tests_of_a_broken_bundle_raises(rego):
    with pytest.raises(PolicyError, match="does not compile"):
        rego.run_tests(bundle("package p\n\nx {"))


def test_unreadable_quantity_denies_and_names_the_field(rego):
    bad, good = rego.evaluate(bundle(SEED), PolicyPoint.WORKLOAD, [pod(gpu="lots"), pod(gpu=1)])
    assert (bad.outcome, bad.error) == (Outcome.DENY, "invalid")
    assert "spec.containers[0].resources.limits.nvidia.com/gpu" in bad.messages[0].text
    assert good.outcome is Outcome.ALLOW


def test_same_digest_never_picks_anothers_policy(rego):
    one = PolicyBundle("sha256:same", (PolicyModule("a.rego", SEED),))
    other = PolicyBundle("sha256:same", (PolicyModule("a.rego", SEED.replace("> 2", "> 9")),))
    first = rego.evaluate(one, PolicyPoint.WORKLOAD, [pod(gpu=3)])
    second = rego.evaluate(other, PolicyPoint.WORKLOAD, [pod(gpu=3)])
    assert [first[0].outcome, second[0].outcome] == [Outcome.DENY, Outcome.ALLOW]


# --- OPA alone ----------------------------------------------------------------------------------


def test_opa_and_regorus_agree_on_the_starter_bundle(opa_url):
    starter = load_starter_bundle()
    opa, regorus = policy_engine_from(opa_url), RegorusPolicy(workers=1)
    cases = json.loads((Path(__file__).parent / "policy_cases.json").read_text())
    try:
        for point in PolicyPoint:
            inputs = cases[point.value]
            for given, left, right in zip(
                inputs,
                opa.evaluate(starter, point, inputs),
                regorus.evaluate(starter, point, inputs),
                strict=True,
            ):
                assert (left.outcome, left.messages) == (right.outcome, right.messages), given
                assert left.error == right.error == ""
    finally:
        opa.close()
        regorus.close()


def test_opa_that_forgot_the_bundle_is_told_again(opa_url):
    engine = OpaPolicy(url=opa_url)
    try:
        engine.evaluate(bundle(SEED), PolicyPoint.WORKLOAD, [pod()])
        with httpx.Client(base_url=opa_url, trust_env=False) as client:
            for policy in client.get("/v1/policies").json()["result"]:
                if "points.rego" in policy["id"]:
                    client.delete(f"/v1/policies/{policy['id']}").raise_for_status()
        (verdict,) = engine.evaluate(bundle(SEED), PolicyPoint.WORKLOAD, [pod(gpu=3)])
    finally:
        engine.close()
    assert verdict.error == ""
    assert verdict.messages[0].line == 2


def test_opa_down_denies():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    engine = OpaPolicy(url=f"http://127.0.0.1:{port}")
    try:
        (verdict,) = engine.evaluate(bundle(SEED), PolicyPoint.WORKLOAD, [pod()])
    finally:
        engine.close()
    assert (verdict.outcome, verdict.error) == (Outcome.DENY, "crash")
    assert "cannot be reached" in verdict.messages[0].text


# --- The URL ------------------------------------------------------------------------------------


@pytest.mark.parametrize("url", ["", "ftp://x", "regorus:?speed=1", "regorus:?workers=many"])
def test_unknown_url_is_refused_by_name(url):
    with pytest.raises(ValueError, match="POLICY_URL must be regorus:"):
        policy_engine_from(url)


def test_known_urls():
    assert isinstance(policy_engine_from("regorus:?workers=3&timeout_seconds=1.5"), RegorusPolicy)
    assert isinstance(policy_engine_from("http://127.0.0.1:8181"), OpaPolicy)
    assert isinstance(policy_engine_from("memory:"), MemoryPolicy)


def test_engine_of_the_process_is_the_one_settings_name(settings):
    get_policy_engine.cache_clear()
    settings.POLICY_URL = "memory:"
    try:
        assert isinstance(get_policy_engine(), MemoryPolicy)
        assert get_policy_engine() is get_policy_engine()
        get_policy_engine.cache_clear()
        settings.POLICY_URL = "gopher:"
        with pytest.raises(ImproperlyConfigured, match="POLICY_URL must be regorus:"):
            get_policy_engine()
    finally:
        get_policy_engine.cache_clear()

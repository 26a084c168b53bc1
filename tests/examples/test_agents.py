"""The agents as real processes: from a slow checkout to a fast one, and every way back."""

import importlib.util
import json
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from examples.checkout.checkout_risk.load import service_state
from examples.checkout.checkout_risk.model import RiskModel
from tests.examples.conftest import Program, Start
from tests.examples.console_stand_in import ConsoleStandIn

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        importlib.util.find_spec("clearance_sdk") is None,
        reason="needs clearance_sdk: pip install --no-deps ./agents/sdk",
    ),
]

Run = Callable[..., Program]


@pytest.fixture
def shop_url(start: Start, console: ConsoleStandIn) -> Callable[[], str]:
    """Start the service once its first model is released; gives its URL when it serves."""

    def begin() -> str:
        program = start("service.py", CLEARANCE_API_URL=console.url, CHECKOUT_PORT="0")
        url = program.wait_for("listening on").split()[-1]
        deadline = time.monotonic() + 20
        while service_state(url)["production"] is None:
            assert time.monotonic() < deadline, program.lines
            time.sleep(0.1)
        return url

    return begin


@pytest.fixture
def agent(start: Start, console: ConsoleStandIn) -> Callable[..., Program]:
    """Start an agent as an attempt of its task."""

    def begin(name: str, url: str, **environment: str) -> Program:
        given = {**console.environment(name), "CHECKOUT_URL": url, **environment}
        return start(f"{name}.py", **given)

    return begin


def attributes(span: Any) -> dict[str, Any]:
    """A span's attributes as plain values."""
    kinds = ("string_value", "double_value", "int_value", "bool_value")
    found = {}
    for item in span.attributes:
        kind = item.value.WhichOneof("value")
        if kind in kinds:
            found[item.key] = getattr(item.value, kind)
    return found


def medium(heavy: RiskModel, copies: int = 96) -> RiskModel:
    """The heavy model with fewer copies: slower than a distilled one, quick enough for a test."""
    return RiskModel(heavy.networks, heavy.centre, heavy.spread, heavy.jitter[:copies])


def offer(console: ConsoleStandIn, digest: str) -> None:
    """Hand a candidate to the deployer, as the optimizer would."""
    value = {"is_new": True, "agreement": 0.98}
    console.inputs = {"candidate-model": {"value": value, "digest": digest, "span_id": "ab" * 8}}


def test_three_agents_make_the_checkout_fast(
    console: ConsoleStandIn, shop_url: Callable[[], str], agent: Run, heavy_file: Path
) -> None:
    slow = console.push(heavy_file.read_bytes())
    console.release("production", slow)
    url = shop_url()
    for name in ("profiler", "optimizer", "canary_deployer"):
        program = agent(name, url, CHECKOUT_LOAD_SECONDS="6")
        assert program.finish(seconds=200) == 0, program.lines
        console.hand_on()

    profile = console.outputs["latency-profile"]
    candidate = console.outputs["candidate-model"]
    rollout = console.outputs["rollout"]["value"]
    assert profile["digest"] == slow
    assert profile["value"]["samples"] >= 50
    assert rollout["verdict"] == "better"
    assert rollout["p99_ms"] < profile["value"]["p99_ms"] / 2
    assert console.current("production") == candidate["digest"] != slow
    assert service_state(url)["production"] == candidate["digest"]

    # The release rests on the evidence, and the evidence is about these two models.
    proof = console.evidence[-1]
    assert set(proof["about"]) == {slow, candidate["digest"]}
    assert proof["predicate"]["verdict"] == "better"
    assert proof["predicate"]["pairs"] >= 50
    assert console.releases[-1]["evidence"]
    _chain_is_whole(console)


def _chain_is_whole(console: ConsoleStandIn) -> None:
    """Walking from the release upwards ends at the profiler's first observation."""
    names, at = [], console.spans_named("release_model")[0]
    while at is not None:
        names.append(attributes(at).get("observation.metric") or at.name)
        # An action names what it acted on, an observation the action that measured it.
        at = console.spans.get(attributes(at).get("action.parent_observation", ""))
        assert len(names) < 30
    assert names[:3] == ["release_model", "latency", "compare_models"]
    assert "distil_model" in names
    assert names[-2:] == ["drive_load", "availability"]
    for span in console.spans.values():
        found = attributes(span)
        if "action.confidence" in found:
            assert 0.0 <= found["action.confidence"] <= 1.0
            assert found["action.parent_observation"] in console.spans
        assert found["agent.id"] in ("profiler", "optimizer", "canary_deployer")


def test_a_model_that_is_wrong_too_often_is_rolled_back(
    console: ConsoleStandIn,
    shop_url: Callable[[], str],
    agent: Run,
    heavy: RiskModel,
    small: RiskModel,
    tmp_path: Path,
) -> None:
    old = console.push(medium(heavy).save(tmp_path / "old.npz").read_bytes())
    console.release("production", old)
    network = small.networks[0]
    fearful = type(network)(network.layers, network.readout, network.offset + 3.0)
    worse = RiskModel((fearful,), small.centre, small.spread, small.jitter)
    new = console.push(worse.save(tmp_path / "worse.npz").read_bytes())
    offer(console, new)
    program = agent("canary_deployer", shop_url(), CHECKOUT_LOAD_SECONDS="3")
    assert program.finish(seconds=60) == 0, program.lines
    assert console.outputs["rollout"]["value"]["verdict"] == "worse"
    assert console.current("production") == old
    assert [r["digest"] for r in console.releases if r["environment"] == "canary"] == [new, old]
    assert console.evidence[-1]["predicate"]["verdict"] == "worse"
    assert "points of accuracy" in console.releases[-1]["reason"]


def test_a_release_that_policy_denies_ends_the_canary_and_the_attempt(
    console: ConsoleStandIn,
    shop_url: Callable[[], str],
    agent: Run,
    heavy: RiskModel,
    small_file: Path,
    tmp_path: Path,
) -> None:
    old = console.push(medium(heavy).save(tmp_path / "old.npz").read_bytes())
    new = console.push(small_file.read_bytes())
    console.release("production", old)
    console.denied.add("production")
    offer(console, new)
    program = agent("canary_deployer", shop_url(), CHECKOUT_LOAD_SECONDS="3")
    assert program.finish(seconds=60) == 1, program.lines
    assert console.current("production") == old
    assert console.current("canary") == old
    assert program.lines[-1].startswith("failed: ")
    assert "Policy denies the release" in program.lines[-1]
    assert not any("Traceback" in line for line in program.lines)


def test_the_optimizer_leaves_a_fast_model_alone(
    console: ConsoleStandIn, agent: Run, small_file: Path
) -> None:
    digest = console.push(small_file.read_bytes())
    value = {"p99_ms": 12.0, "chance_too_slow": 0.0}
    profile = {"value": value, "digest": digest, "span_id": "cd" * 8}
    console.inputs = {"latency-profile": profile}
    assert agent("optimizer", "http://127.0.0.1:9").finish(seconds=30) == 0
    produced = console.outputs["candidate-model"]
    assert (produced["digest"], produced["value"]["is_new"]) == (digest, False)
    assert len(console.blobs) == 1


def test_the_fine_tuner_goes_on_after_a_stop_and_an_outage_and_ends_on_sigterm(
    console: ConsoleStandIn, agent: Run
) -> None:
    program = agent("fine_tuner", "")
    first = _step(program.wait_for(r"^step \d+"))
    program.process.send_signal(signal.SIGSTOP)
    program.process.send_signal(signal.SIGCONT)
    second = _step(program.wait_for(r"^step \d+"))
    assert second > first  # the counter is in memory only: a new process would begin again
    console.close()
    back = threading.Timer(3.0, console.open)  # longer than a round of training
    back.start()
    try:
        third = [_step(program.wait_for(r"^step \d+", seconds=60)) for _ in range(3)]
    finally:
        back.join()
    assert second < third[0] < third[1] < third[2]
    program.process.terminate()
    assert program.finish(seconds=15) == 128 + signal.SIGTERM
    assert not any("Traceback" in line for line in program.lines), program.lines


def _step(line: str) -> int:
    return int(line.split()[1])


def test_an_agent_waits_out_a_console_that_is_away_at_its_start(
    console: ConsoleStandIn, agent: Run, small_file: Path
) -> None:
    digest = console.push(small_file.read_bytes())
    value = {"p99_ms": 12.0, "chance_too_slow": 0.0}
    profile = {"value": value, "digest": digest, "span_id": "cd" * 8}
    console.inputs = {"latency-profile": profile}
    console.close()
    program = agent("optimizer", "")
    back = threading.Timer(2.0, console.open)
    back.start()
    try:
        assert program.finish(seconds=40) == 0, program.lines
    finally:
        back.join()
    assert json.dumps(console.outputs["candidate-model"]["value"])

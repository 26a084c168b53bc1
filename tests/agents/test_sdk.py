"""The SDK against a control plane on real HTTP."""

import datetime as dt
import hashlib
import io
import os
import subprocess
import sys
import tarfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from agents.sdk import clearance_sdk as clearance
from tests.agents.sdk_control_plane import ControlPlane

SDK = Path(__file__).resolve().parents[2] / "agents" / "sdk"
PATIENCE_SECONDS = 20


@pytest.fixture
def plane(monkeypatch: pytest.MonkeyPatch) -> Iterator[ControlPlane]:
    made = ControlPlane()
    made.start()
    for name, value in made.environment().items():
        monkeypatch.setenv(name, value)
    yield made
    made.stop()


def until(is_so: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not is_so():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.01)


def test_an_action_names_what_it_acted_on(plane: ControlPlane) -> None:
    with clearance.attempt() as run:
        seen = run.observe(
            "latency", aggregate="p99", value=312.4, unit="ms", selector="/checkout", samples=500
        )
        with run.action("tune_model", because=seen, confidence=0.87) as act:
            act.set_attribute("k", "v")
            act.changed("checkout/production", before="sha256:1", after="sha256:2")
            act.used_tokens("gpt-4o-mini", input_tokens=10, output_tokens=5)
            act.used_tokens("gpt-4o-mini", input_tokens=1, output_tokens=2)
        with run.action("release", because=act, confidence=1):
            pass
        run.flush()
        assert len(plane.spans()) == 3
    tuned = plane.span("tune_model")
    assert tuned.span_id == act.span_id
    assert tuned.attributes == {
        "agent.id": "optimizer", "goal.id": "goal-1", "task.id": "optimizer",
        "action.parent_observation": seen.span_id, "action.confidence": 0.87, "k": "v",
        "change.target": "checkout/production", "change.from": "sha256:1",
        "change.to": "sha256:2", "gen_ai.request.model": "gpt-4o-mini",
        "gen_ai.usage.input_tokens": 11, "gen_ai.usage.output_tokens": 7,
    }  # fmt: skip
    release = plane.span("release")
    chain = plane.telemetry.causes("default", release.span_id)
    assert [span.name for span in chain] == ["release", "tune_model", "observe"]
    [measured] = plane.telemetry.observations(
        "default", "goal-1", metric="latency", aggregate="p99", selector="/checkout"
    )
    assert (measured.value, measured.unit, measured.samples) == (312.4, "ms", 500)


def test_the_join_token_is_used_once_and_leaves_the_environment(plane: ControlPlane) -> None:
    with clearance.attempt() as run:
        assert "CLEARANCE_JOIN_TOKEN" not in os.environ
        assert run.identity.documents.spiffe_id.startswith("spiffe://clearance.local/")
        assert "PRIVATE KEY" in run.identity.private_key_pem
    os.environ["CLEARANCE_JOIN_TOKEN"] = "join-me"
    with pytest.raises(clearance.Revoked, match="used already"), clearance.attempt():
        pytest.fail("the token was accepted twice")


def test_a_pod_proves_itself_by_its_service_account_token(
    plane: ControlPlane, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delenv("CLEARANCE_JOIN_TOKEN")
    monkeypatch.setenv("CLEARANCE_IDENTITY_TOKEN_FILE", str(tmp_path / "token"))
    with (
        pytest.raises(clearance.ClearanceError, match="IDENTITY_TOKEN_FILE"),
        clearance.attempt(),
    ):
        pytest.fail("there is no token")
    (tmp_path / "token").write_text("of-this-pod\n")
    with clearance.attempt() as run:
        assert run.identity.documents.spiffe_id.startswith("spiffe://clearance.local/")


def test_a_span_is_seen_within_a_second_without_a_flush(plane: ControlPlane) -> None:
    with clearance.attempt() as run:
        run.observe("latency", aggregate="p50", value=1, unit="ms")
        began = time.monotonic()
        until(lambda: len(plane.spans()) == 1)
        assert time.monotonic() - began < 1


def test_what_the_block_raises_is_recorded_and_its_spans_are_sent(plane: ControlPlane) -> None:
    with (
        pytest.raises(RuntimeError, match="boom"),
        clearance.attempt() as run,
        run.action("tune_model", because="c" * 16, confidence=0.5),
    ):
        raise RuntimeError("boom")
    failed = plane.span("tune_model")
    assert failed.status == "error"
    assert "boom" in failed.status_message


def test_the_module_speaks_for_the_current_attempt(plane: ControlPlane) -> None:
    with pytest.raises(clearance.ClearanceError, match="no attempt"):
        clearance.observe("x", aggregate="last", value=1, unit="1")
    with clearance.attempt():
        seen = clearance.observe("x", aggregate="last", value=1, unit="1")
        with clearance.action("do", because=seen, confidence=0):
            pass
    assert plane.span("do").parent_observation == seen.span_id


@pytest.mark.parametrize("confidence", [-0.1, 1.1, float("nan")])
def test_a_confidence_out_of_range_is_refused_at_once(
    plane: ControlPlane, confidence: float
) -> None:
    with clearance.attempt() as run:
        action = run.action("do", because=None, confidence=confidence)
        with pytest.raises(ValueError, match="confidence"), action:
            pytest.fail("the action began")
        with pytest.raises(ValueError, match="because"):
            run.produce("x", value=1, because="not-an-id")
        with pytest.raises(ValueError, match="finite"):
            run.observe("x", aggregate="last", value=float("nan"), unit="1")


def test_the_models_it_may_use(plane: ControlPlane, monkeypatch: pytest.MonkeyPatch) -> None:
    with clearance.attempt() as run:
        assert run.model is None
        monkeypatch.setenv("CLEARANCE_MODEL", "middle")
        assert (run.model, run.models) == ("middle", ("middle", "small"))


def test_the_goal_inputs_and_outputs(plane: ControlPlane) -> None:
    with clearance.attempt() as run:
        assert run.objective == "p99 < 1"
        assert run.goal["uid"] == "goal-1"
        profile = run.inputs["profile"]
        assert (profile.value, profile.digest, profile.span_id) == ({"p99": 3}, None, "c" * 16)
        run.produce("candidate", value={"a": 1}, digest="sha256:x", because=profile)
        assert run.reserve_tokens(5000, key="call-1").amount == 5000
    assert plane.outputs == {
        "candidate": {"value": {"a": 1}, "digest": "sha256:x", "span_id": "c" * 16}
    }
    assert ("POST self/reservations", "", {"unit": "tokens", "amount": 5000, "key": "call-1"}) in (
        plane.calls
    )


def test_artifacts_travel_and_are_checked(plane: ControlPlane, tmp_path: Path) -> None:
    weights = tmp_path / "weights.npz"
    weights.write_bytes(os.urandom(3 << 20))
    plane.fail("/api/v1/artifacts", 503)  # the stream is sent again from its beginning
    with clearance.attempt() as run:
        pushed = run.push_artifact(weights, kind="model", name="checkout-risk", because=None)
        blob = hashlib.sha256(weights.read_bytes()).hexdigest()
        assert (pushed.blob_digest, pushed.size) == (f"sha256:{blob}", 3 << 20)
        assert plane.artifacts[pushed.digest] == weights.read_bytes()
        target = tmp_path / "fetched"
        run.fetch_artifact(pushed.digest, target)
        assert target.read_bytes() == weights.read_bytes()
        plane.served[pushed.digest] = b"swapped"
        with pytest.raises(clearance.ClearanceError, match="not what their digest says"):
            run.fetch_artifact(pushed.digest, target)
    assert target.read_bytes() == weights.read_bytes()
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["fetched", "weights.npz"]
    [asked] = [query for call, _, query in plane.calls if call == "POST artifacts"]
    assert asked == {"kind": "model", "name": "checkout-risk", "filename": "weights.npz"}


def test_a_directory_travels_as_a_tar(plane: ControlPlane, tmp_path: Path) -> None:
    (tmp_path / "model" / "parts").mkdir(parents=True)
    (tmp_path / "model" / "config.json").write_text("{}")
    (tmp_path / "model" / "parts" / "0.bin").write_bytes(b"weights")
    with clearance.attempt() as run:
        run.push_artifact(tmp_path / "model", kind="model", name="checkout-risk", because=None)
    [asked] = [query for call, _, query in plane.calls if call == "POST artifacts"]
    assert asked["directory"] == "true"
    [body] = plane.artifacts.values()
    with tarfile.open(fileobj=io.BytesIO(body)) as archive:
        assert archive.getnames() == ["config.json", "parts/0.bin"]


def test_evidence_and_releases(plane: ControlPlane) -> None:
    where = {"environment": "production", "service": "checkout"}
    with clearance.attempt() as run:
        assert run.current_release(**where) is None
        plane.current = {**where, "digest": "sha256:9", "released_at": "2026-01-01T00:00:00Z"}
        current = run.current_release(**where)
        assert current is not None
        assert current.digest == "sha256:9"
        with run.action("release", because="c" * 16, confidence=1) as act:
            proof = run.push_evidence("ab-test", about=["sha256:9"], predicate={}, because=act)
            done = run.release(
                **where, digest="sha256:9", evidence=[proof.digest], reason="it is", because=act
            )
        assert (done.id, done.decision, done.environment) == ("r-1", "d-1", "production")
    asked = {call: body for call, _, body in plane.calls}
    assert asked["POST releases"]["span_id"] == asked["POST evidence"]["span_id"] == act.span_id
    assert len(set(plane.idempotency_keys)) == 2


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (402, clearance.BudgetExhausted),
        (403, clearance.Denied),
        (404, clearance.ClearanceError),
        (409, clearance.ClearanceError),
        (500, clearance.Unavailable),
    ],
)
def test_problems_become_errors(
    plane: ControlPlane, status: int, kind: type[clearance.ClearanceError]
) -> None:
    message = {"rule": "ab", "path": "p.rego", "line": 3, "text": "no evidence"}
    plane.fail("/api/v1/releases", status, title="Refused", detail="Because.", messages=[message])
    with clearance.attempt() as run, pytest.raises(clearance.ClearanceError) as caught:
        run.release(environment="e", service="s", digest="d", evidence=[], reason="r", because=None)
    assert type(caught.value) is kind
    assert str(caught.value) == "Refused: Because."
    assert (caught.value.status, caught.value.problem["messages"]) == (status, [message])


def test_the_control_plane_may_restart(plane: ControlPlane) -> None:
    with clearance.attempt() as run:
        plane.stop()
        back = threading.Timer(0.7, plane.start)
        back.start()
        run.produce("x", value=1, because=None)  # refused connections first
        plane.fail("/api/v1/self/reservations", 503, 429, 502)
        run.reserve_tokens(1, key="k")
        plane.fail("/v1/traces", 503, 429)
        run.observe("x", aggregate="last", value=1, unit="1")
        run.flush()
        assert len(plane.spans()) == 1
        back.join()
    assert len(set(plane.idempotency_keys)) == 1


def test_an_expired_token_is_renewed_on_the_way(plane: ControlPlane) -> None:
    with clearance.attempt() as run:
        plane.tokens.append("jwt-from-elsewhere")  # what the attempt holds is refused from now on
        run.produce("x", value=1, because=None)
        assert len(plane.tokens) == 3
        assert run.identity.token() == plane.tokens[-1]
    assert len(plane.csrs) == 1  # the same key: a lapsed document can be renewed only with it


def test_documents_are_renewed_before_they_expire(plane: ControlPlane) -> None:
    plane.lifetime = dt.timedelta(seconds=2)
    with clearance.attempt() as run:
        until(lambda: len(plane.tokens) >= 2)
        until(lambda: run.identity.token() == plane.tokens[-1])


def test_a_revoked_attempt_is_told_so(plane: ControlPlane) -> None:
    with pytest.raises(clearance.Revoked), clearance.attempt() as run:  # noqa: PT012 - its end raises
        plane.is_revoked = True
        with pytest.raises(clearance.Revoked):
            run.reserve_tokens(1, key="k")
        with pytest.raises(clearance.Revoked):
            run.identity.token()
        run.observe("x", aggregate="last", value=1, unit="1")
    assert plane.spans() == []


def test_rejected_spans_make_the_flush_fail_once(plane: ControlPlane) -> None:
    with clearance.attempt() as run:
        with run.tracer.start_as_current_span("plain") as span:
            span.set_attribute("action.confidence", 7)
        with pytest.raises(clearance.ClearanceError, match=r"1 spans .*action\.confidence"):
            run.flush()
        run.flush()


def test_an_incomplete_environment_is_said(
    plane: ControlPlane, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("CLEARANCE_AGENT")
    with pytest.raises(clearance.ClearanceError, match="CLEARANCE_AGENT"), clearance.attempt():
        pytest.fail("it began")
    monkeypatch.setenv("CLEARANCE_API_URL", "file:///etc/passwd")
    with pytest.raises(clearance.ClearanceError, match="CLEARANCE_API_URL"), clearance.attempt():
        pytest.fail("it began")


SEED_SNIPPET = """
import sys
import tarfile
import clearance_sdk as clearance
from opentelemetry import trace

with clearance.attempt() as run:
    tracer = trace.get_tracer("an agent of somebody else")
    agent_id, parent_oid = "optimizer", "c" * 16
    with tracer.start_as_current_span("tune_model") as span:
        span.set_attribute("agent.id", agent_id)
        span.set_attribute("action.parent_observation", parent_oid)
        span.set_attribute("action.confidence", 0.87)
assert not [name for name in sys.modules if name.split(".")[0] == "django"]
print("done")
"""


def test_plain_opentelemetry_works_and_django_is_not_needed(plane: ControlPlane) -> None:
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", SEED_SNIPPET],
        env={**plane.environment(), "PYTHONPATH": str(SDK), "PATH": os.environ["PATH"]},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (done.stdout, done.returncode) == ("done\n", 0), done.stderr
    tuned = plane.span("tune_model")
    assert (tuned.parent_observation, tuned.confidence) == ("c" * 16, 0.87)
    assert tuned.attributes["task.id"] == "optimizer"

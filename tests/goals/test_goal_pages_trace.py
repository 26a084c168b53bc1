"""Pages: the causal explorer, from any action up to its root and down to everything after."""

import datetime as dt
from typing import Any

import pytest
from django.test import Client
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from agents.models import Attempt
from goals.models import Goal, LedgerEntry
from goals.views.goal_causes import CHILDREN, branch, explore
from lineage.telemetry.base import SpanBatch, SpanOwner

pytestmark = pytest.mark.django_db

ROOT, ACTION, ORPHAN = "a" * 16, "b" * 16, "f" * 16
START = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)


class Trace:
    """Writes spans of one attempt as an agent would, a second apart."""

    def __init__(self, tower: Any, goal: Goal, attempt: Attempt) -> None:
        self.store, self.goal = tower.twins.telemetry, goal
        self.owner = SpanOwner(
            "default", str(goal.uid), attempt.agent_name, attempt.task, str(attempt.uid)
        )
        self.seconds = 0

    def write(
        self,
        span_id: str,
        name: str,
        *,
        because: str = "",
        inside: str = "",
        confidence: float | None = None,
        **texts: str,
    ) -> None:
        request = ExportTraceServiceRequest()
        span = request.resource_spans.add().scope_spans.add().spans.add()
        span.trace_id, span.span_id = b"\x01" * 16, bytes.fromhex(span_id)
        span.parent_span_id = bytes.fromhex(inside)
        span.name = name
        self.seconds += 1
        at = int((START + dt.timedelta(seconds=self.seconds)).timestamp() * 1e9)
        span.start_time_unix_nano = span.end_time_unix_nano = at
        if because:
            texts["action.parent_observation"] = because
        for key, text in texts.items():
            attribute = span.attributes.add()
            attribute.key, attribute.value.string_value = key.replace("__", "."), text
        if confidence is not None:
            attribute = span.attributes.add()
            attribute.key, attribute.value.double_value = "action.confidence", confidence
        self.store.write_spans([SpanBatch(self.owner, request.SerializeToString())])


@pytest.fixture
def goal(tower: Any) -> Goal:
    tower.register("profiler")
    return tower.reconcile(tower.apply().goal)


@pytest.fixture
def trace(tower: Any, goal: Goal) -> Trace:
    (attempt,) = Attempt.objects.filter(goal_uid=goal.uid)
    one = Trace(tower, goal, attempt)
    one.write(ROOT, "saw latency", observation__metric="latency")
    one.write(ACTION, "quantize model", because=ROOT, confidence=0.8)
    return one


@pytest.fixture
def viewer(tower: Any) -> Client:
    client = Client()
    client.force_login(tower.people["viewer"])
    return client


def span(trace: Trace, span_id: str) -> Any:
    return trace.store.span("default", span_id)


def words(answer: Any) -> str:
    return " ".join(answer.content.decode().split())


def test_a_picked_action_shows_its_chain_identity_verdict_and_cost(
    viewer: Client, goal: Goal, trace: Trace
) -> None:
    (attempt,) = Attempt.objects.filter(goal_uid=goal.uid)
    account = goal.accounts.get(unit="gpu_ms")
    entry = LedgerEntry.objects.create(
        account=account, kind="settle", debit="reserved", credit="settled", amount=2500,
        idempotency_key="x", attempt_uid=attempt.uid, span_id=ACTION,
    )  # fmt: skip
    said = words(viewer.get(f"/goals/{goal}/trace/{ACTION}"))
    chain = said[said.index("The chain, root first") : said.index("Everything downstream")]
    assert 0 < chain.index("saw latency") < chain.index("quantize model")
    assert "confidence 0.8" in said
    assert attempt.spiffe_id in said
    assert f"/goals/{goal}/ledger?span={ACTION}" in said
    assert "cost 2.5 GPU-seconds" in said
    assert "/decisions/" in said
    ledger = words(viewer.get(f"/goals/{goal}/ledger?span={ACTION}"))
    assert f"entry-{entry.uid}" in ledger
    assert ledger.count('id="entry-') == 1


def test_effects_open_a_dozen_at_a_time(viewer: Client, goal: Goal, trace: Trace) -> None:
    for index in range(CHILDREN + 5):
        trace.write(f"{index + 1:016x}", f"step {index}", inside=ACTION)
    trace.write("9" * 16, "grandchild", inside=f"{1:016x}")
    found = explore(goal, span(trace, ACTION))
    assert (len(found.effects.steps), found.effects.more, found.downstream) == (
        CHILDREN,
        5,
        CHILDREN + 6,
    )
    assert found.effects.steps[0].children == 1
    assert [step.depth for step in found.causes] == [-1]
    assert {step.depth for step in found.rows} == {-1, 0, 1, 2}
    said = words(viewer.get(f"/goals/{goal}/trace/{ACTION}/effects?offset={CHILDREN}"))
    assert said.count("step ") == 5
    assert " more</button>" not in said
    assert "grandchild" in words(viewer.get(f"/goals/{goal}/trace/{1:016x}/effects"))
    assert branch(goal, ACTION, offset=0).more == 5


def test_an_effect_by_observation_and_by_span_is_listed_once(goal: Goal, trace: Trace) -> None:
    trace.write("c" * 16, "both", because=ROOT, inside=ACTION)
    of_action, of_root = explore(goal, span(trace, ACTION)), explore(goal, span(trace, ROOT))
    assert [step.one.span.name for step in of_action.effects.steps] == ["both"]
    assert [step.one.span.name for step in of_root.effects.steps] == ["quantize model", "both"]


def test_an_orphan_is_called_one(viewer: Client, goal: Goal, trace: Trace) -> None:
    trace.write(ORPHAN, "guess", confidence=0.1)
    assert "an orphan" in words(viewer.get(f"/goals/{goal}/trace/{ORPHAN}"))


def test_a_branch_of_another_goal_is_not_found(
    viewer: Client, tower: Any, goal: Goal, trace: Trace
) -> None:
    other = tower.apply("other").goal
    for path in (f"/goals/{other}/trace/{ACTION}", f"/goals/{other}/trace/{ACTION}/effects"):
        assert viewer.get(path).status_code == 404
    bad = viewer.get(f"/goals/{goal}/trace/{ACTION}/effects?offset=-1")
    assert bad.status_code == 200


def test_who_changed_what_an_agent_named(viewer: Client, goal: Goal, trace: Trace) -> None:
    trace.write("d" * 16, "set replicas", because=ROOT, change__target="checkout/replicas")
    said = words(viewer.get(f"/goals/{goal}/trace", {"changed": "checkout/replicas"}))
    assert said.count("set replicas") == 2
    said = words(viewer.get(f"/goals/{goal}/trace", {"changed": "nothing"}))
    assert "No agent said that it changed nothing" in said

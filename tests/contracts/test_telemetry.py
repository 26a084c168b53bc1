"""What every telemetry store must do, asked of the twin, of our store process and of ClickHouse."""

import datetime as dt
import os
from itertools import pairwise

import pytest

from lineage.telemetry.base import (
    SpanBatch,
    Telemetry,
    TelemetryRejected,
    TelemetryUnavailable,
)
from lineage.telemetry.memory import MemoryTelemetry
from tests.otlp_exports import batch, owner, span

pytestmark = pytest.mark.contract

A, B, C, D, E = ("a" * 16, "b" * 16, "c" * 16, "d" * 16, "e" * 16)


@pytest.fixture
def ns(request: pytest.FixtureRequest) -> str:
    """A namespace of its own for each test, as the store outlives it."""
    return request.node.name + os.urandom(4).hex()


def test_a_written_span_is_read_back_whole(telemetry: Telemetry, ns: str) -> None:
    values = {
        "agent__id": "liar", "action__confidence": 0.87, "change__target": "checkout/production",
        "flag": True, "count": -3, "list": ["x", 1, [2.5]], "map": {"k": {"deep": None}},
        "raw": b"\x00\xff", "ünï": "c'ödé\t\n\\", "empty": "",
    }  # fmt: skip
    sent = span(A, parent=B, because=C.upper(), at=1.25, name="tune_model", **values)
    sent.status.code = 2
    sent.status.message = "no luck"
    telemetry.write_spans([batch(sent, namespace=ns)])
    got = telemetry.span(ns, A)
    assert got is not None
    assert got.owner == owner(namespace=ns)
    assert (got.span_id, got.parent_span_id, got.parent_observation) == (A, B, C)
    assert (got.name, got.status, got.status_message) == ("tune_model", "error", "no luck")
    assert got.start_at == dt.datetime.fromtimestamp(1_800_000_001.25, dt.UTC)
    assert got.end_at - got.start_at == dt.timedelta(seconds=0.5)
    assert got.confidence == 0.87
    assert got.is_action
    assert not got.is_observation
    assert got.attributes == {
        "agent.id": "liar", "action.confidence": 0.87, "change.target": "checkout/production",
        "flag": True, "count": -3, "list": ["x", 1, [2.5]], "map": {"k": {"deep": None}},
        "raw": "AP8=", "ünï": "c'ödé\t\n\\", "empty": "", "action.parent_observation": C.upper(),
    }  # fmt: skip


def test_the_same_span_twice_changes_nothing(telemetry: Telemetry, ns: str) -> None:
    first = batch(span(A, gen_ai__usage__input_tokens=7), namespace=ns)
    forged = batch(span(A, gen_ai__usage__input_tokens=900), namespace=ns)
    telemetry.write_spans([first, first])
    telemetry.write_spans([first])
    telemetry.write_spans([forged])
    assert telemetry.span_count(ns, "goal-1") == 1
    assert len(telemetry.goal_spans(ns, "goal-1").spans) == 1
    [usage] = telemetry.token_usage(ns, "goal-1")
    assert (usage.input_tokens, usage.spans) == (7, 1)


def test_another_attempt_cannot_replace_a_span(telemetry: Telemetry, ns: str) -> None:
    telemetry.write_spans([batch(span(A, name="mine"), namespace=ns)])
    telemetry.write_spans([batch(span(A, name="stolen"), namespace=ns, attempt_uid="attempt-2")])
    assert telemetry.span_count(ns, "goal-1") == 2
    names = {found.name for found in telemetry.goal_spans(ns, "goal-1").spans}
    assert names == {"mine", "stolen"}


def test_no_namespace_sees_another(telemetry: Telemetry, ns: str) -> None:
    observed = {"observation__metric": "latency", "observation__aggregate": "p99"}
    sent = span(
        A, observation__value=1.0, change__target="t", llm__token_count__prompt=1, **observed
    )
    telemetry.write_spans([batch(sent, span(B, because=A), namespace=ns)])
    other = ns + "x"
    assert telemetry.span(other, A) is None
    assert telemetry.goal_spans(other, "goal-1").spans == []
    assert list(telemetry.causes(other, B)) == []
    assert list(telemetry.effects(other, A)) == []
    assert list(telemetry.who_changed(other, "t")) == []
    seen = telemetry.observations(other, "goal-1", metric="latency", aggregate="p99")
    assert list(seen) == []
    assert list(telemetry.token_usage(other, "goal-1")) == []
    assert telemetry.span_count(other, "goal-1") == 0
    # The same questions in its own namespace have answers, so the ones above could have failed.
    assert len(telemetry.effects(ns, A)) == len(telemetry.who_changed(ns, "t")) == 1


def test_pages_follow_start_time_and_end(telemetry: Telemetry, ns: str) -> None:
    ids = [f"{number:016x}" for number in range(1, 8)]
    spans = [span(id_, at=number // 2) for number, id_ in enumerate(ids)]
    telemetry.write_spans([batch(*reversed(spans), namespace=ns)])
    seen, cursor, pages = [], "", 0
    while pages == 0 or cursor:
        page = telemetry.goal_spans(ns, "goal-1", cursor=cursor, limit=3)
        seen += [found.span_id for found in page.spans]
        cursor, pages = page.next_cursor, pages + 1
    assert seen == ids
    assert pages == 3


@pytest.mark.parametrize("limit", [0, -1, 1001])
def test_a_limit_out_of_range_is_refused(telemetry: Telemetry, ns: str, limit: int) -> None:
    with pytest.raises(TelemetryRejected, match="limit must be between 1 and 1000"):
        telemetry.goal_spans(ns, "goal-1", limit=limit)


@pytest.mark.parametrize("cursor", ["x", "e30=", "W10=", "é", "WyJ4IiwxLDIsM10="])
def test_a_made_up_cursor_is_refused(telemetry: Telemetry, ns: str, cursor: str) -> None:
    with pytest.raises(TelemetryRejected, match="cursor"):
        telemetry.goal_spans(ns, "goal-1", cursor=cursor)


def test_causes_lead_to_the_first_observation(telemetry: Telemetry, ns: str) -> None:
    spans = [
        span(E, name="profile_run"),
        span(A, parent=E, observation__metric="latency", name="observe"),
        span(B, because=A, name="tune_model"),
        span(C, parent=B, name="push_artifact"),
        span(D, because=C, parent=E, name="release"),
    ]
    telemetry.write_spans([batch(one, namespace=ns) for one in reversed(spans)])
    assert [s.name for s in telemetry.causes(ns, D)] == [
        "release", "push_artifact", "tune_model", "observe",
    ]  # fmt: skip
    assert [s.name for s in telemetry.causes(ns, E)] == ["profile_run"]
    assert list(telemetry.causes(ns, "f" * 16)) == []


def test_an_orphan_keeps_its_ancestry(telemetry: Telemetry, ns: str) -> None:
    telemetry.write_spans([batch(span(A), span(B, parent=A, because="f" * 16), namespace=ns)])
    assert [s.span_id for s in telemetry.causes(ns, B)] == [B, A]


def test_walks_end_in_circles_and_on_themselves(telemetry: Telemetry, ns: str) -> None:
    spans = [
        span(A, because=B),
        span(B, because=C),
        span(C, because=A),
        span(D, because=D, parent=D),
    ]
    telemetry.write_spans([batch(*spans, namespace=ns)])
    assert [s.span_id for s in telemetry.causes(ns, A)] == [A, B, C]
    assert {s.span_id for s in telemetry.effects(ns, A)} == {B, C}
    assert [s.span_id for s in telemetry.causes(ns, D)] == [D]
    assert list(telemetry.effects(ns, D)) == []


def test_what_is_not_stored_has_no_effects_whoever_names_it(telemetry: Telemetry, ns: str) -> None:
    telemetry.write_spans([batch(span(B, because=A), namespace=ns)])
    assert list(telemetry.effects(ns, A)) == []
    telemetry.write_spans([batch(span(A), namespace=ns)])  # late, and of any order
    assert [s.span_id for s in telemetry.effects(ns, A)] == [B]


def test_effects_come_breadth_first_and_cross_goals(telemetry: Telemetry, ns: str) -> None:
    telemetry.write_spans(
        [
            batch(span(A, observation__metric="latency"), namespace=ns),
            batch(span(B, because=A, at=1), span(C, parent=B, at=2), namespace=ns),
            batch(span(D, because=A, at=3), namespace=ns, goal_uid="goal-2"),
            batch(span(E, because=D, at=4), namespace=ns, goal_uid="goal-3"),
        ]
    )
    assert [s.span_id for s in telemetry.effects(ns, A)] == [B, D, C, E]
    assert [s.span_id for s in telemetry.effects(ns, A, limit=2)] == [B, D]
    assert [s.span_id for s in telemetry.causes(ns, E)] == [E, D, A]


def test_a_long_walk_is_walked_to_its_end(telemetry: Telemetry, ns: str) -> None:
    ids = [f"{number:016x}" for number in range(1, 41)]
    spans = [span(ids[0], observation__metric="latency")]
    spans += [span(one, parent=before, at=n) for n, (before, one) in enumerate(pairwise(ids), 1)]
    telemetry.write_spans([batch(*spans[:20], namespace=ns)])
    telemetry.write_spans([batch(*spans[20:], namespace=ns, goal_uid="goal-2")])
    assert [s.span_id for s in telemetry.effects(ns, ids[0])] == ids[1:]
    assert [s.span_id for s in telemetry.effects(ns, ids[0], limit=5)] == ids[1:6]
    assert [s.span_id for s in telemetry.causes(ns, ids[-1])] == ids[::-1]


def test_who_changed_lists_the_newest_first(telemetry: Telemetry, ns: str) -> None:
    first = span(A, change__target="checkout/production", change__to="sha256:1", at=1)
    second = span(B, change__target="checkout/production", change__to="sha256:2", at=2)
    telemetry.write_spans([batch(first, second, span(C, change__target="x"), namespace=ns)])
    found = telemetry.who_changed(ns, "checkout/production")
    assert [s.attributes["change.to"] for s in found] == ["sha256:2", "sha256:1"]
    assert len(telemetry.who_changed(ns, "checkout/production", limit=1)) == 1
    assert list(telemetry.who_changed(ns, "")) == []


def test_observations_are_filtered_and_newest_first(telemetry: Telemetry, ns: str) -> None:
    def seen(id_: str, at: float, value: object, **more: str) -> object:
        values = {
            "observation__metric": "latency", "observation__aggregate": "p99",
            "observation__unit": "ms", "observation__selector": "/checkout",
            "observation__samples": 500, "observation__value": value,
        }  # fmt: skip
        return span(id_, at=at, **{**values, **more})

    spans = [
        seen(A, 1, 312.5),
        seen(B, 2, 90),
        seen(C, 3, 5.0, observation__selector="/cart"),
        seen(D, 4, 6.0, observation__aggregate="p50"),
        seen(E, 5, "fast"),
    ]
    telemetry.write_spans([batch(*spans, namespace=ns)])  # type: ignore[arg-type]

    def values(**more: object) -> list[float]:
        found = telemetry.observations(ns, "goal-1", metric="latency", aggregate="p99", **more)  # type: ignore[arg-type]
        return [one.value for one in found]

    assert values() == [5.0, 90.0, 312.5]
    assert values(selector="/checkout") == [90.0, 312.5]
    assert values(selector="/checkout", limit=1) == [90.0]
    since = dt.datetime.fromtimestamp(1_800_000_002, dt.UTC)
    assert values(selector="/checkout", since=since) == [90.0]
    [newest] = telemetry.observations(
        ns, "goal-1", metric="latency", aggregate="p99", selector="/checkout", limit=1
    )
    assert (newest.span_id, newest.attempt_uid, newest.unit) == (B, "attempt-1", "ms")
    assert (newest.samples, newest.aggregate, newest.metric) == (500, "p99", "latency")
    assert newest.at == dt.datetime.fromtimestamp(1_800_000_002.5, dt.UTC)


def test_tokens_count_under_every_convention(telemetry: Telemetry, ns: str) -> None:
    small = {"gen_ai__request__model": "small"}
    spans = [
        span(A, gen_ai__usage__input_tokens=10, gen_ai__usage__output_tokens=1, at=1, **small),
        span(B, gen_ai__usage__prompt_tokens=20, gen_ai__usage__completion_tokens=2, at=9, **small),
        span(C, llm__token_count__prompt=40, llm__token_count__completion=4, llm__model_name="big"),
        span(D, llm__usage__prompt_tokens=80.0, llm__usage__completion_tokens=8, at=2, **small),
        span(E, gen_ai__usage__input_tokens=0, gen_ai__usage__prompt_tokens=99),
    ]
    telemetry.write_spans([batch(*spans, namespace=ns)])
    big, little = telemetry.token_usage(ns, "goal-1")
    assert (big.model, big.input_tokens, big.output_tokens, big.spans) == ("big", 40, 4, 1)
    assert (little.model, little.input_tokens, little.output_tokens) == ("small", 110, 11)
    assert (little.spans, little.last_span_id, little.attempt_uid) == (3, B, "attempt-1")


def test_one_bad_export_stores_nothing_of_its_insert(telemetry: Telemetry, ns: str) -> None:
    good = batch(span(A), namespace=ns)
    with pytest.raises(TelemetryRejected):
        telemetry.write_spans([good, SpanBatch(owner(namespace=ns), b"\x0a\xff\xff\xff")])
    assert telemetry.span_count(ns, "goal-1") == 0


def test_nothing_to_write_is_fine(telemetry: Telemetry, ns: str) -> None:
    telemetry.write_spans([])
    telemetry.write_spans([batch(namespace=ns), SpanBatch(owner(namespace=ns), b"")])
    assert telemetry.span_count(ns, "goal-1") == 0


def test_the_schema_can_be_made_again(telemetry: Telemetry, ns: str) -> None:
    telemetry.write_spans([batch(span(A), namespace=ns)])
    telemetry.ensure_schema()
    telemetry.ping()
    assert telemetry.span_count(ns, "goal-1") == 1


def test_the_twin_fails_when_told_to() -> None:
    twin = MemoryTelemetry()
    twin.fail_next(TelemetryUnavailable("down"))
    with pytest.raises(TelemetryUnavailable, match="down"):
        twin.ping()
    twin.ping()
    with pytest.raises(TelemetryRejected, match="ensure_schema"):
        twin.span_count("default", "goal-1")

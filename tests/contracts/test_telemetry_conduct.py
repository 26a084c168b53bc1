"""What every telemetry store must tell of an attempt's conduct."""

import os
import time

import pytest

from lineage.telemetry.base import SpanBatch, Telemetry
from lineage.telemetry.conduct import CONFIDENCE_NEWEST, RECENT_ACTIONS, TARGETS_MAX, Conduct
from tests.otlp_exports import batch, span

pytestmark = pytest.mark.contract

GOAL, ONE, TWO = "goal-1", "attempt-1", "attempt-2"
SEEN = "c" * 16  # an observation
NEVER = "f" * 16  # one that never arrives


@pytest.fixture
def ns(request: pytest.FixtureRequest) -> str:
    return request.node.name[:40] + os.urandom(4).hex()


def number(value: int) -> str:
    return f"{value:016x}"


def observed(**changes: str) -> SpanBatch:
    return batch(span(SEEN, name="observe", observation__metric="latency"), **changes)


def conduct_of(store: Telemetry, ns: str, *, mark: str = "", **more: float) -> Conduct:
    (found,) = store.conduct(ns, GOAL, seen={ONE: mark}, **more)  # type: ignore[arg-type]
    return found


def test_actions_are_counted_by_what_caused_them(telemetry: Telemetry, ns: str) -> None:
    caused = span(number(1), because=SEEN, action__confidence=0.9, name="tune")
    bare = span(number(2), at=1, action__confidence=0.8, name="tune")
    of_itself = span(number(3), at=2, because=number(3), name="guess")
    unheard = span(number(4), at=3, because=NEVER, name="obey")
    no_action = span(number(5), at=4)
    telemetry.write_spans([observed(namespace=ns)])
    telemetry.write_spans([batch(caused, bare, of_itself, unheard, no_action, namespace=ns)])
    found = conduct_of(telemetry, ns)
    assert (found.attempt_uid, found.actions, found.orphans, found.awaited) == (ONE, 4, 2, 1)
    assert found.kinds == ("guess", "obey", "tune")
    assert found.orphan is not None
    assert found.orphan.span_id == number(3)
    assert found.newest is not None
    assert found.newest.span_id == number(4)
    # Once nobody waits for it any more, what names it is an orphan.
    found = conduct_of(telemetry, ns, grace_seconds=-1)
    assert (found.orphans, found.awaited) == (3, 0)
    telemetry.write_spans([batch(span(NEVER), namespace=ns)])  # late, and of any order
    found = conduct_of(telemetry, ns, grace_seconds=-1)
    assert (found.orphans, found.awaited) == (2, 0)


def test_only_what_has_news_is_told(telemetry: Telemetry, ns: str) -> None:
    assert list(telemetry.conduct(ns, GOAL, seen={})) == []
    assert list(telemetry.conduct(ns, GOAL, seen={ONE: ""})) == []
    telemetry.write_spans([batch(span(number(1), action__confidence=1.0), namespace=ns)])
    telemetry.write_spans(
        [batch(span(number(2), action__confidence=1.0), namespace=ns, attempt_uid=TWO)]
    )
    first, second = telemetry.conduct(ns, GOAL, seen={ONE: "", TWO: ""})
    assert (first.attempt_uid, second.attempt_uid) == (ONE, TWO)
    marks = {ONE: first.mark, TWO: second.mark}
    assert list(telemetry.conduct(ns, GOAL, seen=marks)) == []
    telemetry.write_spans([batch(span(number(3)), namespace=ns, attempt_uid=TWO)])
    (news,) = telemetry.conduct(ns, GOAL, seen=marks)
    assert (news.attempt_uid, news.actions) == (TWO, 1)
    assert news.mark != second.mark
    assert list(telemetry.conduct(ns + "x", GOAL, seen={ONE: ""})) == []
    assert list(telemetry.conduct(ns, "goal-2", seen={ONE: ""})) == []


def test_what_it_changed_and_the_models_are_named_with_a_span(
    telemetry: Telemetry, ns: str
) -> None:
    first = span(number(1), change__target="orders-db", gen_ai__request__model="small")
    again = span(number(2), change__target="orders-db", llm__model_name="large")
    seen = span(number(3), observation__metric="m", change__target="watched")
    telemetry.write_spans([batch(first, namespace=ns)])
    telemetry.write_spans([batch(again, seen, namespace=ns)])
    # The same span again says nothing new, whatever it claims by now.
    telemetry.write_spans([batch(span(number(1), change__target="forged"), namespace=ns)])
    found = conduct_of(telemetry, ns)
    targets = {name: one.span_id for name, one in found.targets.items()}
    assert targets == {"orders-db": number(1), "watched": number(3)}
    models = {name: one.span_id for name, one in found.models.items()}
    assert models == {"small": number(1), "large": number(2)}
    assert (found.actions, found.targets_unlisted) == (2, 0)
    age = time.time() - found.targets["orders-db"].stored_at.timestamp()
    assert 0 <= age < 60  # by the store's clock, whatever the span says


def test_more_targets_than_a_scope_holds_are_not_all_listed(telemetry: Telemetry, ns: str) -> None:
    spans = [span(number(i + 1), change__target=f"t{i}") for i in range(TARGETS_MAX + 5)]
    telemetry.write_spans([batch(*spans, namespace=ns)])
    found = conduct_of(telemetry, ns)
    assert (len(found.targets), found.targets_unlisted) == (TARGETS_MAX, 1)
    assert f"t{TARGETS_MAX + 4}" in found.targets  # the newest are
    assert found.actions == RECENT_ACTIONS


def test_acting_on_another_goal_is_told(telemetry: Telemetry, ns: str) -> None:
    telemetry.write_spans([observed(namespace=ns, goal_uid="goal-2", attempt_uid="other")])
    telemetry.write_spans([batch(span(number(1), because=SEEN), namespace=ns)])
    found = conduct_of(telemetry, ns)
    assert (found.orphans, list(found.foreign)) == (0, ["goal-2"])
    assert found.foreign["goal-2"].span_id == number(1)
    # Of two spans with one id, that of the Goal itself is meant.
    telemetry.write_spans([observed(namespace=ns)])
    assert conduct_of(telemetry, ns).foreign == {}
    # What lies in another namespace is not seen.
    telemetry.write_spans([batch(span(number(2), because=SEEN), namespace=ns + "x")])
    (elsewhere,) = telemetry.conduct(ns + "x", GOAL, seen={ONE: ""}, grace_seconds=-1)
    assert (elsewhere.orphans, elsewhere.foreign) == (1, {})


def test_repetition_and_confidence_follow_start_time(telemetry: Telemetry, ns: str) -> None:
    doing = {"because": SEEN, "change__target": "orders-db", "name": "restart"}
    spans = [
        span(number(i + 1), at=i, action__confidence=0.9 if i < 10 else 0.3, **doing)
        for i in range(10 + CONFIDENCE_NEWEST)
    ]
    odd = span(number(900), at=12.5, because=SEEN, name="look", action__confidence=0.3)
    telemetry.write_spans([observed(namespace=ns)])
    telemetry.write_spans([batch(*spans[20:], namespace=ns)])
    telemetry.write_spans([batch(odd, *spans[:20], namespace=ns)])
    found = conduct_of(telemetry, ns)
    assert (found.repeats.name, found.repeats.target) == ("restart", "orders-db")
    assert (found.repeats.in_row, found.repeats.in_window) == (17, 30)
    assert (found.repeats.step, found.repeats.steps_in_row) == ("look", 1)
    assert found.repeated is not None
    assert found.repeated.span_id == number(30)
    assert found.confidence.recent == pytest.approx(0.3)
    assert found.confidence.earlier == pytest.approx((10 * 0.9 + 0.3) / 11)
    assert (found.confidence.recent_samples, found.confidence.earlier_samples) == (20, 11)


def test_of_a_busy_attempt_what_is_new_or_late_is_read(telemetry: Telemetry, ns: str) -> None:
    def write(first: int, count: int) -> None:
        spans = [span(number(i), change__target=f"t{i}") for i in range(first, first + count)]
        telemetry.write_spans([batch(*spans, namespace=ns)])

    write(1, 6)
    whole = conduct_of(telemetry, ns, whole_max=6, lately_seconds=0.0)
    assert len(whole.targets) == 6
    write(7, 1)
    new = conduct_of(telemetry, ns, mark=whole.mark, whole_max=6, lately_seconds=0.0)
    assert list(new.targets) == ["t7"]
    lately = conduct_of(telemetry, ns, mark=whole.mark, whole_max=6, lately_seconds=60.0)
    assert len(lately.targets) == 7

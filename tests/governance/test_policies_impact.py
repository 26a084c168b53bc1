"""Impact on recorded history: flips found, priced, bounded in time, and counted honestly."""

import itertools
from typing import Any

import pytest

from goals.models import Account, Goal
from governance.access import principal_of
from governance.domain import Stage
from governance.models import BundleVersion, Decision
from governance.policy.base import Outcome, PolicyModule, PolicyPoint
from governance.policy.memory import MemoryPolicy, refuse
from governance.policy.verdict import denied
from governance.services.drafts import Draft, draft_of, read_draft
from governance.services.impact import MAX_CHUNK, replay_history, total_spent
from tests.governance.policy_people import NO_SPENDERS, starter_files
from tests.towers import Tower

pytestmark = pytest.mark.django_db
DRAFT = Draft((PolicyModule("a.rego", "package a"),), {})


def decision(
    number: int = 0, *, outcome: str = "allow", name: str = "starter", stage: str = "enforce"
) -> Decision:
    import hashlib

    text = f'{{"n":{number}}}'
    return Decision.objects.create(
        point="graph", namespace="default", subject_kind="graph", subject_id=f"g{number}",
        bundle_name=name, bundle_digest="sha256:1", stage=stage, outcome=outcome,
        input_digest=f"sha256:{hashlib.sha256(text.encode()).hexdigest()}", input_canonical=text,
    )  # fmt: skip


def denying(*numbers: int) -> MemoryPolicy:
    engine = MemoryPolicy()
    engine.script(
        PolicyPoint.GRAPH,
        lambda bundle, point, given: (
            refuse("no")
            if given["n"] in numbers
            else MemoryPolicy().evaluate(bundle, point, [given])[0]
        ),
    )
    return engine


def replay(people: Any, engine: Any, who: str = "admin", **more: Any) -> Any:
    principal = principal_of(people[who])
    return replay_history("starter", DRAFT, principal=principal, engine=engine, **more)


def test_flips_each_way_and_what_stays(people: Any) -> None:
    stays, blocked = decision(0), decision(1)
    freed, warned = decision(2, outcome="deny"), decision(3, outcome="warn")
    found = replay(people, denying(1))
    assert [flip.decision.pk for flip in found.newly_denied] == [blocked.pk]
    assert [flip.decision.pk for flip in found.newly_allowed] == [freed.pk]
    assert [flip.decision.pk for flip in found.other_changes] == [warned.pk]
    assert found.newly_denied[0].verdict.messages[0].text == "no"
    assert (found.judged, found.recorded) == (4, 4)
    assert stays.pk not in {flip.decision.pk for flip in found.newly_denied}
    graph = next(point for point in found.points if point.point is PolicyPoint.GRAPH)
    assert graph.changes == {("allow", "deny"): 1, ("deny", "allow"): 1, ("warn", "allow"): 1}


def test_the_same_input_is_judged_once_and_counted_as_often_as_it_was_decided(people: Any) -> None:
    for _ in range(3):
        decision(1)
    engine = denying(1)
    found = replay(people, engine)
    assert (len(engine.calls), found.judged, found.counts["newly_denied"]) == (1, 3, 3)


def test_only_decisions_that_counted_are_compared(people: Any) -> None:
    decision(1, stage="shadow")
    decision(2, name="other")
    assert replay(people, denying(1, 2)).recorded == 1  # never in force: every bundle in force
    decision(3)
    assert replay(people, denying(1, 2)).recorded == 1  # its own, from now on
    assert replay(people, denying(3)).counts["newly_denied"] == 1


def test_a_changed_record_is_not_judged(people: Any) -> None:
    changed = decision(1)
    Decision.objects.filter(pk=changed.pk).update(input_canonical='{"n":2}')
    found = replay(people, denying(1, 2))
    assert (found.judged, found.points[0].changed_records) == (0, 1)


def test_the_newest_come_first_and_the_limit_holds(people: Any) -> None:
    rows = [decision(number) for number in range(5)]
    found = replay(people, denying(*range(5)), limit=2)
    assert [flip.decision.pk for flip in found.newly_denied] == [rows[4].pk, rows[3].pk]
    assert (found.judged, found.recorded) == (2, 2)


def test_time_is_bounded_and_said(people: Any) -> None:
    for number in range(MAX_CHUNK):
        decision(number)
    ticks = itertools.count()
    found = replay(people, denying(), clock=lambda: next(ticks) * 3.0)
    assert 0 < found.judged < found.recorded == MAX_CHUNK
    assert "was over" in found.points[0].stopped


def test_a_draft_that_hangs_ends_the_replay_after_one(people: Any) -> None:
    for number in range(10):
        decision(number)
    engine = MemoryPolicy()
    engine.script(PolicyPoint.GRAPH, denied("timeout", "no answer within 2 s"))
    found = replay(people, engine)
    assert (found.judged, len(engine.calls)) == (1, 1)
    assert found.points[0].stopped == "no answer within 2 s"
    assert found.points[0].undecided == 1


def test_a_viewer_of_one_namespace_sees_only_its_decisions(people: Any) -> None:
    decision(1)
    Decision.objects.update(namespace="secret")
    assert replay(people, denying(1), who="policy_author").recorded == 0
    assert replay(people, denying(1)).recorded == 1


def test_the_starter_bundle_replays_its_own_decisions_without_a_flip(
    tower: Tower, people: Any
) -> None:
    tower.register("spender", gpus=1)
    tower.reconcile(tower.apply("a", agents="spender").goal)
    version = BundleVersion.objects.get(stage=Stage.ENFORCE)
    principal = principal_of(people["admin"])
    same = replay_history("starter", draft_of(version), principal=principal)
    assert same.judged == same.recorded == Decision.objects.count() > 0
    assert not same.counts


def test_a_flip_is_priced_by_what_its_goal_settled(tower: Tower, people: Any) -> None:
    tower.register("spender", gpus=1)
    goal = tower.reconcile(tower.apply("a", agents="spender").goal)
    Account.objects.filter(goal=goal, unit="gpu_ms").update(settled=4000, reserved=0)
    files = [(f["path"], f["source"]) for f in starter_files(quota=NO_SPENDERS)]
    found = replay_history("starter", read_draft(files), principal=principal_of(people["admin"]))
    (flip,) = found.newly_denied
    assert flip.decision.goal_uid == goal.uid
    assert flip.spent == {"gpu_ms": 4000}
    assert total_spent([flip, flip]) == {"gpu_ms": 4000}  # one Goal, counted once
    assert total_spent([]) == {}
    assert flip.verdict.outcome is Outcome.DENY
    assert Goal.objects.get().phase != "Denied"  # nothing took effect

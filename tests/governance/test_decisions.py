"""Decisions (I8): what cannot be decided denies; each is recorded so that it can be replayed."""

from collections.abc import Mapping, Sequence
from typing import Any

import pytest
from django.db import connection

from governance.domain import Stage
from governance.models import BundleVersion, Decision, JournalRecord
from governance.policy.base import (
    Outcome,
    PolicyBundle,
    PolicyError,
    PolicyMessage,
    PolicyPoint,
    Verdict,
)
from governance.services.bundles import move_stage
from governance.services.decisions import (
    Case,
    ReplayImpossible,
    Subject,
    judge,
    replay_decision,
)
from lineage.domain import Actor, ActorKind

pytestmark = pytest.mark.django_db
ACTOR = Actor(ActorKind.HUMAN, "ada")
CASE = Case(PolicyPoint.RELEASE, namespace="default")
SUBJECTS = [Subject("release", "a", {"size": 1}), Subject("release", "b", {"size": 9})]


class SizeEngine:
    """Denies what is bigger than 5; remembers how it was called."""

    def __init__(self, error: Exception | None = None) -> None:
        self.error = error
        self.in_transaction: list[bool] = []

    def evaluate(
        self, bundle: PolicyBundle, point: PolicyPoint, inputs: Sequence[Mapping[str, Any]]
    ) -> Sequence[Verdict]:
        self.in_transaction.append(connection.in_atomic_block)
        if self.error is not None:
            raise self.error
        return [self._one(document) for document in inputs]

    def _one(self, document: Mapping[str, Any]) -> Verdict:
        if document["size"] <= 5:
            return Verdict(Outcome.ALLOW)
        return Verdict(Outcome.DENY, (PolicyMessage(Outcome.DENY, "too big"),))


def bundle(stage: Stage, *, version: int = 1, name: str = "b") -> BundleVersion:
    return BundleVersion.objects.create(
        name=name, version=version, digest=f"sha256:{version}", modules=[], stage=stage,
        created_by="ada",
    )  # fmt: skip


def test_without_a_bundle_in_force_everything_is_denied() -> None:
    for stage in (Stage.DRAFT, Stage.SHADOW, Stage.WARN):
        BundleVersion.objects.all().delete()
        bundle(stage)
        judgement = judge(CASE, SUBJECTS[:1], engine=SizeEngine())  # type: ignore[arg-type]
        assert judgement.outcome is Outcome.DENY
        assert "No policy bundle is in force" in judgement.messages(Outcome.DENY)[0]["text"]


def test_a_bundle_counts_as_far_as_its_stage() -> None:
    enforced = bundle(Stage.ENFORCE)
    judgement = judge(CASE, SUBJECTS, engine=SizeEngine())  # type: ignore[arg-type]
    assert judgement.outcome is Outcome.DENY
    move_stage(enforced, Stage.WARN, actor=ACTOR)

    class Allowing(SizeEngine):
        def _one(self, document: Mapping[str, Any]) -> Verdict:
            return Verdict(Outcome.ALLOW)

    other = bundle(Stage.ENFORCE, name="other", version=2)
    engine = SizeEngine()
    original = engine.evaluate
    engine.evaluate = lambda b, p, i: (  # type: ignore[method-assign]
        Allowing().evaluate(b, p, i) if b.digest == other.digest else original(b, p, i)
    )
    assert judge(CASE, SUBJECTS, engine=engine).outcome is Outcome.WARN  # type: ignore[arg-type]
    move_stage(enforced, Stage.SHADOW, actor=ACTOR)
    judgement = judge(CASE, SUBJECTS, engine=engine)  # type: ignore[arg-type]
    assert judgement.outcome is Outcome.ALLOW
    assert judgement.messages(Outcome.DENY) == []
    assert Decision.objects.filter(stage=Stage.SHADOW, outcome=Outcome.DENY).count() == 1


@pytest.mark.parametrize("error", [PolicyError("child died")])
def test_an_engine_that_cannot_answer_denies_and_says_so(error: Exception) -> None:
    bundle(Stage.ENFORCE)
    judgement = judge(CASE, SUBJECTS, engine=SizeEngine(error))  # type: ignore[arg-type]
    assert judgement.outcome is Outcome.DENY
    assert Decision.objects.filter(error="crash").count() == 2
    assert JournalRecord.objects.filter(action="decision.made").count() == 2


def test_a_shadow_bundle_that_crashes_blocks_nobody() -> None:
    bundle(Stage.ENFORCE, name="good")
    bundle(Stage.SHADOW, name="bad", version=2)

    class HalfBroken(SizeEngine):
        def evaluate(self, bundle: Any, point: Any, inputs: Any) -> Sequence[Verdict]:
            if bundle.digest == "sha256:2":
                raise PolicyError("shadow died")
            return super().evaluate(bundle, point, inputs)

    judgement = judge(CASE, SUBJECTS[:1], engine=HalfBroken())  # type: ignore[arg-type]
    assert judgement.outcome is Outcome.ALLOW


@pytest.mark.django_db(transaction=True)
def test_the_engine_is_never_asked_within_a_transaction() -> None:
    bundle(Stage.ENFORCE)
    engine = SizeEngine()
    judge(CASE, SUBJECTS, engine=engine)  # type: ignore[arg-type]
    assert engine.in_transaction == [False]


def test_a_recorded_decision_replays_to_the_same_verdict(tower: Any) -> None:
    tower.register("greedy", gpus=3, role="experimental")
    tower.register("profiler")
    tower.reconcile(tower.apply("refused", agents="greedy").goal)
    tower.reconcile(tower.apply("admitted").goal)
    decisions = list(Decision.objects.all())
    assert len(decisions) == 4
    for decision in decisions:
        replay = replay_decision(decision)
        assert replay.agrees, decision
    assert {replay_decision(d).replayed for d in decisions} == {Outcome.ALLOW, Outcome.DENY}


def test_a_changed_record_is_not_replayed(tower: Any) -> None:
    tower.register("profiler")
    goal = tower.reconcile(tower.apply().goal)
    decision = Decision.objects.filter(goal_uid=goal.uid).first()
    assert decision is not None
    decision.input_canonical = decision.input_canonical.replace("profiler", "attacker")
    with pytest.raises(ReplayImpossible, match="not what was digested"):
        replay_decision(decision)
    decision.refresh_from_db()
    decision.bundle_digest = "sha256:gone"
    with pytest.raises(ReplayImpossible, match="No bundle"):
        replay_decision(decision)


def test_enforcing_one_version_retires_the_other_and_says_both() -> None:
    first, second = bundle(Stage.ENFORCE), bundle(Stage.DRAFT, version=2)
    move_stage(second, Stage.ENFORCE, actor=ACTOR)
    move_stage(second, Stage.ENFORCE, actor=ACTOR)
    first.refresh_from_db()
    assert (first.stage, second.stage) == (Stage.DRAFT, Stage.ENFORCE)
    actions = JournalRecord.objects.values_list("action", "object_id")
    assert sorted(actions) == [("bundle.draft", "b@1"), ("bundle.enforce", "b@2")]

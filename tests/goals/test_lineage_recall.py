"""Recalls: nothing serves or reads a recalled digest, what it touched is shown, two people lift."""

import json
from typing import Any

import pytest

from goals.lineage.consequences import consequences
from goals.services.releases import ReleaseDenied, request_release, rollback_release
from governance.domain import ApprovalInvalid
from governance.models import JournalRecord
from lineage.domain import Actor, ActorKind
from lineage.models import Recall
from lineage.services.artifacts import recall_artifact
from lineage.services.recall import NotRecalled, SamePerson, lift_recall, touched_by
from tests.goals.provenance import ADA, as_, provenance, push
from tests.goals.test_releases import answer, ask, held_up

pytestmark = pytest.mark.django_db
BOB = Actor(ActorKind.HUMAN, "bob")


def test_a_recall_is_made_once_and_lifted_by_another_person(tower: Any) -> None:
    bad = push(b"bad", name="risk")
    assert recall_artifact(bad, reason="It leaks.", actor=ADA)
    assert not recall_artifact(bad, reason="Again.", actor=BOB)
    with pytest.raises(SamePerson, match="four eyes"):
        lift_recall(bad, reason="It is fine.", actor=ADA)
    assert bad.recalled_at is not None
    lift_recall(bad, reason="It was another one.", actor=BOB)
    assert bad.recalled_at is None
    with pytest.raises(NotRecalled):
        lift_recall(bad, reason="Again.", actor=BOB)
    assert request_release(ask(bad)).digest == bad.digest
    assert recall_artifact(bad, reason="It leaks after all.", actor=BOB)
    kept = Recall.objects.order_by("recalled_at")
    assert [(one.reason, one.lift_reason) for one in kept] == [
        ("It leaks.", "It was another one."),
        ("It leaks after all.", ""),
    ]
    news = JournalRecord.objects.filter(action__startswith="artifact.recall").order_by("seq")
    assert [one.action for one in news] == [
        "artifact.recalled",
        "artifact.recall_lifted",
        "artifact.recalled",
    ]
    assert json.loads(news[1].canonical)["body"]["reason"] == "It was another one."


def test_no_release_rests_on_recalled_evidence(tower: Any) -> None:
    model, evidence = push(b"model", name="risk"), push(b"result", name="ab-result")
    recall_artifact(evidence, reason="The split was wrong.", actor=ADA)
    with pytest.raises(ReleaseDenied, match="recalled: The split was wrong"):
        request_release(ask(model, evidence=[evidence.digest]))
    held_up(tower)
    other = push(b"other result", name="ab-result")
    waiting = request_release(ask(model, environment="production", evidence=[other.digest]))
    recall_artifact(other, reason="This one too.", actor=ADA)
    with pytest.raises(ApprovalInvalid, match="recalled: This one too"):
        answer(tower, waiting, approve=True)


def test_everything_downstream_is_found_with_its_remedy(tower: Any) -> None:
    good = push(b"good", name="risk")
    before = request_release(ask(good))
    made = provenance(tower)
    touched = touched_by(made.dataset)
    assert touched.attempts == (str(made.attempt.uid),)
    assert touched.goals == (str(made.goal.uid),)
    assert set(touched.artifacts) == {made.model.digest, made.evidence.digest}
    assert touched.releases == (str(made.release.uid),)
    assert not touched.is_cut
    after = consequences(made.dataset)
    assert [(one.goal.pk, one.attempts) for one in after.goals] == [(made.goal.pk, 1)]
    assert [(one.release.pk, one.back_to) for one in after.releases] == [(made.release.pk, before)]
    recall_artifact(good, reason="That one too.", actor=ADA)
    assert consequences(made.dataset).releases[0].back_to is None


def test_the_page_recalls_proposes_and_another_person_lifts(tower: Any, people: Any) -> None:
    good = push(b"good", name="risk")
    request_release(ask(good))
    made = provenance(tower)
    path = f"/artifacts/{made.dataset.digest}"
    viewer, operator = as_(people, "viewer"), as_(people, "operator")
    author = as_(people, "policy_author")
    assert "needs the role operator or policy_author" in viewer.get(path).content.decode()
    assert viewer.post(f"{path}/recall", {"reason": "no"}).status_code == 403
    assert operator.post(f"{path}/recall", {"reason": " "}).status_code == 422
    answered = operator.post(f"{path}/recall", {"reason": "Wrong labels."})
    assert (answered.status_code, answered["Location"]) == (302, f"{path}#recall")
    assert operator.post(f"{path}/recall", {"reason": "Wrong labels."}).status_code == 302
    page = operator.get(path).content.decode()
    assert "Roll back to #1" in page
    assert "Pause it" in page
    assert "You recalled this digest: somebody else must lift it" in page
    refused = operator.post(f"{path}/lift-recall", {"reason": "Fine."})
    assert refused.status_code == 403
    assert author.post(f"{path}/lift-recall", {"reason": "Relabelled."}).status_code == 302
    assert author.post(f"{path}/lift-recall", {"reason": "Relabelled."}).status_code == 409
    page = viewer.get(path).content.decode()
    assert "lifted by policy_author" in page


def test_a_recalled_digest_cannot_be_rolled_back_to(tower: Any) -> None:
    first = request_release(ask(push(b"one", name="risk")))
    request_release(ask(push(b"two", name="risk")))
    bad = push(b"one", name="risk")
    recall_artifact(bad, reason="It leaks.", actor=ADA)
    with pytest.raises(ReleaseDenied, match="recalled"):
        rollback_release(first, actor=ADA, reason="Back.")

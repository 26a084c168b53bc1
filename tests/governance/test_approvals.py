"""Approvals (I4): one answer however many race, by the right person, to exactly what was asked."""

import datetime as dt
from typing import Any

import pytest
from django.db import connection
from django.utils import timezone

from governance.domain import (
    ApprovalConflict,
    ApprovalForbidden,
    ApprovalInvalid,
    ApprovalKind,
    Permission,
)
from governance.models import Approval, JournalRecord
from governance.services.approvals import (
    Question,
    decide_approval,
    expire_approvals,
    open_approval,
)
from governance.services.verification import verify_journal
from tests.agents.identities import shared_database
from tests.goals.test_ledger import race

__all__ = ["shared_database"]

pytestmark = pytest.mark.django_db


def question(*, number: int = 1, subject: str = "s", **fields: Any) -> Question:
    return Question(
        **{
            "kind": ApprovalKind.RELEASE,
            "namespace": "default",
            "goal_uid": None,
            "subject_kind": "release",
            "subject_id": subject,
            "title": "Release",
            "request": {"number": number, "release": "00000000-0000-0000-0000-000000000000"},
            "requested_by": "operator",
            "barred": ("operator",),
            **fields,
        }
    )


def principal(people: dict[str, Any], role: str) -> Any:
    from governance.access import principal_of

    return principal_of(people[role])


def decide(approval: Approval, who: Any, **fields: Any) -> Approval:
    settings: dict[str, Any] = {
        "approve": True,
        "reason": "Fine.",
        "request_digest": approval.request_digest,
        **fields,
    }
    return decide_approval(approval, principal=who, **settings)


def test_fifty_deciders_make_one_decision(shared_database: None, people: Any) -> None:
    approval = open_approval(question())
    who = principal(people, "approver")

    def answer(index: int) -> str:
        mine = Approval.objects.get(pk=approval.pk)
        decide(mine, who, approve=index % 2 == 0, reason=f"Reason {index}.")
        return "won"

    answers = race(50, answer)
    assert answers.count("won") == 1
    losers = [one for one in answers if one != "won"]
    assert {type(one) for one in losers} == {ApprovalConflict}
    assert all("approver already" in str(one) for one in losers)
    decided = JournalRecord.objects.filter(action__in=("approval.approved", "approval.denied"))
    assert decided.count() == 1
    assert verify_journal().holds
    connection.close()


def test_fifty_askers_ask_one_question(shared_database: None) -> None:
    asked = race(50, lambda _: open_approval(question()).pk)
    assert len(set(asked)) == 1
    assert JournalRecord.objects.filter(action="approval.requested").count() == 1


def test_a_newer_question_voids_the_older(people: Any) -> None:
    first = open_approval(question())
    second = open_approval(question(number=2))
    with pytest.raises(ApprovalConflict, match="newer request"):
        decide(first, principal(people, "approver"))
    first.refresh_from_db()
    with pytest.raises(ApprovalConflict, match="void"):
        decide(first, principal(people, "approver"))
    assert decide(second, principal(people, "approver")).state == "approved"


def test_only_who_may_and_is_not_involved_decides(people: Any, settings: Any) -> None:
    approval = open_approval(question(barred=("admin", "operator")))
    for role in ("viewer", "operator", "policy_author", "auditor"):
        with pytest.raises(ApprovalForbidden, match="role approver"):
            decide(approval, principal(people, role))
    with pytest.raises(ApprovalForbidden, match="four eyes"):
        decide(approval, principal(people, "admin"))
    settings.FOUR_EYES = False
    alone = open_approval(question(number=3, subject="t", barred=("admin",)))
    assert decide(alone, principal(people, "admin")).decided_by == "admin"


def test_a_token_without_the_permission_does_not_approve(people: Any) -> None:
    from governance.access import narrowed

    approval = open_approval(question())
    who = principal(people, "approver")
    narrow = narrowed(who, permissions=[Permission.VIEW], namespace="*")
    with pytest.raises(ApprovalForbidden):
        decide(approval, narrow)
    elsewhere = narrowed(who, permissions=list(Permission), namespace="other")
    with pytest.raises(ApprovalForbidden):
        decide(approval, elsewhere)


@pytest.mark.parametrize("reason", ["", "   ", "\u202e\u200b\x00", "x" * 2001])
def test_a_reason_is_asked_for(people: Any, reason: str) -> None:
    with pytest.raises(ApprovalInvalid, match="reason"):
        decide(open_approval(question()), principal(people, "approver"), reason=reason)


def test_what_was_not_seen_is_not_approved(people: Any) -> None:
    approval = open_approval(question())
    with pytest.raises(ApprovalConflict, match="look at it again"):
        decide(approval, principal(people, "approver"), request_digest="sha256:" + "0" * 64)


def test_what_is_past_its_time_by_the_databases_clock_is_refused_and_denied(people: Any) -> None:
    approval = open_approval(question())
    Approval.objects.update(expires_at=timezone.now() - dt.timedelta(seconds=1))
    with pytest.raises(ApprovalConflict, match="expired"):
        decide(approval, principal(people, "approver"))
    assert expire_approvals() == 1
    assert expire_approvals() == 0
    approval.refresh_from_db()
    assert (approval.state, approval.decided_by) == ("expired", "")


def test_one_that_cannot_be_expired_does_not_keep_the_others(people: Any) -> None:
    broken = open_approval(question(subject="broken"))
    fine = open_approval(question(number=2, subject="fine"))
    past = timezone.now() - dt.timedelta(seconds=1)
    Approval.objects.update(expires_at=past)
    Approval.objects.filter(pk=broken.pk).update(request_canonical="not json")
    assert expire_approvals() == 1
    fine.refresh_from_db()
    assert fine.state == "expired"


@pytest.mark.parametrize("answer", [{"grant": 2**70}, {"grant": float("nan")}, {"x": "\ud800"}])
def test_an_answer_that_is_no_plain_json_is_refused(people: Any, answer: Any) -> None:
    with pytest.raises(ApprovalInvalid):
        decide(open_approval(question()), principal(people, "approver"), answer=answer)


def test_an_agents_words_are_clipped_and_cannot_hide(people: Any) -> None:
    words = "deploy \u202eevil\u202c\x07\x00\ud800 now\n" + "x" * 5_000
    approval = open_approval(question(agent_words=words))
    assert approval.agent_words.startswith("deploy evil now\n")
    assert len(approval.agent_words) == 2_000

"""Who answers an approval: several people, a lent right, a wider group, a question back."""

import datetime as dt
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.utils import timezone

from governance.access import NotAllowed, narrowed, principal_of
from governance.domain import ApprovalConflict, ApprovalForbidden, ApprovalInvalid, Permission
from governance.models import Approval, ApprovalSignature, Delegation, JournalRecord, Membership
from governance.services.approval_bulk import answer_many
from governance.services.approval_threads import ask_about_approval, reply_about_approval
from governance.services.approvals import decide_approval, escalate_approvals, open_approval
from governance.services.delegations import (
    delegate_approvals,
    revoke_delegation,
    visible_delegations,
)
from governance.services.verification import verify_journal
from tests.agents.identities import shared_database
from tests.goals.test_ledger import race
from tests.governance.test_approvals import decide, principal, question

__all__ = ["shared_database"]

pytestmark = pytest.mark.django_db


def approver(name: str, *, namespace: str = "default") -> Any:
    """Another approver of the namespace."""
    user = User.objects.create_user(username=name, password="correct horse battery")
    Membership.objects.create(user=user, namespace=namespace, role="approver")
    return principal_of(user)


def actions() -> list[str]:
    return list(JournalRecord.objects.order_by("seq").values_list("action", flat=True))


def in_a_day() -> dt.datetime:
    return timezone.now() + dt.timedelta(days=1)


def lend(people: Any, *, to: str = "viewer", by: str = "approver") -> Delegation:
    return delegate_approvals(
        principal(people, by), to=to, namespace="default", ends_at=in_a_day(), reason="Away."
    )


# --- quorum -------------------------------------------------------------------------------------


def test_two_distinct_people_approve_where_two_are_asked(people: Any) -> None:
    approval = open_approval(question(quorum=2))
    first = principal(people, "approver")
    assert decide(approval, first).state == "pending"
    with pytest.raises(ApprovalForbidden, match="waits for somebody else"):
        decide(approval, first)
    assert decide(approval, principal(people, "admin")).state == "approved"
    assert list(approval.signatures.values_list("signer", flat=True)) == ["approver", "admin"]
    assert actions()[-2:] == ["approval.signed", "approval.approved"]


def test_one_denial_denies_whatever_was_signed(people: Any) -> None:
    approval = open_approval(question(quorum=3))
    decide(approval, principal(people, "approver"))
    assert decide(approval, principal(people, "admin"), approve=False).state == "denied"


def test_fifty_racers_of_three_names_make_one_decision_of_two_people(
    shared_database: None, people: Any
) -> None:
    approval = open_approval(question(quorum=2))
    names = [principal(people, "approver"), principal(people, "admin"), approver("bea")]

    def answer(index: int) -> str:
        mine = Approval.objects.get(pk=approval.pk)
        return decide(mine, names[index % 3]).state

    answers = race(50, answer)
    assert answers.count("pending") == 1
    assert answers.count("approved") == 1
    refused = [one for one in answers if one not in ("pending", "approved")]
    assert {type(one) for one in refused} <= {ApprovalConflict, ApprovalForbidden}
    assert ApprovalSignature.objects.filter(approval=approval).count() == 2
    assert actions().count("approval.approved") == 1
    assert verify_journal().holds


def test_the_setting_raises_the_quorum_of_everything(people: Any, settings: Any) -> None:
    settings.APPROVAL_QUORUM = 2
    assert open_approval(question()).quorum == 2


# --- delegation ---------------------------------------------------------------------------------


def test_a_lent_right_decides_in_the_name_of_who_lent_it(people: Any) -> None:
    approval = open_approval(question())
    viewer = principal(people, "viewer")
    with pytest.raises(ApprovalForbidden, match="role approver"):
        decide(approval, viewer)
    lend(people)
    decided = decide(approval, principal(people, "viewer"))
    assert (decided.decided_by, decided.decided_for) == ("viewer", "approver")
    with pytest.raises(ApprovalConflict, match="viewer for approver already approved"):
        decide(approval, principal(people, "admin"))


def test_nobody_involved_decides_through_a_lent_right(people: Any) -> None:
    lend(people, to="operator")
    with pytest.raises(ApprovalForbidden, match="four eyes"):
        decide(open_approval(question()), principal(people, "operator"))
    lend(people, to="viewer")
    hers = open_approval(question(number=2, subject="t", barred=("approver",)))
    with pytest.raises(ApprovalForbidden, match="approver lent you the right"):
        decide(hers, principal(people, "viewer"))


def test_a_right_signs_once_whoever_uses_it(people: Any) -> None:
    approval = open_approval(question(quorum=2))
    lend(people)
    decide(approval, principal(people, "approver"))
    with pytest.raises(ApprovalForbidden, match="has been used"):
        decide(approval, principal(people, "viewer"))


@pytest.mark.parametrize("end", ["revoked", "over", "lender_left", "lender_lost_the_role"])
def test_a_lent_right_ends(people: Any, end: str) -> None:
    approval = open_approval(question())
    delegation = lend(people)
    viewer = principal(people, "viewer")
    assert viewer.lenders(namespace="default") == {"approver"}  # and is remembered from now on
    if end == "revoked":
        revoke_delegation(principal(people, "approver"), delegation.uid)
        revoke_delegation(principal(people, "approver"), delegation.uid)
        assert actions().count("delegation.revoked") == 1
    elif end == "over":
        Delegation.objects.update(ends_at=timezone.now() - dt.timedelta(seconds=1))
    elif end == "lender_left":
        User.objects.filter(username="approver").update(is_active=False)
    else:
        Membership.objects.filter(user=people["approver"]).delete()
    with pytest.raises(ApprovalForbidden, match="role approver"):
        decide(approval, viewer)


def test_what_is_lent_is_ones_own_visible_bounded_and_to_somebody_who_sees(people: Any) -> None:
    with pytest.raises(NotAllowed, match="approver"):
        lend(people, by="operator")
    lend(people)
    with pytest.raises(NotAllowed):  # a lent right is not lent on
        lend(people, by="viewer", to="auditor")
    for to in ("approver", "nobody"):
        with pytest.raises(ApprovalInvalid, match="another person"):
            lend(people, to=to)
    User.objects.create_user(username="stranger")
    with pytest.raises(ApprovalInvalid, match="may not see namespace"):
        lend(people, to="stranger")
    with pytest.raises(ApprovalInvalid, match="30 days"):
        delegate_approvals(
            principal(people, "approver"),
            to="viewer",
            namespace="default",
            ends_at=timezone.now() + dt.timedelta(days=31),
            reason="Long.",
        )
    for role in ("auditor", "admin"):
        assert visible_delegations(principal(people, role)).count() == 1
    assert not visible_delegations(approver("far", namespace="other")).exists()
    with pytest.raises(NotAllowed):
        revoke_delegation(principal(people, "auditor"), Delegation.objects.get().uid)


def test_a_narrow_token_uses_no_lent_right(people: Any) -> None:
    lend(people)
    viewer = principal(people, "viewer")
    approval = open_approval(question())
    for narrow in (
        narrowed(viewer, permissions=[Permission.VIEW], namespace="*"),
        narrowed(viewer, permissions=list(Permission), namespace="other"),
    ):
        with pytest.raises(ApprovalForbidden, match="role approver"):
            decide(approval, narrow)


# --- questions and escalation -------------------------------------------------------------------


def test_a_question_leaves_it_open_and_says_on_whom_it_waits(people: Any) -> None:
    approval = open_approval(question())
    who = principal(people, "approver")
    expires_at = approval.expires_at
    for _ in range(2):
        ask_about_approval(approval, principal=who, to="operator", body="Why so much?")
    approval.refresh_from_db()
    assert (approval.state, approval.waits_on) == ("pending", "operator")
    assert approval.expires_at == expires_at
    with pytest.raises(ApprovalForbidden, match="who was asked"):
        reply_about_approval(approval, principal=principal(people, "auditor"), body="Because.")
    reply_about_approval(approval, principal=principal(people, "operator"), body="A retry.")
    approval.refresh_from_db()
    assert approval.waits_on == ""
    assert [one.body for one in approval.messages.all()] == ["Why so much?", "A retry."]
    assert actions()[-2:] == ["approval.question", "approval.reply"]
    decide(approval, who)
    with pytest.raises(ApprovalConflict, match="already approved"):
        ask_about_approval(approval, principal=who, to="operators", body="And now?")


@pytest.mark.parametrize(
    ("who", "to", "body", "error", "said"),
    [
        ("viewer", "operator", "Why?", ApprovalForbidden, "role approver"),
        ("approver", "nobody", "Why?", ApprovalInvalid, "to: one of"),
        ("approver", "operator", " ", ApprovalInvalid, "text: say it"),
    ],
)
def test_a_bad_question_is_refused(
    people: Any, who: str, to: str, body: str, error: Any, said: str
) -> None:
    approval = open_approval(question())
    with pytest.raises(error, match=said):
        ask_about_approval(approval, principal=principal(people, who), to=to, body=body)
    assert not approval.messages.exists()


def test_what_nobody_answers_is_escalated_once(people: Any) -> None:
    approval = open_approval(question())
    assert escalate_approvals() == 0
    Approval.objects.update(escalates_at=timezone.now() - dt.timedelta(seconds=1))
    assert (escalate_approvals(), escalate_approvals()) == (1, 0)
    approval.refresh_from_db()
    assert approval.escalated_at is not None
    assert (approval.state, actions()[-1]) == ("pending", "approval.escalated")


# --- several at once ----------------------------------------------------------------------------


def test_each_of_several_is_judged_by_itself_and_a_repeat_is_safe(people: Any) -> None:
    mine = open_approval(question(subject="a"))
    barred = open_approval(question(number=2, subject="b", barred=("approver",)))
    gone = open_approval(question(number=3, subject="c"))
    two = open_approval(question(number=4, subject="d", quorum=2))
    decide(gone, principal(people, "admin"), approve=False)
    seen = [(one.uid, one.request_digest) for one in (mine, barred, gone, two)]
    who = principal(people, "approver")

    def outcomes() -> list[str]:
        return [
            one.outcome for one in answer_many(seen, principal=who, approve=True, reason="All.")
        ]

    assert outcomes() == ["approved", "forbidden", "conflict", "signed"]
    before = len(actions())
    assert outcomes() == ["already", "forbidden", "conflict", "already"]
    assert len(actions()) == before


def test_many_at_once_are_bounded_and_need_a_reason(people: Any) -> None:
    approval = open_approval(question())
    pair = (approval.uid, approval.request_digest)
    for seen in ([], [pair, pair], [pair] * 101):
        with pytest.raises(ApprovalInvalid, match="approvals"):
            answer_many(seen, principal=principal(people, "admin"), approve=True, reason="r")
    with pytest.raises(ApprovalInvalid, match="reason"):
        answer_many([pair], principal=principal(people, "admin"), approve=True, reason=" ")


@pytest.mark.parametrize("name", ["grant", "until", "degrade"])
def test_only_a_budget_is_granted_in_part(people: Any, name: str) -> None:
    approval = open_approval(question())
    with pytest.raises(ApprovalInvalid, match=f"{name}: only a budget"):
        decide_approval(
            approval,
            principal=principal(people, "approver"),
            approve=True,
            reason="r",
            request_digest=approval.request_digest,
            answer={name: 1},
        )

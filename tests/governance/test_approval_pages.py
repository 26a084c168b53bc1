"""Pages of approvals: the inbox's order, several at once, delegations, questions, stale cards."""

import datetime as dt
import re
from typing import Any

import pytest
from django.test import Client
from django.utils import timezone

from governance.models import Approval, Delegation, Membership
from governance.services.approvals import decide_approval, open_approval
from tests.governance.test_approval_people import approver, lend
from tests.governance.test_approvals import decide, principal, question

pytestmark = pytest.mark.django_db


@pytest.fixture(autouse=True)
def _quick_passwords(settings: Any) -> None:
    """Six people a test: what slows a guesser down would take most of the time."""
    settings.PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]


@pytest.fixture
def signed_in(people: Any, twins: Any) -> Any:
    def sign_in(role: str) -> Client:
        client = Client()
        client.force_login(people[role])
        return client

    return sign_in


def read(client: Client, path: str, status: int = 200) -> str:
    answer = client.get(path)
    assert answer.status_code == status
    return str(answer.content.decode())


def ask_many(count: int, **fields: Any) -> list[Approval]:
    return [
        open_approval(question(number=n, subject=f"s{n}", title=f"Release {n}", **fields))
        for n in range(1, count + 1)
    ]


def test_the_inbox_tells_mine_from_all(people: Any, signed_in: Any) -> None:
    open_approval(question(title="Free"))
    open_approval(question(number=2, subject="t", title="Barred", barred=("approver",)))
    page = read(signed_in("approver"), "/approvals")
    assert "Free" in page
    assert "Barred" in page
    mine = read(signed_in("approver"), "/approvals?who=mine")
    assert "Free" in mine
    assert "Barred" not in mine
    assert "Nothing waits for you" in read(signed_in("viewer"), "/approvals?who=mine")


def test_who_approves_everywhere_is_the_wider_group(people: Any, signed_in: Any) -> None:
    open_approval(question(title="Local"))
    admin = signed_in("admin")
    assert "Nothing waits for you" in read(admin, "/approvals?who=mine")
    Approval.objects.update(escalated_at=timezone.now())
    page = read(admin, "/approvals?who=mine")
    assert "Local" in page
    assert "escalated" in page
    Approval.objects.update(escalated_at=None)
    Membership.objects.filter(role="approver").delete()
    assert "Local" in read(admin, "/approvals?who=mine")


def test_the_inbox_is_filtered(people: Any, signed_in: Any) -> None:
    ask_many(3)
    page = read(signed_in("viewer"), "/approvals?q=2$")
    assert "Release 2" in page
    assert "Release 3" not in page
    assert "No open request matches" in read(signed_in("viewer"), "/approvals?q=-l kind=graph")
    assert "takes key=value" in read(signed_in("viewer"), "/approvals?q=-l x", 422)


def test_an_unknown_damage_is_shown_as_unknown(people: Any, signed_in: Any) -> None:
    open_approval(question())
    page = read(signed_in("viewer"), "/approvals")
    assert 'Damage by waiting: <span class="unknown">unknown</span>' in page


def test_several_are_reviewed_with_their_sum_and_answered(people: Any, signed_in: Any) -> None:
    asked = ask_many(3)
    barred = open_approval(question(number=9, subject="z", title="Not me", barred=("approver",)))
    browser = signed_in("approver")
    query = "&".join(f"uid={one.uid}" for one in (*asked, barred))
    page = read(browser, f"/approvals/bulk?{query}&uid=nonsense")
    assert "<h1>3 requests</h1>" in page
    assert "Left out" in page
    seen = re.findall(r'name="seen"\s+value="([^"]+)"', page)
    form = {"seen": seen, "decision": "deny", "reason": "Not today."}
    for _ in range(2):
        answer = browser.post("/approvals/bulk", form)
        assert answer.status_code == 200
        assert "3 of 3 denied" in answer.content.decode()
    assert {one.state for one in Approval.objects.exclude(pk=barred.pk)} == {"denied"}
    wrongs: list[dict[str, Any]] = [
        {"reason": ""},
        {"seen": ["nonsense"]},
        {"decision": "x"},
        {"seen": []},
    ]
    for wrong in wrongs:
        assert browser.post("/approvals/bulk", {**form, **wrong}).status_code == 422


def test_the_loser_of_a_bulk_race_sees_who_decided(people: Any, signed_in: Any) -> None:
    (one,) = ask_many(1)
    decide(one, principal(people, "admin"))
    form = {"seen": f"{one.uid} {one.request_digest}", "decision": "deny", "reason": "No."}
    page = signed_in("approver").post("/approvals/bulk", form).content.decode()
    assert "0 of 1 denied" in page
    assert "admin already approved this" in page


def test_a_question_and_its_reply_are_on_the_card(people: Any, signed_in: Any) -> None:
    one = open_approval(question())
    path = f"/approvals/{one.uid}"
    who = signed_in("approver")
    assert who.post(f"{path}/ask", {"to": "operator", "text": "Why?"}).status_code == 302
    assert "waits on operator" in read(who, path)
    assert "waits on operator" in read(who, "/approvals")
    operator = signed_in("operator")
    assert operator.post(f"{path}/ask", {"to": "operator", "text": "x"}).status_code == 403
    part = operator.post(
        f"{path}/reply", {"text": "A <b>retry</b>."}, headers={"HX-Request": "true"}
    )
    assert part.status_code == 200
    assert "A &lt;b&gt;retry&lt;/b&gt;." in part.content.decode()
    assert signed_in("auditor").post(f"{path}/reply", {"text": "x"}).status_code == 403
    assert who.post(f"{path}/ask", {"to": "operator", "text": ""}).status_code == 422


def test_a_card_that_is_outdated_is_told_so(people: Any, signed_in: Any) -> None:
    first = open_approval(question())
    client = signed_in("approver")
    path = f"/approvals/{first.uid}/standing"
    assert 'data-state="open"' in read(client, path)
    second = open_approval(question(number=2))
    page = read(client, path)
    assert 'data-state="closed"' in page
    assert "newer request" in page
    assert f"/approvals/{second.uid}" in page
    decide(second, principal(people, "admin"), approve=False)
    assert "admin already denied this" in read(client, f"/approvals/{second.uid}/standing")
    third = open_approval(question(number=3))
    Approval.objects.filter(pk=third.pk).update(expires_at=timezone.now())
    assert "expired" in read(client, f"/approvals/{third.uid}/standing")


def test_a_right_is_lent_shown_and_taken_back(people: Any, signed_in: Any) -> None:
    browser = signed_in("approver")
    until = (timezone.now() + dt.timedelta(days=2)).strftime("%Y-%m-%dT%H:%M")
    form = {"to": "viewer", "namespace": "default", "until": until, "reason": "Away."}
    assert browser.post("/approvals/delegations", form).status_code == 302
    page = read(signed_in("viewer"), "/approvals/delegations")
    assert "in force" in page
    assert "Only who holds the role approver" in page
    one = open_approval(question())
    card = read(signed_in("viewer"), f"/approvals/{one.uid}")
    assert "You answer for approver" in card
    revoke = f"/approvals/delegations/{Delegation.objects.get().uid}/revoke"
    assert signed_in("auditor").post(revoke).status_code == 403
    assert browser.post(revoke).status_code == 302
    assert "revoked" in read(browser, "/approvals/delegations")
    for wrong in ({"to": "approver"}, {"until": "2020-01-01T00:00"}, {"namespace": "other"}):
        answer = browser.post("/approvals/delegations", {**form, **wrong})
        assert answer.status_code == 422
        assert "field-error" in answer.content.decode() or "role" in answer.content.decode()
    assert Delegation.objects.count() == 1


def test_decided_tells_who_for_whom_how_long_and_the_median(people: Any, signed_in: Any) -> None:
    lend(people)
    one, two, three = ask_many(3)
    decide(one, principal(people, "viewer"), reason="For Ann.")
    decide(two, principal(people, "approver"), approve=False)
    decide(three, principal(people, "approver"))
    now = timezone.now()
    for row, minutes in ((one, 2), (two, 10), (three, 6)):
        Approval.objects.filter(pk=row.pk).update(
            created_at=now - dt.timedelta(minutes=minutes), decided_at=now
        )
    page = read(signed_in("viewer"), "/approvals/decided")
    assert "<strong>6 min 0 s</strong>" in page
    assert "for approver" in page
    assert "For Ann." in page
    none = read(signed_in("viewer"), "/approvals/decided?time=2020-01-01..2020-01-02")
    assert '<span class="unknown">unknown</span>' in none
    rows = signed_in("viewer").get("/approvals/decided?format=csv&q=-l state=denied")
    assert len(rows.content.decode().splitlines()) == 2


def test_two_signatures_are_shown(people: Any, signed_in: Any) -> None:
    one = open_approval(question(quorum=2))
    decide(one, principal(people, "approver"), reason="I say yes.")
    assert "1 of 2 approved" in read(signed_in("admin"), "/approvals")
    card = read(signed_in("approver"), f"/approvals/{one.uid}")
    assert "I say yes." in card
    assert "waits for somebody else" in card
    decide_approval(
        one, principal=approver("bea"), approve=True, reason="r", request_digest=one.request_digest
    )
    assert "2 of 2 approved" in read(signed_in("approver"), f"/approvals/{one.uid}")


def test_the_inbox_takes_a_bounded_number_of_queries(
    people: Any, signed_in: Any, django_assert_max_num_queries: Any
) -> None:
    ask_many(60)
    client = signed_in("viewer")
    with django_assert_max_num_queries(14):
        page = read(client, "/approvals")
    assert page.count('class="inbox-row') == 25

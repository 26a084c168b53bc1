"""The API of approvals: the same services as the pages, and the same refusals."""

import datetime as dt
import json
from typing import Any

import pytest
from django.test import Client
from django.utils import timezone

from governance.access import principal_of
from governance.models import Approval, Delegation
from governance.services.approvals import open_approval
from governance.services.tokens import create_token
from tests.governance.test_approvals import question

pytestmark = pytest.mark.django_db


@pytest.fixture(autouse=True)
def _quick_passwords(settings: Any) -> None:
    """Six people a test: what slows a guesser down would take most of the time."""
    settings.PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]


@pytest.fixture
def call(people: Any, twins: Any) -> Any:
    """`call(who, method, path, document)` -> (status, document)."""
    tokens: dict[str, str] = {}

    def ask(who: str, method: str, path: str, document: Any = None) -> tuple[int, Any]:
        if who not in tokens:
            user = people[who]
            made = create_token(user, principal=principal_of(user), name="t")
            tokens[who] = made[1]
        answer = Client().generic(
            method.upper(),
            f"/api/v1{path}",
            data=b"" if document is None else json.dumps(document).encode(),
            content_type="application/json",
            headers={"Authorization": f"Bearer {tokens[who]}"},
        )
        return answer.status_code, answer.json()

    return ask


def answer_to(approval: Approval, **fields: Any) -> dict[str, Any]:
    return {"reason": "Fine.", "request_digest": approval.request_digest, **fields}


def test_the_inbox_says_what_waits_why_not_and_what_it_risks(call: Any) -> None:
    one = open_approval(question())
    status, rows = call("viewer", "get", "/approvals/inbox")
    assert status == 200
    assert rows[0]["approval"]["uid"] == str(one.uid)
    assert "role approver" in rows[0]["why_not"]
    assert rows[0]["stake"]["damage_at"] is None
    assert call("viewer", "get", "/approvals/inbox?mine=true") == (200, [])


def test_several_are_answered_each_by_itself(call: Any) -> None:
    asked = [open_approval(question(number=n, subject=f"s{n}")) for n in range(3)]
    document = {
        "decision": "approve",
        "reason": "All.",
        "approvals": [{"uid": str(one.uid), "request_digest": one.request_digest} for one in asked],
    }
    assert call("operator", "post", "/approvals/answer", document)[1][0]["outcome"] == "forbidden"
    for outcome in ("approved", "already"):
        status, rows = call("approver", "post", "/approvals/answer", document)
        assert (status, {row["outcome"] for row in rows}) == (200, {outcome})
    assert call("approver", "post", "/approvals/answer", {**document, "approvals": []})[0] == 422


def test_refusals_have_their_status(call: Any) -> None:
    one = open_approval(question())
    path = f"/approvals/{one.uid}"
    assert call("viewer", "post", f"{path}/approve", answer_to(one))[0] == 403
    until = (timezone.now() + dt.timedelta(hours=1)).isoformat()
    status, problem = call("approver", "post", f"{path}/approve", answer_to(one, until=until))
    assert (status, "until: only a budget" in problem["detail"]) == (422, True)
    assert call("approver", "post", f"{path}/degrade", answer_to(one))[0] == 422
    assert call("approver", "post", f"{path}/deny", answer_to(one))[0] == 200
    status, problem = call("admin", "post", f"{path}/approve", answer_to(one))
    assert (status, "approver already denied" in problem["detail"]) == (409, True)


def test_a_thread_and_signatures_are_part_of_the_approval(call: Any) -> None:
    one = open_approval(question(quorum=2))
    path = f"/approvals/{one.uid}"
    assert call("approver", "post", f"{path}/ask", {"to": "operators", "text": "Why?"})[0] == 200
    assert call("operator", "post", f"{path}/reply", {"text": "So."})[0] == 200
    assert call("auditor", "post", f"{path}/reply", {"text": "So."})[0] == 403
    status, answered = call("approver", "post", f"{path}/approve", answer_to(one))
    assert (status, answered["state"]) == (200, "pending")
    status, found = call("viewer", "get", path)
    assert status == 200
    assert [one["body"] for one in found["messages"]] == ["Why?", "So."]
    assert [one["signer"] for one in found["signatures"]] == ["approver"]
    assert found["stake"]["ways"] is None


def test_a_right_is_lent_and_taken_back(call: Any) -> None:
    until = (timezone.now() + dt.timedelta(days=1)).isoformat()
    document = {"to": "viewer", "namespace": "default", "until": until, "reason": "Away."}
    assert call("operator", "post", "/delegations", document)[0] == 403
    naive = {**document, "until": until[:19]}
    assert call("approver", "post", "/delegations", naive)[0] == 422
    first = call("approver", "post", "/delegations", document)[1]["uid"]
    assert call("approver", "post", "/delegations", document)[1]["uid"] == first
    one = open_approval(question())
    status, answered = call("viewer", "post", f"/approvals/{one.uid}/approve", answer_to(one))
    assert (status, answered["decided_for"]) == (200, "approver")
    assert call("auditor", "delete", f"/delegations/{first}")[0] == 403
    assert call("viewer", "delete", f"/delegations/{first}")[0] == 200
    assert Delegation.objects.get().revoked_by == "viewer"
    assert call("auditor", "get", "/delegations")[0] == 200

"""Answering from the command line: the card, the question, the amount, and who came first."""

import json
from collections.abc import Callable
from typing import Any

import pytest

from governance.models import Approval
from tests.console.cli_runs import Cli, cli_of, doorbell, paused_goal
from tests.towers import Tower

__all__ = ["cli_of", "doorbell"]

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def approval(tower: Tower) -> Any:
    """A question for 10 more GPU-seconds."""
    paused_goal(tower)
    return Approval.objects.get()


def test_the_card_is_shown_and_less_is_granted(approval: Any, cli_of: Callable[..., Cli]) -> None:
    Approval.objects.update(agent_words="I need it\nall\x1b[2J")
    result = cli_of("approver").run(
        "approve", str(approval.uid), "--grant", "2.5 GPU-seconds", "--reason", "a bit", stdin="y\n"
    )
    assert result.exit_code == 0
    assert result.stdout == f"approval/{approval.uid} approved\n"
    for words in (
        "More budget for default/fast",
        "Asks for:                         10 GPU-s",
        "Caused by:                        unknown",
        "written by the agent, unverified",
        "| I need it",
        "Approve 2.5 GPU-s? [y/N]",
    ):
        assert words in result.stderr
    assert "\x1b" not in result.stderr
    approval.refresh_from_db()
    assert (approval.state, approval.answer, approval.reason) == (
        "approved",
        {"grant": 2500},
        "a bit",
    )


def test_nothing_is_sent_without_a_yes(approval: Any, cli_of: Callable[..., Cli]) -> None:
    cli = cli_of("approver")
    arguments = ("deny", str(approval.uid), "--reason", "no")
    unsure = cli.run(*arguments, stdin="\n")
    assert (unsure.exit_code, "nothing was sent" in unsure.stderr) == (1, True)
    nobody = cli.run(*arguments)
    assert (nobody.exit_code, "--yes" in nobody.stderr) == (2, True)
    approval.refresh_from_db()
    assert approval.state == "pending"
    assert json.loads(cli.good(*arguments, "--yes", "-o", "json"))["state"] == "denied"


@pytest.mark.parametrize(
    ("grant", "said"),
    [
        ("20 potatoes", "a unit"),
        ("5k tokens", "this asks for 10 GPU-s"),
        ("1 GPU-second, 1 USD", "this asks for 10 GPU-s"),
    ],
)
def test_a_grant_in_another_unit_is_a_usage_error(
    approval: Any, cli_of: Callable[..., Cli], grant: str, said: str
) -> None:
    result = cli_of("approver").run(
        "approve", str(approval.uid), "--grant", grant, "--reason", "r", "--yes"
    )
    assert (result.exit_code, said in result.stderr) == (2, True)


def test_more_than_was_asked_is_refused(approval: Any, cli_of: Callable[..., Cli]) -> None:
    result = cli_of("approver").run(
        "approve", str(approval.uid), "--grant", "1 GPU-hour", "--reason", "r", "--yes"
    )
    assert (result.exit_code, "grant: between 1 and 10000" in result.stderr) == (1, True)
    approval.refresh_from_db()
    assert approval.state == "pending"


def test_four_eyes_and_roles(approval: Any, tower: Tower, cli_of: Callable[..., Cli]) -> None:
    arguments = ("approve", str(approval.uid), "--reason", "r", "--yes")
    result = cli_of("operator").run(*arguments)
    assert (result.exit_code, "role approver" in result.stderr) == (5, True)
    assert cli_of("approver").run("approve", "nope", "--reason", "r", "--yes").exit_code == 4
    assert cli_of("approver").run("approve", str(approval.uid)).exit_code == 2


def test_who_answers_second_learns_who_was_first(approval: Any, cli_of: Callable[..., Cli]) -> None:
    slow = cli_of("approver").spawn("approve", str(approval.uid), "--reason", "late")
    slow.until(approval.request_digest)
    cli_of("admin").good("deny", str(approval.uid), "--reason", "first", "--yes")
    slow.say("y\n")
    assert "admin already denied this" in slow.until("already denied")[-1]
    assert slow.end() == 6
    again = cli_of("approver").run("approve", str(approval.uid), "--reason", "later", "--yes")
    assert (again.exit_code, "already denied by admin: first" in again.stderr) == (6, True)
    approval.refresh_from_db()
    assert (approval.state, approval.decided_by) == ("denied", "admin")


def test_what_changed_since_it_was_shown_is_not_answered(
    approval: Any, cli_of: Callable[..., Cli]
) -> None:
    slow = cli_of("approver").spawn("approve", str(approval.uid), "--reason", "r")
    slow.until(approval.request_digest)
    Approval.objects.update(request_digest="sha256:" + "0" * 64)
    slow.say("y\n")
    slow.until("What you saw is not what is asked now")
    assert slow.end() == 6


def test_approve_until_degrade_and_the_inbox(
    approval: Any, tower: Tower, cli_of: Callable[..., Cli]
) -> None:
    cli = cli_of("approver")
    assert "the paused work is ended" in cli.good("inbox")
    rows = json.loads(cli.good("inbox", "--mine", "-o", "json"))
    assert [row["approval"]["uid"] for row in rows] == [str(approval.uid)]
    for wrong in ("soon", "2026-01-31T18:00:00", "4w"):
        result = cli.run("approve", str(approval.uid), "--until", wrong, "--reason", "r", "--yes")
        assert (result.exit_code, "--until" in result.stderr) == (2, True)
    nothing = cli.run("degrade", str(approval.uid), "--reason", "r", "--yes")
    assert (nothing.exit_code, "--gpus" in nothing.stderr) == (2, True)
    result = cli.run(
        "degrade", str(approval.uid), "--last-iteration", "--until", "4h", "--reason", "enough",
        stdin="y\n",
    )  # fmt: skip
    assert (result.exit_code, "with less (last iteration True)?" in result.stderr) == (0, True)
    approval.refresh_from_db()
    assert approval.answer["degrade"] == {"last_iteration": True}
    assert approval.lapses_at is not None


def test_a_smaller_model_is_shown_and_taken(tower: Tower, cli_of: Callable[..., Cli]) -> None:
    paused_goal(tower, models="big, small")
    approval = Approval.objects.get()
    cli = cli_of("approver")
    wrong = cli.run("degrade", str(approval.uid), "--model", "tiny", "--reason", "r", "--yes")
    assert (wrong.exit_code, "choose small." in wrong.stderr) == (1, True)
    said = "small: input unknown against unknown USD per 1M tokens"
    assert said in " ".join(wrong.stderr.split())
    cli.good("degrade", str(approval.uid), "--model", "small", "--reason", "r", "--yes")
    approval.refresh_from_db()
    assert approval.answer == {"degrade": {"model": "small"}}


def test_a_question_and_a_reply(approval: Any, cli_of: Callable[..., Cli]) -> None:
    uid = str(approval.uid)
    said = cli_of("approver").good("ask", uid, "Why so much?", "--to", "operators")
    assert said == f"approval/{uid} waits on operators\n"
    wrong = cli_of("approver").run("ask", uid, "Why?", "--to", "nobody")
    assert (wrong.exit_code, "to: one of" in wrong.stderr) == (1, True)
    cli_of("operator").good("reply", uid, "A retry.")
    assert [one.body for one in approval.messages.all()] == ["Why so much?", "A retry."]


def test_a_right_is_lent_used_and_taken_back(
    approval: Any, tower: Tower, cli_of: Callable[..., Cli]
) -> None:
    give = ("delegation", "give", "viewer", "-n", "default", "--until", "2d", "--reason", "Away.")
    made = json.loads(cli_of("approver").good(*give, "-o", "json"))
    assert "viewer" in cli_of("auditor").good("delegation", "list")
    answer = ("approve", str(approval.uid), "--reason", "For her.", "--yes")
    assert cli_of("viewer").good(*answer) == f"approval/{approval.uid} approved\n"
    approval.refresh_from_db()
    assert (approval.decided_by, approval.decided_for) == ("viewer", "approver")
    ended = cli_of("approver").good("delegation", "revoke", made["uid"])
    assert ended == f"delegation/{made['uid']} revoked\n"


def test_the_first_of_two_is_told_that_another_must_approve(
    approval: Any, cli_of: Callable[..., Cli]
) -> None:
    Approval.objects.update(quorum=2)
    answer = ("approve", str(approval.uid), "--reason", "r", "--yes")
    first = cli_of("approver").good(*answer)
    assert first == f"approval/{approval.uid} signed, 2 must\n"
    assert cli_of("admin").good(*answer) == f"approval/{approval.uid} approved\n"

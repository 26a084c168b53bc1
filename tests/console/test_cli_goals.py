"""Steering, describing, explaining and reading one Goal from the command line."""

import json
from collections.abc import Callable

import pytest

from goals.models import Goal
from tests.console.cli_runs import MEASURED, Cli, cli_of, doorbell, paused_goal
from tests.towers import Tower

__all__ = ["cli_of", "doorbell"]

pytestmark = pytest.mark.django_db(transaction=True)


def test_pause_resume_cancel_and_delete(tower: Tower, cli_of: Callable[..., Cli]) -> None:
    tower.register("profiler")
    goal = tower.apply("fast").goal
    tower.reconcile(goal)
    cli = cli_of("operator")
    assert cli.good("pause", "goal", "fast") == "goal/fast pausing\n"
    tower.reconcile(goal)
    assert cli.good("resume", "goal/fast") == "goal/fast resuming\n"
    document = json.loads(cli.good("cancel", "goal", "fast", "--reason", "enough", "-o", "json"))
    assert document["status"]["desired"] == "cancel"
    goal.refresh_from_db()
    assert "enough" in goal.landing_message
    late = cli.run("pause", "goal", "fast")
    assert (late.exit_code, "clearance: Conflict" in late.stderr) == (6, True)
    assert cli.good("delete", "goal", "fast") == "goal/fast deleting\n"


@pytest.mark.parametrize("verb", ["pause", "resume", "cancel", "delete", "describe", "evidence"])
def test_a_goal_that_is_not_there(tower: Tower, cli_of: Callable[..., Cli], verb: str) -> None:
    result = cli_of("operator").run(verb, "goal", "nope")
    assert (result.exit_code, result.stdout) == (4, "")
    assert "There is no Goal 'default/nope' that you may see." in result.stderr


def test_who_may_only_look_may_not_steer(tower: Tower, cli_of: Callable[..., Cli]) -> None:
    tower.register("profiler")
    tower.apply("fast")
    result = cli_of("viewer").run("pause", "goal", "fast")
    assert (result.exit_code, "role operator" in result.stderr) == (5, True)


def test_describe_says_everything(tower: Tower, cli_of: Callable[..., Cli]) -> None:
    goal = paused_goal(tower)
    cli = cli_of("viewer")
    said = cli.good("describe", "goal", "fast")
    for words in (
        "Phase:           Paused",
        "settled 10 GPU-s, reserved 0 GPU-s, available 0 GPU-s of 10 GPU-s granted",
        "LimitReached",
        "AllowanceExhausted",
        "Releases:\nnone",
        "approval.requested",
    ):
        assert words in said
    document = json.loads(cli.good("describe", "goal", str(goal.uid), "-o", "json"))
    assert [len(document[key]) for key in ("tasks", "attempts", "approvals")] == [2, 2, 1]


def test_wait_ends_with_the_phase(tower: Tower, cli_of: Callable[..., Cli]) -> None:
    tower.register("profiler")
    tower.apply("fast")
    cli = cli_of("viewer")
    late = cli.run("wait", "goal", "fast", "--timeout", "0")
    assert (late.exit_code, "still Draft" in late.stderr) == (1, True)
    Goal.objects.update(phase="Exhausted")
    assert cli.good("wait", "goal", "fast", "--for", "landed") == "goal/fast Exhausted\n"
    assert cli.run("wait", "goal", "fast").exit_code == 1
    Goal.objects.update(phase="Denied")
    assert cli.run("wait", "goal", "fast").exit_code == 3
    assert cli.run("wait", "goal", "fast", "--for", "sunrise").exit_code == 2


def test_why_a_goal_leads_from_the_release_to_the_signature(
    tower: Tower, cli_of: Callable[..., Cli]
) -> None:
    goal = paused_goal(tower)
    admin = cli_of("admin")
    digest = admin.push("tiny")
    attempt = tower.attempts(goal)[1]
    _give_to_goal(goal, attempt, digest=digest, cli=admin)
    lines = admin.good("why", "goal", "fast").splitlines()
    text = "\n".join(lines)
    assert lines[0] == "goal default/fast: Paused"
    chain = (
        "measured 300 ms",
        "because of observation observe latency (latency 300.0 ms) by profiler",
        f"release checkout/canary serves {digest} (active)",
        "decision",
        "released by optimizer, task optimizer",
        "SVID spiffe://clearance.test/ns/default/sa/optimizer",
        "artifact model tiny",
        "signed by",
    )
    places = [text.index(words) for words in chain]
    assert places == sorted(places)


def _give_to_goal(goal: Goal, attempt: object, *, digest: str, cli: Cli) -> None:
    """As if the optimizer had pushed and released it; the rows are what `why` reads."""
    from goals.models import Release
    from lineage.models import Artifact
    from tests.console.cli_runs import release

    release(cli, digest)
    owner = {"goal_uid": goal.uid, "attempt_uid": attempt.uid}  # type: ignore[attr-defined]
    Release.objects.update(**owner)
    Artifact.objects.update(**owner)
    Goal.objects.update(
        measured_value=300.0,
        measured_unit="ms",
        measured_at=goal.created_at,
        measured_span_id=MEASURED,
    )


def test_why_a_span_and_one_that_is_not_there(tower: Tower, cli_of: Callable[..., Cli]) -> None:
    paused_goal(tower)
    cli = cli_of("viewer")
    said = cli.good("why", MEASURED)
    assert said.startswith("observation observe latency (latency 300.0 ms) by profiler")
    assert "done by profiler" in said
    assert json.loads(cli.good("why", "span", MEASURED, "-o", "json"))["kind"] == "span"
    assert cli.run("why", "f" * 16).exit_code == 4
    assert cli.run("why", "goal", "nope").exit_code == 4
    assert cli.run("why", "a", "b", "c").exit_code == 2


def test_logs_print_the_output_and_follow_it_to_the_end(
    tower: Tower, cli_of: Callable[..., Cli]
) -> None:
    tower.register("profiler")
    goal = tower.apply("fast").goal
    tower.reconcile(goal)
    (attempt,) = tower.attempts(goal)
    tower.twins.cluster.write_output(attempt.workload, "1: grüße\n".encode())
    cli = cli_of("viewer")
    assert cli.good("logs", str(attempt.uid)[:8]) == "1: grüße\n"
    program = cli.spawn("logs", attempt.workload, "--follow", "--interval", "0.1")
    program.until("1: grüße")
    tower.twins.cluster.write_output(attempt.workload, b"2: last words")
    tower.twins.cluster.finish(attempt.workload)
    tower.reconcile(goal)
    program.until("2: last words")
    assert program.end() == 0
    assert cli.run("logs", "nope").exit_code == 4

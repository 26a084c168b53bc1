"""What a Goal says while it waits for what others hold, and when something was taken from it."""

import json
from typing import Any

import pytest

from agents.cluster.base import Blockage, ClusterUnavailable, WorkloadBlocked
from goals.models import Goal
from goals.services.conditions import condition_of
from governance.models import JournalRecord

pytestmark = pytest.mark.django_db


def start(tower: Any, name: str) -> Goal:
    goal: Goal = tower.apply(name, agents="tuner", budget="10 GPU-hours").goal
    return tower.reconcile(goal)  # type: ignore[no-any-return]


def said(goal: Goal, kind: str) -> tuple[str, str, str]:
    found = condition_of(goal, kind)
    assert found is not None
    return found["status"], found["reason"], found["message"]


def told(goal: Goal, kind: str) -> list[str]:
    """Every sentence of that condition, as the journal has it."""
    records = JournalRecord.objects.filter(goal_uid=goal.uid, action="goal.condition")
    bodies = [json.loads(one.canonical)["body"] for one in records.order_by("seq")]
    return [one["condition"]["message"] for one in bodies if one["condition"]["type"] == kind]


@pytest.fixture
def busy(tower: Any) -> Goal:
    """All GPUs of the cluster are taken by one Goal."""
    count = len(tower.twins.cluster.slots)
    tower.register("tuner", gpus=count, role="revenue-critical")
    goal = start(tower, "first")
    (attempt,) = tower.attempts(goal)
    assert attempt.state == "running"
    return goal


def test_a_goal_that_waits_says_who_holds_what_it_needs(tower: Any, busy: Goal) -> None:
    second = start(tower, "second")
    count = len(tower.twins.cluster.slots)
    status, reason, message = said(second, "Scheduled")
    assert (status, reason) == ("False", "Unschedulable")
    start_words = f"tuner: blocked by: 0 of {count} GPUs free, {count} asked; held by Goal first"
    assert message.startswith(f"{start_words} {count} (attempt tuner 1, since ")
    (attempt,) = tower.attempts(second)
    assert (attempt.state, attempt.reason) == ("pending", "Unschedulable")
    assert message == f"tuner: {attempt.message}"
    tower.reconcile(second)
    assert told(second, "Scheduled") == [message]  # said once
    tower.twins.cluster.finish(tower.attempts(busy)[0].workload)
    tower.reconcile(second)
    assert said(second, "Scheduled") == ("True", "NothingWaits", "")
    assert condition_of(busy, "Scheduled") is None


def test_a_new_holder_is_news(tower: Any, busy: Goal) -> None:
    second = start(tower, "second")
    third = start(tower, "third")
    tower.twins.cluster.finish(tower.attempts(busy)[0].workload)
    tower.reconcile(second)
    tower.reconcile(third)
    assert [("Goal first" in one, "Goal second" in one) for one in told(third, "Scheduled")] == [
        (True, False),
        (False, True),
    ]


def test_what_the_cluster_takes_later_waits_instead_of_failing(tower: Any, busy: Goal) -> None:
    blockage = Blockage("quota jobs of namespace default (count/jobs.batch: 5 of 5 used, 1 asked)")
    refusal = WorkloadBlocked("exceeded quota", reason="QuotaExceeded", blockage=blockage)
    second = start(tower, "second")
    tower.twins.cluster.fail_next(refusal)
    tower.reconcile(second)
    (attempt,) = tower.attempts(second)
    assert (attempt.state, attempt.number, attempt.reason) == ("pending", 1, "QuotaExceeded")
    assert attempt.message == f"blocked by: {blockage.what}"
    assert said(second, "Scheduled") == ("False", "QuotaExceeded", f"tuner: {attempt.message}")
    tower.reconcile(second)
    attempt.refresh_from_db()
    assert (attempt.state, attempt.reason) == ("pending", "Unschedulable")


def test_a_disruption_costs_no_retry_and_is_said_until_it_runs_again(
    tower: Any, busy: Goal
) -> None:
    cluster = tower.twins.cluster
    (first,) = tower.attempts(busy)
    cluster.disrupt(first.workload, "EvictionByEvictionAPI")
    tower.reconcile(busy)
    first.refresh_from_db()
    assert (first.state, first.reason) == ("lost", "EvictionByEvictionAPI")
    assert said(busy, "Disrupted") == ("False", "RunsAgain", "tuner runs again, as attempt 2.")
    assert told(busy, "Disrupted")[0].startswith("tuner, attempt 1: ")
    assert told(busy, "Disrupted")[0].endswith("It is tried again.")


def test_a_cluster_that_does_not_answer_changes_no_sentence(tower: Any, busy: Goal) -> None:
    second = start(tower, "second")
    before = said(second, "Scheduled")
    tower.twins.cluster.fail_next(ClusterUnavailable("The cluster cannot be reached."))
    tower.reconcile(second)
    assert said(second, "Scheduled") == before

"""The past of the map: a minute of the last day in the feed's own frame, rights respected."""

import datetime as dt
from typing import Any

import pytest
from django.test import Client
from django.utils import timezone

from agents.fleet.domain import STATES
from agents.models import Attempt
from console.live.past import past_frame
from goals.models import Goal, LedgerEntry
from governance.models import Approval, JournalRecord
from tests.console.live_map import LiveMap

pytestmark = pytest.mark.django_db
MINUTE = dt.timedelta(minutes=1)


def began(tower: Any) -> Goal:
    tower.register("tuner", gpus=1)
    goal: Goal = tower.apply("rogue", agents="tuner", budget="60 GPU-seconds").goal
    tower.reconcile(goal)
    return goal


def shift(goal: Goal, **minutes: float) -> dt.datetime:
    """Move what has happened so far into the past; `at` the moment it is moved to."""
    at = timezone.now() - dt.timedelta(**minutes)
    Goal.objects.filter(pk=goal.pk).update(created_at=at)
    for name in ("created_at", "started_at"):
        Attempt.objects.filter(goal_uid=goal.uid).update(**{name: at})
    JournalRecord.objects.update(at=at)
    LedgerEntry.objects.update(created_at=at)
    return at


def picture(at: dt.datetime, namespaces: frozenset[str] | None = None) -> LiveMap:
    one = LiveMap()
    one.take(past_frame(at, namespaces))
    return one


def states(one: LiveMap) -> list[str]:
    return [STATES[row["state"]].value for row in one.runs.values()]


def test_a_run_is_what_it_was(tower: Any) -> None:
    goal = began(tower)
    at = shift(goal, hours=5)
    for _ in range(14):
        tower.twins.cluster.advance(5_000)
        tower.reconcile(goal)
    assert goal.phase == "Paused"
    assert picture(at - MINUTE).runs == {}
    assert picture(at - MINUTE).goal_picture() == {}
    then = picture(at + MINUTE)
    assert states(then) == ["running"]
    (row,) = then.runs.values()
    assert (row["agent"], row["gpus"], row["gpu_ms"] != row["gpu_ms"]) == ("tuner", 1, True)
    (fuel,) = then.goal_picture().values()
    assert (fuel[2], fuel[4], fuel[6]) == ("Running", 0, 0)
    assert 0 < fuel[5] <= 10_000
    now = picture(timezone.now())
    assert states(now) == ["paused"]
    assert [goal_now[2:7] for goal_now in now.goal_picture().values()] == [
        ("Paused", "gpu_ms", 10_000, 0, 1)
    ]
    assert Approval.objects.count() == 1


def test_another_namespace_is_not_in_the_past_either(tower: Any) -> None:
    began(tower)
    now = timezone.now()
    assert len(picture(now, frozenset({"default"})).runs) == 1
    hidden = picture(now, frozenset({"other"}))
    assert (hidden.runs, hidden.goals, hidden.names) == ({}, {}, [])


def test_the_endpoint_is_bounded_and_kept_to_the_minute(tower: Any) -> None:
    goal = began(tower)
    shift(goal, hours=2)
    browser = Client()
    assert browser.get("/tower/past").status_code == 302
    browser.force_login(tower.people["viewer"])
    at = timezone.now() - dt.timedelta(hours=1)
    answer = browser.get("/tower/past", {"at": at.isoformat()})
    assert answer.status_code == 200
    one = LiveMap()
    one.take(answer.content)
    assert states(one) == ["running"]
    assert one.last is not None
    assert one.last.stamp.at_ms == at.replace(second=0, microsecond=0).timestamp() * 1000
    day = dt.timedelta(hours=25)
    for wrong in ("", "yesterday", "2026-13-45T00:00:00Z", "2026-01-01T00:00:00",
                  (at - day).isoformat(), (at + day).isoformat()):  # fmt: skip
        assert browser.get("/tower/past", {"at": wrong}).status_code == 422, wrong
    tower.people["viewer"].memberships.all().delete()
    assert browser.get("/tower/past", {"at": at.isoformat()}).status_code == 404

"""What waits for a human stands on the Tower in the order of the inbox, with what it costs."""

from typing import Any

import pytest
from django.test import Client

from console.live.waiting import SHOWN, waiting_for_people
from goals.models import Goal
from goals.services.prices import set_price
from governance.access import principal_of
from governance.models import Approval

pytestmark = pytest.mark.django_db


def waits(tower: Any, name: str, more: str = "") -> Goal:
    """A Goal that waits for an approval before it runs."""
    goal: Goal = tower.apply(name, more=f"requireApproval: true{more}").goal
    tower.reconcile(goal)
    return goal


def holds(tower: Any, name: str = "held") -> Goal:
    """A Goal out of budget, which keeps its GPU while it asks for more."""
    tower.register("tuner", gpus=1)
    more = "throttle: {gpusOnPause: Hold}"
    goal: Goal = tower.apply(name, agents="tuner", budget="30 GPU-seconds", more=more).goal
    for _ in range(8):
        tower.reconcile(goal)
        tower.twins.cluster.advance(5_000)
    tower.reconcile(goal)
    return goal


def test_what_costs_or_is_lost_first_comes_first_whatever_expires_first(tower: Any) -> None:
    set_price(kind="gpu", name="default", micro_usd=3_600_000, actor=tower.admin.actor)
    tower.register("profiler")
    calm = waits(tower, "calm")
    late = waits(tower, "late", "\n  deadlineSeconds: 600")
    held = holds(tower)
    by_goal = {one.goal_uid: one for one in Approval.objects.filter(state="pending")}
    assert by_goal[calm.uid].expires_at < by_goal[held.uid].expires_at
    room = waiting_for_people(principal_of(tower.people["approver"]))
    assert [one.approval.goal_uid for one in room.first] == [held.uid, late.uid, calm.uid]
    assert (room.gpus, room.micro_usd_per_minute) == (1, 60_000)
    assert (room.count, room.left_out) == (3, 0)
    browser = Client()
    browser.force_login(tower.people["approver"])
    said = browser.get("/tower", headers={"HX-Request": "true"}).content.decode()
    places = [said.index(f'id="waiting-{one.approval.uid}"') for one in room.first]
    assert places == sorted(places)
    assert "deadline" in said
    inbox = browser.get("/approvals", headers={"HX-Request": "true"}).content.decode()
    places = [inbox.index(f'id="approval-{one.approval.uid}"') for one in room.first]
    assert places == sorted(places)


def test_a_goal_with_two_questions_keeps_its_gpus_once(tower: Any) -> None:
    set_price(kind="gpu", name="default", micro_usd=3_600_000, actor=tower.admin.actor)
    held = holds(tower)
    asked = Approval.objects.get(goal_uid=held.uid, state="pending")
    asked.pk, asked.request_digest, asked.subject_id = None, "sha256:" + "0" * 64, "other"
    asked.save(force_insert=True)
    room = waiting_for_people(principal_of(tower.people["approver"]))
    assert (room.count, room.gpus, room.micro_usd_per_minute) == (2, 1, 60_000)
    browser = Client()
    browser.force_login(tower.people["approver"])
    inbox = " ".join(browser.get("/approvals").content.decode().split())
    assert "0.06 USD a minute while they wait" in inbox


def test_many_cost_as_many_queries_as_few(tower: Any, django_assert_max_num_queries: Any) -> None:
    tower.register("profiler")
    goal = waits(tower, "calm")
    like = Approval.objects.get(goal_uid=goal.uid)
    for number in range(40):
        like.pk, like.subject_id = None, f"copy-{number}"
        like.request_digest = f"sha256:{number:064}"
        like.save(force_insert=True)
    principal = principal_of(tower.people["approver"])
    with django_assert_max_num_queries(9):
        room = waiting_for_people(principal)
    assert (len(room.first), room.count, room.left_out) == (SHOWN, 41, 41 - SHOWN)

"""The approver's journey in a real browser: a phone, several at once, a race, a silent server."""

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest

from tests.browser.chromium import PHONE, Person, person
from tests.browser.people import make_people
from tests.console.real_tower import ROOT, RealTower

pytestmark = [pytest.mark.browser, pytest.mark.slow, pytest.mark.timeout(300)]

LEAST_TARGET_PX = 44
STALE_WITHIN_MS = 60_000  # 5 s of silence, and a machine that is ten times slower than usual
ASKED = {"phone": 600_000, "race": 60_000, "silence": 60_000, "first": 1_200_000, "second": 600_000}


@pytest.fixture(scope="module")
def tower(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RealTower]:
    one = RealTower(tmp_path_factory.mktemp("approvals"))
    try:
        one.start().ready()
        make_people(one, {"avery": ["approver"], "blair": ["approver"]})
        yield one
    finally:
        one.close()


@pytest.fixture(scope="module")
def uids(tower: RealTower) -> dict[str, str]:
    """An open request for GPU time a name."""
    made = subprocess.run(
        [sys.executable, "-m", "tests.browser.test_approvals"],
        cwd=ROOT,
        env=tower.environment,
        check=True,
        timeout=120,
        capture_output=True,
        text=True,
    )
    found: dict[str, str] = json.loads(made.stdout)
    return found


def signed_in(browser: Any, tower: RealTower, name: str, **screen: Any) -> Person:
    one = person(browser, f"http://127.0.0.1:{tower.ports['WEB_PORT']}", **screen).sign_in(name)
    one.go("/approvals")
    one.complaints.clear()  # the Tower's map, where one lands, talks of its graphics driver
    return one


def test_on_a_phone_three_interactions_lead_from_the_inbox_to_done(
    browser: Any, tower: RealTower, uids: dict[str, str]
) -> None:
    avery = signed_in(browser, tower, "avery", screen=PHONE)
    page = avery.page
    page.locator(".card-link", has_text="phone").click()
    page.get_by_label("Reason, kept with the decision").fill("One more round.")
    approve = page.get_by_role("button", name="Approve", exact=True)
    for target in (approve, page.get_by_role("button", name="Deny")):
        box = target.bounding_box()
        assert min(box["width"], box["height"]) >= LEAST_TARGET_PX
    approve.click()
    avery.sees("10.0 GPU-minutes of 10.0 GPU-minutes asked")
    assert page.evaluate("document.documentElement.scrollWidth") == PHONE["width"]
    assert avery.complaints == []


def test_several_are_picked_summed_and_denied(
    browser: Any, tower: RealTower, uids: dict[str, str]
) -> None:
    avery = signed_in(browser, tower, "avery")
    page = avery.page
    for name in ("first", "second"):
        page.get_by_label(f"Select More budget for {name}").check()
    bar = page.locator("#bulk")
    assert bar.locator("output").inner_text() == "2 requests, 30.0 GPU-minutes"
    page.evaluate("htmx.trigger('#live', 'refresh')")  # the pick outlives a refresh
    page.wait_for_load_state("networkidle")
    assert page.locator(".pick input:checked").count() == 2
    bar.get_by_role("button", name="Review 2").click()
    page.get_by_label("Reason, kept with each decision").fill("Not today.")
    page.get_by_role("button", name="Deny 2").click()
    avery.sees("2 of 2 denied")
    assert avery.complaints == []


def test_who_is_typing_when_another_decides_is_told_and_cannot_press(
    browser: Any, tower: RealTower, uids: dict[str, str]
) -> None:
    avery, blair = (signed_in(browser, tower, name) for name in ("avery", "blair"))
    for one in (avery, blair):
        one.go(f"/approvals/{uids['race']}")
        one.page.get_by_label("Reason, kept with the decision").fill("Mine.")
    blair.page.get_by_role("button", name="Deny").click()
    blair.sees("blair denied")
    notice = avery.page.locator("[data-outdated]")
    notice.filter(has_text="blair already denied this").wait_for()
    assert avery.page.get_by_role("button", name="Approve", exact=True).is_disabled()
    assert avery.page.get_by_label("Reason, kept with the decision").input_value() == "Mine."


def test_a_silent_server_disables_the_card(
    browser: Any, tower: RealTower, uids: dict[str, str]
) -> None:
    avery = signed_in(browser, tower, "avery")
    avery.go(f"/approvals/{uids['silence']}")
    page = avery.page
    approve = page.get_by_role("button", name="Approve", exact=True)
    page.locator("live-feed[data-state=live]").wait_for(timeout=STALE_WITHIN_MS)
    assert approve.is_enabled()
    page.route(re.compile(".*"), lambda route: route.abort())
    page.evaluate("document.querySelector('live-feed').socket.close()")
    page.route_web_socket(re.compile(".*"), lambda socket: None)
    notice = page.locator("[data-outdated]")
    notice.filter(has_text="Nothing was heard").wait_for(timeout=STALE_WITHIN_MS)
    assert approve.is_disabled()
    assert page.get_by_label("Reason, kept with the decision").is_disabled()


def _make() -> None:
    import django

    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "console.settings")
    django.setup()
    from governance.domain import ApprovalKind
    from governance.services.approvals import Fact, Question, open_approval

    made = {}
    for name, ask in ASKED.items():
        approval = open_approval(
            Question(
                kind=ApprovalKind.BUDGET,
                namespace="default",
                goal_uid=None,
                subject_kind="goal",
                subject_id=name,
                title=f"More budget for {name}",
                request={"kind": "budget", "unit": "gpu_ms", "ask": str(ask), "name": name},
                requested_by="olivia",
                facts=[Fact("Why it is asked", "The budget is used up.", "why")],
            )
        )
        made[name] = str(approval.uid)
    print(json.dumps(made))


if __name__ == "__main__":
    _make()

"""The lineage journey in a real browser: ask, read the answer, open the graph, recall, lift."""

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote

import pytest

from tests.browser.chromium import PHONE, Person, person
from tests.browser.people import PASSWORD, make_people
from tests.console.real_tower import ROOT, RealTower

pytestmark = [pytest.mark.browser, pytest.mark.slow, pytest.mark.timeout(300)]

ROLES = {
    "root": ["admin"],
    "olivia": ["operator"],
    "petra": ["policy_author"],
    "adam": ["auditor"],
}


def seed(tower: RealTower) -> dict[str, str]:
    """The people and the provenance; digests by name."""
    make_people(tower, ROLES)
    done = subprocess.run(
        [sys.executable, "-m", "tests.browser.lineage_seed"],
        cwd=ROOT,
        env=tower.environment,
        capture_output=True,
        check=False,
        timeout=180,
    )
    assert done.returncode == 0, done.stderr.decode()
    made: dict[str, str] = json.loads(done.stdout.decode().splitlines()[-1])
    return made


@pytest.fixture(scope="module")
def tower(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RealTower]:
    one = RealTower(tmp_path_factory.mktemp("lineage"))
    try:
        yield one.start().ready()
    finally:
        one.close()


@pytest.fixture(scope="module")
def made(tower: RealTower) -> dict[str, str]:
    return seed(tower)


def url(tower: RealTower) -> str:
    return f"http://127.0.0.1:{tower.ports['WEB_PORT']}"


def signed_in(tower: RealTower, browser: Any, name: str, path: str, **screen: Any) -> Person:
    """A person who signs in on the way to a page."""
    one = person(browser, url(tower), **screen)
    one.go(f"/login?next={quote(path)}")
    one.page.get_by_label("Name").fill(name)
    one.page.get_by_label("Password").fill(PASSWORD)
    one.page.get_by_role("button", name="Sign in").click()
    one.page.wait_for_url(f"**{path}")
    return one


def fits(one: Person) -> bool:
    """Whether nothing makes the page scroll sideways."""
    width = "document.documentElement.scrollWidth <= document.documentElement.clientWidth"
    return bool(one.page.evaluate(width))


def test_a_question_is_asked_answered_and_followed(
    tower: RealTower, made: dict[str, str], browser: Any
) -> None:
    adam = signed_in(tower, browser, "adam", "/lineage")
    field = adam.page.get_by_label("Release", exact=True)
    field.focus()
    options = adam.page.locator("#names-approved option")
    options.first.wait_for(state="attached")
    assert options.first.get_attribute("value") == "checkout/production #2"
    field.fill("checkout/production")
    field.press("Enter")
    adam.sees("checkout/production #2")
    adam.sees("was approved by nobody")
    boxes = adam.page.locator(".lineage-node")
    drawn = boxes.count()
    assert drawn > 4
    graph = adam.page.get_by_role("region", name="Provenance graph")
    before = adam.page.locator(".lineage-svg").bounding_box()
    graph.focus()
    adam.page.keyboard.press("+")
    after = adam.page.locator(".lineage-svg").bounding_box()
    assert after["width"] > before["width"]
    adam.page.locator(".lineage-open").first.focus()
    adam.page.keyboard.press("Enter")
    adam.page.wait_for_url(re.compile("open="))
    assert boxes.count() > drawn
    dataset = adam.page.get_by_role("link", name=re.compile("^dataset rides"))
    while not dataset.count():  # what was approved rests on it, some steps away
        drawn = boxes.count()
        adam.page.locator(".lineage-open").first.focus()
        adam.page.keyboard.press("Enter")
        adam.page.wait_for_function(
            "count => document.querySelectorAll('.lineage-node').length > count", arg=drawn
        )
    dataset.first.focus()
    adam.page.keyboard.press("Enter")
    adam.page.wait_for_url(re.compile("ask=around"))
    assert quote(made["dataset"], safe="") in adam.page.url
    start = adam.page.locator(".lineage-node.is-start")
    assert "rides" in start.text_content()
    adam.go(f"/lineage?ask=touched&of={made['dataset']}")
    adam.sees("rests on it now")
    adam.page.set_viewport_size(PHONE)
    assert fits(adam)
    assert adam.complaints == []


def test_a_digest_is_recalled_and_another_person_lifts_it(
    tower: RealTower, made: dict[str, str], browser: Any
) -> None:
    path = f"/artifacts/{made['dataset']}"
    adam, olivia = (signed_in(tower, browser, name, path) for name in ("adam", "olivia"))
    adam.sees("needs the role operator or policy_author")
    olivia.page.get_by_text("Recall this digest").click()
    olivia.page.get_by_label("Why").fill("The labels were wrong.")
    olivia.page.get_by_role("button", name="Recall", exact=True).click()
    olivia.page.locator("#confirm-yes").click()
    olivia.sees("Roll back to #1")
    olivia.sees("somebody else must lift it")
    petra = signed_in(tower, browser, "petra", path, screen=PHONE)
    petra.page.locator("summary", has_text="Lift the recall").click()
    petra.page.get_by_label("Why").fill("Relabelled and checked.")
    petra.page.get_by_role("button", name="Lift the recall").click()
    petra.page.locator("#confirm-yes").click()
    petra.sees("may be used again")
    assert fits(petra)
    assert [one.complaints for one in (adam, olivia, petra)] == [[], [], []]

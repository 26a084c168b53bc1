"""The Tower's map in a real browser: seen, steered by keys, filtered, stale when nothing comes."""

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest

from tests.browser.chromium import PHONE, Person, person
from tests.browser.people import make_people
from tests.console.real_tower import ROOT, RealTower, eventually

pytestmark = [pytest.mark.browser, pytest.mark.slow, pytest.mark.timeout(300)]

AGENTS = 60
EVERYWHERE = """
import django; django.setup()
from django.contrib.auth.models import User
from governance.models import Membership
Membership.objects.create(user=User.objects.get(username="vera"), namespace="*", role="viewer")
"""


@pytest.fixture(scope="module")
def tower(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RealTower]:
    one = RealTower(tmp_path_factory.mktemp("map"))
    try:
        one.start().ready()
        make_people(one, {"vera": [], "nora": []})
        run(one, "-c", EVERYWHERE)
        yield one
    finally:
        one.close()


@pytest.fixture(scope="module")
def fleet(tower: RealTower) -> Iterator[None]:
    """Agents that move, until the last test of this module has ended."""
    wanted = {"agents": AGENTS, "goals": 12, "namespaces": 3, "changes": 10, "spans": 20}
    options = [f"--{name}={value}" for name, value in {**wanted, "seconds": 600}.items()]
    command = [sys.executable, "-m", "bench.fleet", *options]
    process = subprocess.Popen(
        command, cwd=ROOT, env=settings_of(tower), stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert "agents on the map" in process.stdout.readline()
    yield
    process.kill()
    process.wait()
    process.stdout.close()


def settings_of(tower: RealTower) -> dict[str, str]:
    return {**tower.environment, "DJANGO_SETTINGS_MODULE": "console.settings"}


def run(tower: RealTower, *arguments: str) -> None:
    command = [sys.executable, *arguments]
    subprocess.run(command, cwd=ROOT, env=settings_of(tower), check=True, timeout=60)


def look(browser: Any, tower: RealTower, name: str = "vera", **screen: Any) -> Person:
    one = person(browser, f"http://127.0.0.1:{tower.ports['WEB_PORT']}", **screen)
    one.sign_in(name).go("/tower")
    one.page.locator('fleet-tower[data-state="live"]').wait_for()
    return one


def drawn(one: Person) -> int:
    """Pixels of the map that are not empty; -1 where WebGL keeps them to itself."""
    script = """() => {
      const map = document.querySelector(".map");
      if (map.dataset.renderer !== "canvas") return -1;
      const points = map.querySelector(".map-points");
      const {data} = points.getContext("2d").getImageData(0, 0, points.width, points.height);
      let count = 0;
      for (let at = 3; at < data.length; at += 4) count += data[at] > 0;
      return count;
    }"""
    return int(one.page.evaluate(script))


def test_an_empty_tower_says_so(tower: RealTower, browser: Any) -> None:
    vera = look(browser, tower)
    vera.sees("No agent is running")
    vera.page.get_by_role("link", name="All Goals").first.wait_for()
    assert vera.complaints == []


def test_who_may_see_nothing_is_told_whom_to_ask(tower: RealTower, browser: Any) -> None:
    one = person(browser, f"http://127.0.0.1:{tower.ports['WEB_PORT']}")
    one.sign_in("nora").go("/tower")
    one.sees("It needs the role viewer; ask")


# Runs before the page's own scripts: what the page ever says of an empty map or an empty sky.
LISTEN = """
window.said = new Set();
new MutationObserver(() => {
  for (const one of document.querySelectorAll('[data-empty="filtered"], .strips > .empty')) {
    if (one.checkVisibility()) window.said.add(one.textContent.trim());
  }
  const running = document.querySelector('[data-count="running"]')?.textContent;
  if (running === "0") window.said.add("0 running");
}).observe(document, {subtree: true, childList: true, attributes: true});
"""


@pytest.mark.usefixtures("fleet")
def test_what_is_still_coming_is_not_called_none(tower: RealTower, browser: Any) -> None:
    vera = look(browser, tower)
    vera.page.add_init_script(LISTEN)
    vera.go("/tower")
    vera.sees(f"{AGENTS} agents")
    vera.page.locator(".strip").first.wait_for()
    assert vera.page.evaluate("[...window.said]") == []


@pytest.mark.usefixtures("fleet")
def test_agents_are_seen_and_chosen_by_keys_alone(tower: RealTower, browser: Any) -> None:
    vera = look(browser, tower)
    vera.sees(f"{AGENTS} agents")
    assert drawn(vera) == -1 or drawn(vera) > AGENTS
    grid = vera.page.get_by_role("grid")
    assert grid.get_attribute("aria-rowcount") == str(AGENTS + 1)
    vera.page.locator(".strip").first.wait_for()
    vera.page.locator(".map").focus()
    vera.page.keyboard.press("ArrowRight")
    vera.page.keyboard.press("ArrowRight")
    vera.page.locator(".selected").wait_for()
    assert grid.locator('[aria-selected="true"]').count() == 1
    assert re.search(r"[?&]run=[0-9a-f-]{36}", vera.page.url)
    permalink = vera.page.url
    vera.page.keyboard.press("Enter")
    vera.page.wait_for_url("**/attempts/*")
    vera.page.goto(permalink)
    vera.page.locator(".selected").wait_for()
    vera.page.get_by_role("grid").focus()
    before = vera.page.url
    vera.page.keyboard.press("j")
    eventually(lambda: vera.page.url != before)
    vera.page.keyboard.press("Escape")
    vera.page.locator(".selected").wait_for(state="hidden")
    assert vera.complaints == []


@pytest.mark.usefixtures("fleet")
def test_the_filter_narrows_and_says_what_it_cannot_read(tower: RealTower, browser: Any) -> None:
    vera = look(browser, tower)
    vera.sees(f"{AGENTS} agents")
    vera.page.locator(".map").focus()
    vera.page.keyboard.press("/")
    vera.page.keyboard.type("-l role=experimental")
    vera.sees(f"of {AGENTS} agents")
    roles = vera.page.locator(".twin-row .twin-role").all_inner_texts()
    assert set(roles) == {"experimental"}
    box = vera.page.get_by_label("Filter agents")
    shown = vera.page.locator("[data-total]")
    few = shown.inner_text()
    box.fill("-l ROLE=Experimental")  # as on every other table, whatever the case
    vera.page.wait_for_url("**ROLE**")
    assert shown.inner_text() == few
    box.fill("!-l role=experimental")
    eventually(lambda: shown.inner_text() != few)
    assert "experimental" not in vera.page.locator(".twin-row .twin-role").all_inner_texts()
    box.fill("-f xprmntl")
    eventually(lambda: shown.inner_text() == few)
    box.fill("-l colour=red")
    vera.sees("-l takes key=value with a key of agent")
    box.fill("(")
    vera.sees("Not a regular expression")
    box.fill("no agent is called so")
    vera.sees("No agent matches this filter.")
    vera.page.get_by_role("button", name="Show all agents").click()
    vera.sees(f"{AGENTS} agents")
    vera.page.get_by_label("Group by").select_option("namespace")
    assert vera.page.url.endswith("?group=namespace")
    assert vera.complaints == []


@pytest.mark.usefixtures("fleet")
def test_a_feed_that_falls_silent_is_called_stale_and_comes_back(
    tower: RealTower, browser: Any
) -> None:
    vera = look(browser, tower)
    vera.sees(f"{AGENTS} agents")
    web = tower.state()["processes"]["web"]["pid"]
    os.kill(web, signal.SIGSTOP)
    try:
        vera.page.locator('fleet-tower[data-state="stale"]').wait_for(timeout=12_000)
        vera.sees("This picture is old")
    finally:
        os.kill(web, signal.SIGCONT)
    vera.page.locator('fleet-tower[data-state="live"]').wait_for()
    vera.page.locator(".stale-notice").wait_for(state="hidden")


@pytest.mark.usefixtures("fleet")
@pytest.mark.parametrize("dark", [False, True])
def test_a_phone_shows_it_without_scrolling_sideways(
    tower: RealTower, browser: Any, dark: bool
) -> None:
    vera = look(browser, tower, screen=PHONE, dark=dark)
    vera.sees(f"{AGENTS} agents")
    wide = vera.page.evaluate("document.documentElement.scrollWidth")
    assert wide <= PHONE["width"]
    assert vera.complaints == []

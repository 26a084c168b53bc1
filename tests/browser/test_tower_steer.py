"""Steering from the Tower in a real browser: lasso, table, preview, kill switch, the past."""

import re
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest

from tests.browser.chromium import Person, person
from tests.browser.people import make_people
from tests.console.real_tower import ROOT, RealTower

pytestmark = [pytest.mark.browser, pytest.mark.slow, pytest.mark.timeout(300)]

AGENTS = 60
GOALS = 6
RUNNING = "/tower?q=-l+state%3Drunning"  # these neither end nor leave the map meanwhile
EVERYWHERE = """
import django; django.setup()
from django.contrib.auth.models import User
from governance.models import Membership
from goals.services.prices import set_price
from lineage.domain import Actor, ActorKind
for name, role in (("olga", "operator"), ("vera", "viewer")):
    user = User.objects.get(username=name)
    Membership.objects.create(user=user, namespace="*", role=role)
actor = Actor(ActorKind.SYSTEM, "test")
set_price(kind="gpu", name="default", micro_usd=2_500_000, actor=actor)
"""
REFRESH = """() => new Promise((done) => {
  document.addEventListener("htmx:after:swap", () => setTimeout(done), { once: true });
  htmx.trigger("#live", "refresh");
})"""
# Nothing moves: what is chosen, counted and confirmed stays what it was.
FLIGHT = f"""
import django; django.setup()
from bench.fleet import take_off
take_off(agents={AGENTS}, goals={GOALS}, namespaces=2)
"""


@pytest.fixture(scope="module")
def tower(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RealTower]:
    one = RealTower(tmp_path_factory.mktemp("steer"))
    try:
        one.start().ready()
        make_people(one, {"olga": [], "vera": []})
        for script in (EVERYWHERE, FLIGHT):
            environment = {**one.environment, "DJANGO_SETTINGS_MODULE": "console.settings"}
            subprocess.run(
                [sys.executable, "-c", script], cwd=ROOT, env=environment, check=True, timeout=90
            )
        yield one
    finally:
        one.close()


def look(browser: Any, tower: RealTower, name: str, path: str = RUNNING) -> Person:
    one = person(browser, f"http://127.0.0.1:{tower.ports['WEB_PORT']}")
    one.sign_in(name).go(path)
    one.page.locator('fleet-tower[data-state="live"]').wait_for()
    return one


def shown(one: Person) -> int:
    """How many agents match the filter."""
    total = one.page.locator("[data-total]").filter(has_text=re.compile(r"^\d+ of \d+ agents"))
    total.wait_for()
    return int(total.inner_text().split()[0])


def lasso_all(one: Person) -> None:
    """Drag once round the whole map."""
    box = one.page.locator(".map").bounding_box()
    x, y, right, bottom = (
        box["x"] + 1, box["y"] + 1, box["x"] + box["width"] - 2, box["y"] + box["height"] - 2
    )  # fmt: skip
    mouse = one.page.mouse
    mouse.move(x, y)
    mouse.down()
    for corner in ((right, y), (right, bottom), (x, bottom), (x, y + 8)):
        mouse.move(*corner, steps=4)
    mouse.up()


def chosen(one: Person, count: int) -> None:
    words = "1 agent chosen" if count == 1 else f"{count} agents chosen"
    one.page.locator(".steer-bar").get_by_text(words, exact=True).wait_for()


def test_map_and_table_choose_alike_and_the_link_keeps_it(tower: RealTower, browser: Any) -> None:
    olga = look(browser, tower, "olga")
    agents = shown(olga)
    lasso_all(olga)
    chosen(olga, agents)
    rows = olga.page.locator('.twin-row[aria-selected="true"]')
    assert rows.count() == olga.page.locator(".twin-row").count()
    olga.page.locator(".twin-row [type=checkbox]").first.click()
    chosen(olga, agents - 1)
    olga.page.get_by_role("button", name="Choose none").click()
    olga.page.locator(".steer-bar").wait_for(state="hidden")
    first, second, third = (olga.page.locator(".twin-row").nth(n) for n in range(3))
    first.locator(".twin-agent").click()
    third.locator(".twin-agent").click(modifiers=["Shift"])
    chosen(olga, 3)
    second.locator(".twin-agent").click(modifiers=["ControlOrMeta"])
    chosen(olga, 2)
    olga.page.wait_for_url(re.compile(r"[?&]chosen="))
    again = look(browser, tower, "olga", olga.page.url.removeprefix(olga.url))
    chosen(again, 2)
    again.page.get_by_role("grid").focus()
    again.page.keyboard.press("Home")
    again.page.keyboard.press("Shift+ArrowDown")
    chosen(again, 2)
    again.page.keyboard.press("Control+a")
    chosen(again, agents)
    assert olga.complaints == again.complaints == []


def test_a_step_for_many_is_shown_confirmed_and_done_once(tower: RealTower, browser: Any) -> None:
    olga = look(browser, tower, "olga")
    assert shown(olga) > 0
    lasso_all(olga)
    olga.page.keyboard.press("p")
    dialog = olga.page.locator("#steer-dialog")
    dialog.locator("xpath=self::*[@data-phase='preview']").wait_for()
    words = dialog.locator("[data-words]").inner_text()
    assert re.match(r"\d+ agents in \d Goals, \d+ GPUs, \d+\.\d\d USD a minute", words), words
    hit = dialog.get_by_text("at work, Running").count()
    assert dialog.locator("li").count() == GOALS
    assert dialog.get_by_text("skipped:").count() == GOALS - hit
    olga.page.keyboard.press("Enter")
    olga.sees(f"{hit} of {hit} Goals asked to pause", within="#steer-dialog")
    olga.page.keyboard.press("Escape")
    olga.page.keyboard.press("p")
    olga.sees("Nothing of it can be steered so.", within="#steer-dialog")
    assert dialog.get_by_text("is paused by a person already").count() == hit
    assert olga.complaints == []


def test_who_may_only_look_is_told_whom_to_ask(tower: RealTower, browser: Any) -> None:
    vera = look(browser, tower, "vera")
    agents = shown(vera)
    lasso_all(vera)
    chosen(vera, agents)
    bar = vera.page.locator(".steer-bar")
    assert bar.get_by_role("button", name="Cancel").is_disabled()
    bar.get_by_text("Steering needs the role operator").wait_for()
    vera.page.keyboard.press("x")
    assert not vera.page.locator("#steer-dialog").is_visible()
    vera.page.keyboard.press("K")
    vera.page.keyboard.press("e")
    vera.page.wait_for_url("**/kill?*")
    vera.page.get_by_text("needs the role operator").first.wait_for()
    assert vera.page.get_by_role("button", name=re.compile("End .* now")).count() == 0


def test_the_past_is_marked_kept_in_the_link_and_left_by_escape(
    tower: RealTower, browser: Any
) -> None:
    olga = look(browser, tower, "olga")
    slider = olga.page.get_by_label("Past 24 h")
    slider.focus()
    slider.press("ArrowLeft")
    olga.page.locator('fleet-tower[data-state="past"]').wait_for()
    olga.page.locator(".past-notice").get_by_text("not live").wait_for()
    olga.page.wait_for_url(re.compile(r"[?&]at=20"))
    olga.page.evaluate(REFRESH)
    assert "at=20" in olga.page.url  # what waits for a human is read again beside it
    there = person(browser, olga.url)
    there.sign_in("olga").go(olga.page.url.removeprefix(olga.url))
    there.page.locator('fleet-tower[data-state="past"]').wait_for()
    slider.press("Escape")
    olga.page.locator('fleet-tower[data-state="live"]').wait_for()
    olga.page.locator(".past-notice").wait_for(state="hidden")
    assert shown(olga) > 0
    assert "at=" not in olga.page.url
    assert olga.complaints == there.complaints == []


def test_two_keys_and_a_confirm_throw_the_kill_switch(tower: RealTower, browser: Any) -> None:
    olga = look(browser, tower, "olga")
    assert shown(olga) > 0
    olga.page.locator(".map").focus()
    olga.page.keyboard.press("ArrowRight")
    olga.page.locator(".selected").wait_for()
    olga.page.keyboard.press("K")
    olga.page.keyboard.press("n")
    olga.page.wait_for_url("**/kill?scope=namespace*")
    olga.sees("USD a minute")
    olga.page.keyboard.press("Enter")
    olga.page.wait_for_url("**/tower")
    olga.sees("Kill switch thrown over namespace flight-")
    olga.page.locator(".kill-banner").get_by_text("Nothing of it starts.").wait_for()
    olga.page.get_by_role("link", name="Look or lift").click()
    olga.page.get_by_role("button", name="Lift").click()
    olga.page.locator("#confirm").get_by_role("button", name="Lift").click()
    olga.sees("No kill switch stands")
    assert olga.complaints == []

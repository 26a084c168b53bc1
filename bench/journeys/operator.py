"""The operator's journey: the Tower with ten thousand agents, a Goal from the form to its end."""

import re
from typing import Any

from bench.journeys.walk import Walk
from tests.browser.chromium import Person

STEERED = "keys"
FLIGHT = "flight-0"
MANIFEST = """\
apiVersion: orchestration.ai/v1
kind: Goal
metadata: {name: by-yaml, namespace: keys}
spec:
  objective: "loss < 0.1"
  budget: 20 GPU-minutes
  agents: [trainer]
"""


def operate(walk: Walk) -> None:
    """All of it, in the order of a morning."""
    _look(walk)
    _steer_many(walk)
    _into_a_span(walk)
    _ask_by_form(walk)
    _ask_by_yaml(walk)
    _pause_one(walk)
    _by_keys(walk)
    _kill(walk)
    _past(walk)


def _live(one: Person) -> None:
    one.page.locator('fleet-tower[data-state="live"]').wait_for()
    one.page.locator("[data-total]").filter(has_text=re.compile(r"\d agents")).wait_for()


def _look(walk: Walk) -> None:
    one, page = walk.person, walk.person.page
    with walk.step("the Tower is live"):
        one.go("/tower")
        _live(one)
        page.locator(".twin-row").first.wait_for()
    with walk.step("filter by key"):
        page.keyboard.press("/")
        page.keyboard.type("-l state=running,namespace=flight-0")
        page.locator("[data-total]").filter(has_text=re.compile(r"\d of [\d,]+ agents")).wait_for()
    with walk.step("group by node"):
        page.get_by_label("Group by").select_option("node")
        page.wait_for_timeout(500)
    with walk.step("group by Goal"):
        page.get_by_label("Group by").select_option("goal")


def _steer_many(walk: Walk) -> None:
    one, page = walk.person, walk.person.page
    dialog = page.locator("#steer-dialog")
    with walk.step("lasso a part of the map"):
        box = page.locator(".map").bounding_box()
        _lasso(page, box["x"] + 4, box["y"] + 4, box["width"] / 3, box["height"] / 3)
        page.locator(".steer-bar").get_by_text(re.compile("agents? chosen")).wait_for()
    with walk.step("preview of the pause"):
        page.keyboard.press("p")
        page.locator('#steer-dialog[data-phase="preview"]').wait_for()
        words = dialog.locator("[data-words]").inner_text()
        assert "USD a minute" in words, words
    with walk.step("the pause is confirmed"):
        page.keyboard.press("Enter")
        one.sees("asked to pause", within="#steer-dialog")
    with walk.step("and resumed"):
        page.keyboard.press("Escape")
        page.locator(".map").focus()
        page.keyboard.press("r")
        page.locator('#steer-dialog[data-phase="preview"]').wait_for()
        page.keyboard.press("Enter")
        one.sees("asked to resume", within="#steer-dialog")
        page.keyboard.press("Escape")


def _lasso(page: Any, x: float, y: float, width: float, height: float) -> None:
    page.mouse.move(x, y)
    page.mouse.down()
    for to in ((x + width, y), (x + width, y + height), (x, y + height), (x, y + 6)):
        page.mouse.move(*to, steps=4)
    page.mouse.up()


def _into_a_span(walk: Walk) -> None:
    one, page = walk.person, walk.person.page
    with walk.step("an agent by the arrow keys"):
        one.go("/tower?q=-l+namespace%3Dflight-0")
        _live(one)
        page.locator(".map").focus()
        page.keyboard.press("ArrowRight")
        page.locator(".selected").wait_for()
    with walk.step("its Goal"):
        page.locator(".selected a[href*='/goals/']").first.click()
        page.locator("h1 .badge").first.wait_for()
    with walk.step("its attempts"):
        page.get_by_role("link", name="Attempts").click()
        page.locator("main table a").first.wait_for()
    with walk.step("one attempt"):
        page.locator("main table a[href*='/attempts/']").first.click()
        page.wait_for_url("**/attempts/*")
    with walk.step("its Goal's trace"):
        page.go_back()
        page.get_by_role("link", name="Trace").click()
        page.wait_for_url("**/trace*")
    with walk.step("a span and its causes"):
        page.locator("main a[href*='/trace/']").first.click()
        page.wait_for_url(re.compile("/trace/[0-9a-f]{16}"))


def _ask_by_form(walk: Walk) -> None:
    one, page = walk.person, walk.person.page
    with walk.step("a new Goal by form"):
        one.go("/goals/new")
        page.locator("goal-editor[data-checks]").wait_for()
        page.locator("#f-name").fill("by-form")
        page.locator("#f-namespace").fill(STEERED)
        page.locator("#f-objective").fill("loss < 0.1")
        page.locator("#f-budget").fill("20 GPU-minutes")
        page.locator("#f-agents").fill("trainer")
        one.sees("Well formed", within=".gf-problems")
    with walk.step("dry run"):
        page.keyboard.press("Control+Enter")
        one.sees("Plan of keys/by-form", within="#answer")


def _ask_by_yaml(walk: Walk) -> None:
    one, page = walk.person, walk.person.page
    with walk.step("a new Goal by YAML"):
        one.go("/goals/new?as=yaml")
        page.locator(".gf-code .cm-content").click()
        page.keyboard.press("Control+a")
        page.keyboard.press("Delete")
        page.keyboard.insert_text(MANIFEST)
        one.sees("Well formed", within=".gf-problems")
    with walk.step("checked"):
        page.get_by_role("button", name="Check").click()
        one.sees("Policy allows it")
    with walk.step("applied, and it runs"):
        page.get_by_role("button", name="Apply").click()
        page.wait_for_url("**/goals/keys/by-yaml")
        page.locator("h1 .badge", has_text="Running").wait_for()


def _pause_one(walk: Walk) -> None:
    one, page = walk.person, walk.person.page
    badge = page.locator("h1 .badge")
    with walk.step("paused"):
        page.get_by_role("button", name="Pause", exact=True).click()
        badge.get_by_text("Paused").wait_for()
    with walk.step("resumed"):
        page.get_by_role("button", name="Resume", exact=True).click()
        badge.get_by_text("Running").wait_for()
    with walk.step("cloned"):
        page.get_by_role("link", name="Clone").click()
        page.wait_for_url("**/goals/new*")
    with walk.step("cancelled"):
        one.go("/goals/keys/by-yaml")
        page.locator("summary", has_text="Cancel").click()
        page.get_by_role("button", name="Cancel").first.click()
        page.locator("#confirm-yes").click()
        badge.get_by_text("Cancelled").wait_for()
    with walk.step("the list of Goals"):
        one.go("/goals")
    with walk.step("the running ones"):
        one.go("/goals?phase=Running")
    with walk.step("GPUs"):
        one.go("/gpus")


def _kill(walk: Walk) -> None:
    one, page = walk.person, walk.person.page
    with walk.step("kill switch over one Goal, in two keys"):
        one.go("/tower?q=-l+goal%3Dtrain-1")
        _live(one)
        page.locator(".map").focus()
        page.keyboard.press("ArrowRight")
        page.locator(".selected").wait_for()
        page.keyboard.press("K")
        page.keyboard.press("g")
        page.wait_for_url("**/kill?scope=goal*")
        one.sees("USD a minute")
    with walk.step("thrown"):
        page.keyboard.press("Enter")
        page.wait_for_url("**/tower")
        one.sees("Kill switch thrown over")
    with walk.step("lifted"):
        page.get_by_role("link", name="Look or lift").click()
        page.get_by_role("button", name="Lift").click()
        page.locator("#confirm").get_by_role("button", name="Lift").click()
        one.sees("No kill switch stands")


def _by_keys(walk: Walk) -> None:
    """The palette, a list and a row of it without a mouse."""
    page = walk.person.page
    with walk.step("a Goal by the palette"):
        page.keyboard.press("Control+k")
        page.locator("#palette[open]").wait_for()
        page.keyboard.insert_text("train-2")
        page.locator("#palette").get_by_text("train-2").first.wait_for()
        page.keyboard.press("Enter")
        page.wait_for_url("**/goals/keys/train-2")
    with walk.step("the list by two keys, and down in it"):
        page.locator("body[data-keys]").wait_for()
        page.keyboard.press("g")
        page.keyboard.press("g")
        page.wait_for_url("**/goals")
        page.locator("body[data-keys]").wait_for()
        for key in ("j", "j", "Enter"):
            page.keyboard.press(key)
        page.wait_for_url(re.compile("/goals/[a-z]"))


def _past(walk: Walk) -> None:
    one, page = walk.person, walk.person.page
    with walk.step("an hour back"):
        one.go("/tower")
        _live(one)
        slider = page.get_by_label("Past 24 h")
        slider.focus()
        for _ in range(3):
            slider.press("ArrowLeft")
        page.locator('fleet-tower[data-state="past"]').wait_for()
    with walk.step("live again"):
        slider.press("Escape")
        _live(one)

"""Each role's journey by keys alone: Tab, Enter, Space and the shortcuts, never the mouse."""

import re
import zipfile
from pathlib import Path
from typing import Any

import pytest

from tests.browser.chromium import Person
from tests.browser.site import Site
from tests.console.real_tower import eventually

pytestmark = [pytest.mark.browser, pytest.mark.slow, pytest.mark.timeout(180)]

FARTHEST = 150  # stops of Tab from one end of a page to what is wanted
# The element with the focus, also inside a shadow tree: its name as it is announced, near enough.
FOCUSED = """() => {
  let one = document.activeElement;
  while (one?.shadowRoot?.activeElement) one = one.shadowRoot.activeElement;
  const style = getComputedStyle(one);
  const marked = style.outlineStyle !== "none" || style.boxShadow !== "none";
  const name = one.getAttribute("aria-label") ?? one.labels?.[0]?.textContent ?? one.textContent;
  return {
    tag: one.tagName, name: name.replace(/\\s+/g, " ").trim(),
    is_seen: marked || one.matches("main, body") || one.isContentEditable,
    role: one.getAttribute("role") ?? "",
  };
}"""
GOAL = """\
apiVersion: orchestration.ai/v1
kind: Goal
metadata: {name: by-keys, namespace: keys}
spec:
  objective: "loss < 0.1"
  budget: 50 GPU-minutes
  agents: [spender]
"""


class Typist:
    """Someone with a keyboard and no mouse."""

    def __init__(self, person: Person) -> None:
        self.person, self.page = person, person.page

    def press(self, *keys: str) -> None:
        for key in keys:
            self.page.keyboard.press(key)

    def go(self, letter: str, path: str) -> None:
        """To a place of the main navigation by its two keys."""
        self.page.locator("body[data-keys]").wait_for()
        self.press("g", letter)
        self.page.wait_for_url(f"**{path}")
        self.page.wait_for_load_state("load")

    def tab_to(self, name: str, *, tag: str = "") -> None:
        """Tab until the focus is on what is called so; every stop on the way shows the focus."""
        wanted = re.compile(name)
        passed = []
        for _ in range(FARTHEST):
            self.press("Tab")
            found = self.page.evaluate(FOCUSED)
            assert found["is_seen"], f"the focus on {found} cannot be seen"
            if wanted.search(found["name"]) and tag in ("", found["tag"].lower()):
                return
            passed.append(found["name"][:40])
        raise AssertionError(f"Tab never comes to {name!r}, only to {passed}")

    def write(self, text: str) -> None:
        """In place of what stands there."""
        self.press("Control+a")
        self.press("Delete")
        self.page.keyboard.insert_text(text)

    def enter(self, name: str, **where: str) -> None:
        self.tab_to(name, **where)
        self.press("Enter")


def at_the_keyboard(console: Site, browser: Any, name: str) -> Typist:
    one = Typist(console.person(browser, name))
    one.person.go("/goals")
    return one


def test_an_operator_asks_for_a_goal_and_pauses_it(console: Site, browser: Any) -> None:
    olivia = at_the_keyboard(console, browser, "olivia")
    olivia.enter("^New Goal$")
    olivia.page.wait_for_url("**/goals/new")
    olivia.enter("^YAML$", tag="button")
    olivia.tab_to("Manifest")
    olivia.write(GOAL)
    olivia.enter("^Apply$", tag="button")
    olivia.page.wait_for_url("**/goals/keys/by-keys")
    olivia.page.locator("h1 .badge", has_text="Running").wait_for()
    olivia.enter("^Pause$", tag="button")
    olivia.page.locator("h1 .badge", has_text="Paused").wait_for()
    assert olivia.person.complaints == []


def test_an_approver_answers(console: Site, browser: Any) -> None:
    avery = at_the_keyboard(console, browser, "avery")
    avery.go("a", "/approvals")
    avery.enter("spends", tag="a")
    avery.page.wait_for_url("**/approvals/*")
    avery.tab_to("^Reason")
    avery.page.keyboard.insert_text("One more second, then we look again.")
    avery.enter("^Approve", tag="button")
    avery.person.sees("approved")
    assert avery.person.complaints == []


def test_a_policy_author_tries_a_policy_on_what_was_asked(console: Site, browser: Any) -> None:
    pia = at_the_keyboard(console, browser, "pia")
    pia.go("p", "/policies")
    pia.enter("^(version )?1$|^v1$", tag="a")
    pia.page.wait_for_url("**/policies/starter/1")
    pia.tab_to("Rego source")
    pia.press("Control+Enter")
    pia.page.locator("#results").get_by_text(re.compile(r"\d ms")).first.wait_for()
    assert pia.person.complaints == []


def test_an_auditor_searches_the_journal_and_takes_a_pack(
    console: Site, browser: Any, tmp_path: Path
) -> None:
    audra = at_the_keyboard(console, browser, "audra")
    audra.go("j", "/audit")
    audra.tab_to("^Search the journal")
    audra.write("action:goal.created")
    audra.press("Enter")
    rows = audra.page.locator("#live tbody tr")
    eventually(
        lambda: rows.count() and all("goal.created" in one for one in rows.all_inner_texts())
    )
    audra.enter("^Evidence packs$", tag="a")
    audra.page.wait_for_url("**/audit/packs")
    with audra.page.expect_download() as pack:
        audra.enter("^Download the pack of reduce-p99-latency$")
    pack.value.save_as(tmp_path / "pack.zip")
    assert "verify.py" in zipfile.ZipFile(tmp_path / "pack.zip").namelist()
    assert audra.person.complaints == []


def test_an_administrator_adds_somebody(console: Site, browser: Any) -> None:
    ada = at_the_keyboard(console, browser, "ada")
    ada.go("u", "/people")
    ada.tab_to("^Name to sign in with")
    ada.write("kim")
    ada.enter("^Add$", tag="button")
    ada.person.sees("kim")
    ada.page.locator(".secret").wait_for()
    assert ada.person.complaints == []


def test_the_palette_and_the_help_open_and_close_by_keys(console: Site, browser: Any) -> None:
    ada = at_the_keyboard(console, browser, "ada")
    ada.press("Control+k")
    ada.page.locator("#palette[open]").wait_for()
    ada.page.keyboard.insert_text("draft")
    ada.page.locator("#palette").get_by_text("draft").first.wait_for()
    ada.press("Enter")
    ada.page.wait_for_url("**/goals/default/draft")
    ada.page.wait_for_load_state("load")
    ada.press("?")
    ada.page.locator("#keys-help[open]").wait_for()
    ada.press("Escape")
    ada.page.locator("#keys-help[open]").wait_for(state="hidden")
    assert ada.person.complaints == []

"""Every page, full, empty and in error, in both themes and at both widths, with axe-core.

A page is loaded once for a state and then seen in the four looks: the theme follows the system's
and the layout the window's. All rules run once at each width; in the other theme those on colour.
"""

import re
from collections.abc import Iterator
from typing import Any

import pytest
from django.urls import URLPattern, URLResolver, get_resolver

from tests.browser.axe import CONTRAST, Axe
from tests.browser.chromium import DESKTOP, PHONE, Person, person
from tests.browser.pages import NOT_PAGES, PAGES, Page, Visit
from tests.browser.site import Site

pytestmark = [pytest.mark.browser, pytest.mark.slow, pytest.mark.timeout(120)]

STATES = ("full", "empty", "error")
# A software renderer's remarks, and a part of the page that came late: of the machine, not of it.
SLOW = "GL Driver Message|htmx:error: timeout"
# Runs before the page's own scripts, in another world: no page can leave a violation unsaid.
LISTEN = """
document.addEventListener("securitypolicyviolation", event => {
  (globalThis.violations ??= []).push(`${event.violatedDirective} ${event.blockedURI}`);
});
"""


class Visitor:
    """One person's page in the browser, with the rules."""

    def __init__(self, browser: Any, console: Site, who: str) -> None:
        self.person: Person = console.person(browser, who) if who else person(browser, console.url)
        self.page = self.person.page
        self.page.context.add_init_script(LISTEN)
        self.axe = Axe(self.page)
        self.failed: list[str] = []
        self.page.on("response", self._note)

    def _note(self, response: Any) -> None:
        request = response.request
        # A page that was refused asks for its live part by the same address.
        is_page = request.is_navigation_request() or response.url == self.page.url
        is_asked = is_page or request.method == "POST"
        if response.status >= 400 and not is_asked:
            self.failed.append(f"{response.status} {response.url}")

    def visit(self, wanted: Visit, url: str) -> int:
        self.person.complaints.clear()
        self.failed.clear()
        self.page.set_viewport_size(DESKTOP)
        self.page.emulate_media(color_scheme="light", reduced_motion="reduce")
        answer = self.page.goto(url, wait_until="load")
        if wanted.press:
            self.page.evaluate("for (const form of document.forms) form.noValidate = true")
            button = self.page.get_by_role("button", name=wanted.press, exact=True)
            with self.page.expect_response(lambda one: one.request.method == "POST") as posted:
                button.click()
            answer = posted.value
            self.page.wait_for_load_state("load")
        if self.page.locator("live-feed").count():
            self.page.locator("live-feed:not([data-state=connecting])").wait_for()
        return int(answer.status)

    def problems(self) -> list[str]:
        """What is wrong with the page as it stands, in its four looks."""
        self.axe.load()
        found = []
        for width, screen in ((1280, DESKTOP), (320, PHONE)):
            self.page.set_viewport_size(screen)
            self.page.emulate_media(color_scheme="light", reduced_motion="reduce")
            found += [f"light {width}: {one}" for one in self.axe.violations()]
            self.page.emulate_media(color_scheme="dark", reduced_motion="reduce")
            found += [f"dark {width}: {one}" for one in self.axe.violations(rules=CONTRAST)]
        wide = self.page.evaluate("document.documentElement.scrollWidth")
        if wide > PHONE["width"]:
            found.append(f"320: scrolls sideways, {wide} px wide: {self.page.evaluate(WIDEST)}")
        found += self.page.evaluate("globalThis.violations ?? []")
        said = [one for one in self.person.complaints if not re.search(SLOW, one)]
        return [*found, *said, *self.failed]


# The elements that stick out and hold no other that does.
WIDEST = """() => {
  const out = [...document.querySelectorAll("body *")].filter(one => {
    if (one.getBoundingClientRect().right <= innerWidth + 1) return false;
    for (let up = one.parentElement; up; up = up.parentElement)
      if (getComputedStyle(up).overflowX !== "visible") return false;
    return true;
  });
  return out.filter(one => !out.some(other => other !== one && one.contains(other)))
    .slice(0, 3).map(one => `${one.tagName}.${one.className}`).join(", ");
}"""


@pytest.fixture(scope="module")
def visitors(browser: Any, console: Site) -> dict[str, Visitor]:
    return {}


@pytest.mark.parametrize("state", STATES)
@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.routes[0])
def test_nothing_is_wrong_with_a_page(
    page: Page, state: str, console: Site, browser: Any, visitors: dict[str, Visitor]
) -> None:
    wanted: Visit = getattr(page, state)
    one = visitors.get(wanted.who) or visitors.setdefault(
        wanted.who, Visitor(browser, console, wanted.who)
    )
    if wanted.store == "down":
        console.store("down")
    try:
        status = one.visit(wanted, console.url + wanted.url(console.facts))
        assert status in (wanted.status, wanted.or_status)
        problems = one.problems()
    finally:
        if wanted.store == "down":
            console.store("up")
    assert problems == []


def test_every_route_is_a_page_of_the_table_or_known_to_be_none() -> None:
    known = {name for page in PAGES for name in page.routes} | set(NOT_PAGES)
    assert set(route_names(get_resolver().url_patterns)) == known


def route_names(patterns: list[URLPattern | URLResolver]) -> Iterator[str]:
    """Names of the console's own routes: the API has a table of its own."""
    for one in patterns:
        if isinstance(one, URLPattern):
            assert one.name, f"{one.pattern}: give the route a name"
            yield one.name

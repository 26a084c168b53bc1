"""Debian's Chromium, driven by Playwright, and everything it complained of."""

import contextlib
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest

from tests.browser.people import PASSWORD

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
ARGUMENTS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
DESKTOP = {"width": 1280, "height": 900}
PHONE = {"width": 320, "height": 640}
WAIT_MS = 30_000


@contextlib.contextmanager
def chromium() -> Iterator[Any]:
    """A browser. Skips, naming what is missing, where there is none."""
    if CHROMIUM is None:
        pytest.skip("needs chromium: apt-get install chromium")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        try:
            yield browser
        finally:
            browser.close()


# The status of an expected refusal (422, 409) is no error of the page, and the map's graphics
# driver, a program of the browser, talks of its own speed.
NOT_OURS = ("Failed to load resource", "GL Driver Message")


@dataclass
class Person:
    """One person at one screen; `complaints` is what the browser's console said."""

    page: Any
    url: str
    complaints: list[str] = field(default_factory=list)

    def go(self, path: str) -> None:
        self.page.goto(self.url + path, wait_until="load")

    def sign_in(self, name: str, *, password: str = PASSWORD) -> "Person":
        self.go("/login")
        self.page.get_by_label("Name").fill(name)
        self.page.get_by_label("Password").fill(password)
        self.page.get_by_role("button", name="Sign in").click()
        self.page.wait_for_url("**/tower")
        return self

    def sees(self, text: str, *, within: str = "main", wait_ms: int = WAIT_MS) -> None:
        """Wait until the text is on the page."""
        self.page.locator(within).get_by_text(text).first.wait_for(timeout=wait_ms)


def person(
    browser: Any, url: str, *, screen: dict[str, int] = DESKTOP, dark: bool = False
) -> Person:
    """A fresh session; errors, policy violations and uncaught exceptions are collected."""
    context = browser.new_context(viewport=screen, color_scheme="dark" if dark else "light")
    page = context.new_page()
    page.set_default_timeout(WAIT_MS)
    one = Person(page, url)

    def note(message: Any) -> None:
        if any(word in message.text for word in NOT_OURS):
            return
        if message.type in ("error", "warning"):
            one.complaints.append(f"{message.type}: {message.text}")

    page.on("console", note)
    page.on("pageerror", lambda error: one.complaints.append(f"exception: {error}"))
    return one

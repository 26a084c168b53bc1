"""Takes the pictures of `docs/screenshots`: the example's tower in both themes and both widths.

Run as `make screenshots`: the few that the documents show. SHOTS=folder takes every page and puts
it there; SETTLE=seconds waits longer.
"""

import os
import sqlite3
import sys
import tempfile
import time
from pathlib import Path

from tests.browser.chromium import DESKTOP, PHONE, Person, chromium, person
from tests.browser.people import make_people
from tests.console.real_tower import ROOT, RealTower

FOLDER = Path(os.environ.get("SHOTS", str(ROOT / "docs" / "screenshots")))
SETTLE_SECONDS = float(os.environ.get("SETTLE", "240"))
# What the documents show; all pages in all four looks would be ten megabytes.
SHOWN = {
    "goals-light-1280",
    "goal-light-1280",
    "goal-dark-1280",
    "goal-trace-dark-1280",
    "approval-light-320",
    "approval-dark-320",
}


def main() -> int:
    """Start a tower with the example, wait until there is something to see, photograph it."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as directory, chromium() as browser:
        tower = RealTower(Path(directory), EXAMPLE="1").start().ready()
        try:
            make_people(tower, {"avery": ["approver", "operator", "auditor"]})
            settle(tower)
            url = f"http://127.0.0.1:{tower.ports['WEB_PORT']}"
            for width, screen in (("1280", DESKTOP), ("320", PHONE)):
                for theme in ("light", "dark"):
                    one = person(browser, url, screen=screen, dark=theme == "dark")
                    take_all(one, f"{theme}-{width}", whole=width == "320")
        finally:
            tower.close()
    return 0


def settle(tower: RealTower) -> None:
    """Wait until a Goal landed and another waits for a human, as long as is allowed."""
    deadline = time.monotonic() + SETTLE_SECONDS
    while time.monotonic() < deadline:
        with sqlite3.connect(f"file:{tower.data}/clearance.sqlite3?mode=ro", uri=True) as database:
            rows = database.execute("SELECT name, phase FROM goals_goal").fetchall()
        phases = {phase for _, phase in rows}
        if {"Satisfied", "Paused"} <= phases:
            return
        time.sleep(1)
    print(f"not settled after {SETTLE_SECONDS:.0f} s: {rows}", file=sys.stderr)


def take_all(one: Person, name: str, *, whole: bool) -> None:
    """Photograph the pages that matter."""

    def take(what: str) -> None:
        one.page.locator("live-feed[data-state=live]").wait_for()
        if "SHOTS" in os.environ or f"{what}-{name}" in SHOWN:
            one.page.screenshot(path=FOLDER / f"{what}-{name}.png", full_page=whole)

    one.sign_in("avery")
    one.go("/goals")
    take("goals")
    first = one.page.locator("tbody th a").last.get_attribute("href")
    for tab in ("", "/ledger", "/attempts", "/decisions", "/trace", "/lineage"):
        one.go(f"{first}{tab}")
        if tab == "/trace" and one.page.locator("tbody th a").count():
            one.page.locator("tbody th a").last.click()
            one.page.wait_for_load_state()
        take("goal" + tab.replace("/", "-"))
    one.go(f"{first}/attempts")
    if one.page.locator("tbody th a").count():
        one.page.locator("tbody th a").first.click()
        one.page.wait_for_load_state()
        take("attempt")
    one.go("/approvals")
    take("approvals")
    if one.page.locator(".card-link").count():
        one.page.locator(".card-link").first.click()
        one.page.wait_for_load_state()
        take("approval")
    for path in ("journal", "agents", "releases", "tokens", "goals/new"):
        one.go(f"/{path}")
        take(path.replace("/", "-"))
    for complaint in one.complaints:
        print(f"{name}: {complaint}", file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main())

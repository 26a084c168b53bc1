"""Takes the pictures of `docs/screenshots`: the example's tower in both themes and both widths.

Run as `make screenshots`: the few that the documents show. SHOTS=folder takes every page of the
table `tests.browser.pages` and puts it there; SETTLE=seconds waits longer.
"""

import os
import sqlite3
import sys
import tempfile
import time
from pathlib import Path
from uuid import UUID

from playwright.sync_api import Error

from tests.browser.chromium import DESKTOP, PHONE, Person, chromium, person
from tests.browser.pages import PAGES
from tests.browser.people import make_people
from tests.console.real_tower import ROOT, RealTower

FOLDER = Path(os.environ.get("SHOTS", str(ROOT / "docs" / "screenshots")))
SETTLE_SECONDS = float(os.environ.get("SETTLE", "240"))
FEED_MS = 10_000  # a page that hears nothing by then is photographed as it is
# What the documents show; all pages in all four looks would be twenty megabytes.
SHOWN = {
    "tower-dark-1280",
    "gpu_list-light-1280",
    "goal_list-light-1280",
    "goal_detail-light-1280",
    "goal_detail-dark-1280",
    "goal_span-dark-1280",
    "approval_list-light-1280",
    "approval_detail-light-320",
    "approval_detail-dark-320",
    "agent_detail-light-1280",
    "policy_detail-dark-1280",
    "lineage-light-1280",
    "audit-light-1280",
    "people_list-light-1280",
}
WHOLE = {"agent_detail"}  # pages whose point is below the first screen
# Facts of `tests.browser.pages`, as the tower's database tells them.
FIRST = "(SELECT uid FROM goals_goal ORDER BY created_at LIMIT 1)"
FACTS = {
    "goal": "SELECT namespace || '/' || name FROM goals_goal ORDER BY created_at",
    "goal_name": "SELECT name FROM goals_goal ORDER BY created_at",
    "attempt": f"SELECT uid FROM agents_attempt WHERE goal_uid = {FIRST} ORDER BY created_at",
    "span": f"SELECT measured_span_id FROM goals_goal WHERE uid = {FIRST}",
    "waiting": "SELECT uid FROM governance_approval WHERE state = 'pending'",
    "record": f"SELECT max(seq) FROM governance_journalrecord WHERE goal_uid = {FIRST}",
    "decision": f"SELECT uid FROM governance_decision WHERE goal_uid = {FIRST}",
    # One that stands on its budget has identities, drift and conduct to show.
    "agent": "SELECT a.namespace || '/' || a.name FROM agents_attempt t"
    " JOIN agents_agent a ON a.uid = t.agent_id"
    " ORDER BY t.state IN ('paused', 'running') DESC, t.created_at DESC",
    "release": "SELECT uid FROM goals_release ORDER BY created_at DESC",
    "artifact": "SELECT digest FROM lineage_artifact WHERE kind = 'model' ORDER BY created_at DESC",
    "policy": "SELECT name FROM governance_bundleversion WHERE stage = 'enforce'",
    "gpu": "SELECT node_id || '/' || device_id FROM agents_gpudevice ORDER BY position",
}
IDS = {"attempt", "waiting", "decision", "release"}  # kept as 32 hex digits


def main() -> int:
    """Start a tower with the example, wait until there is something to see, photograph it."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as directory, chromium() as browser:
        tower = RealTower(Path(directory), EXAMPLE="1")
        try:
            tower.start().ready()
            everything = [f"*:{role}" for role in ("admin", "approver", "auditor", "operator")]
            make_people(tower, {"avery": everything, "robin": ["viewer"], "kim": ["approver"]})
            settle(tower)
            facts = facts_of(tower)
            url = f"http://127.0.0.1:{tower.ports['WEB_PORT']}"
            for width, screen in (("1280", DESKTOP), ("320", PHONE)):
                for theme in ("light", "dark"):
                    one = person(browser, url, screen=screen, dark=theme == "dark")
                    take_all(one, facts, f"{theme}-{width}", whole=width == "320")
        finally:
            tower.close()
    return 0


def settle(tower: RealTower) -> None:
    """Wait until a Goal landed and another waits for a human, as long as is allowed."""
    deadline = time.monotonic() + SETTLE_SECONDS
    while time.monotonic() < deadline:
        with _database(tower) as database:
            rows = database.execute("SELECT name, phase FROM goals_goal").fetchall()
        if {"Satisfied", "Paused"} <= {phase for _, phase in rows}:
            return
        time.sleep(1)
    print(f"not settled after {SETTLE_SECONDS:.0f} s: {rows}", file=sys.stderr)


def facts_of(tower: RealTower) -> dict[str, str]:
    """What there is to look at; a page whose fact is missing is left out."""
    facts = {}
    with _database(tower) as database:
        for name, query in FACTS.items():
            row = database.execute(query).fetchone()
            if row is None or not row[0]:
                print(f"there is no {name} to show", file=sys.stderr)
            else:
                facts[name] = str(UUID(row[0])) if name in IDS else str(row[0])
    return facts


def _database(tower: RealTower) -> sqlite3.Connection:
    return sqlite3.connect(f"file:{tower.data}/clearance.sqlite3?mode=ro", uri=True)


def take_all(one: Person, facts: dict[str, str], name: str, *, whole: bool) -> None:
    """Photograph every page that is wanted in this look."""
    one.sign_in("avery")
    for page in PAGES:
        shot = f"{page.routes[0]}-{name}"
        if page.routes[0] == "login" or not ("SHOTS" in os.environ or shot in SHOWN):
            continue
        try:
            path = page.full.url(facts)
        except KeyError:
            continue
        one.go(path)
        try:
            one.page.locator("live-feed[data-state=live]").wait_for(timeout=FEED_MS)
            one.page.wait_for_load_state("networkidle", timeout=FEED_MS)
        except Error as error:
            print(f"{shot}: {str(error).splitlines()[0]}", file=sys.stderr)
        one.page.screenshot(path=FOLDER / f"{shot}.png", full_page=whole or page.routes[0] in WHOLE)
    for complaint in one.complaints:
        print(f"{name}: {complaint}", file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main())

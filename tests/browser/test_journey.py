"""One journey in a real browser against the real tower: ask, run, stop, grant less, resume."""

import json
import subprocess
import sys
import urllib.request
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.browser.chromium import PHONE, Person, person
from tests.browser.people import PASSWORD, make_people
from tests.console.real_tower import RealTower

pytestmark = [pytest.mark.browser, pytest.mark.slow, pytest.mark.timeout(300)]

AGENT = """
apiVersion: orchestration.ai/v1
kind: Agent
metadata: {name: spender, namespace: default}
spec:
  role: worker
  image: examples/spender:1.0
  command: [python, -u, -c, "import time\\nwhile True: print('<b>step</b>'); time.sleep(0.2)"]
  serviceAccountName: spender
  resources: {limits: {nvidia.com/gpu: 1}}
  estimate: {seconds: 20}
"""
GOAL = """\
apiVersion: orchestration.ai/v1
kind: Goal
metadata: {name: journey}
spec:
  objective: "loss < 0.1"
  budget: 4 GPU-seconds
  agents: [spender]
"""


@pytest.fixture(scope="module")
def tower(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RealTower]:
    one = RealTower(tmp_path_factory.mktemp("browser"))
    try:
        one.start().ready()
        make_people(one, {"olivia": ["operator"], "avery": ["approver"]})
        yield one
    finally:
        one.close()


def register_agent(url: str) -> None:
    def post(path: str, body: bytes, **headers: str) -> Any:
        request = urllib.request.Request(f"{url}/api/v1{path}", data=body, headers=headers)
        with urllib.request.urlopen(request, timeout=30) as answer:
            return json.load(answer)

    words = json.dumps({"username": "olivia", "password": PASSWORD}).encode()
    token = post("/login", words, **{"Content-Type": "application/json"})["token"]
    post("/apply", AGENT.encode(), Authorization=f"Bearer {token}")


def write_yaml(one: Person, text: str) -> None:
    """In place of all that stands in the editor."""
    one.page.locator(".gf-code .cm-content").click()
    one.page.keyboard.press("Control+a")
    one.page.keyboard.press("Delete")
    one.page.keyboard.insert_text(text)


def test_from_the_form_to_the_evidence_pack(tower: RealTower, browser: Any, tmp_path: Path) -> None:
    url = f"http://127.0.0.1:{tower.ports['WEB_PORT']}"
    register_agent(url)
    olivia = person(browser, url).sign_in("olivia")
    olivia.go("/goals")
    olivia.page.get_by_role("link", name="New Goal").click()
    olivia.page.locator(".gf-modes").get_by_role("button", name="YAML").click()
    write_yaml(olivia, GOAL.replace("4 GPU-seconds", "4 parsecs"))
    olivia.page.locator(".gf-code .cm-lintRange-error").wait_for()
    write_yaml(olivia, GOAL)
    olivia.sees("Well formed", within=".gf-problems")
    olivia.page.get_by_role("button", name="Check").click()
    olivia.sees("Plan of default/journey")
    olivia.sees("Policy allows it")
    olivia.page.get_by_role("button", name="Apply").click()
    olivia.page.wait_for_url("**/goals/default/journey")

    # Nothing is reloaded from here on: the page follows by itself.
    olivia.page.locator("live-feed[data-state=live]").wait_for()
    olivia.page.locator("h1 .badge", has_text="Running").wait_for()
    olivia.page.locator("h1 .badge", has_text="Paused").wait_for()
    olivia.sees("Waiting for a human")
    olivia.sees("limit reached")

    avery = person(browser, url, screen=PHONE).sign_in("avery")
    avery.page.locator(".main-nav").get_by_role("link", name="Approvals").click()
    avery.page.locator(".card-link").click()
    avery.sees("4.0 GPU-seconds")
    avery.page.get_by_text("Approve less, for a time, or with less").click()
    avery.page.get_by_label("Grant").fill("3")
    avery.page.get_by_label("Reason, kept with the decision").fill(
        "Three more seconds, then we look again."
    )
    assert avery.page.evaluate("document.documentElement.scrollWidth") == PHONE["width"]
    avery.page.get_by_role("button", name="Approve", exact=True).click()
    avery.sees("3.0 GPU-seconds of 4.0 GPU-seconds asked")

    olivia.page.locator("h1 .badge", has_text="Running").wait_for()
    olivia.page.get_by_role("link", name="Ledger").click()
    olivia.sees("approval")
    olivia.page.get_by_role("link", name="Attempts").click()
    olivia.page.get_by_role("link", name="spender #1").click()
    olivia.sees("<b>step</b>")
    olivia.sees("declared")
    olivia.go("/goals/default/journey")
    with olivia.page.expect_download() as pack:
        olivia.page.get_by_role("link", name="Evidence pack").click()
    path = tmp_path / "pack.zip"
    pack.value.save_as(path)
    zipfile.ZipFile(path).extract("verify.py", tmp_path)
    verdict = subprocess.run(
        [sys.executable, "-I", "verify.py", str(path)],
        cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert verdict.returncode == 0, verdict.stdout + verdict.stderr

    avery.page.locator(".main-nav").get_by_role("link", name="Approvals").click()
    avery.page.locator(".card-link").click()
    avery.page.get_by_label("Reason, kept with the decision").fill("It does not converge.")
    avery.page.get_by_role("button", name="Deny").click()
    avery.sees("denied")
    olivia.page.locator("h1 .badge", has_text="Exhausted").wait_for()
    assert olivia.complaints == []
    assert avery.complaints == []


def test_a_page_says_when_it_hears_nothing(tower: RealTower, browser: Any) -> None:
    url = f"http://127.0.0.1:{tower.ports['WEB_PORT']}"
    olivia = person(browser, url).sign_in("olivia")
    olivia.go("/goals")
    feed = olivia.page.locator("live-feed")
    olivia.page.locator("live-feed[data-state=live]").wait_for()
    olivia.page.context.set_offline(True)
    olivia.page.locator("live-feed[data-state=stale]").wait_for()
    assert "nothing heard for" in feed.inner_text()
    assert "grayscale" in olivia.page.locator("#live").evaluate("e => getComputedStyle(e).filter")
    olivia.page.context.set_offline(False)
    olivia.page.locator("live-feed[data-state=live]").wait_for()


def test_the_keyboard_reaches_everything_and_shows_where_it_is(
    tower: RealTower, browser: Any
) -> None:
    url = f"http://127.0.0.1:{tower.ports['WEB_PORT']}"
    olivia = person(browser, url).sign_in("olivia")
    olivia.go("/goals")
    olivia.page.keyboard.press("Tab")
    assert olivia.page.evaluate("document.activeElement.className") == "skip"
    reached = set()
    for _ in range(20):
        olivia.page.keyboard.press("Tab")
        if olivia.page.evaluate("document.activeElement === document.body"):
            break  # past the last of them, out of the page
        reached.add(olivia.page.evaluate("document.activeElement.textContent.trim()"))
        style = olivia.page.evaluate("getComputedStyle(document.activeElement).outlineStyle")
        assert style != "none"
    assert {"Goals", "Agents", "Lineage", "Audit", "New Goal"} <= reached

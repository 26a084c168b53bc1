"""People in a real browser: added, let in, given a role, shut out; an agent's identity revoked."""

import json
import re
import urllib.request
from collections.abc import Iterator
from typing import Any

import pytest

from tests.browser.chromium import PHONE, Person, person
from tests.browser.people import PASSWORD, make_people
from tests.console.real_tower import RealTower, eventually

pytestmark = [pytest.mark.browser, pytest.mark.slow, pytest.mark.timeout(300)]

OWN = "a password of her own, not common"
AGENT = """
apiVersion: orchestration.ai/v1
kind: Agent
metadata: {name: waiter, namespace: default}
spec:
  role: worker
  image: examples/waiter:1.0
  command: [python, -u, -c, "import time, clearance_sdk\\nwith clearance_sdk.attempt():\\n time.sleep(600)"]
  serviceAccountName: waiter
  resources: {limits: {nvidia.com/gpu: 1}}
  estimate: {seconds: 20}
"""  # noqa: E501 - one program
GOAL = """
apiVersion: orchestration.ai/v1
kind: Goal
metadata: {name: wait}
spec: {objective: "loss < 0.1", budget: 4000 GPU-seconds, agents: [waiter]}
"""


@pytest.fixture(scope="module")
def tower(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RealTower]:
    one = RealTower(tmp_path_factory.mktemp("people"))
    try:
        one.start().ready()
        make_people(one, {"olivia": ["operator"], "ada": ["*:admin"]})
        yield one
    finally:
        one.close()


def enter(one: Person, name: str, password: str) -> None:
    one.go("/login")
    one.page.get_by_label("Name").fill(name)
    one.page.get_by_label("Password").fill(password)
    one.page.get_by_role("button", name="Sign in").click()


def test_somebody_is_added_let_in_and_shut_out(tower: RealTower, browser: Any) -> None:
    url = f"http://127.0.0.1:{tower.ports['WEB_PORT']}"
    ada = person(browser, url).sign_in("ada")
    ada.go("/people")
    ada.page.get_by_label("Name to sign in with").fill("nina")
    ada.page.get_by_role("button", name="Add", exact=True).click()
    password = ada.page.locator("#one-time-password").inner_text()

    nina = person(browser, url, screen=PHONE)
    enter(nina, "nina", password)
    nina.page.wait_for_url("**/profile")
    nina.sees("one-time password that somebody else has seen")
    nina.go("/goals")
    nina.page.wait_for_url("**/profile")
    nina.page.get_by_label("One-time password").fill(password)
    nina.page.get_by_label("New password", exact=True).fill(OWN)
    nina.page.get_by_label("New password again").fill(OWN)
    assert nina.page.evaluate("document.documentElement.scrollWidth") == PHONE["width"]
    nina.page.get_by_role("button", name="Change password").click()
    nina.page.wait_for_url("**/tower")
    nina.go("/goals")
    nina.page.locator("live-feed[data-state=live]").wait_for()
    assert nina.page.get_by_role("link", name="New Goal").count() == 0

    ada.go("/people/nina")
    ada.sees("on Linux")
    ada.page.get_by_label("Role", exact=True).select_option("operator")
    ada.page.get_by_role("button", name="Give this role").click()
    ada.sees("nina has the role operator in default now.")
    nina.go("/goals")
    nina.page.get_by_role("link", name="New Goal").first.wait_for()
    ada.page.get_by_role("button", name="Remove operator in default").click()
    ada.page.locator("#confirm-yes").click()
    ada.sees("nina has the role operator in default no more.")

    ada.page.get_by_role("button", name="Deactivate").click()
    ada.page.get_by_role("button", name="Go back").click()
    ada.page.get_by_role("button", name="Deactivate").click()
    ada.page.locator("#confirm-yes").click()
    ada.sees("may not sign in")
    nina.go("/goals")
    nina.page.wait_for_url("**/login?next=/goals")
    ada.go("/people/ada")
    assert ada.page.get_by_role("button", name="Deactivate").is_disabled()
    ada.sees("another administrator can do it")
    assert ada.complaints == []


def test_an_identity_counts_down_and_is_revoked(tower: RealTower, browser: Any) -> None:
    url = f"http://127.0.0.1:{tower.ports['WEB_PORT']}"
    bearer = token_of(url)
    for text in (AGENT, GOAL):
        call(url, "/apply", text.encode(), bearer)
    eventually(lambda: call(url, "/journal?action=svid.issued", None, bearer)["results"])
    olivia = person(browser, url).sign_in("olivia")
    olivia.go("/agents")
    olivia.page.get_by_role("link", name="waiter").first.click()
    left = olivia.page.locator("time[data-until]").first
    left.wait_for()
    first = eventually(lambda: re.fullmatch(r"(\d+:)?\d\d:\d\d left", left.inner_text()))
    assert first
    eventually(lambda: left.inner_text() != first.group(0))
    olivia.page.get_by_label("Reason").fill("It is not needed.")
    olivia.page.get_by_role("button", name="Revoke it").click()
    olivia.page.locator("#confirm-yes").click()
    olivia.sees("1 identity of waiter revoked.")
    olivia.sees("It is not needed.")
    assert olivia.page.locator("time[data-until]").count() == 0
    assert olivia.complaints == []


def token_of(url: str) -> str:
    words = json.dumps({"username": "olivia", "password": PASSWORD}).encode()
    return str(call(url, "/login", words, "")["token"])


def call(url: str, path: str, body: bytes | None, bearer: str) -> Any:
    headers = {"Authorization": f"Bearer {bearer}"} if bearer else {}
    if path == "/login":
        headers = {"Content-Type": "application/json"}
    request = urllib.request.Request(f"{url}/api/v1{path}", data=body, headers=headers)
    with urllib.request.urlopen(request, timeout=30) as answer:
        return json.load(answer)

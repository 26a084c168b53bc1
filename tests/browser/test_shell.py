"""The frame by keyboard alone: rows, filter, palette, help, confirm; what waits is counted."""

import csv
import json
import re
import urllib.request
from typing import Any

import pytest

from tests.browser.axe import Axe
from tests.browser.chromium import PHONE, Person
from tests.browser.people import PASSWORD
from tests.browser.site import Site
from tests.console.real_tower import eventually

pytestmark = [pytest.mark.browser, pytest.mark.slow, pytest.mark.timeout(120)]

SPENDS = """
apiVersion: orchestration.ai/v1
kind: Goal
metadata: {name: counted, namespace: keys}
spec: {objective: "loss < 0.1", budget: 1 GPU-second, agents: [spender]}
"""


def focused(one: Person) -> str:
    return str(one.page.evaluate("document.activeElement.textContent.trim()"))


def test_home_is_the_tower(ada: Person) -> None:
    ada.go("/")
    ada.page.wait_for_url("**/tower")


def test_rows_are_walked_opened_and_kept_in_the_permalink(ada: Person) -> None:
    ada.go("/goals")
    press = ada.page.keyboard.press
    press("j")
    first = focused(ada)
    press("j")
    second = focused(ada)
    assert first != second
    at = ada.page.locator("tr[data-at]")
    assert at.count() == 1
    assert ada.page.url.endswith("#" + str(at.get_attribute("id")))
    press("k")
    assert focused(ada) == first
    link = at.locator("th a").get_attribute("href")
    permalink = ada.page.url
    ada.page.evaluate("htmx.trigger(document.querySelector('#live'), 'refresh')")
    ada.page.wait_for_load_state("networkidle")
    at.wait_for()
    press("Enter")
    ada.page.wait_for_url(f"**{link}")
    ada.page.goto(permalink)
    press("j")
    assert focused(ada) == second  # it goes on from where the permalink was
    press("Escape")
    at.wait_for(state="detached")
    assert "#" not in ada.page.url


def test_keys_do_nothing_while_typing_and_can_be_switched_off(ada: Person) -> None:
    ada.go("/goals")
    box = ada.page.locator("#id_q")
    ada.page.keyboard.press("/")
    assert ada.page.evaluate("document.activeElement.id") == "id_q"
    ada.page.keyboard.type("?jkg/")
    assert box.input_value() == "?jkg/"
    assert not ada.page.locator("dialog[open]").count()
    box.fill("")
    ada.page.locator("header .menu summary").last.click()
    ada.page.get_by_role("button", name="off").click()
    ada.page.wait_for_load_state()
    ada.page.keyboard.press("?")
    ada.page.keyboard.press("j")
    assert not ada.page.locator("dialog[open], [data-at]").count()
    ada.page.keyboard.press("Control+k")  # no single key: it stays
    ada.page.locator("#palette[open]").wait_for()


def test_help_lists_the_keys_that_are_bound(ada: Person) -> None:
    ada.go("/journal")
    ada.page.keyboard.press("?")
    help_ = ada.page.get_by_role("dialog", name="Keyboard")
    help_.wait_for()
    strokes = help_.locator("dt").all_inner_texts()
    assert {"Ctrl K", "?", "/", "j", "k", "Enter", "g g"} <= {
        re.sub(r"\s+", " ", text).strip() for text in strokes
    }
    ada.page.keyboard.press("Escape")
    help_.wait_for(state="hidden")
    ada.page.keyboard.press("g")
    ada.page.keyboard.press("g")
    ada.page.wait_for_url("**/goals")


def test_the_palette_goes_to_a_goal_by_name(ada: Person, console: Site) -> None:
    name = console.facts["goal"].rpartition("/")[2]
    ada.go("/journal")
    ada.page.keyboard.press("Control+k")
    box = ada.page.locator("#palette-text")
    box.wait_for()
    assert ada.page.evaluate("document.activeElement.getAttribute('role')") == "combobox"
    ada.page.keyboard.type(name)
    ada.page.get_by_role("option").filter(has_text="Goal").filter(has_text=name).first.wait_for()
    chosen = ada.page.locator("[role=option][aria-selected=true]")
    for _ in range(12):
        assert box.get_attribute("aria-activedescendant") == chosen.get_attribute("id")
        if name in chosen.inner_text() and chosen.inner_text().endswith("Goal"):
            break
        ada.page.keyboard.press("ArrowDown")
    ada.page.keyboard.press("Enter")
    ada.page.wait_for_url(f"**/{name}*")


def test_the_palette_is_honest_when_nothing_is_found(ada: Person) -> None:
    ada.go("/journal")
    ada.page.keyboard.press("Control+k")
    ada.page.keyboard.type("zzzzzz no such thing")
    ada.page.get_by_text("Nothing of that name that you may see.").wait_for()
    ada.page.keyboard.press("Escape")
    ada.page.locator("#palette").wait_for(state="hidden")


def test_shown_rows_are_filtered_with_the_grammar_and_counted(ada: Person, console: Site) -> None:
    ada.go(f"/goals/{console.facts['goal']}/journal")
    ada.page.keyboard.press("/")
    box = ada.page.get_by_label("Filter the rows shown on this page")
    box.wait_for()
    rows = ada.page.locator("main table tbody tr")
    total = rows.count()
    assert total > 1

    def shown(text: str) -> int:
        box.fill(text)
        return sum(row.is_visible() for row in rows.all())

    kept = shown("-l action=goal.created")
    assert 0 < kept < total
    ada.sees(f"{kept} of the {total} shown rows")
    assert shown("!-l action=goal.created") == total - kept
    assert shown(r"^goal\.created$") == kept
    assert shown("-f gcreated") >= kept
    shown("(")
    ada.sees("Not a regular expression")
    shown("-l colour=red")
    ada.sees("-l takes key=value with a key of")
    assert shown("-l action=goal.created") == kept
    assert "shown=-l+action%3Dgoal.created" in ada.page.url
    ada.page.reload()
    ada.sees(f"{kept} of the {total} shown rows")
    ada.page.evaluate("htmx.trigger(document.querySelector('#live'), 'refresh')")
    ada.page.wait_for_load_state("networkidle")
    assert sum(row.is_visible() for row in rows.all()) == kept
    assert shown("no row says this") == 0
    ada.page.get_by_role("button", name="Show all rows").click()
    assert sum(row.is_visible() for row in rows.all()) == total


def test_a_change_of_a_filter_asks_the_server_once(ada: Person) -> None:
    asked: list[str] = []
    ada.page.on(
        "request",
        lambda one: asked.append(one.url) if one.headers.get("hx-source") == "form" else None,
    )  # the live part asks by itself as well

    def settled(text: str) -> list[str]:
        """What was asked for this text, once nothing more comes for longer than a form waits."""
        ada.page.wait_for_timeout(900)
        found = [url for url in asked if f"q={text}" in url]
        asked.clear()
        return found

    for path in ("/goals", "/agents", "/approvals", "/approvals/decided", "/people", "/gpus"):
        ada.go(path)
        ada.page.wait_for_load_state("networkidle")
        box = ada.page.locator("#id_q")
        box.focus()
        ada.page.keyboard.type("abc", delay=20)
        assert len(settled("abc")) == 1, f"{path}: typing"
        ada.page.keyboard.press("Tab")
        assert settled("abc") == [], f"{path}: leaving the box"
        box.focus()
        ada.page.keyboard.press("End")
        ada.page.keyboard.type("d", delay=20)
        ada.page.keyboard.press("Enter")
        assert len(settled("abcd")) == 1, f"{path}: typing and Enter"
        ada.page.wait_for_timeout(200)
        box.press("Enter")
        assert len(settled("abcd")) == 1, f"{path}: a press without a change"
    ada.go("/goals")
    ada.page.locator("#id_phase").select_option("Running")
    assert len([url for url in settled("") if "phase=Running" in url]) == 1
    ada.page.wait_for_url("**/goals?*phase=Running*")


def test_a_table_is_saved_as_csv(ada: Person) -> None:
    ada.go("/goals")
    with ada.page.expect_download() as download:
        ada.page.get_by_role("link", name="Goals as CSV").click()
    assert re.fullmatch(r"goals-\d{8}T\d{6}Z\.csv", download.value.suggested_filename)
    with open(download.value.path(), newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert "name" in rows[0]
    assert len(rows) >= ada.page.locator("main tbody tr").count()


def test_a_confirm_asks_and_takes_no_for_an_answer(ada: Person) -> None:
    ada.go("/tokens")
    ada.page.locator("#id_name").fill("doomed")
    ada.page.get_by_role("button", name="Make a token").click()
    ada.page.get_by_role("button", name="Revoke doomed").click()
    dialog = ada.page.get_by_role("dialog", name="Revoke the token doomed?")
    dialog.wait_for()
    assert focused(ada) == "Go back"
    ada.page.keyboard.press("Escape")
    dialog.wait_for(state="hidden")
    ada.page.get_by_role("button", name="Revoke doomed").wait_for()
    ada.page.get_by_role("button", name="Revoke doomed").press("Enter")
    dialog.get_by_role("button", name="Revoke").press("Enter")
    ada.sees("revoked")


def test_a_time_range_narrows_and_stays_in_the_permalink(ada: Person) -> None:
    ada.go("/journal")
    group = ada.page.get_by_role("group", name="Time range")
    group.get_by_role("link", name="15 min").click()
    ada.page.wait_for_url("**/journal?time=15m")
    assert group.get_by_role("link", name="15 min").get_attribute("aria-current") == "true"
    assert ada.page.locator("main tbody tr").count()
    group.get_by_text("Custom").click()
    group.get_by_label("From (UTC)").fill("2001-01-01T00:00")
    group.get_by_label("Until (UTC)").fill("2001-01-02T00:00")
    group.get_by_role("button", name="Show").click()
    ada.sees("No record that you may see matches")
    assert "from=2001-01-01" in ada.page.url


def ask(url: str, manifest: str) -> None:
    """Apply a manifest as olivia, over the API."""

    def post(path: str, body: bytes, **headers: str) -> Any:
        request = urllib.request.Request(f"{url}/api/v1{path}", data=body, headers=headers)
        with urllib.request.urlopen(request, timeout=30) as answer:
            return json.load(answer)

    words = json.dumps({"username": "olivia", "password": PASSWORD}).encode()
    token = post("/login", words, **{"Content-Type": "application/json"})["token"]
    post("/apply", manifest.encode(), Authorization=f"Bearer {token}")


def test_the_count_of_what_waits_follows_by_itself(browser: Any, console: Site) -> None:
    avery = console.person(browser, "avery")
    avery.go("/journal")
    avery.page.locator("live-feed[data-state=live]").wait_for()

    def waiting() -> int:
        shown: str = avery.page.locator("#pending-count").text_content()
        return int(re.sub(r"\D", "", shown))

    before = waiting()
    ask(console.url, SPENDS)
    eventually(lambda: waiting() if waiting() > before else 0)
    assert avery.page.locator("#pending-count").is_visible()
    assert avery.complaints == []
    avery.page.context.close()


def test_a_part_that_cannot_be_read_again_stays_and_is_called_stale(ada: Person) -> None:
    ada.go("/goals")
    ada.page.locator("live-feed[data-state=live]").wait_for()
    rows = ada.page.locator("#live tbody tr").count()
    broken = "<!DOCTYPE html><html><body><h1>Not available</h1></body></html>"

    def refuse(route: Any) -> None:
        route.fulfill(status=503, content_type="text/html", body=broken)

    ada.page.route("**/goals", refuse)
    ada.page.evaluate("htmx.trigger(document.querySelector('#live'), 'refresh')")
    ada.page.locator("live-feed[data-state=stale]").wait_for()
    assert ada.page.locator("#live tbody tr").count() == rows
    assert "grayscale" in ada.page.locator("#live").evaluate("e => getComputedStyle(e).filter")
    ada.page.unroute("**/goals", refuse)
    ada.page.evaluate("htmx.trigger(document.querySelector('#live'), 'refresh')")
    ada.page.locator("live-feed[data-state=live]").wait_for()
    assert not ada.page.locator("[data-unread]").count()


def test_a_page_that_is_no_longer_ones_to_see_is_not_kept(ada: Person) -> None:
    ada.go("/goals")

    def refuse(route: Any) -> None:
        route.fulfill(status=403, content_type="text/html", body="<h1>Not allowed</h1>")

    ada.page.route("**/goals", refuse)
    ada.page.evaluate("htmx.trigger(document.querySelector('#live'), 'refresh')")
    ada.page.get_by_role("heading", name="Not allowed").wait_for()
    assert not ada.page.locator("main tbody tr").count()


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_dialogs_and_filters_break_no_rule_of_accessibility(
    browser: Any, console: Site, theme: str
) -> None:
    one = console.person(browser, "ada", screen=PHONE)
    one.page.emulate_media(color_scheme=theme)
    one.go(f"/goals/{console.facts['goal']}/journal")
    axe = Axe(one.page)
    axe.load()
    press = one.page.keyboard.press

    def rules() -> list[str]:
        assert one.page.evaluate("document.documentElement.scrollWidth") == PHONE["width"]
        return axe.violations()

    press("/")
    one.page.keyboard.type("-l colour=red")
    assert rules() == []
    press("Control+k")
    one.page.get_by_role("option").first.wait_for()
    assert rules() == []
    press("Escape")
    one.page.locator("main h1").click()
    press("?")
    one.page.get_by_role("dialog", name="Keyboard").wait_for()
    assert rules() == []
    press("Escape")
    one.go("/tokens")
    axe.load()
    one.page.locator("form[data-confirm] button").first.click()
    one.page.locator("#confirm[open]").wait_for()
    assert rules() == []
    assert one.complaints == []
    one.page.context.close()


def test_what_a_part_is_refused_with_stands_above_the_page(ada: Person) -> None:
    refusal = ada.page.locator("#refusal")
    ada.go("/goals/new")
    ada.page.context.clear_cookies(name="csrftoken")
    ada.page.get_by_role("button", name="Check (dry run)").click()
    refusal.get_by_text("Form expired.").wait_for()
    assert ada.page.get_by_role("button", name="Check (dry run)").is_visible()
    ada.go("/goals")
    ada.page.route("**/goals?*q=unheard*", lambda route: route.abort())
    box = ada.page.locator("#id_q")
    box.fill("unheard")
    refusal.get_by_text("The server did not answer.").wait_for()
    assert ada.page.locator("main table").is_visible()
    box.fill("rogue")
    refusal.get_by_text("The server did not answer.").wait_for(state="detached")
    ada.complaints[:] = [one for one in ada.complaints if "Failed to fetch" not in one]


def test_a_filter_that_cannot_be_read_is_marked_until_it_can(ada: Person) -> None:
    ada.go("/goals")
    box = ada.page.locator("#id_q")
    box.fill("(")
    ada.page.locator("#id_q[aria-invalid=true][aria-describedby=q-error]").wait_for()
    assert "( is not understood" in ada.page.locator("#q-error").inner_text()
    box.fill("rogue")
    ada.page.locator("#id_q:not([aria-invalid])").wait_for()

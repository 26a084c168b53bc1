"""What is not ours in a real browser: apart on the Tower, not steered, with what is proposed."""

from typing import Any

import pytest

from tests.browser.site import Site

pytestmark = [pytest.mark.browser, pytest.mark.slow, pytest.mark.timeout(300)]


def test_what_is_not_ours_is_on_the_tower_and_is_not_steered(browser: Any, console: Site) -> None:
    ada = console.person(browser, "ada")
    ada.go("/tower")
    page = ada.page
    page.locator('fleet-tower[data-state="live"]').wait_for()
    ada.sees("2 not ours")
    bay = page.locator(".bay-foreign:not([hidden])")
    bay.locator("summary").click()
    assert bay.get_by_role("link", name="train").count() == 1
    row = page.locator(".twin-row", has_text="StatefulSet")
    row.locator(".twin-agent").click()
    ada.sees("Not ours: no Goal answers for it")
    for name in ("Pause", "Resume", "Cancel"):
        button = page.locator(".steer-bar").get_by_role("button", name=name)
        assert button.is_disabled()
        assert button.get_attribute("aria-describedby") == "no-foreign"
    page.locator(".twin-row", has_text="spender").first.locator(".twin-agent").click()
    page.locator(".steer-bar").get_by_role("button", name="Pause").and_(
        page.locator(":enabled")
    ).wait_for()
    row.locator(".twin-agent").click()
    page.get_by_role("link", name="Open in the catalogue").click()
    page.wait_for_url("**/catalogue/*")
    ada.sees("It cannot be paused, resumed or ended from here")
    assert ada.complaints == []


def test_a_proposal_is_read_copied_and_registered(browser: Any, console: Site) -> None:
    ada = console.person(browser, "ada")
    ada.page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    page = ada.page
    ada.go(f"/catalogue/{console.facts['workload']}")
    page.get_by_role("button", name="Copy").click()
    ada.sees("Copied.")
    copied = page.evaluate("navigator.clipboard.readText()")
    assert copied == page.locator("#proposal").text_content()
    with page.expect_download() as started:
        page.get_by_role("link", name="Download YAML").click()
    assert started.value.suggested_filename == "deployment-support-bot.yaml"
    page.get_by_role("button", name="Register it as an agent").click()
    page.wait_for_url("**/agents/default/support-bot")
    ada.sees("support-bot is registered in default.")
    assert ada.complaints == []

"""The audit journey in a real browser: search, err, verify the chain, take a pack and check it."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.browser.chromium import PHONE
from tests.browser.test_lineage import fits, seed, signed_in
from tests.console.real_tower import RealTower

pytestmark = [pytest.mark.browser, pytest.mark.slow, pytest.mark.timeout(300)]


@pytest.fixture(scope="module")
def tower(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RealTower]:
    one = RealTower(tmp_path_factory.mktemp("audit"))
    try:
        one.start().ready()
        seed(one)
        yield one
    finally:
        one.close()


def test_the_journal_is_searched_and_its_chain_verified(tower: RealTower, browser: Any) -> None:
    adam = signed_in(tower, browser, "adam", "/audit")
    field = adam.page.get_by_label("Search the journal", exact=True).last
    field.fill("action:rel")
    adam.page.locator("#audit-names option[value='action:release.activated']").wait_for(
        state="attached"
    )
    field.fill("action:release.activated")
    field.press("Enter")
    adam.page.wait_for_url(re.compile("q=action"))
    adam.page.wait_for_function("document.querySelectorAll('[id^=record-]').length === 2")
    field.fill("acton:release")
    field.press("Enter")
    adam.sees("is no qualifier")
    adam.page.get_by_role("link", name="action:release").click()
    adam.page.wait_for_function("document.querySelectorAll('[id^=record-]').length >= 4")
    adam.page.get_by_role("button", name="Verify now").click()
    adam.sees("signed root")
    adam.page.set_viewport_size(PHONE)
    assert fits(adam)
    assert adam.complaints == []


def test_a_pack_is_taken_and_a_changed_one_is_red(
    tower: RealTower, browser: Any, tmp_path: Path
) -> None:
    adam = signed_in(tower, browser, "adam", "/audit/packs", screen=PHONE)
    with adam.page.expect_download() as waiting:
        adam.page.get_by_role("button", name="Download the pack of calmer-checkout").click()
    pack = tmp_path / "pack.zip"
    waiting.value.save_as(pack)
    adam.go("/audit/verify")
    adam.page.get_by_label("Drop an evidence pack here").set_input_files(pack)
    adam.page.get_by_role("button", name="Verify").click()
    adam.page.get_by_role("heading", name="Verified: pack.zip").wait_for()
    assert fits(adam)
    content = bytearray(pack.read_bytes())
    content[content.index(b'"action":"goal.created"') + 12] ^= 1
    changed = tmp_path / "changed.zip"
    changed.write_bytes(content)
    drop(adam.page, changed)
    adam.page.get_by_role("heading", name="Not verified: changed.zip").wait_for()
    adam.sees("The first bad record has sequence number")
    assert adam.complaints == []


def drop(page: Any, file: Path) -> None:
    """Drop a file on the page as a person's mouse does."""
    transfer = page.evaluate_handle(
        """([name, bytes]) => {
          const transfer = new DataTransfer();
          transfer.items.add(new File([new Uint8Array(bytes)], name, { type: "application/zip" }));
          return transfer;
        }""",
        [file.name, list(file.read_bytes())],
    )
    page.dispatch_event("drop-zone", "drop", {"dataTransfer": transfer})

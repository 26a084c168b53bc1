"""The page on GPUs in a browser: a real tower samples cards whose words the test chooses."""

import contextlib
import os
import re
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.agents.nvml_library import card_uuid, compile_library, slice_uuid
from tests.browser.axe import Axe
from tests.browser.chromium import PHONE, Person, person
from tests.browser.people import make_people
from tests.console.real_tower import RealTower, eventually

pytestmark = [pytest.mark.browser, pytest.mark.slow, pytest.mark.timeout(400)]

START_SECONDS = 240.0  # of a tower on a machine that runs everything else as well
DIVIDED = "mig.1 1\nslice.1.0 1\nslice.1.3 1\n"


class Cards:
    """What the cards of the stand-in say."""

    def __init__(self, directory: Path) -> None:
        self.path = directory / "state"
        self.say(DIVIDED)

    def say(self, text: str) -> None:
        draft = self.path.with_suffix(".draft")
        draft.write_text(text)
        draft.rename(self.path)


@pytest.fixture(scope="module")
def cards(tmp_path_factory: pytest.TempPathFactory) -> Cards:
    return Cards(compile_library(tmp_path_factory.mktemp("cards")))


@pytest.fixture(scope="module")
def tower(tmp_path_factory: pytest.TempPathFactory, cards: Cards) -> Iterator[RealTower]:
    one = RealTower(
        tmp_path_factory.mktemp("gpus"),
        LD_LIBRARY_PATH=str(cards.path.parent),
        STUB_STATE=str(cards.path),
    )
    try:
        one.start()
        eventually(lambda: "Clearance is ready at" in one.said(), seconds=START_SECONDS)
        make_people(one, {"vera": ["viewer"], "nora": []})
        yield one
    finally:
        one.close()


def look(browser: Any, tower: RealTower, name: str = "vera", **screen: Any) -> Person:
    one = person(browser, f"http://127.0.0.1:{tower.ports['WEB_PORT']}", **screen)
    one.sign_in(name).go("/gpus")
    return one


@contextlib.contextmanager
def silenced(tower: RealTower) -> Iterator[None]:
    """The sampler hangs for a while."""
    node = tower.of("node")["pid"]
    os.kill(node, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(node, signal.SIGCONT)


def test_what_the_cards_say_is_seen_without_a_reload(
    tower: RealTower, browser: Any, cards: Cards
) -> None:
    vera = look(browser, tower)
    vera.sees("2 cards measured, 2 MIG slices")
    vera.sees("37 %")
    vera.sees("divided into 2 MIG slices")
    cards.say(DIVIDED + "utilisation.0 81\nxid 0 79\nuncorrected.0 2\nreasons.0 64\npid.0 1\n")
    for word in ("81 %", "XID 79", "ECC 2 uncorrected", "thermal"):
        vera.sees(word)
    vera.page.locator(".gpu-foreign", has_text="not ours").first.wait_for()
    vera.sees("1 in trouble")
    assert vera.page.locator(".gpu-is-trouble").count() == 1
    assert vera.complaints == []


def test_a_sampler_that_hangs_greys_its_node_and_comes_back(tower: RealTower, browser: Any) -> None:
    vera = look(browser, tower)
    vera.page.locator(".gpu-node:not(.is-stale)").wait_for()
    with silenced(tower):
        vera.page.locator(".gpu-node.is-stale").wait_for()
        vera.sees("stale: last read")
    vera.page.locator(".gpu-node:not(.is-stale)").wait_for()


def test_found_and_opened_by_keys_alone(tower: RealTower, browser: Any) -> None:
    vera = look(browser, tower)
    vera.page.locator(".gpu-card").first.wait_for()
    vera.page.keyboard.press("/")
    vera.page.locator("#id_q:focus").wait_for()
    vera.page.keyboard.type("-l kind=slice")
    vera.page.keyboard.press("Enter")
    vera.page.wait_for_url(re.compile("q=-l"))
    vera.page.keyboard.press("Escape")
    vera.go("/gpus?view=table&q=" + slice_uuid(1, 3))
    vera.page.locator("tbody tr").first.wait_for()
    vera.page.keyboard.press("j")
    vera.page.keyboard.press("Enter")
    vera.page.wait_for_url(f"**/gpus/local/{slice_uuid(1, 3)}")
    vera.sees("measured through NVML, driver 575.57.08")
    vera.page.get_by_role("link", name="Stub 1").click()
    vera.page.wait_for_url(f"**/gpus/local/{card_uuid(1)}")
    assert vera.complaints == []


def test_who_may_see_nothing_is_told_whom_to_ask(tower: RealTower, browser: Any) -> None:
    look(browser, tower, "nora").sees("It needs the role viewer; ask")


@pytest.mark.parametrize("dark", [False, True])
def test_every_view_is_accessible_on_a_phone(tower: RealTower, browser: Any, dark: bool) -> None:
    vera = look(browser, tower, screen=PHONE, dark=dark)
    axe = Axe(vera.page)
    for path in ("/gpus", "/gpus?view=table", f"/gpus/local/{card_uuid(0)}", "/gpus?q=nothing"):
        vera.go(path)
        vera.page.locator("live-feed:not([data-state=connecting])").wait_for()
        axe.load()
        assert axe.violations() == [], path
        assert vera.page.evaluate("document.documentElement.scrollWidth") <= PHONE["width"], path
    assert vera.complaints == []

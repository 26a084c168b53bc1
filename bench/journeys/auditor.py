"""The auditor's journey: the journal by qualifiers, a pack, and one that was tampered with."""

import re
import tempfile
from pathlib import Path

from bench.journeys.walk import Walk

QUESTIONS = (
    "action:goal.created",
    "action:approval.approved actor:eva",
    "goal:default/reduce-p99-latency",
    "created:2020-01-01..2099-01-01 action:attempt.failed",
)


def audit(walk: Walk) -> None:
    """Search, verify the chain, take a pack, verify it, and a copy with one byte changed."""
    one, page = walk.person, walk.person.page
    for question in QUESTIONS:
        with walk.step(f"the journal: {question}"):
            one.go("/audit")
            page.get_by_label("Search the journal", exact=True).last.fill(question)
            page.keyboard.press("Enter")
            page.wait_for_url(re.compile("q="))
            page.locator("[id^=record-]").first.wait_for()
    with walk.step("the chain is verified"):
        page.get_by_role("button", name=re.compile("^Verify (now|the rest)$")).click()
        one.sees("signed root")
    with walk.step("lineage"):
        one.go("/lineage")
    with walk.step("the packs"):
        one.go("/audit/packs")
    with tempfile.TemporaryDirectory() as folder:
        _verify(walk, Path(folder) / "pack.zip")


def _verify(walk: Walk, pack: Path) -> None:
    one, page = walk.person, walk.person.page
    with walk.step("a pack is taken"), page.expect_download() as waiting:
        page.get_by_role("button", name="Download the pack of").first.click()
    waiting.value.save_as(pack)
    with walk.step("and verified"):
        one.go("/audit/verify")
        page.get_by_label("Drop an evidence pack here").set_input_files(pack)
        page.get_by_role("button", name="Verify").click()
        page.get_by_role("heading", name="Verified: pack.zip").wait_for()
    with walk.step("a changed one is red"):
        content = bytearray(pack.read_bytes())
        content[content.index(b'"action":"') + 12] ^= 1
        pack.write_bytes(content)
        page.get_by_label("Drop an evidence pack here").set_input_files(pack)
        page.get_by_role("button", name="Verify").click()
        page.get_by_role("heading", name="Not verified: pack.zip").wait_for()
        one.sees("The first bad record has sequence number")

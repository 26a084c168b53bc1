"""The approver's journey: the inbox by time to damage, every kind of answer, a race, a loan."""

import datetime as dt
import re
from typing import Any

from bench.journeys.walk import Walk

WHY = "Reason, kept with the decision"


def approve(walk: Walk, rival: Walk) -> None:
    """All of it; `rival` is another approver of the same namespace."""
    read_inbox(walk)
    answer_each(walk)
    answer_many(walk)
    lose_a_race(walk, rival)
    lend(walk)
    look_back(walk)


def read_inbox(walk: Walk) -> None:
    one, page = walk.person, walk.person.page
    with walk.step("the inbox"):
        one.go("/approvals")
        page.locator(".inbox-row.is-costing").first.wait_for()
        first = page.locator(".inbox-row").first.inner_text()
        assert "keys/holds" in first, f"what costs money while it waits is not first, but {first}"
        walk.fits()
    with walk.step("what waits for me"):
        page.get_by_role("link", name=re.compile("^For me")).click()
        page.locator(".choice [aria-current]", has_text="For me").wait_for()
    with walk.step("only the graphs"):
        page.locator("#id_q").fill("-l kind=graph")
        page.keyboard.press("Enter")
        page.locator(".inbox-sum", has_text=re.compile(r"\b\d requests?\b")).wait_for()
        assert page.locator(".inbox-row", has_text="budget").count() == 0


def _open(walk: Walk, text: str) -> Any:
    """The card of the first open question of this name."""
    walk.person.go(f"/approvals?q={text}")
    page = walk.person.page
    page.locator(".card-link", has_text=text).first.click()
    page.wait_for_url(re.compile("/approvals/[0-9a-f-]{36}"))
    page.get_by_label(WHY).fill("One more round, then we look again.")
    walk.fits()
    return page


def answer_each(walk: Walk) -> None:
    one = walk.person
    with walk.step("a graph's card"):
        page = _open(walk, "asks-")
    with walk.step("the graph is approved"):
        page.get_by_role("button", name="Approve", exact=True).click()
        one.sees("avery approved")
    with walk.step("a budget's card"):
        page = _open(walk, "keys/spend-")
        page.get_by_text("Approve less, for a time, or with less").click()
    with walk.step("less of it, and for an hour"):
        page.get_by_label("Grant").fill("2")
        page.locator("[data-until-hours='1']").click()
        page.get_by_role("button", name="Approve", exact=True).click()
        one.sees("avery approved")
    with walk.step("degraded"):
        page = _open(walk, "keys/spend-")
        page.get_by_text("Approve less, for a time, or with less").click()
        page.locator("#id_gpus").fill("1")
        page.get_by_role("button", name="Approve", exact=True).click()
        one.sees("The Goal goes on with less")
    with walk.step("asked back"):
        page = _open(walk, "keys/spend-")
        page.get_by_text("Ask before you answer").click()
        page.locator("#id_question").fill("What came out of the first round?")
        page.get_by_role("button", name="Ask").click()
        one.sees("What came out of the first round?")
    with walk.step("denied"):
        page = _open(walk, "keys/spend-")
        page.get_by_role("button", name="Deny").click()
        one.sees("avery denied")


def answer_many(walk: Walk) -> None:
    one, page = walk.person, walk.person.page
    with walk.step("three are picked"):
        one.go("/approvals?q=flight-goal")
        for number in range(3):
            page.locator(".pick input").nth(number).check()
        page.locator("#bulk output", has_text="3 requests").wait_for()
    with walk.step("and summed"):
        page.get_by_role("button", name="Review 3").click()
        page.get_by_label("Reason, kept with each decision").fill("It has not moved for a day.")
        walk.fits()
    with walk.step("and denied together"):
        page.get_by_role("button", name="Deny 3").click()
        one.sees("3 of 3 denied")


def lose_a_race(walk: Walk, rival: Walk) -> None:
    one = walk.person
    with walk.step("somebody else is faster"):
        page = _open(walk, "flight-goal")
        rival.person.go(page.url.removeprefix(one.url))
        rival.person.page.get_by_label(WHY).fill("Mine.")
        rival.person.page.get_by_role("button", name="Deny").click()
        rival.person.sees("eva denied")
        page.locator("[data-outdated]", has_text="eva already denied this").wait_for()
        assert page.get_by_role("button", name="Approve", exact=True).is_disabled()


def lend(walk: Walk) -> None:
    one, page = walk.person, walk.person.page
    with walk.step("the right is lent"):
        one.go("/approvals/delegations")
        page.get_by_label("To", exact=True).select_option("vera")
        page.get_by_label("In namespace").select_option("keys")
        ends_at = dt.datetime.now(dt.UTC) + dt.timedelta(days=1)
        page.get_by_label("Until").fill(ends_at.strftime("%Y-%m-%dT%H:%M"))
        page.get_by_label("Reason").fill("Away until tomorrow.")
        page.get_by_role("button", name="Lend").click()
        one.sees("Away until tomorrow.")
        walk.fits()
    with walk.step("and taken back"):
        row = page.locator("tr", has_text="Away until tomorrow.").first
        row.get_by_role("button").click()
        page.locator("#confirm-yes").click()
        one.sees("by avery")


def look_back(walk: Walk) -> None:
    one = walk.person
    with walk.step("what was decided"):
        one.go("/approvals/decided")
        one.sees("It has not moved for a day.")
        walk.fits()

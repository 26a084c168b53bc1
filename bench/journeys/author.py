"""The policy author's journey: the editor, tests, an input of last week, impact, stages."""

import re

from bench.journeys.walk import Walk


def write_policy(walk: Walk) -> None:
    """From a change in the editor to a new version in shadow."""
    one, page = walk.person, walk.person.page
    results = page.locator("#results")
    with walk.step("the policies"):
        one.go("/policies")
    with walk.step("the editor, on the newest version"):
        page.locator("tbody th a").first.click()
        page.wait_for_url(re.compile(r"/policies/starter/\d+$"))
        page.locator(".policy-problems").get_by_text("It compiles").wait_for()
        walk.fits()
    with walk.step("an error, where it is"):
        page.locator(".cm-content").first.click()
        page.keyboard.press("Control+End")
        page.keyboard.insert_text("\n# tried on the load\nallow {")
        page.locator(".cm-lintRange-error, .cm-lint-marker-error").first.wait_for()
    with walk.step("mended"):
        for _ in range(len("\nallow {")):
            page.keyboard.press("Backspace")
        page.locator(".policy-problems").get_by_text("It compiles").wait_for()
    with walk.step("judged on a real input"):
        page.keyboard.press("Control+Enter")
        results.get_by_text("Judged in").first.wait_for()
    with walk.step("its tests"):
        page.get_by_role("button", name="Run tests").click()
        results.get_by_text(re.compile("tests? pass")).first.wait_for()
    with walk.step("its impact on what was decided"):
        page.get_by_role("button", name="Replay history").click()
        results.get_by_text(re.compile(r"replayed|decisions")).first.wait_for()
    with walk.step("saved as a new version"):
        page.get_by_role("button", name="Save as a new version").click()
        one.sees("is saved and signed")
    with walk.step("put into shadow"):
        page.get_by_role("button", name="Shadow", exact=True).click()
        page.locator("#confirm-yes").click()
        one.sees("is in stage shadow")
        assert page.get_by_role("button", name="Enforce").is_disabled()  # a second person must

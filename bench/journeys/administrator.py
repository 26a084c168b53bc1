"""The administrator's journey: three hundred people, roles, sessions, tokens, the palette."""

from bench.journeys.walk import Walk


def administer(walk: Walk) -> None:
    """Add somebody, give and take a role, shut them out; a token; what stands."""
    one, page = walk.person, walk.person.page
    with walk.step("people"):
        one.go("/people")
        walk.fits()
    with walk.step("one of three hundred"):
        one.go("/people?q=viewer-299")
        one.sees("viewer-299")
    with walk.step("somebody is added"):
        one.go("/people")
        page.get_by_label("Name to sign in with").fill("nina")
        page.get_by_role("button", name="Add", exact=True).click()
        page.locator("#one-time-password").wait_for()
    with walk.step("gets a role"):
        one.go("/people/nina")
        page.get_by_label("Role", exact=True).select_option("operator")
        page.get_by_role("button", name="Give this role").click()
        one.sees("nina has the role operator in default now.")
    with walk.step("loses it"):
        page.get_by_role("button", name="Remove operator in default").click()
        page.locator("#confirm-yes").click()
        one.sees("nina has the role operator in default no more.")
    with walk.step("is shut out"):
        page.get_by_role("button", name="Deactivate").click()
        page.locator("#confirm-yes").click()
        one.sees("may not sign in")
    with walk.step("a session of another"):
        one.go("/people/olivia")
        walk.fits()
    with walk.step("a token"):
        one.go("/tokens")
        page.get_by_label("Name").first.fill("load")
        page.get_by_role("button", name="Make a token").click()
        page.locator(".secret").wait_for()
    with walk.step("ten thousand agents on the Tower"):
        one.go("/tower")
        page.locator('fleet-tower[data-state="live"]').wait_for()
        page.locator(".twin-row").first.wait_for()
    with walk.step("to an agent by the palette"):
        page.keyboard.press("Control+k")
        page.locator("#palette[open]").wait_for()
        page.keyboard.insert_text("agent-9999")
        page.locator("#palette").get_by_text("agent-9999").first.wait_for()

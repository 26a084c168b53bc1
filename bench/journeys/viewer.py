"""The viewer's journey: every page, nothing that may be done, and whom to ask for it."""

from bench.journeys.walk import Walk

PLACES = (
    "/tower", "/gpus", "/goals", "/goals?phase=Running&page=2", "/goals/flight-0/flight-goal-5",
    "/goals/flight-0/flight-goal-5/attempts", "/goals/default/reduce-p99-latency",
    "/goals/default/reduce-p99-latency/attempts", "/goals/default/reduce-p99-latency/trace",
    "/goals/default/reduce-p99-latency/ledger", "/goals/default/reduce-p99-latency/decisions",
    "/goals/default/reduce-p99-latency/lineage", "/goals/default/reduce-p99-latency/journal",
    "/approvals", "/approvals/decided", "/approvals/delegations", "/agents", "/agents?q=agent-77",
    "/agents/default/profiler", "/catalogue", "/policies", "/policies/starter/1", "/releases",
    "/lineage", "/audit", "/people", "/tokens", "/profile", "/goals/new", "/kill",
)  # fmt: skip


def view(walk: Walk) -> None:
    """Every place, then what is refused."""
    for place in PLACES:
        with walk.step(place):
            walk.person.go(place)
            walk.fits()
    refuse(walk)


def refuse(walk: Walk) -> None:
    one, page = walk.person, walk.person.page
    with walk.step("steps on a Goal are disabled, with whom to ask"):
        one.go("/goals/flight-0/flight-goal-5")
        assert page.get_by_role("button", name="Pause", exact=True).is_disabled()
        one.sees("needs the role operator")
        one.sees("olivia")
    with walk.step("an approval is not theirs"):
        one.go("/approvals?q=keys/spend")
        page.locator(".card-link").first.click()
        page.wait_for_url("**/approvals/*-*")
        assert page.get_by_role("button", name="Approve", exact=True).is_disabled()
        one.sees("avery")

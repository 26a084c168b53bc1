"""Lists narrowed on the server: the filter's grammar, the time range, the four kinds of empty."""

import datetime as dt
import re
from typing import Any

import pytest
from django.test import Client
from django.utils import timezone

pytestmark = pytest.mark.django_db


def names(browser: Client, path: str, **query: str) -> set[str]:
    rows = browser.get(path, {"format": "json", **query}).json()["rows"]
    return {row["name"] for row in rows}


def test_goals_are_filtered_by_the_grammar(tower: Any, signed_in: Any) -> None:
    tower.register("profiler")
    tower.apply("alpha")
    tower.apply("beta")
    browser = signed_in("viewer")
    assert names(browser, "/goals", q="^al") == {"alpha"}
    assert names(browser, "/goals", q="!alpha") == {"beta"}
    assert names(browser, "/goals", q="-l goal=beta,namespace=default") == {"beta"}
    assert names(browser, "/goals", q="-f bt") == {"beta"}
    page = browser.get("/goals", {"q": "(a+)+"}).content.decode()
    assert "( is not understood here" in page
    assert "alpha</a>" not in page


def test_agents_are_filtered_over_all_pages(tower: Any, signed_in: Any) -> None:
    for index in range(55):
        tower.register(f"agent-{index:02}", role="worker" if index % 2 else "experimental")
    browser = signed_in("viewer")
    page = browser.get("/agents", {"q": "-l role=worker"}).content.decode()
    assert "27 agents" in page
    assert "agent-53" in page
    assert "No agent matches this filter" in browser.get("/agents", {"q": "zzz"}).content.decode()


def test_a_time_range_narrows_goals_and_is_kept_by_the_filter(tower: Any, signed_in: Any) -> None:
    from goals.models import Goal

    tower.register("profiler")
    tower.apply("fresh")
    tower.apply("stale")
    Goal.objects.filter(name="stale").update(created_at=timezone.now() - dt.timedelta(days=3))
    browser = signed_in("viewer")
    assert names(browser, "/goals", time="24h") == {"fresh"}
    assert names(browser, "/goals", time="7d") == {"fresh", "stale"}
    assert names(browser, "/goals", time="nonsense") == set()
    page = browser.get("/goals", {"time": "24h", "q": "s"}).content.decode()
    assert '<input type="hidden" name="time" value="24h">' in page
    assert 'href="?q=s&amp;time=7d"' in page
    assert "time: one of 15m" in browser.get("/goals", {"time": "nonsense"}).content.decode()


def test_the_kinds_of_empty_are_told_apart(people: Any, twins: Any, signed_in: Any) -> None:
    from django.contrib.auth.models import User

    viewer = signed_in("viewer")
    assert "empty-none" in viewer.get("/goals").content.decode()
    assert "empty-filtered" in viewer.get("/goals", {"q": "x"}).content.decode()
    nobody = Client()
    nobody.force_login(User.objects.create_user(username="nobody", password="x"))
    page = nobody.get("/goals").content.decode()
    assert "empty-no-right" in page
    assert "It needs the role viewer; ask" in page


LISTS = (
    "/agents", "/approvals", "/approvals/decided", "/approvals/delegations", "/audit/packs",
    "/goals", "/releases", "/tokens", "/kill", "/lineage",
)  # fmt: skip
EMPTY = re.compile(r'<div class="empty empty-[a-z-]+".*?</div>', re.DOTALL)


def empties(browser: Client, path: str) -> list[str]:
    return EMPTY.findall(browser.get(path).content.decode())


@pytest.mark.parametrize("path", LISTS)
@pytest.mark.parametrize("who", ["operator", "viewer", "nobody"])
def test_an_empty_list_offers_one_way_on(
    path: str, who: str, signed_in: Any, people: Any, django_user_model: Any
) -> None:
    people["nobody"] = django_user_model.objects.create_user(username="nobody")
    found = empties(signed_in(who), path)
    assert found
    for one in found:
        ways = one.count('class="button') or one.count("<code>") or one.count("; ask ")
        assert ways == 1, one


@pytest.mark.parametrize(
    "tab", ["/attempts", "/decisions", "/trace", "/lineage", "/attempts?time=..2001-01-01"]
)
def test_an_empty_part_of_a_goal_offers_one_way_on(tab: str, tower: Any, signed_in: Any) -> None:
    tower.register("profiler")
    tower.apply("alpha")
    found = empties(signed_in("viewer"), f"/goals/default/alpha{tab}")
    assert found
    assert all(one.count('class="button') == 1 for one in found)


def test_releases_say_once_that_there_are_none(signed_in: Any) -> None:
    page = signed_in("viewer").get("/releases").content.decode()
    assert page.count("Nothing was ever released.") == 1
    narrowed = signed_in("viewer").get("/releases?q=nothing").content.decode()
    assert "No release matches this filter and time." in narrowed
    assert "Nothing was ever released." not in narrowed

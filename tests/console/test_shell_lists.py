"""Lists narrowed on the server: the filter's grammar, the time range, the four kinds of empty."""

import datetime as dt
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

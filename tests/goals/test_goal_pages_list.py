"""Pages: the list of Goals, by cursor, filtered and sorted."""

import re
from typing import Any

import pytest
from django.test import Client

from goals.models import Goal

pytestmark = pytest.mark.django_db


@pytest.fixture
def viewer(tower: Any) -> Client:
    client = Client()
    client.force_login(tower.people["viewer"])
    return client


def names(answer: Any) -> list[str]:
    return re.findall(r'href="/goals/default/([^"/]+)"', answer.content.decode())


def link(answer: Any, rel: str) -> str:
    found = re.search(rf'rel="{rel}"\s+href="([^"]+)"', answer.content.decode())
    return found.group(1).replace("&amp;", "&") if found else ""


def many(count: int) -> None:
    spec = {"agents": ["a"], "budget": "1 USD", "objective": "loss < 1"}
    Goal.objects.bulk_create(
        Goal(
            namespace="default", name=f"g{n:03}", spec=spec, objective="loss < 1", requested_by="x"
        )
        for n in range(count)
    )


@pytest.mark.parametrize("sort", ["", "oldest", "name", "phase", "requester"])
def test_pages_by_cursor_hold_each_goal_once_and_lead_back(viewer: Client, sort: str) -> None:
    many(120)
    seen, url = [], f"/goals?sort={sort}"
    pages = []
    while url:
        answer = viewer.get(url)
        pages.append(names(answer))
        seen += pages[-1]
        on = link(answer, "next")
        url = f"/goals{on}" if on else ""
    assert [len(page) for page in pages] == [50, 50, 20]
    assert len(set(seen)) == 120
    back = viewer.get(f"/goals{link(answer, 'prev')}")
    assert names(back) == pages[1]
    assert names(viewer.get(f"/goals{link(back, 'prev')}")) == pages[0]


def test_a_goal_made_meanwhile_shifts_no_page(viewer: Client) -> None:
    many(60)
    on = link(viewer.get("/goals"), "next")
    before = names(viewer.get(f"/goals{on}"))
    Goal.objects.create(
        namespace="default", name="late", spec={}, objective="loss < 1", requested_by="x"
    )
    assert names(viewer.get(f"/goals{on}")) == before
    assert len(before) == 10


def test_a_cursor_that_cannot_be_read_is_the_first_page(viewer: Client) -> None:
    many(3)
    for cursor in ("x", "~", "2026~x", "x~00000000-0000-0000-0000-000000000000"):
        assert len(names(viewer.get("/goals", {"after": cursor}))) == 3


def test_goals_of_one_agent(viewer: Client, tower: Any) -> None:
    tower.register("profiler")
    tower.register("profiler2")
    tower.apply("one")
    tower.apply("two", agents="profiler2")
    assert names(viewer.get("/goals?agent=profiler")) == ["one"]
    assert names(viewer.get("/goals?agent=profiler2&sort=name")) == ["two"]
    assert names(viewer.get("/goals?agent=prof")) == []
    assert viewer.get("/goals?sort=nonsense").status_code == 422

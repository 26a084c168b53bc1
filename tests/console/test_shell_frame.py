"""The frame of every page: home, preferences, the palette, the count of what waits."""

from typing import Any

import pytest
from django.test import Client

from console.palette import PER_KIND

pytestmark = pytest.mark.django_db


def test_home_is_the_tower(people: Any, signed_in: Any) -> None:
    browser = signed_in("viewer")
    assert browser.get("/")["Location"] == "/tower"
    page = browser.get("/goals").content.decode()
    assert 'class="brand" href="/tower"' in page
    assert "To the Tower" in browser.get("/nothing").content.decode()


@pytest.mark.parametrize(
    ("path", "name", "word", "first"),
    [("/theme", "theme", "dark", "system"), ("/keys", "keys", "off", "on")],
)
def test_a_preference_is_kept_and_an_unknown_one_refused(
    people: Any, signed_in: Any, path: str, name: str, word: str, first: str
) -> None:
    browser = signed_in("viewer")
    shown = f'data-{name}="{{}}"'.format
    assert shown(first) in browser.get("/goals").content.decode()
    answer = browser.post(path, {name: word, "next": "/goals"})
    assert answer["Location"] == "/goals"
    assert shown(word) in browser.get("/goals").content.decode()
    assert browser.post(path, {name: "nonsense"}).status_code == 422
    assert browser.post(path, {name: word, "next": "https://elsewhere.test/"})["Location"] == "/"
    browser.cookies[name] = "<script>"
    assert shown(first) in browser.get("/goals").content.decode()


def found(browser: Client, text: str) -> list[dict[str, str]]:
    answer = browser.get("/palette", {"q": text})
    assert answer.status_code == 200
    entries: list[dict[str, str]] = answer.json()["entries"]
    return entries


def test_the_palette_finds_what_one_may_see_and_nothing_else(tower: Any, signed_in: Any) -> None:
    from goals.models import Goal

    tower.register("profiler")
    tower.apply("reduce-latency")
    tower.apply("reduce-cost")
    Goal.objects.filter(name="reduce-cost").update(namespace="other")
    names = {entry["label"] for entry in found(signed_in("viewer"), "reduce")}
    assert "reduce-latency" in names
    assert "reduce-cost" not in names
    assert {"reduce-latency", "reduce-cost"} <= {
        entry["label"] for entry in found(signed_in("admin"), "reduce")
    }
    (agent,) = (one for one in found(signed_in("viewer"), "profil") if one["kind"] == "Agent")
    assert agent["detail"] == "default · worker"
    assert not [one for one in found(signed_in("viewer"), "%") if one["kind"] == "Goal"]


def test_the_palette_is_bounded(
    tower: Any, signed_in: Any, django_assert_max_num_queries: Any
) -> None:
    tower.register("profiler")
    for index in range(PER_KIND + 5):
        tower.apply(f"goal-{index}")
    browser = signed_in("viewer")
    with django_assert_max_num_queries(10):
        entries = found(browser, "goal")
    assert sum(entry["kind"] == "Goal" for entry in entries) == PER_KIND
    assert browser.get("/palette", {"q": "x" * 5000}).status_code == 200


def test_the_palette_offers_only_what_one_may_do(people: Any, signed_in: Any) -> None:
    def actions(role: str) -> set[str]:
        return {one["label"] for one in found(signed_in(role), "") if one["kind"] == "Action"}

    assert "New Goal" in actions("operator")
    assert "New Goal" not in actions("viewer")
    assert Client().get("/palette").status_code == 302


def test_the_count_of_what_waits_is_a_part_of_its_own(people: Any, signed_in: Any) -> None:
    from django.utils import timezone

    from governance.models import Approval

    browser = signed_in("viewer")
    part = browser.get("/approvals/pending-count", headers={"HX-Request": "true"})
    assert part.content.decode().lstrip().startswith("<span")
    assert "hidden" in part.content.decode()
    for namespace in ("default", "other"):
        Approval.objects.create(
            kind="budget", namespace=namespace, title="More?", request_canonical="{}",
            subject_id=namespace, request_digest=namespace,
            expires_at=timezone.now(),
        )  # fmt: skip
    page = browser.get("/approvals/pending-count").content.decode()
    assert 'id="pending-count">1<' in page
    assert Client().get("/approvals/pending-count").status_code == 302

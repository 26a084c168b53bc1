"""The GPUs through the API: pages by cursor, holders by right, the filter of the page."""

from typing import Any
from urllib.parse import urlsplit

import pytest
from django.contrib.auth.models import User
from django.test import Client
from django.utils import timezone

from agents.domain.states import AttemptState
from agents.models import Agent, Attempt
from governance.models import Membership
from tests.goals.gpu_fleet import card, divided, part, report, slot, troubled
from tests.towers import Tower

pytestmark = pytest.mark.django_db


def _client(name: str, *namespaces: str) -> Client:
    user = User.objects.create_user(name, password=None)
    for namespace in namespaces:
        Membership.objects.create(user=user, namespace=namespace, role="viewer")
    client = Client()
    client.force_login(user)
    return client


def _get(client: Client, **query: Any) -> list[dict[str, Any]]:
    answer = client.get("/api/v1/gpus", query)
    assert answer.status_code == 200, answer.content
    return answer.json()["results"]


@pytest.fixture
def attempt(db: None) -> Attempt:
    agent = Agent.objects.create(
        namespace="default", name="profiler", role="worker", image="x", manifest={},
        service_account="profiler", registered_by="x",
    )  # fmt: skip
    return Attempt.objects.create(
        goal_uid="00000000-0000-4000-8000-000000000001", namespace="default", graph_digest="x",
        iteration=1, task="profile", number=1, agent=agent, agent_name="profiler",
        workload="w-1", state=AttemptState.RUNNING, gpus=1, started_at=timezone.now(),
    )  # fmt: skip


def test_a_gpu_says_all_that_is_known_of_it(attempt: Attempt) -> None:
    bad = troubled(1)
    report("n1", bad, slot(0), held_by={bad.id: "w-1"})
    one, declared = _get(_client("vera", "default"))
    assert (one["id"], one["node"], one["is_measured"], one["utilisation"]) == (
        bad.id, "n1", True, 0.63,
    )  # fmt: skip
    assert one["marks"][0] == {
        "level": "warning", "word": "XID 31, 2 times", "detail": "Memory page fault.",
    }  # fmt: skip
    assert one["holder"]["agent"] == "profiler"
    assert (declared["is_measured"], declared["utilisation"], declared["memory_used_bytes"]) == (
        False, None, None,
    )  # fmt: skip


def test_a_holder_is_for_who_may_see_its_namespace(attempt: Attempt) -> None:
    report("n1", card(1), held_by={card(1).id: "w-1"})
    for namespace, name in (("default", "profiler"), ("other", None)):
        (one,) = _get(_client(f"of-{namespace}", namespace))
        assert one["is_held"] is True
        assert (one["holder"] and one["holder"]["agent"]) == name
        assert ("w-1" in str(one)) is False
    assert _get(_client("nobody")) == []


def test_pages_follow_each_other(attempt: Attempt) -> None:
    whole = divided(1)
    devices = (whole, part(whole, 0), part(whole, 1), card(2), card(3))
    report("n1", *devices)
    client = _client("vera", "default")
    seen, path = [], "/api/v1/gpus?page_size=2"
    while path:
        page = client.get(path).json()
        seen += [one["id"] for one in page["results"]]
        path = page["next"] and f"/api/v1/gpus?{urlsplit(page['next']).query}"
    assert sorted(seen) == sorted(device.id for device in devices)


def test_the_filter_is_that_of_the_page(attempt: Attempt) -> None:
    report("n1", card(1), troubled(2), held_by={card(1).id: "w-1"})
    client = _client("vera", "default")
    assert [one["id"] for one in _get(client, show="held")] == [card(1).id]
    assert [one["id"] for one in _get(client, q="!profiler")] == [card(2).id]
    assert _get(client, node="n2") == []
    for query, said in (({"show": "bored"}, "show: one of"), ({"q": "-l x"}, "q: -l takes")):
        answer = client.get("/api/v1/gpus", query)
        assert answer.status_code == 422
        assert said in answer.json()["detail"]


def test_who_is_not_signed_in_is_told_so(people: dict[str, Any], twins: Any) -> None:
    Tower(people, twins)
    assert Client().get("/api/v1/gpus").status_code == 401

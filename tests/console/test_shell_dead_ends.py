"""Nobody is left at a dead end: refusals keep the frame, and an empty page says what it lacks."""

import re
from typing import Any

import pytest
from django.test import Client

from console.templatetags.clearance import counted
from governance.models import Membership

pytestmark = pytest.mark.django_db


def text_of(client: Client, path: str, **headers: str) -> str:
    return re.sub(r"\s+", " ", client.get(path, **headers).content.decode())


@pytest.fixture
def browser(people: Any, django_user_model: Any) -> Any:
    """A signed-in browser of a person by name; `nobody` has no role."""
    people["nobody"] = django_user_model.objects.create_user(username="nobody")

    def open_as(name: str) -> Client:
        client = Client()
        client.force_login(people[name])
        return client

    return open_as


@pytest.mark.parametrize("path", ["/people", "/goals/default/nothing", "/no/such/page"])
def test_a_refusal_keeps_the_frame(browser: Any, path: str) -> None:
    client = browser("viewer")
    page = text_of(client, path)
    assert 'aria-label="Main"' in page
    assert "To the Tower" in page
    # A part of a page gets no page to put into itself, and whoever is not signed in no frame.
    assert 'aria-label="Main"' not in text_of(client, path, HTTP_HX_REQUEST="true")
    assert 'aria-label="Main"' not in text_of(Client(), path)


LISTS = [
    "/approvals", "/approvals/decided", "/agents", "/goals", "/lineage", "/releases", "/audit",
    "/audit/packs", "/kill",
]  # fmt: skip


@pytest.mark.parametrize("path", LISTS)
def test_who_may_see_nothing_is_told_so_and_whom_to_ask(browser: Any, path: str) -> None:
    page = text_of(browser("nobody"), path)
    assert "You may see no namespace" in page
    assert "It needs the role viewer; ask admin." in page
    assert "Ask for a Goal" not in page


@pytest.mark.parametrize("path", ["/lineage", "/audit/packs"])
def test_nobody_is_sent_to_a_form_that_refuses_them(browser: Any, path: str) -> None:
    page = text_of(browser("viewer"), path)
    assert "Making one needs the role operator; ask admin." in page
    assert 'href="/goals/new"' not in page
    assert 'href="/goals/new"' in text_of(browser("operator"), path)


def test_what_may_not_be_pressed_is_described(browser: Any) -> None:
    page = text_of(browser("viewer"), "/audit")
    assert 'aria-describedby="why-not-check"' in page
    assert 'id="why-not-check"' in page


@pytest.mark.parametrize(
    ("noun", "one"),
    [("requests", "request"), ("entries", "entry"), ("people", "person"), ("Goals", "Goal")],
)
def test_one_thing_is_not_many(noun: str, one: str) -> None:
    assert (counted(noun, 1), counted(noun, 2), counted(noun, 0)) == (one, noun, noun)


@pytest.mark.parametrize(
    ("path", "form", "field", "words"),
    [
        ("/tokens", {"name": "", "namespace": "*", "days": "30"}, "name",
         "Name: say what the token is for."),
        ("/tokens", {"name": "a", "namespace": "NO!", "days": "30"}, "namespace",
         "Namespace: A namespace&#x27;s name, or *"),
        ("/tokens", {"name": "a", "namespace": "*", "days": "0"}, "days", "Days: "),
        ("/people", {"username": "", "role": "viewer", "namespace": "default"}, "username",
         "Name: say what they sign in with."),
        ("/people", {"username": "x", "role": "viewer", "namespace": "NO!"}, "namespace",
         "Namespace: "),
    ],
)  # fmt: skip
def test_a_refused_form_names_the_field(
    browser: Any, path: str, form: dict[str, str], field: str, words: str
) -> None:
    answer = browser("admin").post(path, form)
    assert answer.status_code == 422
    page = re.sub(r"\s+", " ", answer.content.decode())
    assert words in page
    assert page.count(f'id="{field}-error"') == 1
    assert f'aria-invalid="true" aria-describedby="{field}-error"' in page


def test_no_two_things_on_a_page_have_one_id(browser: Any) -> None:
    for path in ("/audit/packs", "/tokens", "/people", "/audit"):
        found = re.findall(r'\sid="([^"]+)"', text_of(browser("admin"), path))
        assert len(found) == len(set(found)), path


FILTERED = [
    "/agents", "/approvals", "/approvals/decided", "/catalogue", "/goals", "/gpus", "/releases",
]  # fmt: skip


@pytest.mark.parametrize("path", FILTERED)
def test_a_filter_that_cannot_be_read_marks_its_box(browser: Any, path: str) -> None:
    client = browser("admin")
    page = text_of(client, f"{path}?q=(")
    assert 'aria-invalid="true" aria-describedby="q-error"' in page
    assert page.count('id="q-error"') == 1
    assert 'id="q-error"' in text_of(client, f"{path}?q=(", HTTP_HX_REQUEST="true")
    assert "aria-invalid" not in text_of(client, path)


def test_a_search_and_a_time_that_cannot_be_read_mark_their_fields(browser: Any) -> None:
    client = browser("admin")
    search = text_of(client, "/journal?q=created:yesterday..never")
    assert 'aria-invalid="true" aria-describedby="q-error"' in search
    time = text_of(client, "/goals?time=yesterday")
    assert time.count('aria-invalid="true" aria-describedby="time-error"') == 2
    assert time.count('id="time-error"') == 1


def test_a_choice_that_is_none_is_named(browser: Any) -> None:
    page = text_of(browser("admin"), "/goals?phase=Nonsense")
    assert 'aria-invalid="true" aria-describedby="phase-error"' in page
    assert "Phase: choose one of those offered" in page


@pytest.mark.parametrize(
    ("asked", "field", "words", "status"),
    [
        ("scope=goal&namespace=default&name=none", "name", "Name: There is no Goal", 404),
        ("scope=agent&namespace=default&name=none", "name", "Name: There is no agent", 404),
        ("scope=goal&namespace=default&name=", "name", "Name: Which goal?", 422),
        ("scope=namespace&namespace=", "namespace", "Namespace: Which namespace?", 422),
        ("scope=nonsense&name=a", "scope", "Scope: choose one of those offered", 422),
    ],
)
def test_what_the_kill_switch_cannot_find_marks_its_field(
    browser: Any, asked: str, field: str, words: str, status: int
) -> None:
    answer = browser("admin").get(f"/kill?{asked}")
    page = re.sub(r"\s+", " ", answer.content.decode())
    assert answer.status_code == status
    assert words in page
    assert f'aria-invalid="true" aria-describedby="{field}-error"' in page
    assert page.count(f'id="{field}-error"') == 1


def test_whoever_may_not_kill_there_is_told_at_the_scope(browser: Any) -> None:
    answer = browser("viewer").get("/kill?scope=everything")
    page = re.sub(r"\s+", " ", answer.content.decode())
    assert answer.status_code == 403
    assert 'aria-invalid="true" aria-describedby="scope-error"' in page


def test_the_kill_switch_offers_a_namespace_that_the_person_steers(
    browser: Any, people: Any
) -> None:
    assert 'value="default"' in text_of(browser("operator"), "/kill")
    Membership.objects.filter(user=people["operator"]).update(namespace="shop")
    page = text_of(browser("operator"), "/kill")
    assert 'value="shop"' in page
    assert 'value="default"' not in page
    assert 'value="default"' not in text_of(browser("nobody"), "/kill")


def test_what_only_a_button_does_says_so_when_it_is_opened(browser: Any) -> None:
    page = browser("viewer").get("/logout")
    assert (page.status_code, page["Allow"]) == (405, "POST")
    assert "This address takes POST, not GET." in page.content.decode()
    assert 'href="/goals"' in page.content.decode()  # one goes on from there
    api = browser("viewer").put("/api/v1/goals")
    assert (api.status_code, api.json()["status"]) == (405, 405)
    assert "PUT" in api.json()["detail"]


def test_a_password_that_was_not_typed_is_asked_for_by_name(browser: Any) -> None:
    answer = browser("viewer").post("/profile/password", {})
    page = re.sub(r"\s+", " ", answer.content.decode())
    assert answer.status_code == 422
    for words in ("Password now: type it.", "New password: type it.", "New password again: type"):
        assert words in page

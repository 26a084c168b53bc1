"""Consequential steps ask first: by keyboard, with the focus given back, and without JavaScript."""

from typing import Any

import pytest

from tests.browser.chromium import PHONE, Person
from tests.browser.site import Site

pytestmark = [pytest.mark.browser, pytest.mark.slow, pytest.mark.timeout(180)]


class Question:
    """The one dialog, over a button that was pressed by Enter."""

    def __init__(self, one: Person, button: Any, title: str) -> None:
        self.one, self.button = one, button
        self.dialog = one.page.get_by_role("dialog", name=title)
        self.posts: list[str] = []
        one.page.on("request", self._note)

    def _note(self, request: Any) -> None:
        if request.method == "POST":
            self.posts.append(request.url)

    def ask(self) -> None:
        """Enter on the button opens it with the safe answer under the focus."""
        self.button.focus()
        self.one.page.keyboard.press("Enter")
        self.dialog.wait_for()
        assert self.focused() == "Go back"

    def focused(self) -> str:
        return str(self.one.page.evaluate("document.activeElement.textContent.trim()"))

    def refuse(self, key: str) -> None:
        """Neither Esc nor Enter on the safe answer sends anything; the focus is where it was."""
        self.one.page.keyboard.press(key)
        self.dialog.wait_for(state="hidden")
        assert self.button.evaluate("one => one === document.activeElement")
        assert self.posts == []

    def agree(self, action: str) -> None:
        """The button that goes on says what it does, and Enter on it sends the form once."""
        self.one.page.keyboard.press("Tab")
        assert self.focused() == action
        self.one.page.keyboard.press("Enter")


def all_the_way(question: Question, action: str) -> None:
    question.ask()
    question.refuse("Escape")
    question.ask()
    question.refuse("Enter")
    question.ask()
    question.agree(action)


def test_a_rollback_asks(ada: Person, console: Site) -> None:
    ada.go(f"/releases/{console.facts['release']}")
    ada.page.get_by_label("Reason").fill("It answers slower.")
    button = ada.page.get_by_role("button", name="Roll back")
    question = Question(ada, button, "Roll checkout/canary back to #1?")
    all_the_way(question, "Roll back")
    ada.page.wait_for_url(lambda url: console.facts["release"] not in url)
    assert len(question.posts) == 1


def test_moves_between_stages_ask(ada: Person, browser: Any, console: Site) -> None:
    ada.go(f"/policies/{console.facts['policy']}/2")
    button = ada.page.get_by_role("button", name="Shadow")
    all_the_way(Question(ada, button, "Put version 2 of starter in stage shadow?"), "Shadow")
    ada.sees("starter version 2 is in stage shadow")
    eva = console.person(browser, "eva", screen=PHONE)
    eva.go(f"/policies/{console.facts['policy']}/2")
    button = eva.page.get_by_role("button", name="Enforce")
    enforce = Question(eva, button, "Put version 2 of starter in stage enforce?")
    enforce.ask()
    assert "instead of version 1" in enforce.dialog.inner_text()
    enforce.refuse("Escape")
    enforce.ask()
    enforce.agree("Enforce")
    eva.sees("The signature of version 2 does not hold")  # the server judges all the same
    assert eva.complaints == []
    eva.page.context.close()


def test_to_cancel_and_to_delete_a_goal_ask(ada: Person) -> None:
    ada.go("/goals/default/rogue")
    ada.page.locator("summary", has_text="Cancel").focus()
    ada.page.keyboard.press("Enter")
    button = ada.page.get_by_role("button", name="Cancel rogue")
    all_the_way(Question(ada, button, "Cancel rogue?"), "Cancel rogue")
    ada.page.locator(".notice, .badge").filter(has_text="Cancel").first.wait_for()
    ada.go("/goals/bare/new")
    ada.page.locator("summary", has_text="Delete").click()
    button = ada.page.get_by_role("button", name="Delete new")
    question = Question(ada, button, "Delete new?")
    question.ask()
    question.refuse("Escape")


def test_without_javascript_the_form_is_sent_at_once(browser: Any, console: Site) -> None:
    context = browser.new_context(java_script_enabled=False)
    cookie = {"name": "sessionid", "value": console.sessions["ada"], "url": console.url}
    context.add_cookies([cookie])
    one = Person(context.new_page(), console.url)
    one.go("/goals/default/draft")
    one.page.locator("summary", has_text="Cancel").click()
    one.page.get_by_label("Reason").fill("Asked for by mistake.")
    one.page.get_by_role("button", name="Cancel draft").click()
    one.sees("Cancel")
    one.go("/journal?q=mistake")
    one.sees("goal.cancelled", within="main td")
    context.close()

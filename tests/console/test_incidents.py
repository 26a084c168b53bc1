"""What only a defect can cause has an id: on the page, in the part, in the document, in the log."""

import logging
import re
from typing import Any

import pytest
from django.test import Client

from lineage.telemetry.base import TelemetryUnavailable
from tests.console.broken_urls import SECRET

pytestmark = [pytest.mark.django_db, pytest.mark.urls("tests.console.broken_urls")]

INCIDENT = re.compile(r"\b[0-9a-f]{4}-[0-9a-f]{4}\b")


@pytest.fixture
def browser(people: Any) -> Client:
    client = Client(raise_request_exception=False)
    client.force_login(people["viewer"])
    return client


def incident_of(text: str) -> str:
    (found,) = set(INCIDENT.findall(text))
    return str(found)


@pytest.fixture
def log(caplog: Any) -> Any:
    """What the log's lines say, as the handler of the settings writes them."""
    from console.incidents import NameIncident

    caplog.handler.addFilter(NameIncident())
    return caplog


def test_a_page_that_breaks_says_an_id_and_the_log_has_it_with_the_traceback(
    browser: Client, log: Any
) -> None:
    answer = browser.get("/broken")
    page = answer.content.decode()
    assert answer.status_code == 500
    assert "Something went wrong on our side" in page
    assert SECRET not in page
    assert "Traceback" not in page
    (record,) = [one for one in log.records if one.levelno >= logging.ERROR]
    assert f"incident {incident_of(page)}: " in record.getMessage()
    assert SECRET in log.text


def test_no_two_incidents_have_one_id(browser: Client) -> None:
    assert len({incident_of(browser.get("/broken").content.decode()) for _ in range(5)}) == 5


def test_a_part_that_breaks_leaves_the_page_and_says_it_above(browser: Client, log: Any) -> None:
    answer = browser.get("/broken", HTTP_HX_REQUEST="true")
    part = answer.content.decode()
    assert answer.status_code == 500
    assert answer["HX-Retarget"] == "#refusal"
    assert answer["HX-Reswap"] == "innerHTML"
    assert "<html" not in part
    assert f"incident {incident_of(part)}: " in log.text


def test_an_operation_that_breaks_is_a_problem_with_an_id(browser: Client, log: Any) -> None:
    for path in ("/api/broken/broken", "/api/v1/broken-outside"):
        log.clear()
        answer = browser.get(path)
        assert answer.status_code == 500
        assert answer["Content-Type"] == "application/problem+json"
        problem = answer.json()
        assert problem["incident"] in problem["detail"]
        assert INCIDENT.fullmatch(problem["incident"])
        assert SECRET not in str(problem)
        assert f"incident {problem['incident']}: " in log.text


def test_no_such_operation_is_a_problem(browser: Client) -> None:
    answer = browser.get("/api/v1/no-such-operation")
    assert (answer.status_code, answer["Content-Type"]) == (404, "application/problem+json")


def test_a_request_that_no_browser_sends_gets_a_page(browser: Client) -> None:
    answer = browser.get("/doubtful")
    page = answer.content.decode()
    assert answer.status_code == 400
    assert "css/shell.css" in page
    assert SECRET not in page


def test_a_form_without_its_token_says_what_to_do(people: Any) -> None:
    client = Client(enforce_csrf_checks=True)
    client.force_login(people["operator"])
    whole = client.post("/goals/new", {})
    assert whole.status_code == 403
    assert "Form expired" in whole.content.decode()
    assert 'aria-label="Main"' in whole.content.decode()
    part = client.post("/goals/new", {}, HTTP_HX_REQUEST="true")
    assert part.status_code == 403
    assert part["HX-Retarget"] == "#refusal"
    assert "<html" not in part.content.decode()


def test_a_store_that_is_down_leaves_the_frame_to_go_on(tower: Any, people: Any) -> None:
    tower.register("profiler")
    tower.apply("alpha")
    client = Client()
    client.force_login(people["viewer"])
    tower.twins.telemetry.fail_next(TelemetryUnavailable("down"))
    answer = client.get("/goals/default/alpha/trace")
    page = answer.content.decode()
    assert answer.status_code == 503
    assert 'aria-label="Main"' in page
    assert "Try again" in page


def test_a_refused_sign_in_marks_its_fields(people: Any) -> None:
    answer = Client().post("/login", {"username": "viewer", "password": "wrong"})
    page = " ".join(answer.content.decode().split())
    assert page.count('aria-invalid="true" aria-describedby="login-error"') == 2
    assert page.count('id="login-error"') == 1

"""Every route, socket and API operation against the reviewed table, for everybody who may ask."""

import contextlib
import json
import re
from collections.abc import AsyncIterator, Iterator, Sequence
from http import HTTPStatus
from http.cookies import SimpleCookie
from typing import Any

import pytest
from asgiref.testing import ApplicationCommunicator
from channels.db import database_sync_to_async
from channels.routing import URLRouter
from django.conf import settings as live_settings
from django.db import transaction
from django.test import Client
from django.urls import URLResolver, get_resolver

from console.live.hub import FORBIDDEN as SOCKET_FORBIDDEN
from console.live.hub import SIGNED_OUT, get_hub
from console.sockets import socket_application
from tests.console.privilege_world import World, bearer_client, make_world, session_client
from tests.console.privileges import (
    AGENT,
    ANONYMOUS,
    FORBIDDEN,
    HIDDEN,
    OK,
    PRINCIPALS,
    SIGN_IN,
    TABLE,
    VIEW_TOKEN,
    Row,
)

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

METHODS = ("GET", "POST", "PUT", "PATCH", "DELETE")
POLICY_TITLES = {"Denied by policy", "Out of scope"}  # let through, then refused by a rule
TITLE = re.compile(r"<h1[^>]*>\s*(.*?)\s*</h1>", re.DOTALL)
PARAMETER = re.compile(r"<(?:\w+:)?(\w+)>")
ANY_METHOD = {"api/v1/openapi.json"}  # answers each method alike
UNLISTED = {"api/v1/"}  # a place for names alone: 404 to everybody
HOST = b"localhost:8000"
ROWS = {row.key: row for row in TABLE}


def routes_of(resolver: Any, prefix: str = "") -> Iterator[str]:
    for one in resolver.url_patterns:
        route = prefix + str(one.pattern)
        if isinstance(one, URLResolver):
            yield from routes_of(one, route)
        else:
            yield route


def http_routes() -> list[str]:
    return [route for route in dict.fromkeys(routes_of(get_resolver())) if route not in UNLISTED]


def socket_routes() -> list[str]:
    application: Any = socket_application()
    while not isinstance(application, URLRouter):
        application = getattr(application, "inner", None) or application.application
    return [str(route.pattern) for route in application.routes]


def url_of(route: str, world: World, path: Any) -> str:
    def value(found: re.Match[str]) -> str:
        name = found.group(1)
        return str(path[name]) if name in path else world.value_of(name, route)

    return "/" + PARAMETER.sub(value, route)


def send(client: Client, row: Row, world: World) -> Any:
    request: dict[str, Any] = {}
    body = row.form if row.form is not None else row.json
    body = body(world) if callable(body) else body
    if row.json is not None:
        request = {"data": json.dumps(body), "content_type": "application/json"}
    elif row.text:
        request = {"data": row.text, "content_type": "application/yaml"}
    elif body is not None:
        request = {"data": dict(body)}
    if row.query:
        request["query_params"] = dict(row.query)
    return getattr(client, row.method.lower())(url_of(row.route, world, row.path), **request)


def outcome_of(answer: Any, *, is_page: bool) -> str:
    """The answer as the table says it; an error of ours is its status, which no row has."""
    status = answer.status_code
    if status == HTTPStatus.FOUND and answer["Location"].startswith("/login?next="):
        return SIGN_IN
    if status == HTTPStatus.FORBIDDEN and _was_a_rule(answer, is_page=is_page):
        return OK
    through = (
        HTTPStatus.PAYMENT_REQUIRED,
        HTTPStatus.CONFLICT,
        HTTPStatus.UNPROCESSABLE_ENTITY,
    )
    return OK if status < HTTPStatus.BAD_REQUEST or status in through else str(status)


def _was_a_rule(answer: Any, *, is_page: bool) -> bool:
    if is_page or "json" not in answer.headers.get("Content-Type", ""):
        return False
    return answer.json().get("title") in POLICY_TITLES


def ask(world: World, row: Row, principal: str, client: Client) -> str:
    """What the principal gets; nothing of it is kept."""
    with unkept(client):
        answer = send(client, row, world)
        if answer.streaming:
            answer.getvalue()  # read to its end, since close() by hand closes the connection, too
    return outcome_of(answer, is_page=row.is_page)


@contextlib.contextmanager
def unkept(client: Client) -> Iterator[None]:
    """Neither the database nor the browser remembers what happens inside."""
    cookies = {name: one.value for name, one in client.cookies.items()}
    with transaction.atomic():
        yield
        transaction.set_rollback(True)
    client.cookies = SimpleCookie(cookies)


def wrong_of(world: World, rows: Sequence[Row]) -> list[str]:
    found = []
    for principal in PRINCIPALS:
        clients = {False: bearer_client(world, principal)}
        if principal != VIEW_TOKEN:
            clients[True] = session_client(world, principal)
        for row in rows:
            if row.is_page not in clients:
                continue
            expected = row.rule.outcome(principal, is_page=row.is_page)
            got = ask(world, row, principal, clients[row.is_page])
            if got != expected:
                found.append(f"{row.method} /{row.route} as {principal}: {expected}, got {got}")
    return found


@pytest.mark.django_db
def test_no_route_is_missing_from_the_table(tower: Any) -> None:
    world, missing, taken = make_world(tower), [], set()
    browser = session_client(world, "admin")
    for route in http_routes():
        try:
            url = url_of(route, world, {})
        except KeyError as unknown:
            url = _url_by_a_row(route, world)
            if not url:
                missing.append(f'row("GET", "{route}", VIEW, path={{{unknown}: ...}}),')
                continue
        for method in METHODS if route not in ANY_METHOD else ("GET",):
            with unkept(browser):
                status = getattr(browser, method.lower())(url).status_code
            if status != HTTPStatus.METHOD_NOT_ALLOWED:
                taken.add((method, route))
                if (method, route) not in ROWS:
                    missing.append(f'row("{method}", "{route}", VIEW),')
    for route in socket_routes():
        taken.add(("WS", route))
        if ("WS", route) not in ROWS:
            missing.append(f'row("WS", "{route}", SIGNED_IN),')
    lines = "\n".join(missing)
    assert not missing, f"Review these and add them to tests/console/privileges.py:\n{lines}"
    gone = sorted(set(ROWS) - taken)
    assert not gone, f"No such route any more, take it out of tests/console/privileges.py: {gone}"
    assert len(ROWS) == len(TABLE), "A route stands in the table twice."


def _url_by_a_row(route: str, world: World) -> str:
    for row in TABLE:
        if row.route == route and row.path:
            return url_of(route, world, row.path)
    return ""


@pytest.mark.django_db
def test_every_page_answers_each_person_as_the_table_says(tower: Any) -> None:
    rows = [row for row in TABLE if row.is_page and row.method != "WS"]
    wrong = wrong_of(make_world(tower), rows)
    assert not wrong, "\n" + "\n".join(wrong)


@pytest.mark.django_db
def test_every_operation_answers_each_caller_as_the_table_says(tower: Any) -> None:
    rows = [row for row in TABLE if not row.is_page]
    wrong = wrong_of(make_world(tower), rows)
    assert not wrong, "\n" + "\n".join(wrong)


class TestSockets:
    """Websockets, on a database that several threads see."""

    pytestmark = [pytest.mark.django_db(transaction=True)]

    @pytest.fixture(autouse=True)
    async def ended_hub(self) -> AsyncIterator[None]:
        yield
        await get_hub().close()  # nothing may read while the database is emptied

    async def test_every_socket_answers_each_caller_as_the_table_says(self, tower: Any) -> None:
        world = await database_sync_to_async(make_world)(tower)
        wrong = []
        for principal in PRINCIPALS:
            if principal in (AGENT, VIEW_TOKEN):
                continue  # a bearer token opens no socket: the same as nobody
            client = await database_sync_to_async(session_client)(world, principal)
            for row in TABLE:
                if row.method != "WS":
                    continue
                expected = row.rule.outcome(principal, is_page=True)
                got = await opened(row.route, client, is_anonymous=principal == ANONYMOUS)
                if got != expected:
                    wrong.append(f"/{row.route} as {principal}: {expected}, got {got}")
        assert not wrong, "\n".join(wrong)


async def opened(route: str, client: Client, *, is_anonymous: bool) -> str:
    """What a socket says to whoever opens it."""
    headers = [(b"host", HOST), (b"origin", b"http://" + HOST)]
    if not is_anonymous:
        name = live_settings.SESSION_COOKIE_NAME
        headers.append((b"cookie", f"{name}={client.cookies[name].value}".encode()))
    scope = {
        "type": "websocket", "path": f"/{route}", "query_string": b"", "headers": headers,
        "subprotocols": [],
    }  # fmt: skip
    socket = ApplicationCommunicator(socket_application(), scope)
    await socket.send_input({"type": "websocket.connect"})
    message = await socket.receive_output(timeout=30)
    if message["type"] == "websocket.accept":
        message = await socket.receive_output(timeout=30)
    # A server says so either way: the map's socket ends by itself, another waits for it.
    await socket.send_input({"type": "websocket.disconnect", "code": message.get("code", 1000)})
    await socket.wait(timeout=30)
    codes = {SIGNED_OUT: SIGN_IN, SOCKET_FORBIDDEN: FORBIDDEN}
    if message["type"] == "websocket.close":
        return codes.get(message["code"], str(message["code"]))
    return OK


def test_the_rules_themselves_let_nobody_in_by_mistake() -> None:
    for row in TABLE:
        outcomes = {p: row.rule.outcome(p, is_page=row.is_page) for p in PRINCIPALS}
        if not row.rule.is_open:
            assert outcomes[ANONYMOUS] == outcomes["expired"] == SIGN_IN
        if row.method != "GET" and not row.rule.is_open:
            assert outcomes[VIEW_TOKEN] == outcomes["viewer"]
        assert set(outcomes.values()) <= {OK, SIGN_IN, FORBIDDEN, HIDDEN}

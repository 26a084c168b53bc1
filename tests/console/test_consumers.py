"""The websocket of open pages: who may listen, what is heard, and that silence is noticed."""

import asyncio
import json
import time
from collections.abc import Callable, Collection
from typing import Any

import pytest
from asgiref.testing import ApplicationCommunicator
from channels.db import database_sync_to_async
from channels.layers import get_channel_layer
from django.conf import settings as live_settings
from django.contrib.auth.models import User
from django.db import OperationalError
from django.test import Client

from console.audience import topics_by_session
from console.live.hub import FORBIDDEN, SIGNED_OUT
from console.live.watch import SessionWatch
from console.sockets import socket_application
from goals.events import NAMESPACE_TOPIC
from governance.models import Membership

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("twins")]

HOST = b"localhost:8000"
CLOSE_SECONDS = 5.0  # DESIGN: sockets closed within 5 s of logout or lost rights


class Socket(ApplicationCommunicator):
    """A websocket spoken in ASGI messages (channels.testing needs a server we do not use)."""

    async def connect(self) -> bool:
        await self.send_input({"type": "websocket.connect"})
        return (await self.receive_output(timeout=5))["type"] == "websocket.accept"

    async def receive(self) -> dict[str, Any]:
        message = await self.receive_output(timeout=5)
        assert message["type"] == "websocket.send", message
        return dict(json.loads(message["text"]))

    async def disconnect(self) -> None:
        await self.send_input({"type": "websocket.disconnect", "code": 1000})
        await self.wait(timeout=5)

    async def closed(self, *, within: float) -> int:
        """The close code, however many beats come before it."""
        deadline = time.monotonic() + within
        while True:
            message = await self.receive_output(timeout=max(deadline - time.monotonic(), 0.01))
            if message["type"] == "websocket.close":
                return int(message["code"])


@database_sync_to_async
def browser_of(user: Any) -> Client:
    browser = Client()
    browser.force_login(user)
    return browser


async def listen(
    user: Any = None, *, origin: bytes = b"http://" + HOST, browser: Client | None = None
) -> Socket:
    application = socket_application(beat_seconds=0.05)
    headers = [(b"host", HOST), (b"origin", origin)]
    if user is not None:
        browser = await browser_of(user)
    if browser is not None:
        name = live_settings.SESSION_COOKIE_NAME
        headers.append((b"cookie", f"{name}={browser.cookies[name].value}".encode()))
    scope = {
        "type": "websocket",
        "path": "/ws/hints",
        "query_string": b"",
        "headers": headers,
        "subprotocols": [],
    }
    return Socket(application, scope)


async def next_hint(socket: Socket) -> dict[str, Any]:
    """The next message that is not a beat."""
    while (message := await socket.receive())["type"] == "beat":
        pass
    return dict(message)


async def test_a_person_hears_hints_of_their_namespaces_alone(people: Any) -> None:
    socket = await listen(people["viewer"])
    assert await socket.connect()
    hello = await socket.receive()
    assert (hello["type"], hello["seq"]) == ("hello", 1)
    layer = get_channel_layer()
    for namespace, goal in (("other", "hidden"), ("default", "seen")):
        topic = NAMESPACE_TOPIC.format(namespace=namespace)
        await layer.group_send(topic, {"type": "hint", "topic": "goal", "goal": goal})
    hint = await next_hint(socket)
    assert (hint["type"], hint["topic"], hint["goal"]) == ("hint", "goal", "seen")
    assert hint["epoch"] == hello["epoch"]
    await socket.disconnect()


async def test_beats_are_numbered_without_a_gap(people: Any) -> None:
    socket = await listen(people["viewer"])
    await socket.connect()
    seqs = [(await socket.receive())["seq"] for _ in range(4)]
    assert seqs == [1, 2, 3, 4]
    await socket.disconnect()


async def test_a_change_made_by_a_service_is_heard(tower: Any, people: Any) -> None:
    await database_sync_to_async(tower.register)("profiler")
    socket = await listen(people["viewer"])
    await socket.connect()
    await socket.receive()
    applied = await database_sync_to_async(tower.apply)()
    hint = await next_hint(socket)
    assert hint["goal"] == str(applied.goal.uid)
    await socket.disconnect()


@pytest.mark.parametrize("origin", [b"http://evil.test", b"http://localhost:9999", b"null"])
async def test_another_origin_is_refused(people: Any, origin: bytes) -> None:
    socket = await listen(people["viewer"], origin=origin)
    assert not await socket.connect()


async def test_nobody_and_people_without_a_role_are_refused(people: Any) -> None:
    assert not await (await listen()).connect()
    await database_sync_to_async(Membership.objects.all().delete)()
    assert not await (await listen(people["viewer"])).connect()


def log_out(browser: Client, user: User) -> None:
    browser.post("/logout")


def take_role(browser: Client, user: User) -> None:
    Membership.objects.filter(user=user).delete()


def shut_out(browser: Client, user: User) -> None:
    User.objects.filter(pk=user.pk).update(is_active=False)


def set_password(browser: Client, user: User) -> None:
    user.set_password("another, and long enough")
    user.save(update_fields=["password"])


@pytest.mark.parametrize(
    ("way", "code"),
    [
        (log_out, SIGNED_OUT),
        (take_role, FORBIDDEN),
        (shut_out, SIGNED_OUT),
        (set_password, SIGNED_OUT),
    ],
)
async def test_who_may_listen_no_more_is_cut_off_within_five_seconds(
    people: Any, way: Callable[[Client, User], None], code: int
) -> None:
    browser = await browser_of(people["viewer"])
    socket = await listen(browser=browser)
    stays = await listen(people["operator"])
    for one in (socket, stays):
        assert await one.connect()
        assert (await one.receive())["type"] == "hello"
    began = time.monotonic()
    await database_sync_to_async(way)(browser, people["viewer"])
    assert await socket.closed(within=CLOSE_SECONDS) == code
    assert time.monotonic() - began < CLOSE_SECONDS
    assert (await next_beat(stays))["seq"] > 1
    await stays.disconnect()


async def next_beat(socket: Socket) -> dict[str, Any]:
    while (message := await socket.receive())["type"] != "beat":
        pass
    return message


async def test_a_new_role_is_heard_without_a_new_page(people: Any) -> None:
    socket = await listen(people["viewer"])
    await socket.connect()
    await database_sync_to_async(Membership.objects.create)(
        user=people["viewer"], namespace="other", role="viewer"
    )
    layer, topic = get_channel_layer(), NAMESPACE_TOPIC.format(namespace="other")
    deadline = time.monotonic() + CLOSE_SECONDS
    while (message := await socket.receive())["type"] != "hint":
        assert time.monotonic() < deadline
        await layer.group_send(topic, {"type": "hint", "topic": "goal", "goal": "new"})
    assert message["goal"] == "new"
    await socket.disconnect()


def test_many_sockets_cost_as_many_queries_as_one(
    people: Any, django_assert_num_queries: Any
) -> None:
    def key(name: str) -> str:
        browser = Client()
        browser.force_login(people[name])
        return str(browser.session.session_key)

    keys = [key(name) for name in people for _ in range(4)]
    for some in (keys[:1], keys):
        with django_assert_num_queries(4 if some == keys else 3):
            assert set(topics_by_session(some)) == set(some)


class Deaf:
    """A socket that takes nothing any more."""

    session_key = "deaf"

    async def join(self, topics: frozenset[str]) -> None:
        raise OSError("the broker is down")

    async def end(self, code: int) -> None:
        await asyncio.sleep(60)


class Ear(Deaf):
    """One that does."""

    def __init__(self, session_key: str) -> None:
        self.session_key = session_key
        self.code = asyncio.get_running_loop().create_future()

    async def end(self, code: int) -> None:
        self.code.set_result(code)


async def test_a_deaf_reader_a_broker_and_a_database_that_fail_hold_nobody_open() -> None:
    looks = 0

    def look(keys: Collection[str]) -> dict[str, frozenset[str]]:
        nonlocal looks
        looks += 1
        if looks < 3:
            raise OperationalError("database is down")
        return {"kept": frozenset({"topic"})}

    watch = SessionWatch(look=look, seconds=0.01)
    gone, kept = Ear("gone"), Ear("kept")
    for one in (Deaf(), kept, gone):
        watch.follow(one)
    assert await asyncio.wait_for(gone.code, CLOSE_SECONDS) == SIGNED_OUT
    assert not kept.code.done()
    watch.leave(kept)
    assert looks >= 3


async def test_what_a_page_sends_is_ignored(people: Any) -> None:
    socket = await listen(people["viewer"])
    await socket.connect()
    await socket.receive()
    await socket.send_input({"type": "websocket.receive", "text": "{not json"})
    assert (await socket.receive())["type"] == "beat"
    await socket.disconnect()

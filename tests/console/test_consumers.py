"""The websocket of open pages: who may listen, what is heard, and that silence is noticed."""

import json
from typing import Any

import pytest
from asgiref.testing import ApplicationCommunicator
from channels.db import database_sync_to_async
from channels.layers import get_channel_layer
from django.conf import settings as live_settings
from django.test import Client

from goals.events import NAMESPACE_TOPIC

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("twins")]

HOST = b"localhost:8000"


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


@database_sync_to_async
def cookie_of(user: Any) -> str:
    browser = Client()
    browser.force_login(user)
    return browser.cookies[live_settings.SESSION_COOKIE_NAME].value


async def listen(user: Any = None, *, origin: bytes = b"http://" + HOST) -> Socket:
    from console.sockets import socket_application

    application = socket_application(beat_seconds=0.05)
    headers = [(b"host", HOST), (b"origin", origin)]
    if user is not None:
        name = live_settings.SESSION_COOKIE_NAME
        headers.append((b"cookie", f"{name}={await cookie_of(user)}".encode()))
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
    from governance.models import Membership

    assert not await (await listen()).connect()
    await database_sync_to_async(Membership.objects.all().delete)()
    assert not await (await listen(people["viewer"])).connect()


async def test_who_loses_the_role_hears_nothing_more(people: Any) -> None:
    from governance.models import Membership

    socket = await listen(people["viewer"])
    await socket.connect()
    await socket.receive()
    await database_sync_to_async(Membership.objects.filter(user=people["viewer"]).delete)()
    for _ in range(20):
        message = await socket.receive_output(timeout=5)
        if message["type"] == "websocket.close":
            break
    else:
        raise AssertionError("the socket stayed open")
    assert message["code"] == 4403


async def test_a_session_that_is_ended_hears_nothing_more(people: Any) -> None:
    from governance.services.sessions import end_all_sessions

    socket = await listen(people["viewer"])
    await socket.connect()
    await socket.receive()
    assert await database_sync_to_async(end_all_sessions)(people["viewer"]) == 1
    for _ in range(20):
        message = await socket.receive_output(timeout=5)
        if message["type"] == "websocket.close":
            break
    else:
        raise AssertionError("the socket stayed open")
    assert message["code"] == 4401


async def test_what_a_page_sends_is_ignored(people: Any) -> None:
    socket = await listen(people["viewer"])
    await socket.connect()
    await socket.receive()
    await socket.send_input({"type": "websocket.receive", "text": "{not json"})
    assert (await socket.receive())["type"] == "beat"
    await socket.disconnect()

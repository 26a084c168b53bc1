"""The map's socket on the real database: who may look, what they see, when it ends."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
from asgiref.testing import ApplicationCommunicator
from channels.db import database_sync_to_async
from django.conf import settings as live_settings
from django.test import Client
from django.utils import timezone

from agents.fleet.domain import STATES
from console.live.hub import FORBIDDEN, SIGNED_OUT, get_hub
from console.sockets import socket_application
from tests.console.live_map import LiveMap

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("twins")]

HOST = b"localhost:8000"
DEADLINE_SECONDS = 15.0
CLOSE_SECONDS = 5.0  # DESIGN: sockets closed within 5 s of logout or lost rights


class MapSocket(ApplicationCommunicator):
    """A websocket spoken in ASGI messages, and the map that its frames make."""

    map: LiveMap

    async def connect(self) -> str:
        self.map = LiveMap()
        await self.send_input({"type": "websocket.connect"})
        return str((await self.receive_output(timeout=5))["type"])

    async def until(self, holds: Callable[[LiveMap], bool]) -> None:
        deadline = time.monotonic() + DEADLINE_SECONDS
        while not holds(self.map):
            message = await self.receive_output(timeout=max(deadline - time.monotonic(), 0.1))
            assert message["type"] == "websocket.send", message
            self.map.take(message["bytes"])

    async def closed(self, *, within: float) -> int:
        """The close code, however many frames come before it."""
        deadline = time.monotonic() + within
        while True:
            message = await self.receive_output(timeout=max(deadline - time.monotonic(), 0.01))
            if message["type"] == "websocket.close":
                return int(message["code"])

    async def disconnect(self) -> None:
        await self.send_input({"type": "websocket.disconnect", "code": 1000})
        await self.wait(timeout=5)


@pytest.fixture(autouse=True)
async def ended_hub() -> AsyncIterator[None]:
    yield
    await get_hub().close()  # nothing may read while the database is emptied


@database_sync_to_async
def signed_in(user: Any) -> Client:
    browser = Client()
    browser.force_login(user)
    return browser


async def look(browser: Client | None = None, *, origin: bytes = b"http://" + HOST) -> MapSocket:
    headers = [(b"host", HOST), (b"origin", origin)]
    if browser is not None:
        name = live_settings.SESSION_COOKIE_NAME
        headers.append((b"cookie", f"{name}={browser.cookies[name].value}".encode()))
    scope = {
        "type": "websocket", "path": "/ws/fleet", "query_string": b"", "headers": headers,
        "subprotocols": [],
    }  # fmt: skip
    return MapSocket(socket_application(), scope)


@database_sync_to_async
def begin(tower: Any, name: str = "rogue") -> Any:
    """A Goal whose one attempt runs."""
    tower.register("tuner", gpus=1)
    goal = tower.apply(name, agents="tuner", budget="60 GPU-seconds").goal
    for _ in range(3):
        tower.reconcile(goal)
    return goal


def states(one: LiveMap) -> list[str]:
    return [STATES[row["state"]].value for row in one.runs.values()]


async def test_an_attempt_is_on_the_map_with_its_goal_and_its_fuel(tower: Any, people: Any) -> None:
    goal = await begin(tower)
    socket = await look(await signed_in(people["viewer"]))
    assert await socket.connect() == "websocket.accept"
    await socket.until(lambda one: states(one) == ["running"])
    (run,) = socket.map.runs.values()
    assert (run["agent"], run["namespace"], run["gpus"]) == ("tuner", "default", 1)
    assert run["node"]
    (picture,) = socket.map.goal_picture().values()
    assert picture[:4] == ("default", "rogue", "Running", "gpu_ms")
    assert 0 < picture[5] <= 10_000  # reserved
    assert socket.map.runs[run["slot"]]["goal"] in socket.map.goals
    assert socket.map.goals[run["goal"]]["uid"] == goal.uid
    await socket.disconnect()


async def test_a_change_of_state_and_a_question_arrive_by_themselves(
    tower: Any, people: Any
) -> None:
    goal = await begin(tower)
    socket = await look(await signed_in(people["viewer"]))
    await socket.connect()
    await socket.until(lambda one: states(one) == ["running"])

    @database_sync_to_async
    def burn() -> None:
        for _ in range(14):
            tower.twins.cluster.advance(5_000)
            tower.reconcile(goal)

    await burn()
    await socket.until(lambda one: states(one) == ["paused"])
    # Question and phase are two commits of the worker: a frame may well come between them.
    await socket.until(
        lambda one: (
            [fuel[2:7] for fuel in one.goal_picture().values()]
            == [("Paused", "gpu_ms", 10_000, 0, 1)]
        )
    )
    assert socket.map.snapshots == 1
    await socket.disconnect()


async def test_a_goal_that_is_deleted_leaves(tower: Any, people: Any) -> None:
    from goals.models import Goal

    goal = await begin(tower)
    socket = await look(await signed_in(people["viewer"]))
    await socket.connect()
    await socket.until(lambda one: set(one.goal_picture()) == {goal.uid})

    @database_sync_to_async
    def delete() -> None:
        from governance.services.journal import append_record, journaled
        from lineage.domain import Actor, ActorKind

        with journaled():
            Goal.objects.filter(pk=goal.pk).update(deleted_at=timezone.now())
            append_record(
                action="goal.deleted", actor=Actor(ActorKind.SYSTEM, "test"), object_kind="goal",
                object_id=str(goal.uid), namespace="default", goal_uid=goal.uid,
            )  # fmt: skip

    await delete()
    await socket.until(lambda one: one.goal_picture() == {})
    await socket.disconnect()


async def test_another_namespace_is_not_on_the_map(tower: Any, people: Any) -> None:
    from agents.models import Attempt
    from goals.models import Goal

    goal = await begin(tower)

    @database_sync_to_async
    def hide() -> None:
        Goal.objects.filter(pk=goal.pk).update(namespace="other")
        Attempt.objects.filter(goal_uid=goal.pk).update(namespace="other")

    await hide()
    admin = await look(await signed_in(people["admin"]))
    viewer = await look(await signed_in(people["viewer"]))
    for socket in (admin, viewer):
        assert await socket.connect() == "websocket.accept"
    await admin.until(lambda one: len(one.runs) == 1)
    at = admin.map.last.stamp.at_ms if admin.map.last else 0.0
    await viewer.until(lambda one: one.last is not None and one.last.stamp.at_ms > at)
    assert (viewer.map.runs, viewer.map.goals) == ({}, {})
    for socket in (admin, viewer):
        await socket.disconnect()


async def test_a_logout_closes_the_socket(tower: Any, people: Any) -> None:
    browser = await signed_in(people["viewer"])
    socket = await look(browser)
    await socket.connect()
    await socket.until(lambda one: one.snapshots == 1)
    await database_sync_to_async(browser.post)("/logout")
    assert await socket.closed(within=CLOSE_SECONDS) == SIGNED_OUT


@pytest.mark.parametrize("way", ["role", "inactive", "password"])
async def test_lost_rights_close_the_socket(tower: Any, people: Any, way: str) -> None:
    user = people["viewer"]
    socket = await look(await signed_in(user))
    await socket.connect()
    await socket.until(lambda one: one.snapshots == 1)

    @database_sync_to_async
    def lose() -> None:
        if way == "role":
            user.memberships.all().delete()
        elif way == "inactive":
            type(user).objects.filter(pk=user.pk).update(is_active=False)
        else:
            user.set_password("another horse battery")
            user.save(update_fields=["password"])

    await lose()
    assert await socket.closed(within=CLOSE_SECONDS) == SIGNED_OUT


async def test_who_may_not_look_gets_no_frame(people: Any) -> None:
    stranger = await look()
    assert await stranger.connect() == "websocket.close"
    browser = await signed_in(people["viewer"])
    elsewhere = await look(browser, origin=b"http://localhost:9000")
    assert await elsewhere.connect() == "websocket.close"

    @database_sync_to_async
    def strip() -> None:
        people["viewer"].memberships.all().delete()

    await strip()
    nobody = await look(browser)
    assert await nobody.connect() == "websocket.accept"  # a code reaches the page only after it
    assert await nobody.closed(within=CLOSE_SECONDS) == FORBIDDEN


async def test_a_client_may_ask_for_a_snapshot_and_nothing_else(tower: Any, people: Any) -> None:
    await begin(tower)
    socket = await look(await signed_in(people["viewer"]))
    await socket.connect()
    await socket.until(lambda one: len(one.runs) == 1)
    for text in ("x" * 1000, "", "{}"):
        await socket.send_input({"type": "websocket.receive", "text": text})
    await socket.send_input({"type": "websocket.receive", "bytes": b"\x00"})
    await socket.send_input({"type": "websocket.receive", "text": "snapshot"})
    await socket.until(lambda one: one.snapshots == 2)
    assert len(socket.map.runs) == 1
    await asyncio.sleep(0)
    await socket.disconnect()


def test_the_page_is_there_for_everybody_who_is_signed_in(tower: Any) -> None:
    assert Client().get("/tower").status_code == 302
    page = signed_in_client(tower).get("/tower")
    text = page.content.decode()
    assert page.status_code == 200
    assert 'data-socket="/ws/fleet"' in text
    assert "Nothing waits for a human" in text


def test_what_waits_comes_first_with_its_cost(tower: Any) -> None:
    from goals.services.prices import set_price

    tower.register("tuner", gpus=1)
    more = "throttle: {gpusOnPause: Hold}"
    goal = tower.apply("rogue", agents="tuner", budget="30 GPU-seconds", more=more).goal
    for _ in range(8):
        tower.reconcile(goal)
        tower.twins.cluster.advance(5_000)
    tower.reconcile(goal)
    browser = signed_in_client(tower)
    part = browser.get("/tower", headers={"HX-Request": "true"}).content.decode()
    assert "<html" not in part
    assert "Waits for a human: 1" in part
    assert "holds 1 GPU, " in part
    assert "unknown</span> a minute" in part
    set_price(kind="gpu", name="default", micro_usd=1_200_000, actor=tower.admin.actor)
    part = browser.get("/tower", headers={"HX-Request": "true"}).content.decode()
    assert "0.02 USD a minute" in part


def signed_in_client(tower: Any) -> Client:
    browser = Client()
    browser.force_login(tower.people["approver"])
    return browser

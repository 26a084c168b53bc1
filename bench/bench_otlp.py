"""OTLP ingest: spans acknowledged per second by one worker, and time until they can be queried."""

import asyncio
import datetime as dt
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httptools
import uvicorn
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue

from lineage.otlp import OtlpTraceApp, SpanWriter
from lineage.telemetry.base import SpanOwner
from lineage.telemetry.clickhouse import ClickHouseTelemetry

ROOT = Path(__file__).resolve().parent.parent
SPANS_PER_EXPORT = 200
EXPORTS = 400  # distinct, so that no span is a duplicate
SENDERS = 64  # as many agents at once; what arrives meanwhile shares an insert
LATENCY_SAMPLES = 60
LATENCY_PAUSE_SECONDS = 0.05
OWNER = SpanOwner("bench", "goal", "optimizer", "optimizer", "attempt")


def export(spans: int) -> bytes:
    """A realistic export: eight attributes a span, as the SDK writes them."""
    request = ExportTraceServiceRequest()
    scope = request.resource_spans.add().scope_spans.add()
    trace_id, before, now = os.urandom(16), os.urandom(8), time.time_ns()
    for number in range(spans):
        span = scope.spans.add(
            trace_id=trace_id,
            span_id=os.urandom(8),
            parent_span_id=before,
            name="tune_model",
            start_time_unix_nano=now + number * 1000,
            end_time_unix_nano=now + number * 1000 + 500,
        )
        texts = {
            "agent.id": "optimizer",
            "goal.id": "goal",
            "task.id": "optimizer",
            "action.parent_observation": before.hex(),
            "gen_ai.request.model": "gpt-4o-mini",
        }
        for key, text in texts.items():
            span.attributes.append(KeyValue(key=key, value=AnyValue(string_value=text)))
        counts = {"gen_ai.usage.input_tokens": number, "gen_ai.usage.output_tokens": 5}
        for key, count in counts.items():
            span.attributes.append(KeyValue(key=key, value=AnyValue(int_value=count)))
        sure = AnyValue(double_value=0.87)
        span.attributes.append(KeyValue(key="action.confidence", value=sure))
        before = span.span_id
    return request.SerializeToString()


@contextmanager
def store(directory: Path) -> Iterator[ClickHouseTelemetry]:
    """A real store process of its own."""
    token_file = directory / "keys" / "store.token"
    command = [sys.executable, "-m", "lineage.telemetry.store", "--path", str(directory / "store")]
    process = subprocess.Popen(
        [*command, "--port", "0", "--token-file", str(token_file)],
        stdout=subprocess.PIPE,
        text=True,
        cwd=ROOT,
    )
    try:
        assert process.stdout is not None
        port = int(process.stdout.readline().rsplit(":", 1)[1])
        telemetry = ClickHouseTelemetry(
            host="127.0.0.1",
            port=port,
            user="default",
            password=lambda: token_file.read_text().strip(),
        )
        telemetry.ensure_schema()
        yield telemetry
    finally:
        process.terminate()
        process.wait(timeout=20)


def serve(port_file: Path, store_port: int, token: str) -> None:
    """One ingest worker, in a process of its own; ends on SIGTERM."""

    async def authenticate(_: str) -> SpanOwner:
        return OWNER

    telemetry = ClickHouseTelemetry(
        host="127.0.0.1", port=store_port, user="default", password=lambda: token
    )
    app = OtlpTraceApp(authenticate, SpanWriter(telemetry), lambda: dt.datetime.now(dt.UTC))
    config = uvicorn.Config(app, host="127.0.0.1", port=0, log_level="warning", access_log=False)
    server = uvicorn.Server(config)

    async def main() -> None:
        task = asyncio.create_task(server.serve())
        while not server.started:
            await asyncio.sleep(0.01)
        port = server.servers[0].sockets[0].getsockname()[1]
        draft = port_file.with_suffix(".draft")
        draft.write_text(str(port))
        draft.rename(port_file)
        await task

    asyncio.run(main())


@contextmanager
def worker(directory: Path, telemetry: ClickHouseTelemetry) -> Iterator[int]:
    """Start `serve` and give its port."""
    port_file = directory / "otlp.port"
    token = telemetry._password()
    process = subprocess.Popen(
        [sys.executable, __file__, "serve", str(port_file), str(telemetry._port), token],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    try:
        deadline = time.monotonic() + 20
        while not port_file.exists():
            assert time.monotonic() < deadline
            assert process.poll() is None
            time.sleep(0.01)
        yield int(port_file.read_text())
    finally:
        process.terminate()
        process.wait(timeout=20)


class Sender:
    """A keep-alive HTTP/1.1 connection that costs the bench little CPU."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._done = asyncio.Event()
        self._status = 0

    async def open(self) -> None:
        self._reader, self._writer = await asyncio.open_connection("127.0.0.1", self._port)

    def on_message_complete(self) -> None:
        self._status = self._parser.get_status_code()
        self._done.set()

    async def post(self, body: bytes) -> int:
        self._parser = httptools.HttpResponseParser(self)
        self._done.clear()
        self._writer.write(
            b"POST /v1/traces HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer x\r\n"
            b"Content-Type: application/x-protobuf\r\nContent-Length: %d\r\n\r\n" % len(body)
        )
        self._writer.write(body)
        while not self._done.is_set():
            self._parser.feed_data(await self._reader.read(65536))
        return self._status

    def close(self) -> None:
        self._writer.close()


async def throughput(port: int, bodies: list[bytes]) -> float:
    """Seconds until every export is acknowledged."""
    queue = list(bodies)

    async def send() -> None:
        sender = Sender(port)
        await sender.open()
        while queue:
            body = queue.pop()
            while (status := await sender.post(body)) in (429, 503):
                await asyncio.sleep(0.05)
            assert status == 200, status
        sender.close()

    began = time.perf_counter()
    await asyncio.gather(*(send() for _ in range(SENDERS)))
    return time.perf_counter() - began


async def latencies(port: int, telemetry: ClickHouseTelemetry) -> list[float]:
    """Seconds from the request to a query that finds the span, one small export at a time."""
    sender = Sender(port)
    await sender.open()
    found = []
    for _ in range(LATENCY_SAMPLES):
        body = export(1)
        span = ExportTraceServiceRequest.FromString(body).resource_spans[0].scope_spans[0].spans[0]
        began = time.perf_counter()
        assert await sender.post(body) == 200
        acknowledged = time.perf_counter()
        # What is acknowledged must be there: one look, no second try.
        assert await asyncio.to_thread(telemetry.span, "bench", span.span_id.hex())
        found.append(acknowledged - began)
        await asyncio.sleep(LATENCY_PAUSE_SECONDS)
    sender.close()
    return found


def resident_mib(pid: int) -> float:
    """Resident memory of a process."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS"):
            return int(line.split()[1]) / 1024
    return 0.0


def run() -> list[dict[str, Any]]:
    """Every figure, each with its peer and the ratio to it."""
    bodies = [export(SPANS_PER_EXPORT) for _ in range(EXPORTS)]
    spans = SPANS_PER_EXPORT * EXPORTS
    began = time.perf_counter()
    for body in bodies:
        ExportTraceServiceRequest.FromString(body)
    decoding = spans / (time.perf_counter() - began)
    with tempfile.TemporaryDirectory(prefix="bench-otlp-") as name:
        directory = Path(name)
        with store(directory) as telemetry, worker(directory, telemetry) as port:
            quiet = asyncio.run(latencies(port, telemetry))
            asyncio.run(throughput(port, [export(SPANS_PER_EXPORT) for _ in range(40)]))
            rate = spans / asyncio.run(throughput(port, bodies))
            stored = telemetry.span_count("bench", "goal")
            assert stored == spans + 40 * SPANS_PER_EXPORT + LATENCY_SAMPLES, stored
    p50 = statistics.median(quiet) * 1000
    p99 = statistics.quantiles(quiet, n=100)[98] * 1000
    return [
        {
            "name": "otlp: spans acknowledged by one worker",
            "value": round(rate),
            "unit": "spans/s",
            "peer": f"protobuf decoding alone, {decoding:,.0f} spans/s",
            "ratio": round(rate / decoding, 3),
        },
        {
            "name": "otlp: spans acknowledged by one worker",
            "value": round(rate),
            "unit": "spans/s",
            "peer": "aim of 50,000 spans/s",
            "ratio": round(rate / 50_000, 2),
        },
        {
            "name": "otlp: request to durable and queryable, p50 at low load",
            "value": round(p50, 1),
            "unit": "ms",
            "peer": "limit of 50 ms",
            "ratio": round(p50 / 50, 2),
        },
        {
            "name": "otlp: request to durable and queryable, p99 at low load",
            "value": round(p99, 1),
            "unit": "ms",
            "peer": "",
            "ratio": None,
        },
    ]


if __name__ == "__main__":
    if sys.argv[1:2] == ["serve"]:
        serve(Path(sys.argv[2]), int(sys.argv[3]), sys.argv[4])
    else:
        for figure in run():
            peer = f"  ({figure['ratio']} x {figure['peer']})" if figure["peer"] else ""
            print(f"{figure['name']}: {figure['value']:,} {figure['unit']}{peer}")

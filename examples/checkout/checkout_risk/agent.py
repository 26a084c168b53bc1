"""What the agents share: a stop signal, the service they work on, measuring production."""

import os
import re
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn

import clearance_sdk as clearance

from .load import Client, Load, Sample, drive, percentile, service_state
from .orders import Orders

SERVICE = "checkout"
SELECTOR = "/checkout"
DEFAULT_URL = "http://127.0.0.1:8089"
DEFAULT_LIMIT_MS = 120.0  # the objective of goal.yaml, should the text name no other
LOAD_SECONDS = 8.0  # CHECKOUT_LOAD_SECONDS says otherwise
# A p99 of fewer samples is one unlucky order; a slow service gets more time to reach it.
SAMPLES_MIN = 100
SECONDS_MAX_FACTOR = 2.5
SERVICE_WAIT_SECONDS = 60.0
CHECK_SECONDS = 0.5
STOPPED = 128 + signal.SIGTERM  # exit status of a program ended by SIGTERM


class AgentFailure(Exception):
    """The agent cannot do its task; the message says why and what to do."""


def say(line: str) -> None:
    """One short line on stdout, at once."""
    print(line, flush=True)


def scratch_directory() -> Path:
    """Where this program may write: its working directory, or a new one where that is kept."""
    here = Path.cwd()
    return here if os.access(here, os.W_OK) else Path(tempfile.mkdtemp(prefix="checkout-"))


def checkout_url() -> str:
    """Where the service listens."""
    return os.environ.get("CHECKOUT_URL", DEFAULT_URL).rstrip("/")


def load_seconds() -> float:
    """How long one measurement drives load."""
    text = os.environ.get("CHECKOUT_LOAD_SECONDS", "")
    try:
        seconds = float(text) if text else LOAD_SECONDS
    except ValueError:
        seconds = 0.0
    if not 1.0 <= seconds <= 600.0:
        raise AgentFailure("CHECKOUT_LOAD_SECONDS: a number of seconds from 1 to 600 is needed.")
    return seconds


def run_agent(work: Callable[[Any, threading.Event], None]) -> NoReturn:
    """Run `work(run, stop)` as this attempt and end the process with the right status.

    SIGTERM sets `stop` and unwinds, so that spans are sent and connections closed.
    """
    stop = threading.Event()

    def on_sigterm(number: int, frame: FrameType | None) -> None:
        stop.set()
        raise SystemExit(STOPPED)

    signal.signal(signal.SIGTERM, on_sigterm)
    try:
        with clearance.attempt() as run:
            work(run, stop)
    except AgentFailure as failure:
        say(f"failed: {failure}")
        sys.exit(1)
    except clearance.ClearanceError as error:
        say(f"failed: {error}")
        sys.exit(1)
    sys.exit(0)


def limit_ms(objective: str) -> float:
    """The latency that the objective asks for, in milliseconds."""
    found = re.search(r"<=?\s*([0-9]+(?:\.[0-9]+)?)\s*(ms|s)\b", objective)
    if found is None:
        return DEFAULT_LIMIT_MS
    return float(found.group(1)) * (1e3 if found.group(2) == "s" else 1.0)


def wait_for_service(
    url: str, *, until: Callable[[dict[str, Any]], bool], what: str, stop: threading.Event
) -> dict[str, Any]:
    """The service's state once `until(state)`. Raises `AgentFailure` after a minute."""
    deadline = time.monotonic() + SERVICE_WAIT_SECONDS
    last = "it never answered"
    while time.monotonic() < deadline:
        try:
            state = service_state(url)
        except OSError as error:
            last = str(error)
        else:
            if until(state):
                return state
            last = f"its state is {state}"
        stop.wait(CHECK_SECONDS)
    raise AgentFailure(f"{url} did not {what} within {SERVICE_WAIT_SECONDS:.0f} s: {last}")


@dataclass(frozen=True, slots=True)
class Profile:
    """Latency of production as its clients saw it, from raw samples (ms)."""

    digest: str
    latencies_ms: Sequence[float]
    failed: int

    def at(self, percent: float) -> float:
        """A percentile, in ms to the microsecond."""
        return round(percentile(self.latencies_ms, percent), 3)

    def as_json(self) -> dict[str, Any]:
        """What goes to the next task."""
        shown = {f"p{p}_ms": self.at(p) for p in (50, 95, 99)}
        return {"samples": len(self.latencies_ms), "failed": self.failed, **shown}


def measure_production(url: str, orders: Orders, *, name: str, stop: threading.Event) -> Profile:
    """Drive real orders at the production model. Raises `AgentFailure` when none was scored."""

    def visit(client: Client, index: int, request_id: str) -> list[Sample]:
        return [client.checkout(orders, index, request_id=request_id, pin="never")]

    seconds = load_seconds()
    load = Load(seconds, samples_min=SAMPLES_MIN, seconds_max=seconds * SECONDS_MAX_FACTOR)
    samples = drive(url, orders, load=load, name=name, visit=visit, stop=stop)
    scored = [sample for sample in samples if sample.is_right is not None]
    if not scored:
        statuses = sorted({sample.status for sample in samples})
        raise AgentFailure(f"no order was scored at {url}{SELECTOR}; statuses seen: {statuses}")
    last = scored[-1].digest
    of_last = [sample.latency_ms for sample in scored if sample.digest == last]
    return Profile(last, of_last, len(samples) - len(scored))


def record_latency(run: Any, profile: Profile, *, because: Any) -> Any:
    """Record p50, p95 and p99 of `/checkout`, measured by an action; gives the p99 observation."""
    seen = None
    for percent in (50, 95, 99):
        seen = run.observe(
            "latency",
            aggregate=f"p{percent}",
            value=profile.at(percent),
            unit="ms",
            selector=SELECTOR,
            samples=len(profile.latencies_ms),
            because=because,
        )
    return seen

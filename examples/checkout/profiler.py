"""Profiler: drives real load at the checkout and records the latency its clients see."""

import threading
from typing import Any

from checkout_risk.agent import (
    SELECTOR,
    checkout_url,
    limit_ms,
    measure_production,
    record_latency,
    run_agent,
    say,
    wait_for_service,
)
from checkout_risk.comparison import chance_above
from checkout_risk.load import CLIENTS
from checkout_risk.orders import load_split


def work(run: Any, stop: threading.Event) -> None:
    """Measure production and hand the profile on as `latency-profile`."""
    url = checkout_url()
    state = wait_for_service(
        url, until=lambda s: bool(s.get("production")), what="serve a model", stop=stop
    )
    ready = run.observe(
        "availability", aggregate="last", value=100.0, unit="%", selector=SELECTOR, samples=1
    )
    say(f"driving load at {url}{SELECTOR} ({state['production'][:19]})")
    with run.action("drive_load", because=ready, confidence=1.0) as act:
        act.set_attribute("load.clients", CLIENTS)
        profile = measure_production(url, load_split().live, name="profile", stop=stop)
        act.set_attribute("load.samples", len(profile.latencies_ms))
        slowest = record_latency(run, profile, because=act)
    limit = limit_ms(run.objective)
    sure = chance_above(profile.latencies_ms, percent=99, limit=limit)
    value = {**profile.as_json(), "limit_ms": limit, "chance_too_slow": sure}
    say(
        f"p50 {profile.at(50):.0f} ms, p95 {profile.at(95):.0f} ms, p99 {profile.at(99):.0f} ms "
        f"of {len(profile.latencies_ms)} orders, {profile.failed} failed"
    )
    run.produce("latency-profile", value=value, digest=profile.digest, because=slowest)


if __name__ == "__main__":
    run_agent(work)

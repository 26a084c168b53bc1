"""What it costs to look at an attempt's conduct, against asking for its tokens."""

import os
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from bench.bench_otlp import OWNER, export, store
from lineage.telemetry.base import SpanBatch
from lineage.telemetry.clickhouse import ClickHouseTelemetry

SPANS_PER_EXPORT = 10_000
SMALL, LARGE = 200, 1_000_000  # spans of one attempt
ROUNDS = 7


def median_ms(call: Callable[[], object]) -> float:
    """Median milliseconds of a call, after one that is not counted."""
    call()
    spent = []
    for _ in range(ROUNDS):
        start = time.perf_counter()
        call()
        spent.append((time.perf_counter() - start) * 1000)
    return statistics.median(spent)


def look(telemetry: ClickHouseTelemetry, spans: int) -> list[dict[str, Any]]:
    """One attempt with so many spans, all stored lately: nothing new, and something."""
    owner = replace(OWNER, goal_uid=f"goal-{spans}", attempt_uid=os.urandom(8).hex())
    for left in range(spans, 0, -SPANS_PER_EXPORT):
        telemetry.write_spans([SpanBatch(owner, export(min(left, SPANS_PER_EXPORT)))])
    uid, place = owner.attempt_uid, (owner.namespace, owner.goal_uid)
    (first,) = telemetry.conduct(*place, seen={uid: ""})
    tokens = median_ms(lambda: telemetry.token_usage(*place))
    quiet = median_ms(lambda: telemetry.conduct(*place, seen={uid: first.mark}))
    telemetry.write_spans([SpanBatch(owner, export(200))])
    assert telemetry.conduct(*place, seen={uid: first.mark})
    news = median_ms(lambda: telemetry.conduct(*place, seen={uid: first.mark}))
    peer = {"unit": "ms", "peer": "token_usage of the same Goal"}
    return [
        {
            "name": f"nothing new of {spans:,} spans",
            "value": quiet,
            "ratio": quiet / tokens,
            **peer,
        },
        {"name": f"news of {spans:,} spans", "value": news, "ratio": news / tokens, **peer},
    ]


def run() -> list[dict[str, Any]]:
    """Milliseconds of one question; the store answers it for every running Goal each second."""
    with (
        tempfile.TemporaryDirectory(prefix="clearance-bench-") as directory,
        store(Path(directory)) as telemetry,
    ):
        return [*look(telemetry, SMALL), *look(telemetry, LARGE)]


if __name__ == "__main__":
    for row in run():
        print(f"{row['name']}: {row['value']:.1f} ms, {row['ratio']:.2f} of {row['peer']}")

"""Server times of pages and their parts: `python -m bench.page_times` reads the facts as JSON."""

import json
import os
import statistics
import sys
import time
from collections.abc import Callable
from typing import Any

import django

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "console.settings")
django.setup()

from django.conf import settings  # noqa: E402 - needs loaded settings
from django.contrib.auth.models import User  # noqa: E402
from django.db import connection  # noqa: E402
from django.test import Client  # noqa: E402

import console.asgi  # noqa: E402, F401 - what a web process does to itself when it starts
from tests.browser.pages import PAGES  # noqa: E402

TIMES = 20
ENOUGH_MS = 10_000  # a page as slow as that has been seen
PART = {"HX-Request": "true"}


def main() -> None:
    """One line of JSON: for each page and part its milliseconds, queries, bytes and status.

    With SLOWEST in the environment the slowest queries of each go to standard error.
    """
    facts = json.load(sys.stdin)["facts"]
    settings.ALLOWED_HOSTS = ["testserver"]
    client = Client(raise_request_exception=False)
    client.force_login(User.objects.get(username="ada"))
    found = []
    for page in PAGES:
        if page.full.who:
            path = page.full.url(facts)
            whole = _measure(client, path, {})
            found.append({"name": page.routes[0], "kind": "page", **whole})
            if "HX-Request" in whole.pop("vary"):
                part = _measure(client, path, PART)
                part.pop("vary")
                found.append({"name": page.routes[0], "kind": "part", **part})
    print(json.dumps(found))


def _measure(client: Client, path: str, headers: dict[str, str]) -> dict[str, Any]:
    asked: list[tuple[float, str]] = []

    def note(execute: Callable[..., Any], sql: str, *rest: Any) -> Any:
        began = time.perf_counter()
        try:
            return execute(sql, *rest)
        finally:
            asked.append((time.perf_counter() - began, sql))

    client.get(path, headers=headers)  # warms what is cached
    with connection.execute_wrapper(note):
        answer = client.get(path, headers=headers)
    if "SLOWEST" in os.environ:
        for spent, sql in sorted(asked, reverse=True)[:3]:
            print(f"{path} {spent * 1000:.1f} ms {sql[:1500]}", file=sys.stderr)
    took = sorted(_times(client, path, headers))
    return {
        "p50": statistics.median(took),
        "p95": took[int(len(took) * 0.95) - 1],
        "queries": len(asked),
        "bytes": len(answer.getvalue()),
        "status": answer.status_code,
        "vary": answer.headers.get("Vary", ""),
    }


def _times(client: Client, path: str, headers: dict[str, str]) -> list[float]:
    took: list[float] = []
    while len(took) < TIMES and sum(took) < ENOUGH_MS:
        began = time.perf_counter()
        client.get(path, headers=headers)
        took.append((time.perf_counter() - began) * 1000)
    return took


if __name__ == "__main__":
    main()

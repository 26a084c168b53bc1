"""One process that serves the console over twins and rows of every kind; `tests.browser.site`.

It says one line of JSON (who and what there is) when it listens, then reads lines: `store down`
takes the telemetry store away as a dead server would be, `store up` gives it back. It ends with
its standard input.
"""

import json
import os
import sys
import threading
import time
from pathlib import Path
from typing import Any

import django

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "console.settings")
django.setup()

import uvicorn  # noqa: E402 - needs loaded settings
from django.conf import settings  # noqa: E402
from django.core.management import call_command  # noqa: E402

from lineage.telemetry import get_telemetry  # noqa: E402
from tests.browser.filling import STEERED, fill  # noqa: E402

DEAD_STORE = "clickhouse://nobody:none@127.0.0.1:1/none"  # nothing listens on the first port
STEP_SECONDS = 0.2


def serve() -> uvicorn.Server:
    """The web process in a thread; returns when it listens."""
    from console.asgi import application

    config = uvicorn.Config(
        application,
        host="127.0.0.1",
        port=settings.WEB_PORT,
        log_level="warning",
        access_log=False,
        timeout_graceful_shutdown=1,
    )
    server = uvicorn.Server(config)
    threading.Thread(target=server.run, daemon=True).start()
    while not server.started:
        time.sleep(0.02)
    return server


def steer() -> None:
    """A worker's work on the Goals of one namespace, so that the others stand still."""
    from agents.cluster import get_cluster
    from goals.models import Goal
    from goals.services.reconcile import reconcile_goal

    cluster: Any = get_cluster()
    while True:
        open_goals = Goal.objects.filter(namespace=STEERED, landed_at=None, deleted_at=None)
        for uid in list(open_goals.values_list("uid", flat=True)):
            reconcile_goal(uid)
        cluster.advance(int(STEP_SECONDS * 1000))
        time.sleep(STEP_SECONDS)


def obey(line: str, twin: Any) -> None:
    """Take the store away or give it back."""
    get_telemetry.cache_clear()
    settings.TELEMETRY_URL = DEAD_STORE if line == "store down" else "memory:"
    if line == "store up":
        vars(get_telemetry()).update(vars(twin))


def main() -> None:
    """Make the database, fill it, serve until standard input ends."""
    for name in ("run", "keys"):
        (Path(settings.CLEARANCE_DATA) / name).mkdir(parents=True, exist_ok=True)
    call_command("migrate", verbosity=0, skip_checks=True)
    twin = get_telemetry()
    twin.ensure_schema()
    facts = fill()
    server = serve()
    threading.Thread(target=steer, daemon=True).start()
    print(json.dumps(facts), flush=True)
    for line in sys.stdin:
        obey(line.strip(), twin)
        print("done", flush=True)
    server.should_exit = True


if __name__ == "__main__":
    main()

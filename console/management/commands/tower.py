"""Run all of Clearance on this machine until Ctrl-C."""

import asyncio
import os
import sys
import time
from collections.abc import Sequence
from typing import Any

from django.conf import settings
from django.core.exceptions import ImproperlyConfigured
from django.core.management.base import BaseCommand

from agents.cluster import get_cluster
from agents.cluster.base import ClusterError
from console.tower.child import Child
from console.tower.logs import Terminal
from console.tower.preflight import (
    Refused,
    check_ports,
    check_socket_path,
    keep_secret,
    open_data_directory,
    tower_lock,
)
from console.tower.prepare import prepare_database
from console.tower.processes import DATABASE_STEP, TowerConfig, tower_processes
from console.tower.supervisor import Supervisor


class Command(BaseCommand):
    """`manage.py tower`: supervise every process; exits 0 when told to stop, 1 when refused."""

    help = "Run all of Clearance on this machine until Ctrl-C."
    # The checks import every page; `web` makes them, and `make check` does.
    requires_system_checks = ()

    def handle(self, *_args: Any, **_options: Any) -> None:
        """Check, take the lock, supervise."""
        began = time.monotonic()
        os.umask(0o077)  # nothing we or our children write is for others
        config = config_from_settings()
        try:
            open_data_directory(config.data)
            with tower_lock(config.data / "run" / "tower.lock"):
                _prepare_files(config)
                check_ports(config.addresses())
                status = _supervise(config, began=began)
        except Refused as refusal:
            print(refusal, file=sys.stderr)
            status = 1
        sys.exit(status)


def config_from_settings() -> TowerConfig:
    """What Django's settings say of this machine."""
    data = settings.CLEARANCE_DATA
    return TowerConfig(
        base=settings.BASE_DIR,
        data=data,
        web_host=settings.WEB_HOST,
        web_port=settings.WEB_PORT,
        web_url=settings.WEB_URL,
        otlp_host=settings.OTLP_HOST,
        otlp_port=settings.OTLP_PORT,
        store_port=settings.STORE_PORT,
        checkout_port=settings.CHECKOUT_PORT,
        worker_concurrency=settings.WORKER_CONCURRENCY,
        log_level=settings.LOG_LEVEL,
        has_embedded_broker=f"unix://{data}/run/valkey.sock" == settings.REDIS_URL,
        has_embedded_store=settings.TELEMETRY_URL.startswith("embedded:"),
        has_example=settings.EXAMPLE,
        has_kubernetes=settings.CLUSTER_URL.startswith("kubernetes:"),
        admission_host=settings.ADMISSION_HOST,
        admission_port=settings.ADMISSION_PORT,
        admission_url=settings.ADMISSION_URL,
        has_gpus=_has_gpus(),
    )


def _has_gpus() -> bool:
    """Whether there is anything for `node` to look at; a driver that does not answer is."""
    try:
        return bool(get_cluster().gpus())
    except ClusterError:
        return True
    except ImproperlyConfigured:
        return False  # CLUSTER_URL is unusable: who needs a cluster says so


def _prepare_files(config: TowerConfig) -> None:
    if config.has_embedded_broker:
        check_socket_path(config.valkey_socket)
        (config.data / "valkey").mkdir(exist_ok=True, mode=0o700)
    if config.has_embedded_store:
        (config.data / "store").mkdir(exist_ok=True, mode=0o700)
    if config.has_example:
        (config.data / "example").mkdir(exist_ok=True, mode=0o700)
    keep_secret(config.secret_key)  # console/settings.py reads it in every process


def _supervise(config: TowerConfig, *, began: float) -> int:
    terminal = Terminal()
    terminal.say(f"starting on {config.data}")

    def announce(children: Sequence[Child]) -> None:
        terminal.say(_table(children))
        seconds = time.monotonic() - began
        terminal.say(f"Clearance is ready at {config.web_url} ({seconds:.1f} s)")

    supervisor = Supervisor(
        tower_processes(config),
        directory=config.base,
        log_directory=config.data / "logs",
        state_file=config.data / "run" / "tower.json",
        terminal=terminal,
        steps={DATABASE_STEP: lambda: prepare_database(terminal)},
        on_ready=announce,
    )
    return asyncio.run(supervisor.run())


def _table(children: Sequence[Child]) -> str:
    rows = [("process", "pid", "where", "log")]
    for child in children:
        log = f"logs/{child.spec.name}.log"
        rows.append((child.spec.name, str(child.pid or child.state), child.spec.where, log))
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    )

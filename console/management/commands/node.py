"""Sample the GPUs of this machine until told to stop."""

import signal
import sys
from collections.abc import Callable
from pathlib import Path
from threading import Event
from types import FrameType
from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError, CommandParser

from agents.cluster import get_cluster
from agents.cluster.base import Cluster
from agents.cluster.nvml import DriverReplaced, NvmlNode
from agents.gpus.domain import Sample
from agents.gpus.reporting import Reporter, token_in
from agents.gpus.sampler import INTERVAL_SECONDS, Sampler
from agents.services.gpus import record_sample
from console.tower.programs import show_at_work

KUBERNETES = "kubernetes:"
TOKEN_FILE = Path("/var/run/secrets/clearance/token")  # where the DaemonSet mounts it
LOCAL_NODE = "local"  # what the local cluster calls the machine it runs on


class Command(BaseCommand):
    """`manage.py node`: exits 0 when told to stop, 1 when a new process must read the cards."""

    help = "Sample the GPUs of this machine (NVML, or declared slots) until told to stop."
    # The checks import every page; `web` makes them, and this process is to stay small.
    requires_system_checks = ()

    def add_arguments(self, parser: CommandParser) -> None:
        """What this node is called and how often it is looked at."""
        parser.add_argument("--name", default=LOCAL_NODE, help="Name of this node.")
        parser.add_argument(
            "--interval", type=_seconds, default=INTERVAL_SECONDS, help="Seconds between looks."
        )
        parser.add_argument(
            "--report-to", metavar="URL", default="",
            help="Report over the API of this server, such as https://clearance.example, and use "
            "no database.",
        )  # fmt: skip
        parser.add_argument(
            "--token-file", type=Path, default=TOKEN_FILE,
            help="The service account token, or an API token, that is sent along; read each time.",
        )  # fmt: skip
        parser.add_argument(
            "--ca-file", type=Path, default=None, help="Who signed the server's certificate."
        )
        parser.add_argument("--once", action="store_true", help="Look once; exit 1 if not kept.")

    def handle(self, *_args: Any, **options: Any) -> None:
        """Sample until SIGTERM or SIGINT."""
        stop = Event()

        def end(_number: int, _frame: FrameType | None) -> None:
            stop.set()

        report_to = options["report_to"]
        record: Callable[[Sample], None] = record_sample
        if report_to:
            record = _reporter(report_to, options)

        def shown_and_recorded(sample: Sample) -> None:
            show_at_work()
            record(sample)

        sampler = Sampler(
            options["name"],
            cards=NvmlNode(),
            cluster=_cluster(report_to),
            record=shown_and_recorded,
        )
        try:
            if options["once"]:
                sys.exit(0 if sampler.step() else 1)
            for number in (signal.SIGTERM, signal.SIGINT):
                signal.signal(number, end)
            sampler.run(stop, interval_seconds=options["interval"])
        except DriverReplaced as error:
            print(error, file=sys.stderr)
            sys.exit(1)


def _reporter(url: str, options: dict[str, Any]) -> Callable[[Sample], None]:
    try:
        return Reporter(url, token=token_in(options["token_file"]), authority=options["ca_file"])
    except ValueError as error:
        raise CommandError(str(error)) from error


def _cluster(report_to: str) -> Cluster | None:
    """Who knows which process is whose; of a node of Kubernetes, the survey finds out."""
    if report_to or settings.CLUSTER_URL.startswith(KUBERNETES):
        return None
    return get_cluster()


def _seconds(text: str) -> float:
    value = float(text)
    if not 0.1 <= value <= 3600:
        raise ValueError("--interval must be from 0.1 to 3600 seconds")
    return value

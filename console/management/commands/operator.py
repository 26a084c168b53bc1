"""Run the operator: Goals of the database and of Kubernetes are the same thing seen twice."""

import os
import signal
import socket
import threading
from functools import partial
from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError, CommandParser

from agents.cluster.kubernetes.api import KubernetesApi, RateLimit
from agents.survey.surveyor import Survey
from console.tower.programs import show_at_work
from goals.events import ring
from goals.operator.election import TERM_SECONDS, Election
from goals.operator.program import Operator
from goals.services.reconcile import RING_LIFE_SECONDS

PREFIX = "kubernetes:"
# Of the survey alone, so that what people wait for never stands behind its lists.
SURVEY_RATE = 80


class ShownElection(Election):
    """An election that shows with each round that this process works, leading or waiting."""

    def campaign(self) -> bool:
        """See `Election.campaign`."""
        is_leader = super().campaign()
        show_at_work()
        return is_leader


class Command(BaseCommand):
    """`manage.py operator`: one leads, any number wait."""

    help = "Keep Goals in the database and Goals in Kubernetes the same, in both directions."

    def add_arguments(self, parser: CommandParser) -> None:
        """Where the Lease is, and how much may be asked of the API server."""
        parser.add_argument(
            "--namespace", default="default", help="namespace of the Lease (default: default)"
        )
        parser.add_argument(
            "--only-namespace", default="", help="leave every other namespace alone"
        )
        parser.add_argument(
            "--lease-seconds", type=int, default=TERM_SECONDS,
            help="how long a leader that is gone is waited for (default: %(default)s)",
        )  # fmt: skip
        parser.add_argument(
            "--requests-per-second", type=float, default=50.0, help="to the API server, on average"
        )

    def handle(self, *_args: Any, **options: Any) -> None:
        """Runs until SIGTERM or SIGINT."""
        url = settings.CLUSTER_URL
        if not url.startswith(PREFIX):
            raise CommandError(
                f"CLUSTER_URL={url!r} is no Kubernetes: set it to kubernetes:CONTEXT, as in "
                "`kubectl config get-contexts`."
            )
        rate = options["requests_per_second"]
        if not 0 < rate <= 10_000:
            raise CommandError("--requests-per-second: a number above 0, at most 10000.")
        term = options["lease_seconds"]
        if not 1 <= term <= 3600:
            raise CommandError("--lease-seconds: a whole number from 1 to 3600.")
        api = KubernetesApi(
            url.removeprefix(PREFIX), limit=RateLimit(per_second=rate, burst=max(1, int(2 * rate)))
        )
        identity = f"{socket.gethostname()}_{os.getpid()}"
        election = ShownElection(
            api, identity=identity, namespace=options["namespace"], term_seconds=term
        )
        operator = Operator(api, election=election, namespace=options["only_namespace"])
        context = url.removeprefix(PREFIX)
        survey = Survey(
            KubernetesApi(context, limit=RateLimit(per_second=SURVEY_RATE, burst=2 * SURVEY_RATE)),
            cluster=context,
            is_leader=election.is_leader,
            ring=partial(ring, life_seconds=RING_LIFE_SECONDS),
        )
        threading.Thread(target=survey.run, daemon=True, name="survey").start()
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: operator.stop())
        operator.run()

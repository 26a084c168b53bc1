"""Run the admission webhooks: the API server asks before it takes a workload or a Goal in."""

import os
import ssl
import time
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError, CommandParser

from agents.admission.app import AdmissionApp
from agents.admission.certificates import Terms
from agents.admission.draining import Drain
from agents.admission.keeping import LOOK_SECONDS, Keeper, Shown
from agents.admission.program import OwnNames, Program, admission_engine, looks, warm_up
from agents.admission.snapshot import Policies
from agents.admission.spool import Spool
from agents.cluster import get_cluster
from agents.cluster.kubernetes.api import KubernetesApi
from agents.domain.problems import ManifestError
from console.tower.programs import READY_FILE_VARIABLE
from goals.operator.resources import manifest_of
from governance.policy.base import PolicyEngine

PREFIX = "kubernetes:"
DAY_SECONDS = 86_400.0
WARMED_AT_ONCE = 4  # more than an embedded engine has sandboxes on most machines


class Command(BaseCommand):
    """`manage.py admission`: any number may run; they agree on certificates by a Secret."""

    help = "Answer the API server's admission reviews (HTTPS) by the policies in force."
    # The checks import every page; `web` makes them, and this process is to stay small.
    requires_system_checks = ()

    def add_arguments(self, parser: CommandParser) -> None:
        """How the API server reaches this process, and where it keeps its certificates."""
        reached = parser.add_mutually_exclusive_group()
        reached.add_argument(
            "--url",
            help="how the API server reaches us from outside of a cluster (default: "
            "ADMISSION_URL); the webhook configurations are applied with it",
        )
        reached.add_argument(
            "--service",
            metavar="NAMESPACE/NAME",
            help="the service that leads here inside a cluster; the webhook configurations come "
            "from deploy/admission/webhooks.yaml and are given their caBundle",
        )
        parser.add_argument("--host", default=settings.ADMISSION_HOST)
        parser.add_argument("--port", type=int, default=settings.ADMISSION_PORT)
        parser.add_argument(
            "--namespace", help="of the Secret with the certificates (default: the service's)"
        )
        parser.add_argument(
            "--own-user",
            action="append",
            default=[],
            metavar="NAME",
            help="a name under which Clearance asks the API server, besides this process's own: "
            "system:serviceaccount:NAMESPACE:worker, say",
        )
        parser.add_argument(
            "--client-ca-file", type=Path, metavar="FILE",
            help="answer only callers with a client certificate of these authorities (PEM): what "
            "the API server shows is said in its AdmissionConfiguration",
        )  # fmt: skip
        parser.add_argument(
            "--certificate-days",
            type=float,
            default=Terms().serving_seconds / DAY_SECONDS,
            help="how long a serving certificate is good for (default: %(default)g)",
        )

    def handle(self, *_args: Any, **options: Any) -> None:
        """Runs until SIGTERM or SIGINT."""
        cluster = settings.CLUSTER_URL
        if not cluster.startswith(PREFIX):
            raise CommandError(
                f"CLUSTER_URL={cluster!r} is no Kubernetes: set it to kubernetes:CONTEXT, as in "
                "`kubectl config get-contexts`."
            )
        try:
            engine = admission_engine(settings.POLICY_URL)
        except ValueError as error:
            raise CommandError(str(error)) from error
        os.umask(0o077)
        _program(KubernetesApi(cluster.removeprefix(PREFIX)), engine, options).run()


def _program(api: KubernetesApi, engine: PolicyEngine, options: dict[str, Any]) -> Program:
    """All of it, put together."""
    service, url = _service(options["service"]), ""
    if service is None:
        url = (options["url"] or settings.ADMISSION_URL).rstrip("/")
    shown = _shown(options["client_ca_file"])
    keeper = Keeper(
        api,
        shown,
        namespace=options["namespace"] or (service[0] if service else "default"),
        hosts=_hosts(url, service),
        url=url,
        terms=_terms(options["certificate_days"]),
    )
    names = OwnNames(api, given=options["own_user"], clock=time.monotonic)
    policies = Policies(
        cluster=get_cluster, loaded=lambda found: warm_up(engine, found, times=WARMED_AT_ONCE)
    )
    spool = Spool(settings.CLEARANCE_DATA / "admission")
    app = AdmissionApp(
        policies,
        engine,
        spool,
        own_users=names,
        why_not_ready=lambda: _why_not_ready(keeper, names),
        wrong_with_goal=_wrong_with_goal,
    )
    ready_file = os.environ.get(READY_FILE_VARIABLE)
    return Program(
        app,
        policies,
        spool,
        Drain(spool),
        shown,
        host=options["host"],
        port=options["port"],
        tasks=[
            looks(keeper.look, seconds=LOOK_SECONDS, what="the certificates stay as they are"),
            looks(names.look, seconds=LOOK_SECONDS, what="it is not known who we are"),
        ],
        ready_file=Path(ready_file) if ready_file else None,
    )


def _shown(client_authority: Path | None) -> Shown:
    try:
        return Shown(client_authority=client_authority)
    except OSError as error:  # an SSLError is one
        why = error.strerror if not isinstance(error, ssl.SSLError) else "no PEM certificate in it"
        raise CommandError(f"--client-ca-file {client_authority}: {why}.") from error


def _why_not_ready(keeper: Keeper, names: OwnNames) -> str:
    if not names():
        return "The API server has not said yet who we are."
    return "" if keeper.is_told else "The webhooks do not trust our certificate yet."


def _wrong_with_goal(found: dict[str, Any]) -> str:
    if not found["metadata"].get("name"):
        return ""  # one that the API server makes up; what else is wrong, the operator says
    try:
        manifest_of(found)
    except ManifestError as error:
        return str(error)
    return ""


def _service(text: str | None) -> tuple[str, str] | None:
    if text is None:
        return None
    namespace, slash, name = text.partition("/")
    if not (namespace and slash and name) or "/" in name:
        raise CommandError(f"--service {text!r}: NAMESPACE/NAME, such as clearance/admission.")
    return namespace, name


def _hosts(url: str, service: tuple[str, str] | None) -> list[str]:
    if service is not None:
        namespace, name = service
        return [f"{name}.{namespace}.svc", f"{name}.{namespace}.svc.cluster.local"]
    parts = urlsplit(url)
    if parts.scheme != "https" or not parts.hostname or parts.path or parts.query:
        raise CommandError(f"--url {url!r}: https://HOST:PORT, nothing after it.")
    return [parts.hostname]


def _terms(days: float) -> Terms:
    if not 1 / 24 <= days <= 365:
        raise CommandError("--certificate-days: from 1/24 (an hour) to 365.")
    return Terms(serving_seconds=days * DAY_SECONDS)

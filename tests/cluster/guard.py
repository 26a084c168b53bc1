"""`manage.py admission` as people start it, on a database that can be cut off."""

import contextlib
import http.client
import json
import os
import selectors
import signal
import socket
import ssl
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import psycopg

from tests.cluster.control_plane import CONTEXT, ControlPlane
from tests.with_servers import free_port, with_parent_death

ROOT = Path(__file__).resolve().parents[2]
PATIENCE_SECONDS = 60.0
GROUP = "/apis/admissionregistration.k8s.io/v1"
CONFIGURATIONS = (
    f"{GROUP}/mutatingwebhookconfigurations/clearance-admission",
    f"{GROUP}/validatingwebhookconfigurations/clearance-admission",
)
STARTER = """
from governance.services.bundles import ensure_starter_bundle
ensure_starter_bundle(identity="https://clearance.test/bootstrap")
"""


class Relay:
    """A way to the database that can be cut; bytes are passed on as they are."""

    def __init__(self, target: tuple[str, int]) -> None:
        self._target = target
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self._open: set[socket.socket] = set()
        self.is_cut = False
        threading.Thread(target=self._accept, daemon=True).start()

    def cut(self) -> None:
        """Nothing gets through any more, and what was open is reset."""
        self.is_cut = True
        for one in list(self._open):
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)

    def mend(self) -> None:
        self.is_cut = False

    def close(self) -> None:
        self.cut()
        self._listener.close()

    def _accept(self) -> None:
        while True:
            try:
                near, _ = self._listener.accept()
            except OSError:
                return
            if self.is_cut:
                near.close()
                continue
            threading.Thread(target=self._pass, args=[near], daemon=True).start()

    def _pass(self, near: socket.socket) -> None:
        with near, contextlib.suppress(OSError), socket.create_connection(self._target) as far:
            self._open |= {near, far}
            ways = selectors.DefaultSelector()
            ways.register(near, selectors.EVENT_READ, far)
            ways.register(far, selectors.EVENT_READ, near)
            try:
                while True:
                    for key, _ in ways.select():
                        source: Any = key.fileobj
                        if not (chunk := source.recv(65536)):
                            return
                        key.data.sendall(chunk)
            finally:
                self._open -= {near, far}
                ways.close()


class Guard:
    """One admission process and its database."""

    def __init__(self, plane: ControlPlane, directory: Path, *, database: str, key: str) -> None:
        parts = urlsplit(database)
        assert parts.hostname
        assert parts.port
        self.plane = plane
        self.relay = Relay((parts.hostname, parts.port))
        self.database = database
        self.port = free_port()
        self.data = directory / "data"
        self.data.mkdir(mode=0o700)
        self.environment = {
            "PATH": os.environ["PATH"],
            "CLEARANCE_DATA": str(self.data),
            "CLUSTER_URL": f"kubernetes:{CONTEXT}",
            "KUBECONFIG": str(plane.kubeconfig),
            "DATABASE_URL": database.replace(f":{parts.port}/", f":{self.relay.port}/"),
            "REDIS_URL": "redis://127.0.0.1:1",  # doorbells may be missing
            "SECRET_KEY": key,
        }
        self.process: subprocess.Popen[bytes] | None = None
        self.manage("migrate", "-v0")
        self.manage("shell", "-v0", "-c", STARTER)

    def manage(self, *words: str) -> None:
        command = [sys.executable, str(ROOT / "manage.py"), *words]
        subprocess.run(command, env=self.environment, cwd=ROOT, check=True, timeout=120)

    def start(self) -> None:
        """Start it and wait until it is ready."""
        assert self.plane.callers is not None
        command = [
            sys.executable, str(ROOT / "manage.py"), "admission",
            "--url", f"https://127.0.0.1:{self.port}", "--port", str(self.port),
            "--client-ca-file", str(self.plane.callers.path),
        ]  # fmt: skip
        self.process = subprocess.Popen(
            command, env=self.environment, cwd=ROOT, preexec_fn=with_parent_death
        )
        self.until(lambda: self.page("/readyz")[0] == 200, "ready")

    def end(self, how: signal.Signals = signal.SIGTERM) -> int:
        """End it; its exit status."""
        process, self.process = self.process, None
        if process is None:
            return 0
        process.send_signal(how)
        return process.wait(30)

    def page(self, path: str) -> tuple[int, str]:
        """A page of its own server; 0 when nobody answers."""
        context = ssl.create_default_context()
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        url = f"https://127.0.0.1:{self.port}{path}"
        try:
            with urllib.request.urlopen(url, timeout=5, context=context) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            with error:
                return error.code, error.read().decode()
        except OSError:
            return 0, ""

    def review(self, *, shown: tuple[Path, Path] | None) -> tuple[int, str]:
        """What somebody is answered who asks a webhook with that certificate and key, or none.

        Raises ssl.SSLError when the connection itself is refused.
        """
        context = ssl.create_default_context()
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        if shown is not None:
            context.load_cert_chain(*shown)
        asking = http.client.HTTPSConnection("127.0.0.1", self.port, timeout=5, context=context)
        with contextlib.closing(asking):
            asking.request("POST", "/validate/workloads", body=b"{}")
            answer = asking.getresponse()
            return answer.status, answer.read().decode()

    def until(self, holds: Any, what: str) -> Any:
        """The first true answer."""
        deadline = time.monotonic() + PATIENCE_SECONDS
        while not (found := holds()):
            assert self.process is None or self.process.poll() is None, "admission has ended"
            assert time.monotonic() < deadline, f"never {what}"
            time.sleep(0.1)
        return found

    def decisions(self, namespace: str) -> list[dict[str, Any]]:
        """Decisions recorded about that namespace, oldest first."""
        columns = ("uid", "subject_kind", "subject_id", "outcome", "stage", "messages")
        query = f"SELECT {', '.join(columns)} FROM governance_decision WHERE namespace = %s"
        with psycopg.connect(self.database) as connection:
            rows = connection.execute(f"{query} ORDER BY at", [namespace]).fetchall()
        return [dict(zip(columns, row, strict=True)) for row in rows]

    def close(self) -> None:
        """End it, and leave nothing in the cluster that asks for it."""
        self.end(signal.SIGKILL)
        for path in CONFIGURATIONS:
            self.plane.request("DELETE", path)
        self.plane.request("DELETE", "/api/v1/namespaces/default/secrets/clearance-admission-tls")
        self.relay.close()


@contextlib.contextmanager
def guard(plane: ControlPlane, directory: Path, *, database: str, key: str) -> Iterator[Guard]:
    """A running admission process; its webhooks are gone afterwards."""
    made = Guard(plane, directory, database=database, key=key)
    try:
        made.start()
        yield made
    finally:
        made.close()


def said(refusal: Exception) -> str:
    """The sentence in a refusal of the API server."""
    try:
        return str(json.loads(str(refusal))["message"])
    except (ValueError, KeyError):
        return str(refusal)

"""A real Kubernetes control plane for tests: etcd, API server, controllers, scheduler, KWOK.

Only the kubelets are simulated (`stages.yaml` says how they behave). The programs come from
`KUBEBUILDER_ASSETS`, from `PATH`, or from where `.ci/control-plane` builds them.
"""

import contextlib
import json
import os
import secrets
import shutil
import ssl
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from tests.authorities import PrivateAuthority
from tests.with_servers import free_port, with_parent_death

PROGRAMS = ("etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler", "kwok")
BUILT = (
    Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "clearance" / "control-plane"
)
STAGES = Path(__file__).with_name("stages.yaml")
START_SECONDS = 120.0
STOP_SECONDS = 20.0
CONTEXT = "tests"


class Refusal(Exception):
    """The API server said no; `status` is HTTP's."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


class MissingControlPlane(Exception):
    """A program is not there; the message names it and what builds it."""


def find_programs() -> dict[str, str]:
    """Paths of all programs. Raises MissingControlPlane."""
    places = [os.environ.get("KUBEBUILDER_ASSETS", ""), str(BUILT), os.environ.get("PATH", "")]
    path = os.pathsep.join(place for place in places if place)
    found = {name: shutil.which(name, path=path) for name in PROGRAMS}
    if missing := [name for name, where in found.items() if not where]:
        raise MissingControlPlane(f"needs {missing[0]}: bash .ci/control-plane builds it")
    return {name: where for name, where in found.items() if where}


@dataclass(frozen=True, slots=True)
class ControlPlane:
    """A running control plane: its API, the administrator's kubeconfig, and its files."""

    url: str
    kubeconfig: Path
    directory: Path
    token: str
    # Of the certificate that the API server shows to webhooks; None where that is not known.
    callers: PrivateAuthority | None = None

    def request(
        self,
        method: str,
        path: str,
        body: Any = None,
        *,
        content_type: str = "application/json",
        accept: str = "application/json",
        is_text: bool = False,
        user: str = "",
    ) -> Any:
        """One call as the administrator, or as a `user` who may do as much.

        Raises Refusal, OSError.
        """
        person = {"Impersonate-User": user, "Impersonate-Group": "system:masters"} if user else {}
        request = urllib.request.Request(
            self.url + path,
            method=method,
            data=None if body is None else json.dumps(body).encode(),
            headers={
                "Authorization": f"Bearer {self.token}",
                "Content-Type": content_type,
                "Accept": accept,
                **person,
            },
        )
        trusted = ssl.create_default_context(cafile=str(self.directory / "certs" / "apiserver.crt"))
        try:
            with urllib.request.urlopen(request, timeout=10, context=trusted) as answer:
                content = answer.read()
        except urllib.error.HTTPError as error:
            with error:
                raise Refusal(error.code, error.read().decode(errors="replace")) from None
        return content.decode() if is_text else json.loads(content or b"null")

    def add_node(self, name: str, *, gpus: int = 0) -> None:
        """A simulated node that offers this many GPUs."""
        capacity = {"cpu": "32", "memory": "128Gi", "pods": "110", "nvidia.com/gpu": str(gpus)}
        labels = {"type": "kwok", "nvidia.com/gpu.product": "SIMULATED"}
        metadata = {"name": name, "labels": labels, "annotations": {"kwok.x-k8s.io/node": "fake"}}
        self.request(
            "POST", "/api/v1/nodes", {"apiVersion": "v1", "kind": "Node", "metadata": metadata}
        )
        change = {"status": {"capacity": capacity, "allocatable": capacity}}
        self.request(
            "PATCH", f"/api/v1/nodes/{name}/status", change,
            content_type="application/merge-patch+json",
        )  # fmt: skip

    def add_namespace(self, name: str, *accounts: str) -> None:
        """A namespace with its service accounts."""
        self.request("POST", "/api/v1/namespaces", _named("v1", "Namespace", name))
        for account in accounts:
            self.request(
                "POST", f"/api/v1/namespaces/{name}/serviceaccounts",
                _named("v1", "ServiceAccount", account),
            )  # fmt: skip


@contextlib.contextmanager
def control_plane(directory: Path, *server_arguments: str) -> Iterator[ControlPlane]:
    """All of it, running and answering; ended afterwards. Raises MissingControlPlane.

    `server_arguments` are more of the API server's.
    """
    programs = find_programs()
    with contextlib.ExitStack() as stack:
        etcd, peer, port = free_port(), free_port(), free_port()
        token = secrets.token_urlsafe(24)
        _write_keys(directory, token)
        callers = PrivateAuthority(directory / "callers")
        _write_admission(directory, callers)
        plane = ControlPlane(
            f"https://127.0.0.1:{port}", directory / "kubeconfig", directory, token, callers
        )

        def start(name: str, *arguments: str) -> "subprocess.Popen[bytes]":
            log = directory / f"{name}.log"
            return stack.enter_context(_process(programs[name], *arguments, log=log))

        start(
            "etcd", f"--data-dir={directory / 'etcd'}", "--unsafe-no-fsync=true",
            f"--listen-client-urls=http://127.0.0.1:{etcd}",
            f"--advertise-client-urls=http://127.0.0.1:{etcd}",
            f"--listen-peer-urls=http://127.0.0.1:{peer}",
            f"--initial-advertise-peer-urls=http://127.0.0.1:{peer}",
            f"--initial-cluster=default=http://127.0.0.1:{peer}",
        )  # fmt: skip
        arguments = _server_arguments(directory, etcd=etcd, port=port)
        server = start("kube-apiserver", *arguments, *server_arguments)
        _wait_ready(plane, server)
        _write_kubeconfig(plane)
        kubeconfig = f"--kubeconfig={plane.kubeconfig}"
        key = directory / "sa.key"
        start(
            "kube-controller-manager", kubeconfig, "--leader-elect=false", "--secure-port=0",
            "--use-service-account-credentials=true", f"--service-account-private-key-file={key}",
            f"--root-ca-file={directory / 'certs' / 'apiserver.crt'}",
            "--node-monitor-period=1s", "--node-monitor-grace-period=20s",
            "--terminated-pod-gc-threshold=0",
        )  # fmt: skip
        start("kube-scheduler", kubeconfig, "--leader-elect=false", "--secure-port=0")
        start(
            "kwok", kubeconfig, f"--config={STAGES}",
            # Other nodes are real processes: tests/cluster/kubelet.py looks after their pods.
            "--manage-all-nodes=false",
            "--manage-nodes-with-annotation-selector=kwok.x-k8s.io/node=fake",
            "--node-lease-duration-seconds=40", "--enable-crds=",
        )  # fmt: skip
        yield plane


def _server_arguments(directory: Path, *, etcd: int, port: int) -> list[str]:
    key = directory / "sa.key"
    return [
        f"--etcd-servers=http://127.0.0.1:{etcd}", f"--secure-port={port}",
        "--bind-address=127.0.0.1", "--endpoint-reconciler-type=none",
        f"--cert-dir={directory / 'certs'}", "--service-cluster-ip-range=10.0.0.0/24",
        "--service-account-issuer=https://kubernetes.default.svc",
        f"--service-account-key-file={key}", f"--service-account-signing-key-file={key}",
        "--authorization-mode=RBAC", f"--token-auth-file={directory / 'tokens.csv'}",
        f"--admission-control-config-file={directory / 'admission.json'}",
        "--allow-privileged=true", "--enable-priority-and-fairness=false",
    ]  # fmt: skip


def _write_keys(directory: Path, token: str) -> None:
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    (directory / "sa.key").write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.TraditionalOpenSSL,
            serialization.NoEncryption(),
        )
    )
    (directory / "tokens.csv").write_text(f'{token},admin,admin,"system:masters"\n')


def _write_admission(directory: Path, callers: PrivateAuthority) -> None:
    """What the API server shows to webhooks, as docs/install.md says it."""
    certificate, key = callers.client("kube-apiserver")
    shown = {"client-certificate": str(certificate), "client-key": str(key)}
    kubeconfig = directory / "webhooks.json"
    users = [{"name": "*", "user": shown}]
    kubeconfig.write_text(json.dumps({"apiVersion": "v1", "kind": "Config", "users": users}))
    settings = {
        "apiVersion": "apiserver.config.k8s.io/v1", "kind": "WebhookAdmissionConfiguration",
        "kubeConfigFile": str(kubeconfig),
    }  # fmt: skip
    names = ("ValidatingAdmissionWebhook", "MutatingAdmissionWebhook")
    content = {
        "apiVersion": "apiserver.config.k8s.io/v1", "kind": "AdmissionConfiguration",
        "plugins": [{"name": name, "configuration": settings} for name in names],
    }  # fmt: skip
    (directory / "admission.json").write_text(json.dumps(content))


def _write_kubeconfig(plane: ControlPlane) -> None:
    authority = plane.directory / "certs" / "apiserver.crt"
    cluster = {"server": plane.url, "certificate-authority": str(authority)}
    content = {
        "apiVersion": "v1", "kind": "Config", "current-context": CONTEXT,
        "clusters": [{"name": CONTEXT, "cluster": cluster}],
        "users": [{"name": CONTEXT, "user": {"token": plane.token}}],
        "contexts": [{"name": CONTEXT, "context": {"cluster": CONTEXT, "user": CONTEXT}}],
    }  # fmt: skip
    plane.kubeconfig.write_text(json.dumps(content))


def _wait_ready(plane: ControlPlane, server: "subprocess.Popen[bytes]") -> None:
    deadline = time.monotonic() + START_SECONDS
    while True:
        with contextlib.suppress(OSError, Refusal):
            plane.request("GET", "/readyz", is_text=True)
            plane.request("GET", "/api/v1/namespaces/default")
            return
        if time.monotonic() > deadline or server.poll() is not None:
            tail = (plane.directory / "kube-apiserver.log").read_text()[-2000:]
            raise AssertionError(f"the API server is not ready: {tail}")
        time.sleep(0.2)


@contextlib.contextmanager
def _process(*command: str, log: Path) -> Iterator["subprocess.Popen[bytes]"]:
    with log.open("wb") as stream:
        process = subprocess.Popen(
            command, stdout=stream, stderr=subprocess.STDOUT, preexec_fn=with_parent_death,
            env={"PATH": os.environ["PATH"], "HOME": str(log.parent)}, cwd=log.parent,
        )  # fmt: skip
    try:
        yield process
    finally:
        process.terminate()
        try:
            process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait(STOP_SECONDS)


def _named(version: str, kind: str, name: str) -> dict[str, Any]:
    return {"apiVersion": version, "kind": kind, "metadata": {"name": name}}

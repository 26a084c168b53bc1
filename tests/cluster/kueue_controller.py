"""The real Kueue controller for tests, beside a control plane of tests.

Kueue's webhooks are left out. What they default, the product sets itself (a queued Job starts
suspended), and what they refuse, no test writes; a webhook would have to be reached by the API
server under a name of a Service, which nothing here resolves. The resource definitions are Kueue's
own, reduced to the version that the controller speaks, so that nothing has to be converted.
"""

import contextlib
import datetime as dt
import json
import os
import shutil
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from tests.cluster.control_plane import BUILT, ControlPlane, Refusal
from tests.with_servers import free_port, with_parent_death

VERSION = "v1beta2"
MODULE = "sigs.k8s.io/kueue@v0.15.2"
PLACES = (BUILT.with_name("bin"), BUILT)  # where the build leaves programs
NAMESPACE = "kueue-system"
CERTIFICATES = "kueue-webhook-server-cert"
START_SECONDS = 90.0
STOP_SECONDS = 10.0
APPLY = "application/apply-patch+yaml"
# What the controller must find served before it starts.
SERVED = ("admissionchecks", "clusterqueues", "localqueues", "resourceflavors", "workloads")


class MissingKueue(Exception):
    """The program or its resource definitions are not there; the message says what brings them."""


def find_kueue() -> tuple[str, Path]:
    """The program, and the directory of its resource definitions. Raises MissingKueue."""
    path = os.pathsep.join([*map(str, PLACES), os.environ.get("PATH", "")])
    program = shutil.which("kueue", path=path)
    if program is None:
        raise MissingKueue("needs kueue: bash .ci/control-plane builds it")
    cache = Path(os.environ.get("GOMODCACHE") or Path.home() / "go" / "pkg" / "mod")
    for directory in (
        BUILT.with_name("kueue") / "crds",
        cache / MODULE / "config" / "components" / "crd" / "bases",
    ):
        if directory.is_dir():
            return program, directory
    raise MissingKueue(f"needs the resource definitions of Kueue: go mod download {MODULE}")


def install_definitions(plane: ControlPlane, directory: Path) -> None:
    """Apply Kueue's resource definitions with one version each, and wait until they are served."""
    for path in sorted(directory.glob("kueue.x-k8s.io_*.yaml")):
        document = yaml.safe_load(path.read_text())
        spec = document["spec"]
        spec["versions"] = [one for one in spec["versions"] if one["name"] == VERSION]
        spec["versions"][0] |= {"served": True, "storage": True}
        # Never called with a single version; Kueue wants to write its authority into it.
        spec["conversion"] = {
            "strategy": "Webhook",
            "webhook": {
                "conversionReviewVersions": ["v1"],
                "clientConfig": {"service": {"namespace": NAMESPACE, "name": "none"}},
            },
        }
        name = document["metadata"]["name"]
        url = f"/apis/apiextensions.k8s.io/v1/customresourcedefinitions/{name}"
        plane.request("PATCH", f"{url}?fieldManager=tests&force=true", document, content_type=APPLY)
    deadline = time.monotonic() + START_SECONDS
    for plural in SERVED:
        while True:
            with contextlib.suppress(Refusal):
                plane.request("GET", f"/apis/kueue.x-k8s.io/{VERSION}/{plural}")
                break
            assert time.monotonic() < deadline, f"{plural} is not served"
            time.sleep(0.1)


@contextlib.contextmanager
def kueue_controller(plane: ControlPlane) -> Iterator[None]:
    """Kueue with its resource definitions, running; ended afterwards. Raises MissingKueue."""
    program, definitions = find_kueue()
    install_definitions(plane, definitions)
    plane.add_namespace(NAMESPACE)
    # Kueue fills it with an authority of its own, as its manifests have it.
    secret = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": CERTIFICATES}}
    plane.request("POST", f"/api/v1/namespaces/{NAMESPACE}/secrets", secret)
    directory = plane.directory / "kueue"
    certificates = directory / "certs"
    certificates.mkdir(parents=True)
    _write_certificate(certificates)
    health = free_port()
    config = directory / "config.json"
    config.write_text(json.dumps(_configuration(certificates, health=health)))
    log = plane.directory / "kueue.log"
    with log.open("wb") as stream:
        process = subprocess.Popen(
            [program, f"--config={config}", f"--kubeconfig={plane.kubeconfig}"],
            stdout=stream, stderr=subprocess.STDOUT, preexec_fn=with_parent_death, cwd=directory,
            env={"PATH": os.environ["PATH"], "HOME": str(directory)},
        )  # fmt: skip
    try:
        _wait_started(process, log, health=health)
        yield
    finally:
        process.terminate()
        try:
            process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait(STOP_SECONDS)


def _write_certificate(directory: Path) -> None:
    """A certificate of its own: Kueue serves webhooks that nobody calls, and must find one."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "kueue")])
    now = dt.datetime.now(dt.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(minutes=5))
        .not_valid_after(now + dt.timedelta(days=1))
        .sign(key, hashes.SHA256())
    )
    pem = serialization.Encoding.PEM
    (directory / "tls.crt").write_bytes(certificate.public_bytes(pem))
    (directory / "tls.key").write_bytes(
        key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )


def _configuration(certificates: Path, *, health: int) -> dict[str, Any]:
    return {
        "apiVersion": f"config.kueue.x-k8s.io/{VERSION}",
        "kind": "Configuration",
        "namespace": NAMESPACE,
        "health": {"healthProbeBindAddress": f"127.0.0.1:{health}"},
        "metrics": {"bindAddress": "0"},
        "webhook": {"host": "127.0.0.1", "port": free_port(), "certDir": str(certificates)},
        "leaderElection": {"leaderElect": False},
        # Otherwise it reads certificates of its metrics under /etc.
        "internalCertManagement": {"enable": True},
        "clientConnection": {"qps": 50, "burst": 100},
        "integrations": {"frameworks": ["batch/job"]},
        "featureGates": {"VisibilityOnDemand": False, "MultiKueue": False},
    }


def _wait_started(process: "subprocess.Popen[bytes]", log: Path, *, health: int) -> None:
    """Until it says that it is ready, which it does once its certificates are in place."""
    deadline = time.monotonic() + START_SECONDS
    while True:
        with contextlib.suppress(OSError):
            urllib.request.urlopen(f"http://127.0.0.1:{health}/readyz", timeout=5).close()
            return
        if process.poll() is not None or time.monotonic() > deadline:
            raise AssertionError(f"Kueue did not start: {log.read_text()[-3000:]}")
        time.sleep(0.2)

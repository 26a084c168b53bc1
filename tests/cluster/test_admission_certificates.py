"""Certificates of the webhooks on a real API server: rotated under load, agreed on by replicas."""

import base64
import contextlib
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509

from agents.admission.certificates import Terms
from agents.admission.configurations import configurations
from agents.admission.keeping import SECRET_NAME, Keeper, Shown
from agents.admission.program import admission_engine
from agents.admission.server import AdmissionServer
from agents.cluster.kubernetes.api import KubernetesApi
from governance.services.bundles import ensure_starter_bundle
from tests.agents.admission_desk import Desk
from tests.cluster.conftest import APPLY, PATIENCE_SECONDS, numbers
from tests.cluster.control_plane import ControlPlane, Refusal
from tests.cluster.guard import CONFIGURATIONS
from tests.cluster.test_admission import governed, pod, pods
from tests.with_servers import free_port

pytestmark = [
    pytest.mark.slow,
    pytest.mark.contract,
    pytest.mark.django_db(transaction=True),
    pytest.mark.usefixtures("twins"),
]
# An authority every six seconds or so, and a serving certificate every three.
HASTE = Terms(authority_seconds=9, serving_seconds=4.5, overlap_seconds=1.5)
ROTATIONS = 2


@pytest.fixture
def place(plane: ControlPlane) -> Iterator[str]:
    """A namespace for the Secret; no webhook is left behind."""
    name = f"guards-{next(numbers)}"
    plane.add_namespace(name)
    yield name
    for path in CONFIGURATIONS:
        with contextlib.suppress(Refusal):  # there are none where a test ended early
            plane.request("DELETE", path)


@pytest.fixture
def desk(tmp_path: Path, twins: Any) -> Iterator[Desk]:
    ensure_starter_bundle(identity="https://clearance.test/bootstrap")
    engine = admission_engine("regorus:")
    made = Desk(tmp_path, engine)
    made.policies.refresh()
    yield made
    made.close()
    engine.close()


def repeat(step: Callable[[], None], *, seconds: float) -> Callable[[], None]:
    """Run it again and again in a thread; gives what ends that."""
    stop = threading.Event()

    def run() -> None:
        while not stop.wait(seconds):
            step()

    thread = threading.Thread(target=run, daemon=True)
    thread.start()

    def end() -> None:
        stop.set()
        thread.join(PATIENCE_SECONDS)

    return end


def test_authorities_change_under_load_without_a_refused_review(
    plane: ControlPlane, api: KubernetesApi, place: str, desk: Desk
) -> None:
    port, shown = free_port(), Shown()
    keeper = Keeper(
        api, shown, namespace=place, hosts=["127.0.0.1"], url=f"https://127.0.0.1:{port}",
        terms=HASTE,
    )  # fmt: skip
    server = AdmissionServer(desk.app, shown, host="127.0.0.1", port=port)
    serving = threading.Thread(target=server.run, daemon=True)
    serving.start()
    keeper.look()
    end = repeat(keeper.look, seconds=0.2)
    bundles: set[str] = set()
    serials: set[int] = set()
    asked = 0
    shop = governed(plane)
    try:
        deadline = time.monotonic() + PATIENCE_SECONDS
        while len(authorities(bundles)) <= ROTATIONS or len(serials) <= 2 * ROTATIONS:
            assert time.monotonic() < deadline, (len(bundles), len(serials))
            found = plane.request("GET", CONFIGURATIONS[1])
            bundles.add(found["webhooks"][0]["clientConfig"]["caBundle"])
            secret = plane.request("GET", f"/api/v1/namespaces/{place}/secrets/{SECRET_NAME}")
            shows = base64.b64decode(secret["data"]["tls.crt"])
            serials.add(x509.load_pem_x509_certificate(shows).serial_number)
            made = plane.request("POST", pods(shop, query="?dryRun=All"), pod(f"agent-{asked}"))
            assert made["metadata"]["labels"]["agent_id"] == "optimizer"
            asked += 1
    finally:
        end()
        server.should_exit = True
        serving.join(PATIENCE_SECONDS)
    assert asked > 20


def authorities(bundles: set[str]) -> set[int]:
    return {
        one.serial_number
        for bundle in bundles
        for one in x509.load_pem_x509_certificates(base64.b64decode(bundle))
    }


def test_replicas_agree_and_the_chart_owns_what_they_do_not(
    plane: ControlPlane, api: KubernetesApi, place: str
) -> None:
    """Inside a cluster the configurations are applied by somebody else, without a caBundle."""
    service = (place, "clearance-admission")
    host = f"clearance-admission.{place}.svc"
    # The chart makes the Secret, empty, since RBAC cannot say which ones may be made.
    metadata = {"name": SECRET_NAME}
    secrets = f"/api/v1/namespaces/{place}/secrets"
    plane.request("POST", secrets, {"apiVersion": "v1", "kind": "Secret", "metadata": metadata})
    replicas = [Keeper(api, Shown(), namespace=place, hosts=[host]) for _ in range(4)]
    replicas[0].look()
    assert not replicas[0].is_told
    for path, document in configurations(service=service).items():
        query = "?fieldManager=helm&fieldValidation=Strict"
        plane.request("PATCH", path + query, document, content_type=APPLY)
    threads = [threading.Thread(target=one.look) for one in replicas]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE_SECONDS)
    for one in replicas:
        one.look()
        assert one.is_told
    secret = plane.request("GET", f"/api/v1/namespaces/{place}/secrets/{SECRET_NAME}")
    for path in CONFIGURATIONS:
        for hook in plane.request("GET", path)["webhooks"]:
            assert hook["clientConfig"]["caBundle"] == secret["data"]["ca.crt"]
            assert hook["clientConfig"]["service"]["name"] == "clearance-admission"
    # The chart is applied again, as an upgrade does: what is trusted stays.
    for path, document in configurations(service=service).items():
        plane.request("PATCH", f"{path}?fieldManager=helm", document, content_type=APPLY)
        hooks = plane.request("GET", path)["webhooks"]
        assert {one["clientConfig"]["caBundle"] for one in hooks} == {secret["data"]["ca.crt"]}
    # Somebody deletes the Secret: what the webhooks trust is kept, and written down again.
    plane.request("DELETE", f"/api/v1/namespaces/{place}/secrets/{SECRET_NAME}")
    replicas[2].look()
    again = plane.request("GET", f"/api/v1/namespaces/{place}/secrets/{SECRET_NAME}")
    assert again["data"] == secret["data"]

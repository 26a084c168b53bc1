"""The kubelet of the tests is one: pods run as real processes, with what they ask for."""

import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.cluster.control_plane import ControlPlane, Refusal
from tests.cluster.kubelet import LABEL, kubelet

pytestmark = [pytest.mark.slow, pytest.mark.contract]

PATIENCE_SECONDS = 30.0
NAMESPACE = "processes"
PODS = f"/api/v1/namespaces/{NAMESPACE}/pods"
# Says what it was given, then waits to be told to end, and ends with a code of its own.
PROGRAM = """
import json, os, signal, sys, time
signal.signal(signal.SIGTERM, lambda *_: sys.exit(7))
token = open("/var/run/secrets/example/token").read() if os.geteuid() == 0 else ""
setting = open(os.environ["SETTING_FILE"]).read()
with open(os.environ["SAID"], "w") as file:
    json.dump({"env": dict(os.environ), "token": token, "setting": setting, "argv": sys.argv}, file)
time.sleep(60)
"""


@pytest.fixture(scope="module")
def node(plane: ControlPlane, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    directory = tmp_path_factory.mktemp("kubelet")
    with kubelet(plane.kubeconfig, directory, node="processes"):
        plane.add_namespace(NAMESPACE, "runner")
        yield directory


def eventually(holds: Callable[[], Any]) -> Any:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not (found := holds()):
        assert time.monotonic() < deadline
        time.sleep(0.1)
    return found


def pod(name: str, *command: str, **more: Any) -> dict[str, Any]:
    container = {"name": "main", "image": "any:1", "command": list(command), **more}
    return {
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "labels": {"app": name}},
        "spec": {
            "serviceAccountName": "runner", "nodeSelector": {LABEL: "true"},
            "restartPolicy": "Never", "automountServiceAccountToken": False,
            "terminationGracePeriodSeconds": 5, "containers": [container],
        },
    }  # fmt: skip


def phase(plane: ControlPlane, name: str) -> str:
    return str(plane.request("GET", f"{PODS}/{name}")["status"]["phase"])


def test_a_pod_runs_with_what_it_asks_for(plane: ControlPlane, node: Path, tmp_path: Path) -> None:
    settings = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "settings"},
                "data": {"greeting": "hello", "place": "shop"}}  # fmt: skip
    hidden = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "hidden"},
              "stringData": {"PASSWORD": "sesame"}}  # fmt: skip
    plane.request("POST", f"/api/v1/namespaces/{NAMESPACE}/configmaps", settings)
    plane.request("POST", f"/api/v1/namespaces/{NAMESPACE}/secrets", hidden)
    said = tmp_path / "said"
    wanted = pod(
        "asks", "python", "-c", PROGRAM, "$(GREETING), $$x $(NOBODY)",
        envFrom=[{"secretRef": {"name": "hidden"}}],
        env=[
            {"name": "GREETING", "valueFrom": {"configMapKeyRef": {"name": "settings",
                                                                   "key": "greeting"}}},
            {"name": "BOTH", "value": "$(GREETING) $(PASSWORD)"},
            {"name": "ME", "valueFrom": {"fieldRef": {"fieldPath": "metadata.labels['app']"}}},
            {"name": "SETTING_FILE", "value": "/etc/settings/place"},
            {"name": "SAID", "value": str(said)},
        ],
        volumeMounts=[{"name": "settings", "mountPath": "/etc/settings"},
                      {"name": "token", "mountPath": "/var/run/secrets/example"}],
    )  # fmt: skip
    token = {"serviceAccountToken": {"audience": "shop", "path": "token"}}
    wanted["spec"]["volumes"] = [
        {"name": "settings", "configMap": {"name": "settings"}},
        {"name": "token", "projected": {"sources": [token]}},
    ]
    made = plane.request("POST", PODS, wanted)
    eventually(lambda: said.exists() and said.read_text().endswith("}"))
    found = json.loads(said.read_text())
    assert found["env"]["BOTH"] == "hello sesame"
    assert (found["env"]["ME"], found["setting"]) == ("asks", "shop")
    assert found["argv"][1:] == ["hello, $x $(NOBODY)"]
    review = plane.request(
        "POST", "/apis/authentication.k8s.io/v1/tokenreviews",
        {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenReview",
         "spec": {"token": found["token"], "audiences": ["shop"]}},
    )  # fmt: skip
    extra = review["status"]["user"]["extra"]
    assert extra["authentication.kubernetes.io/pod-uid"] == [made["metadata"]["uid"]]
    plane.request("DELETE", f"{PODS}/asks")
    eventually(lambda: is_gone(plane, "asks"))


def is_gone(plane: ControlPlane, name: str) -> bool:
    try:
        plane.request("GET", f"{PODS}/{name}")
    except Refusal as refusal:
        return refusal.status == 404
    return False


def test_an_exit_code_ends_the_pod(plane: ControlPlane, node: Path) -> None:
    program = "print('before the end', flush=True); raise SystemExit(3)"
    plane.request("POST", PODS, pod("ends", "python", "-c", program))
    eventually(lambda: phase(plane, "ends") == "Failed")
    (status,) = plane.request("GET", f"{PODS}/ends")["status"]["containerStatuses"]
    assert status["state"]["terminated"]["exitCode"] == 3
    logs = plane.request("GET", f"{PODS}/ends/log", accept="*/*", is_text=True)
    assert logs == "before the end\n"
    plane.request("DELETE", f"{PODS}/ends")


def test_what_cannot_start_waits_and_says_why(plane: ControlPlane, node: Path) -> None:
    wanted = pod("waits", "no-such-program")
    plane.request("POST", PODS, wanted)

    def reason() -> Any:
        status = plane.request("GET", f"{PODS}/waits")["status"]
        (one,) = status.get("containerStatuses") or [{}]
        return (one.get("state") or {}).get("waiting", {}).get("reason")

    eventually(lambda: reason() == "CreateContainerError")
    plane.request("DELETE", f"{PODS}/waits")
    eventually(lambda: is_gone(plane, "waits"))


def test_a_pod_that_is_always_restarted_is(plane: ControlPlane, node: Path) -> None:
    wanted = pod("again", "python", "-c", "import time; time.sleep(0.2)")
    wanted["spec"]["restartPolicy"] = "Always"
    plane.request("POST", PODS, wanted)

    def restarts() -> int:
        status = plane.request("GET", f"{PODS}/again")["status"]
        return sum(one["restartCount"] for one in status.get("containerStatuses") or [])

    eventually(lambda: restarts() >= 2)
    plane.request("DELETE", f"{PODS}/again")
    eventually(lambda: is_gone(plane, "again"))

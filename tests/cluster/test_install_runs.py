"""The installation at work: the chart's own pods, as processes of this machine, on a real cluster.

Each process runs under its own service account with the token its pod is given; PostgreSQL, Redis
and the store of spans are real. What no cluster of ours has is replaced: addresses of pods and
services are ports of loopback, and a claim is a directory.
"""

import base64
import fcntl
import json
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from agents.admission.draining import ODD_SUFFIX
from agents.admission.spool import line_of
from tests.agents.test_admission_spool import decision
from tests.cluster.conftest import MERGE
from tests.cluster.control_plane import ControlPlane, MissingControlPlane, Refusal, control_plane
from tests.cluster.installing import SYSTEM, WORKLOADS, apply, find_helm, kubectl, render
from tests.cluster.kubelet import kubelet
from tests.cluster.rights import audit_arguments, refused
from tests.console.real_tower import free_ports
from tests.telemetry_store import start_store
from tests.with_servers import MissingServer, servers

pytestmark = [pytest.mark.slow, pytest.mark.contract, pytest.mark.timeout(600)]

Object = dict[str, Any]
PATIENCE_SECONDS = 240.0
PASSWORD = "a password of the test"
PORTS = {"web": 8000, "otlp": 4318, "admission": 8443}
AGENT = """
apiVersion: orchestration.ai/v1
kind: Agent
metadata: {name: tuner, namespace: agents}
spec:
  role: experimental
  image: registry.example/tuner:1.0
  command:
    - python
    - -uc
    - "import time, clearance_sdk\\nwith clearance_sdk.attempt():\\n time.sleep(600)"
  serviceAccountName: tuner
  resources: {limits: {nvidia.com/gpu: 1}}
  consumes: []
  produces: [model]
  estimate: {seconds: 3, gpuSeconds: 3, tokens: 0}
"""
GOAL = """
apiVersion: orchestration.ai/v1
kind: Goal
metadata: {name: tune, namespace: agents}
spec:
  objective: "p99 latency < 120 ms for /checkout"
  budget: 4 GPU-seconds
  agents: [tuner]
"""
POD = """
apiVersion: v1
kind: Pod
metadata: {name: %s, namespace: agents, labels: {agent_role: experimental}}
spec:
  serviceAccountName: tuner
  securityContext: {runAsNonRoot: true, seccompProfile: {type: RuntimeDefault}}
  containers:
    - name: main
      image: "%s"
      resources: {limits: {nvidia.com/gpu: %d}}
      securityContext: {allowPrivilegeEscalation: false, capabilities: {drop: [ALL]}}
"""


@dataclass(frozen=True, slots=True)
class Installation:
    """A cluster with Clearance in it."""

    plane: ControlPlane
    directory: Path
    ports: dict[str, int]

    def logs(self) -> str:
        found = sorted(self.directory.glob("node/pods/*/*.log"))
        return "\n".join(f"--- {path.name}\n{path.read_text()[-1500:]}" for path in found)

    def eventually(self, holds: Callable[[], Any], what: str) -> Any:
        deadline = time.monotonic() + PATIENCE_SECONDS
        while not (found := holds()):
            assert time.monotonic() < deadline, f"never {what}\n{self.logs()}"
            time.sleep(0.3)
        return found

    def pods(self, component: str) -> list[Object]:
        query = f"labelSelector=app.kubernetes.io/component={component}"
        return list(self.plane.request("GET", f"/api/v1/namespaces/{SYSTEM}/pods?{query}")["items"])

    def goal(self) -> Object:
        path = "/apis/orchestration.ai/v1/namespaces/agents/goals/tune"
        return dict(self.plane.request("GET", path).get("status") or {})

    def ask(self, method: str, path: str, body: Object | None = None, *, token: str = "") -> Any:
        request = urllib.request.Request(
            f"http://127.0.0.1:{self.ports['web']}/api/v1/{path}",
            method=method, data=None if body is None else json.dumps(body).encode(),
            headers={"Content-Type": "application/json",
                     **({"Authorization": f"Bearer {token}"} if token else {})},
        )  # fmt: skip
        with urllib.request.urlopen(request, timeout=20) as answer:
            return json.loads(answer.read())


def replaced(documents: list[Object], ports: dict[str, int], directory: Path) -> list[Object]:
    """What has addresses of its own in a cluster, and loopback's here."""
    for one in documents:
        name = one["metadata"]["name"].removeprefix("clearance-")
        if one["kind"] in WORKLOADS:
            (container,) = one["spec"]["template"]["spec"]["containers"]
            ready = str(directory / f"{name}.ready")
            for variable in container["env"]:
                if variable["name"] == "CLEARANCE_READY_FILE":
                    variable["value"] = ready
            if "exec" in container.get("readinessProbe", {}):
                container["readinessProbe"]["exec"]["command"] = ["test", "-e", ready]
            if name in ports:
                container["args"] = [
                    str(ports[name]) if word == str(PORTS[name]) else word
                    for word in container["args"]
                ]
                container["ports"][0]["containerPort"] = ports[name]
                container["env"] += [
                    {"name": f"{name.upper()}_HOST", "value": "127.0.0.1"},
                    {"name": f"{name.upper()}_PORT", "value": str(ports[name])},
                ]
        elif one["kind"] == "Service" and name == "admission":
            # As the API server resolves it: a name, since endpoints may not be loopback's.
            one["spec"] = {"type": "ExternalName", "externalName": "localhost"}
        elif one["kind"].endswith("WebhookConfiguration"):
            for hook in one["webhooks"]:
                hook["clientConfig"]["service"]["port"] = ports["admission"]
    return documents


def secret(variables: dict[str, str]) -> Object:
    content = {**variables, "SECRET_KEY": "k" * 50, "ADMIN_PASSWORD": PASSWORD}
    encoded = {name: base64.b64encode(one.encode()).decode() for name, one in content.items()}
    metadata = {"name": "clearance", "namespace": SYSTEM}
    return {"apiVersion": "v1", "kind": "Secret", "metadata": metadata, "data": encoded}


def volume(name: str, size: str) -> Object:
    """What a claim is bound to; the simulated kubelet keeps a directory for each."""
    return {
        "apiVersion": "v1", "kind": "PersistentVolume", "metadata": {"name": name},
        "spec": {"capacity": {"storage": size}, "accessModes": ["ReadWriteOnce"],
                 "hostPath": {"path": "/nowhere"}},
    }  # fmt: skip


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installation]:
    find_helm()
    directory = tmp_path_factory.mktemp("runs")
    (directory / "plane").mkdir()
    ports = dict(zip(PORTS, free_ports(len(PORTS)), strict=True))
    alone = {"replicas": 1}
    values = {
        "webUrl": f"http://127.0.0.1:{ports['web']}", "otlpUrl": f"http://127.0.0.1:{ports['otlp']}",
        "secret": {"adminPasswordKey": "ADMIN_PASSWORD"},
        "web": alone, "otlp": alone, "worker": alone, "operator": alone, "admission": alone,
        "node": {"runtimeClassName": ""},
    }  # fmt: skip
    try:
        with (
            # Not below /tmp, which pods have volumes of their own for.
            tempfile.TemporaryDirectory(prefix="clearance-ready-", dir="/var/tmp") as ready,
            servers() as variables,
            control_plane(directory / "plane", *audit_arguments(directory / "plane")) as plane,
            kubelet(plane.kubeconfig, directory / "node", gpus=4),
        ):
            store = start_store(directory)
            telemetry = f"clickhouse://default:{store.token}@127.0.0.1:{store.port}/default"
            found = Installation(plane, directory, ports)
            plane.add_namespace(SYSTEM)
            for name, size in (("state", "10Gi"), ("spool", "2Gi")):
                plane.request("POST", "/api/v1/persistentvolumes", volume(name, size))
            secrets = secret({**variables, "TELEMETRY_URL": telemetry})
            plane.request("POST", f"/api/v1/namespaces/{SYSTEM}/secrets", secrets)
            labels = {"metadata": {"labels": {"nvidia.com/gpu.present": "true"}}}
            found.eventually(lambda: plane.request("GET", "/api/v1/nodes")["items"], "a node")
            plane.request("PATCH", "/api/v1/nodes/processes", labels, content_type=MERGE)
            apply(plane, replaced(render(values), ports, Path(ready)))
            try:
                yield found
            finally:
                store.stop()
    except (MissingControlPlane, MissingServer) as missing:
        pytest.skip(str(missing))


def is_ready(pod: Object) -> bool:
    conditions = pod["status"].get("conditions") or []
    return any(one["type"] == "Ready" and one["status"] == "True" for one in conditions)


@pytest.mark.parametrize("name", ["web", "otlp", "worker", "beat", "operator", "node"])
def test_a_pod_of_each_process_becomes_ready(installed: Installation, name: str) -> None:
    installed.eventually(
        lambda: [one for one in installed.pods(name) if is_ready(one)], f"a ready {name}"
    )


def test_what_asks_whether_they_live_is_answered(installed: Installation) -> None:
    for name in ("web", "otlp"):
        (pod,) = installed.pods(name)
        asked = pod["spec"]["containers"][0]["livenessProbe"]["httpGet"]
        request = urllib.request.Request(
            f"http://127.0.0.1:{installed.ports[name]}{asked['path']}",
            headers={one["name"]: one["value"] for one in asked["httpHeaders"]},
        )
        with urllib.request.urlopen(request, timeout=20) as answer:
            assert answer.status == 200


def test_the_job_has_migrated_and_told_no_password(installed: Installation) -> None:
    installed.eventually(
        lambda: [one for one in installed.pods("init") if one["status"]["phase"] == "Succeeded"],
        "migrated",
    )
    assert PASSWORD not in installed.logs()
    assert "created the administrator admin" in installed.logs()


def test_the_webhooks_refuse_by_the_name_of_the_rule(installed: Installation) -> None:
    kind = "/apis/admissionregistration.k8s.io/v1/validatingwebhookconfigurations"

    def is_trusted() -> bool:
        hooks = installed.plane.request("GET", f"{kind}/clearance-admission")["webhooks"]
        return all(one["clientConfig"].get("caBundle") for one in hooks)

    installed.eventually(is_trusted, "trusted webhooks")
    kubectl(installed.plane, "create", "serviceaccount", "tuner", "-n", "agents")

    def said(image: str, gpus: int) -> str:
        words = ("apply", "--dry-run=server", "-f", "-")
        return kubectl(installed.plane, *words, given=POD % ("probe", image, gpus)).stderr

    # The API server may not have heard of the webhooks yet.
    latest = "registry.example/a:latest"
    installed.eventually(lambda: "admission.orchestration.ai" in said(latest, 0), "asked")
    assert "tag" in said(latest, 0)
    assert "limited to 2 GPUs" in said("registry.example/a:1", 3)


def test_decisions_outlive_the_pod_that_made_them(installed: Installation) -> None:
    """As when the database is away, and its pod is deleted meanwhile."""
    claims = installed.directory / "node" / "pods" / "claims" / SYSTEM
    (spool,) = claims.glob("state-clearance-admission-0/admission")
    left = spool / f"{0:020d}-1-0.decisions"
    with left.open("wb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)  # nobody takes it before the pod is another one
        file.write(line_of([decision()]))
        file.flush()
        (pod,) = installed.pods("admission")
        path = f"/api/v1/namespaces/{SYSTEM}/pods/{pod['metadata']['name']}"
        installed.plane.request("DELETE", path)

        def is_another() -> bool:
            uids = [
                one["metadata"]["uid"]
                for one in installed.pods("admission")
                if one["status"]["phase"] == "Running"
            ]
            return len(uids) == 1 and uids != [pod["metadata"]["uid"]]

        installed.eventually(is_another, "another pod of admission")
    installed.eventually(lambda: not left.exists(), "recorded")
    assert not list(spool.glob(f"*{ODD_SUFFIX}"))


def test_a_goal_runs_goes_over_budget_and_resumes(installed: Installation) -> None:
    """In a namespace as the chart makes it: what is not "restricted" gets no pod there."""
    namespace = installed.plane.request("GET", "/api/v1/namespaces/agents")
    assert namespace["metadata"]["labels"]["pod-security.kubernetes.io/enforce"] == "restricted"
    as_maria = ("--as=maria", "--as-group=system:masters")
    done = kubectl(installed.plane, "apply", "-f", "-", *as_maria, given=f"{AGENT}---{GOAL}")
    assert done.returncode == 0, done.stderr
    installed.eventually(lambda: installed.goal().get("phase") == "Paused", "over budget")
    token = installed.ask("POST", "login", {"username": "admin", "password": PASSWORD})["token"]

    def waiting() -> Any:
        return installed.ask("GET", "approvals?state=pending", token=token)["results"]

    (approval,) = installed.eventually(waiting, "an approval")
    assert approval["requested_by"] != "admin"
    installed.ask(
        "POST", f"approvals/{approval['uid']}/approve", token=token,
        body={"reason": "one more round", "request_digest": approval["request_digest"],
              "grant": int(approval["request"]["ask"])},
    )  # fmt: skip
    installed.eventually(lambda: installed.goal().get("phase") == "Running", "resumed")
    installed.eventually(
        lambda: [one for one in running_agents(installed) if one["status"]["phase"] == "Running"],
        "a pod again",
    )
    kubectl(installed.plane, "delete", "goal", "tune", "-n", "agents", "--wait=false")

    def is_gone() -> bool:
        try:
            installed.goal()
        except Refusal as refusal:
            return refusal.status == 404
        return False

    installed.eventually(is_gone, "landed")


def running_agents(installed: Installation) -> list[Object]:
    query = "labelSelector=orchestration.ai/workload"
    return list(installed.plane.request("GET", f"/api/v1/namespaces/agents/pods?{query}")["items"])


def test_nobody_asked_for_what_its_role_does_not_give(installed: Installation) -> None:
    refusals = refused(installed.plane)
    assert refusals == [], "\n".join(refusals)


def test_no_log_has_a_secret_or_a_traceback(installed: Installation) -> None:
    content = installed.plane.request("GET", f"/api/v1/namespaces/{SYSTEM}/secrets/clearance")
    secrets = [base64.b64decode(one).decode() for one in content["data"].values()]
    secrets += [urlsplit(one).password or one for one in secrets]
    for path in installed.directory.glob("node/pods/*/*.log"):
        text = path.read_text(errors="replace")
        assert "Traceback" not in text, text[-3000:]
        assert not [one for one in secrets if one in text], path.name

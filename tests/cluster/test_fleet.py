"""The survey on a real API server: nodes, GPUs, workloads of others, and what looks like agents."""

import contextlib
import itertools
import os
import signal
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
import yaml

from agents.attestation.base import TokenRefused
from agents.attestation.nodes import KubernetesNodeReviewer
from agents.catalogue.domain import LOOKS_LIKE
from agents.catalogue.proposals import propose
from agents.cluster.base import WorkloadPhase
from agents.cluster.kubernetes.api import KubernetesApi
from agents.gpus.domain import Source
from agents.models import ClusterSurvey, ClusterWorkload, GpuDevice, GpuNode
from agents.services.catalogue import entry_of
from agents.survey.surveyor import Survey
from goals.gpus.facts import device_views, visible_devices
from tests.agents.dcgm_metrics import metrics_text
from tests.cluster.conftest import APPLY, MERGE, PATIENCE_SECONDS, Stand, install_resources
from tests.cluster.control_plane import CONTEXT, ControlPlane
from tests.cluster.test_operator_process import manage, until

pytestmark = [
    pytest.mark.slow,
    pytest.mark.contract,
    pytest.mark.django_db(transaction=True),
    pytest.mark.usefixtures("twins"),
]

numbers = itertools.count(1)
IMAGE = "registry.example/train:latest"


class Site:
    """A namespace of somebody else's with a GPU node of its own, and the survey of the cluster."""

    def __init__(self, plane: ControlPlane, api: KubernetesApi) -> None:
        self.plane = plane
        self.namespace = f"foreign{next(numbers)}"
        self.node = f"{self.namespace}-gpus"
        plane.add_namespace(self.namespace)
        plane.add_node(self.node, gpus=3)
        spec = {"taints": [{"key": "fleet", "value": self.namespace, "effect": "NoSchedule"}]}
        labels = {"fleet": self.namespace}
        plane.request(
            "PATCH", f"/api/v1/nodes/{self.node}", {"metadata": {"labels": labels}, "spec": spec},
            content_type=MERGE,
        )  # fmt: skip
        self.survey = Survey(api, cluster=CONTEXT)
        self.survey.watch()

    def make(
        self, group: str, kind: str, name: str, spec: dict[str, Any] | None, **more: Any
    ) -> None:
        path = f"/{group}/namespaces/{self.namespace}/{kind.lower()}s?fieldValidation=Strict"
        body = {
            "apiVersion": group.partition("/")[2], "kind": kind, "metadata": {"name": name}, **more
        }  # fmt: skip
        self.plane.request("POST", path, body if spec is None else {**body, "spec": spec})

    def pod_template(self, name: str, *, gpus: int = 0, **spec: Any) -> dict[str, Any]:
        container: dict[str, Any] = {"name": "main", "image": IMAGE, **spec.pop("container", {})}
        if gpus:
            container["resources"] = {"limits": {"nvidia.com/gpu": gpus}}
        return {
            "metadata": {"labels": {"app": name}},
            "spec": {
                "containers": [container],
                "nodeSelector": {"fleet": self.namespace},
                "tolerations": [{"key": "fleet", "operator": "Exists"}],
                **spec,
            },
        }

    def deploy(self, name: str, *, replicas: int = 1, **template: Any) -> None:
        self.make(
            "apis/apps/v1", "Deployment", name,
            {
                "replicas": replicas, "selector": {"matchLabels": {"app": name}},
                "template": self.pod_template(name, **template),
            },
        )  # fmt: skip

    def until(self, holds: Callable[[], Any]) -> Any:
        """Look until it holds."""
        deadline = time.monotonic() + PATIENCE_SECONDS
        while True:
            self.survey.step()
            if found := holds():
                return found
            told = list(
                ClusterWorkload.objects.values_list("kind", "name", "state", "pods", "gpus")
            )
            assert time.monotonic() < deadline, f"{told} {ClusterSurvey.objects.values().first()}"
            time.sleep(0.2)

    def row(self, name: str, **fields: Any) -> ClusterWorkload | None:
        return ClusterWorkload.objects.filter(namespace=self.namespace, name=name, **fields).first()

    def holders(self) -> list[str]:
        rows = GpuDevice.objects.filter(node=self.node).order_by("held_by")
        return list(rows.values_list("held_by", flat=True))

    def close(self) -> None:
        self.survey.stop()
        for path in (f"namespaces/{self.namespace}", f"nodes/{self.node}"):
            self.plane.request("DELETE", f"/api/v1/{path}")


@pytest.fixture
def site(plane: ControlPlane, api: KubernetesApi) -> Iterator[Site]:
    one = Site(plane, api)
    yield one
    one.close()


def test_a_pod_that_ended_is_rung_for(stand: Stand) -> None:
    goal, rung = str(uuid4()), threading.Event()
    survey = Survey(
        stand.api, cluster=CONTEXT, ring=lambda uid: rung.set() if uid == goal else None
    )
    survey.watch()
    try:
        stand.cluster.create(stand.spec(goal_uid=goal))
        stand.until_phase("tune-1", WorkloadPhase.RUNNING)
        assert not rung.is_set()
        stand.end("tune-1", 0)
        assert rung.wait(PATIENCE_SECONDS)
    finally:
        survey.stop()


def test_gpus_of_others_are_told_with_who_holds_them(site: Site, tower: Any) -> None:
    site.deploy("train", replicas=2, gpus=1)
    row = site.until(lambda: site.row("train", kind="Deployment", state="running", running=2))
    assert (row.gpus, row.nodes) == (2, [site.node])
    node = GpuNode.objects.get(name=site.node)
    assert (node.source, node.is_measured) == (Source.CLUSTER, False)
    free, *held = site.holders()
    assert free == ""
    assert all(one.startswith(f"{site.namespace}/train-") for one in held)
    view = next(
        view
        for view in device_views(
            list(visible_devices(tower.admin).filter(node=site.node, held_by=held[0])), tower.admin
        )
    )
    assert view.foreign_holder is not None
    assert view.foreign_holder.workload == "Deployment train"
    assert view.foreign_holder.workload_uid == row.uid
    scale = f"/apis/apps/v1/namespaces/{site.namespace}/deployments/train"
    site.plane.request("PATCH", scale, {"spec": {"replicas": 0}}, content_type=MERGE)
    site.until(lambda: site.holders() == ["", "", ""])


def test_a_pod_that_finds_no_node_waits_and_says_why(site: Site) -> None:
    site.deploy("greedy", gpus=8)
    row = site.until(lambda: site.row("greedy", state="pending", reason="Unschedulable"))
    assert (row.pods, row.running, row.gpus) == (1, 0, 8)


def test_what_looks_like_an_agent_is_found_with_its_evidence(site: Site) -> None:
    variable = {"name": "OPENAI_API_KEY", "value": "sk-never-to-be-seen"}
    site.deploy("support-bot", container={"env": [variable]})
    site.deploy("web", serviceAccountName="web")
    site.make("api/v1", "ServiceAccount", "planner", None)
    rule = {"apiGroups": ["batch"], "resources": ["jobs"], "verbs": ["create", "get"]}
    rbac = "apis/rbac.authorization.k8s.io/v1"
    site.make(rbac, "Role", "job-maker", None, rules=[rule])
    site.make(
        rbac, "RoleBinding", "job-maker", None,
        roleRef={"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "job-maker"},
        subjects=[{"kind": "ServiceAccount", "name": "planner", "namespace": site.namespace}],
    )  # fmt: skip
    job = {"template": {**site.pod_template("night", serviceAccountName="planner")}}
    job["template"]["spec"]["restartPolicy"] = "Never"
    site.make(
        "apis/batch/v1", "CronJob", "night-agent",
        {"schedule": "0 2 * * *", "jobTemplate": {"spec": job}},
    )  # fmt: skip
    assert site.survey.scan()
    found = {row.name: row for row in ClusterWorkload.objects.filter(namespace=site.namespace)}
    assert set(found) >= {"support-bot", "night-agent", "planner", "web", "default"}
    codes = {name: {one["code"] for one in row.evidence} for name, row in found.items()}
    assert codes["support-bot"] == {"model-key", "default-account", "name", "mutable-image"}
    assert codes["night-agent"] == {"name", "creates-workloads", "night-schedule", "mutable-image"}
    assert codes["planner"] == {"creates-workloads", "runs-agents", "name"}
    assert (
        min(found[name].score for name in ("support-bot", "night-agent", "planner")) >= LOOKS_LIKE
    )
    assert max(found[name].score for name in ("web", "default")) < LOOKS_LIKE
    assert "sk-never-to-be-seen" not in str([row.__dict__ for row in found.values()])
    assert site.survey.scan()
    again = {row.name: row for row in ClusterWorkload.objects.filter(namespace=site.namespace)}
    assert [again[name].changed_at for name in found] == [row.changed_at for row in found.values()]


def test_what_is_proposed_is_what_the_api_server_takes(site: Site) -> None:
    install_resources(site.plane)
    site.deploy("support-bot", container={"env": [{"name": "ANTHROPIC_API_KEY", "value": "k"}]})
    site.survey.scan()
    row = site.row("support-bot", kind="Deployment")
    assert row is not None
    for document in yaml.safe_load_all(propose(entry_of(row)).text):
        site.plane.request("PATCH", _path(document), document, content_type=APPLY)
    path = f"/apis/apps/v1/namespaces/{site.namespace}/deployments/support-bot"
    template = site.plane.request("GET", path)["spec"]["template"]
    assert template["spec"]["serviceAccountName"] == "support-bot"
    assert template["metadata"]["labels"] == {"app": "support-bot", "agent_id": "support-bot"}
    assert template["spec"]["containers"][0]["image"] == IMAGE  # nothing else was touched
    site.until(lambda: site.row("support-bot", state="running", service_account="default"))
    site.survey.scan()
    row.refresh_from_db()
    assert row.service_account == "support-bot"


def test_a_samplers_token_speaks_for_the_node_it_runs_on(site: Site, api: KubernetesApi) -> None:
    account = f"{site.namespace}/node"
    reviewer = KubernetesNodeReviewer(api, account=account, audience="gpus")
    for name in ("node", "other"):
        site.make("api/v1", "ServiceAccount", name, None)
        spec = site.pod_template(name, serviceAccountName=name)["spec"]
        site.make("api/v1", "Pod", f"{name}-x", spec)
    for name in ("node-x", "other-x"):
        site.until(partial(site.row, name, state="running"))
    assert reviewer.node_of(_token(site, "node")) == site.node
    for token, why in (
        (_token(site, "other"), "Only the service account"),
        (_token(site, "node", audience="elsewhere"), "for audience gpus"),
        (_token(site, "node", pod=""), "not bound to a pod"),
        ("nonsense", "does not accept"),
    ):
        with pytest.raises(TokenRefused, match=why):
            reviewer.node_of(token)
    token = _token(site, "node")
    site.plane.request("DELETE", f"/api/v1/namespaces/{site.namespace}/pods/node-x")
    site.until(lambda: not site.row("node-x", state="running"))
    with pytest.raises(TokenRefused):
        reviewer.node_of(token)


def _token(site: Site, account: str, *, audience: str = "gpus", pod: str = "x") -> str:
    base = f"/api/v1/namespaces/{site.namespace}"
    spec: dict[str, Any] = {"audiences": [audience], "expirationSeconds": 600}
    if pod:
        found = site.plane.request("GET", f"{base}/pods/{account}-{pod}")["metadata"]
        reference = {"kind": "Pod", "apiVersion": "v1", "name": found["name"], "uid": found["uid"]}
        spec["boundObjectRef"] = reference
    body = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": spec}
    made = site.plane.request("POST", f"{base}/serviceaccounts/{account}/token", body)
    return str(made["status"]["token"])


def _path(document: dict[str, Any]) -> str:
    plurals = {
        "ServiceAccount": "serviceaccounts", "Role": "roles", "RoleBinding": "rolebindings",
        "Deployment": "deployments", "Agent": "agents",
    }  # fmt: skip
    version, metadata = document["apiVersion"], document["metadata"]
    root = f"/apis/{version}" if "/" in version else f"/api/{version}"
    place = f"{root}/namespaces/{metadata['namespace']}/{plurals[document['kind']]}"
    return f"{place}/{metadata['name']}?fieldManager=catalogue&fieldValidation=Strict"


@pytest.fixture
def exporter() -> Iterator[ThreadingHTTPServer]:
    """A server that speaks like dcgm-exporter, at an address that an API server will go to."""
    address = _own_address()
    if not address:
        pytest.skip("needs an address that is not loopback: the API server proxies to no other")
    server = ThreadingHTTPServer((address, 0), _Exporter)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


def _own_address() -> str:
    """An IPv4 address of this machine that is not loopback, "" without one."""
    with open("/proc/net/fib_trie") as table:
        lines = table.read().splitlines()
    own = [
        before.split()[-1]
        for before, line in itertools.pairwise(lines)
        if "/32 host LOCAL" in line and not before.split()[-1].startswith("127.")
    ]
    return next(iter(own), "")


class _Exporter(BaseHTTPRequestHandler):
    """GET /metrics."""

    text = ""

    def do_GET(self) -> None:
        content = self.text.encode()
        self.send_response(200 if self.path == "/metrics" else 404)
        self.send_header("Content-Type", "text/plain; version=0.0.4")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_: object) -> None:
        return


def test_dcgm_exporter_is_read_through_the_api_server(
    site: Site, exporter: ThreadingHTTPServer
) -> None:
    address, port = exporter.server_address[:2]
    site.deploy("train", gpus=1)
    pod = site.pod_template(
        "dcgm", container={"ports": [{"name": "metrics", "containerPort": port}]}
    )
    pod["metadata"]["labels"]["app.kubernetes.io/name"] = "dcgm-exporter"
    site.make(
        "api/v1", "Pod", "dcgm-x", pod["spec"], metadata={**pod["metadata"], "name": "dcgm-x"}
    )
    site.until(lambda: site.row("train", state="running"))
    site.until(lambda: site.row("dcgm-x", state="running"))
    train = next(one for one in site.holders() if one)
    path = f"/api/v1/namespaces/{site.namespace}/pods/dcgm-x/status"
    ip = {"status": {"podIP": str(address), "podIPs": [{"ip": str(address)}]}}
    site.plane.request("PATCH", path, ip, content_type=MERGE)
    _Exporter.text = metrics_text(
        host=site.node, pods={0: (site.namespace, train.partition("/")[2])}, cards=3
    )
    site.until(lambda: site.survey.scrape() and GpuNode.objects.get(name=site.node).is_measured)
    node = GpuNode.objects.get(name=site.node)
    assert (node.source, node.driver_version) == (Source.DCGM, "550.54.15")
    rows = {row.position: row for row in GpuDevice.objects.filter(node=site.node)}
    assert [rows[at].held_by for at in range(3)] == [train, "", ""]
    assert rows[0].utilisation == pytest.approx(0.93)
    _Exporter.text = "DCGM_FI_DEV_GPU_UTIL{broken"
    site.survey.scrape()
    site.survey.step()
    node.refresh_from_db()
    assert "cannot be read" in node.trouble
    assert GpuDevice.objects.filter(node=site.node).count() == 3  # the last figures stand


@pytest.mark.timeout(300)  # two starts of the operator, and the term of a dead one's Lease
def test_the_operator_surveys_and_one_that_was_killed_goes_on(site: Site, tmp_path: Path) -> None:
    install_resources(site.plane)
    data = tmp_path / "data"
    data.mkdir(mode=0o700)
    environment = {
        "PATH": os.environ["PATH"],
        "CLEARANCE_DATA": str(data),
        "CLUSTER_URL": f"kubernetes:{CONTEXT}",
        "KUBECONFIG": str(site.plane.kubeconfig),
        "REDIS_URL": "redis://127.0.0.1:1",
    }
    assert manage("migrate", "-v0", environment=environment).wait(PATIENCE_SECONDS) == 0
    site.deploy("train", gpus=1, container={"env": [{"name": "HF_TOKEN", "value": "k"}]})

    def told() -> Any:
        query = (
            "SELECT w.state, w.gpus, w.score, s.trouble, d.held_by FROM agents_clusterworkload w, "
            "agents_clustersurvey s, agents_gpudevice d WHERE w.name = 'train' AND w.kind = "
            "'Deployment' AND w.namespace = ? AND w.is_listed AND d.node_id = ? AND d.held_by != ''"
        )
        path = f"file:{data}/clearance.sqlite3?mode=ro"
        with contextlib.closing(sqlite3.connect(path, uri=True)) as rows:
            return rows.execute(query, (site.namespace, site.node)).fetchone()

    for signal_number in (signal.SIGKILL, signal.SIGTERM):
        process = manage("operator", "--lease-seconds", "3", environment=environment)
        try:
            until(lambda: (told() or [""])[0] == "running", "surveyed", process)
            state, gpus, score, trouble, held_by = told()
            assert (state, gpus, trouble) == ("running", 1, "")
            assert score >= LOOKS_LIKE
            assert held_by.startswith(f"{site.namespace}/train-")
        finally:
            process.send_signal(signal_number)
            process.wait(30)
        with contextlib.closing(sqlite3.connect(data / "clearance.sqlite3")) as rows, rows:
            rows.execute("UPDATE agents_clusterworkload SET state = '', gpus = 0")

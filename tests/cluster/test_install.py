"""The chart and its plain manifests, strictly, on a real API server and in a restricted place."""

import contextlib
import copy
import json
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from django.conf import settings

from tests.cluster.conftest import APPLY, MERGE, ROOT, enforce_level, numbers
from tests.cluster.control_plane import ControlPlane, MissingControlPlane, Refusal, control_plane
from tests.cluster.installing import (
    CHART,
    CLUSTER_WIDE,
    MANIFESTS,
    SYSTEM,
    apply,
    collection,
    find_helm,
    helm,
    pod_templates,
    read_objects,
    render,
)

pytestmark = [pytest.mark.slow, pytest.mark.contract, pytest.mark.timeout(300)]

Object = dict[str, Any]
PATIENCE_SECONDS = 60.0
RESTRICTED = {"pod-security.kubernetes.io/enforce": "restricted"}
DIGEST = "sha256:" + "a" * 64
VARIANTS: dict[str, Object] = {
    "as it is": {},
    "outside": {"external": {"enabled": True}},
    "bare": {
        "admission": {"enabled": False}, "invariants": {"enabled": False},
        "node": {"enabled": False, "reportTo": "database"}, "crds": {"install": False},
        "governedNamespaces": [],
        "networkPolicy": {"enabled": False}, "state": {"existingClaim": "keys"},
    },
    "everything": {
        "image": {"digest": DIGEST},
        "imagePullSecrets": [{"name": "pull"}],
        "secret": {"adminPasswordKey": "ADMIN_PASSWORD", "keys": [
            "DATABASE_URL", "REDIS_URL", "TELEMETRY_URL", "SECRET_KEY", "REGISTRY_URL"]},
        "webUrl": "https://clearance.example", "otlpUrl": "https://spans.example",
        "environment": {"FOUR_EYES": 1, "APPROVAL_QUORUM": 2},
        "ingress": {"enabled": True, "className": "nginx", "host": "clearance.example",
                    "annotations": {"example.com/a": "b"}, "tlsSecretName": "clearance-tls"},
        "networkPolicy": {
            "webFrom": [{"namespaceSelector": {"matchLabels": {"name": "ingress"}}}],
            "otlpFrom": [{"namespaceSelector": {}}],
            "egress": [{"to": [{"ipBlock": {"cidr": "10.0.0.0/8"}}]}]},
        "governedNamespaces": [{"name": "shop", "create": True, "allowRoot": True},
                               {"name": "default", "create": False}],
        "worker": {"replicas": 3, "concurrency": 8, "nodeSelector": {"disk": "ssd"},
                   "tolerations": [{"key": "gpu", "operator": "Exists"}]},
        "node": {"runtimeClassName": "", "reportCa": {"configMap": "authority"}},
        "state": {"storageClassName": "fast"},
        "admission": {"spool": {"storageClassName": "fast"}, "clientCa": {"configMap": "callers"}},
    },
}  # fmt: skip
WRONG: list[tuple[Object, str]] = [
    ({"web": {"replica": 3}}, "additional properties 'replica' not allowed"),
    ({"beat": {"replicas": 2}}, "at '/beat/replicas': value must be 1"),
    ({"image": {"tag": "latest"}}, "image.tag: latest is another image tomorrow"),
    ({"image": {"digest": "sha256:abc"}}, "at '/image/digest'"),
    ({"webUrl": "clearance.example"}, "at '/webUrl': 'clearance.example' does not match"),
    ({"secret": {"keys": ["DATABASE_URL"]}}, "secret.keys: REDIS_URL is missing"),
    ({"secret": {"keys": ["PASSWORD"]}}, "at '/secret/keys/0': value must be one of"),
    ({"environment": {"DATABASE_URL": "x"}}, "environment.DATABASE_URL: is set by secret.keys"),
    (
        {"environment": {"WORKLOAD_ROOT_NAMESPACES": "x"}},
        "environment.WORKLOAD_ROOT_NAMESPACES: is set by governedNamespaces",
    ),
    ({"state": {"accessModes": ["ReadWriteOncePod"]}}, "at '/state/accessModes/0'"),
    (
        {"web": {"nodeSelector": {"zone": "a"}}, "worker": {"nodeSelector": {"zone": "b"}}},
        "worker.nodeSelector.zone: web, otlp, worker and init share the signing log",
    ),
    ({"node": {"hostPID": True}}, "node.hostPID: pods that see the processes of their node"),
    ({"node": {"namespace": "nodes"}}, "node.namespace: the Secret with DATABASE_URL is not there"),
    ({"node": {"reportTo": "http://web"}}, "at '/node/reportTo'"),
    ({"environment": {"lower": "x"}}, "'lower' does not match pattern"),
    ({"logLevel": "LOUD"}, "at '/logLevel': value must be one of"),
    ({"worker": {"concurrency": 0}}, "at '/worker/concurrency': minimum"),
    ({"ingress": {"enabled": True}}, "ingress.host: clearance.example is not the host of webUrl"),
    (
        {"governedNamespaces": [{"name": SYSTEM, "create": False}]},
        "clearance-system runs the cluster or Clearance itself",
    ),
]


@pytest.fixture(scope="module")
def plane(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ControlPlane]:
    """A control plane of this module's own: what is installed here holds for a whole cluster."""
    try:
        with control_plane(tmp_path_factory.mktemp("install")) as running:
            runtime = {"apiVersion": "node.k8s.io/v1", "kind": "RuntimeClass", "handler": "nvidia",
                       "metadata": {"name": "nvidia"}}  # fmt: skip
            running.request("POST", "/apis/node.k8s.io/v1/runtimeclasses", runtime)
            for name in (SYSTEM, "shop", "agents"):
                running.add_namespace(name)
            yield running
    except MissingControlPlane as missing:
        pytest.skip(str(missing))


def eventually(holds: Callable[[], Any], what: str) -> Any:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not (found := holds()):
        assert time.monotonic() < deadline, what
        time.sleep(0.2)
    return found


# --- The chart alone ------------------------------------------------------------------------


def test_the_chart_takes_the_files_of_deploy_as_they_are() -> None:
    for name in ("crds", "admission"):
        assert (CHART / "files" / name).resolve() == ROOT / "deploy" / name


def test_helm_finds_nothing_wrong_with_the_chart() -> None:
    done = helm("lint", "--strict", str(CHART))
    assert done.returncode == 0, done.stdout


def test_the_manifests_are_rendered_from_the_chart(tmp_path: Path) -> None:
    find_helm()
    subprocess.run([MANIFESTS / "render", tmp_path], check=True, timeout=60)
    names = sorted(one.name for one in MANIFESTS.glob("*.yaml"))
    assert names == sorted(one.name for one in tmp_path.iterdir())
    for name in names:
        same = (MANIFESTS / name).read_text() == (tmp_path / name).read_text()
        assert same, f"deploy/manifests/{name} is not what the chart says: run `make manifests`"


@pytest.mark.parametrize(("values", "said"), WRONG, ids=[said for _, said in WRONG])
def test_a_wrong_value_is_refused_by_name(values: Object, said: str) -> None:
    done = helm("template", "clearance", str(CHART), "-n", SYSTEM, values=values)
    assert done.returncode != 0
    assert said in done.stderr


def test_another_version_migrates_by_another_job() -> None:
    def name(values: Object) -> str:
        (job,) = [one for one in render(values) if one["kind"] == "Job"]
        return str(job["metadata"]["name"])

    assert name({}) == name({"web": {"replicas": 5}})
    assert name({}) != name({"image": {"tag": "0.2.0"}})


def test_no_pod_has_a_secret_in_its_environment() -> None:
    for name, template in pod_templates(render(VARIANTS["everything"])).items():
        spec = template["spec"]
        for container in [*spec["containers"], *spec.get("initContainers", [])]:
            for one in container["env"]:
                assert "secretKeyRef" not in (one.get("valueFrom") or {}), name
            assert "envFrom" not in container


@pytest.mark.parametrize(
    ("variant", "level", "said"),
    [("as it is", "restricted", None), ("everything", "baseline", "shop")],
)
def test_only_a_namespace_that_says_so_takes_root(
    variant: str, level: str, said: str | None
) -> None:
    documents = render(VARIANTS[variant])
    (labels,) = [one["metadata"]["labels"] for one in documents if one["kind"] == "Namespace"]
    assert labels["pod-security.kubernetes.io/enforce"] == level
    for name, template in pod_templates(documents).items():
        (container,) = template["spec"]["containers"]
        told = {one["name"]: one.get("value") for one in container["env"]}
        assert told.get("WORKLOAD_ROOT_NAMESPACES") == said, name


def test_the_image_is_what_the_chart_runs() -> None:
    lines = (ROOT / "deploy" / "Containerfile").read_text().replace("\\\n", " ").splitlines()
    said = [line.split(None, 1) for line in lines if line and not line.startswith("#")]
    last = max(at for at, (word, _) in enumerate(said) if word == "FROM")
    copied = {rest.split()[0] for word, rest in said[last:] if word == "COPY"}
    ours = {name for name in settings.INSTALLED_APPS if (ROOT / name).is_dir()}
    assert ours | {"templates", "static", "deploy/admission", "deploy/crds"} <= copied
    allowed = (ROOT / ".dockerignore").read_text().split()
    assert all(f"!{path}" in allowed for path in copied - {"--from=packages"})
    assert any("--require-hashes" in rest for word, rest in said if word == "RUN")
    assert not [rest for word, rest in said if word == "ADD" or ":latest" in rest]
    told = dict(one for one in said[last:] if one[0] in ("USER", "ENTRYPOINT"))
    for name, template in pod_templates(render()).items():
        (container,) = template["spec"]["containers"]
        user = template["spec"]["securityContext"]
        assert told["USER"] == f"{user['runAsUser']}:{user['runAsGroup']}", name
        assert json.loads(told["ENTRYPOINT"]) == container["command"], name


# --- On a real API server -------------------------------------------------------------------


@pytest.mark.parametrize("variant", list(VARIANTS))
def test_the_api_server_takes_every_object_strictly(plane: ControlPlane, variant: str) -> None:
    apply(plane, render(VARIANTS[variant]), is_trial=True)


@pytest.mark.parametrize("variant", ["as it is", "everything"])
def test_a_restricted_namespace_takes_every_pod(plane: ControlPlane, variant: str) -> None:
    namespace = f"restricted-{next(numbers)}"
    plane.add_namespace(namespace)
    labels = {"metadata": {"labels": RESTRICTED}}
    plane.request("PATCH", f"/api/v1/namespaces/{namespace}", labels, content_type=MERGE)
    templates = pod_templates(render(VARIANTS[variant]))
    assert len(templates) == 8
    for name, template in templates.items():
        account = {"apiVersion": "v1", "kind": "ServiceAccount",
                   "metadata": {"name": template["spec"]["serviceAccountName"]}}  # fmt: skip
        plane.request("POST", f"/api/v1/namespaces/{namespace}/serviceaccounts", account)
        metadata = {"name": name, "labels": template["metadata"]["labels"]}
        if name == "clearance-admission":  # its claim is made with each pod
            template["spec"]["volumes"].append({"name": "state", "emptyDir": {}})
        document = {"apiVersion": "v1", "kind": "Pod", "metadata": metadata,
                    "spec": template["spec"]}  # fmt: skip
        path = f"/api/v1/namespaces/{namespace}/pods?dryRun=All&fieldValidation=Strict"
        plane.request("POST", path, document)
        bad = copy.deepcopy(document)
        del bad["spec"]["containers"][0]["securityContext"]["capabilities"]
        with pytest.raises(Refusal, match="violates PodSecurity"):
            plane.request("POST", path, bad)


def test_who_sees_the_processes_of_a_node_has_a_place_of_its_own(plane: ControlPlane) -> None:
    values = {"webUrl": "https://clearance.example", "node": {
        "hostPID": True, "namespace": "gpu-nodes", "runtimeClassName": ""}}  # fmt: skip
    documents = [one for one in render(values) if one["metadata"].get("namespace") == "gpu-nodes"]
    assert {one["kind"] for one in documents} == {"ServiceAccount", "DaemonSet", "NetworkPolicy"}
    (template,) = pod_templates(documents).values()
    assert "DATABASE_URL" not in json.dumps(template)
    assert not [one for one in template["spec"]["volumes"] if "secret" in one]
    assert "--report-to" in template["spec"]["containers"][0]["args"]
    plane.add_namespace("gpu-nodes", "clearance-node")
    metadata = {"name": "node", "labels": template["metadata"]["labels"]}
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": template["spec"]}
    path = "/api/v1/namespaces/gpu-nodes/pods?dryRun=All&fieldValidation=Strict"
    enforce_level(plane, "gpu-nodes", "baseline")
    with pytest.raises(Refusal, match="host namespaces"):
        plane.request("POST", path, pod)
    enforce_level(plane, "gpu-nodes", "privileged")
    plane.request("POST", path, pod)


def test_the_manifests_make_their_pods_in_a_restricted_namespace(plane: ControlPlane) -> None:
    plane.add_node("gpu-node", gpus=1)
    labels = {"metadata": {"labels": {"nvidia.com/gpu.present": "true"}}}
    plane.request("PATCH", "/api/v1/nodes/gpu-node", labels, content_type=MERGE)
    documents = read_objects((MANIFESTS / "clearance.yaml").read_text())
    apply(plane, [one for one in documents if one["kind"] == "Namespace"])
    apply(plane, documents)
    apply(plane, documents)  # again, as after an edit
    wanted = {"web": 2, "otlp": 2, "worker": 2, "beat": 1, "operator": 2, "admission": 2,
              "node": 1, "init": 1}  # fmt: skip

    def made() -> bool:
        pods = plane.request("GET", f"/api/v1/namespaces/{SYSTEM}/pods")["items"]
        names = [one["metadata"]["labels"]["app.kubernetes.io/component"] for one in pods]
        return {name: names.count(name) for name in set(names)} == wanted

    eventually(made, "not every pod was made")
    events = plane.request("GET", f"/api/v1/namespaces/{SYSTEM}/events")["items"]
    assert not [one["message"] for one in events if one["reason"] == "FailedCreate"]


def older(definition: Object) -> Object:
    """The resource as a version before knew it: fewer fields, one column, no rules."""
    found = copy.deepcopy(definition)
    (version,) = found["spec"]["versions"]
    version["additionalPrinterColumns"] = version["additionalPrinterColumns"][:1]
    schema = version["schema"]["openAPIV3Schema"]
    schema.pop("x-kubernetes-validations", None)
    for part in ("spec", "status"):
        fields = schema["properties"][part]
        fields.pop("x-kubernetes-validations", None)
        kept = {*fields.get("required", []), "objective", "budget", "agents", "phase"}
        fields["properties"] = {n: one for n, one in fields["properties"].items() if n in kept}
    return found


def test_an_upgrade_of_the_resources_keeps_the_objects(plane: ControlPlane) -> None:
    (new,) = [
        one
        for one in render()
        if one["kind"] in CLUSTER_WIDE and one["metadata"]["name"] == "goals.orchestration.ai"
    ]
    assert new["metadata"]["annotations"]["helm.sh/resource-policy"] == "keep"
    apply(plane, [older(new)])
    goal = yaml.safe_load((ROOT / "examples" / "checkout" / "goal.yaml").read_text())
    goals = "/apis/orchestration.ai/v1/namespaces/shop/goals"

    def created() -> Any:
        try:
            return plane.request("POST", goals, goal)
        except Refusal as refusal:
            if refusal.status != 404:  # not served yet
                raise
            return None

    before = eventually(created, "the older resource is not served")
    apply(plane, [new])
    after = plane.request("GET", f"{goals}/{goal['metadata']['name']}")
    assert after["metadata"]["uid"] == before["metadata"]["uid"]
    assert {key: after["spec"][key] for key in before["spec"]} == before["spec"]
    assert "retries" not in before["spec"]
    assert after["spec"]["retries"] == 2  # what the newer one says where nothing is said
    status = {"apiVersion": "orchestration.ai/v1", "kind": "Goal", "metadata": {
        "name": goal["metadata"]["name"]}, "status": {"limit": "50 GPU-minutes"}}  # fmt: skip

    def is_newer() -> bool:
        path = f"{goals}/{goal['metadata']['name']}/status?fieldManager=tests&force=true"
        found = plane.request("PATCH", path, status, content_type=APPLY)
        return bool(found.get("status", {}).get("limit") == "50 GPU-minutes")

    eventually(is_newer, "the new field is never served")


def test_helm_installs_upgrades_and_leaves_the_goals(plane: ControlPlane) -> None:
    for path in ("customresourcedefinitions/goals.orchestration.ai",
                 "customresourcedefinitions/agents.orchestration.ai"):  # fmt: skip
        with contextlib.suppress(Refusal):
            plane.request("DELETE", f"/apis/apiextensions.k8s.io/v1/{path}")
    documents = read_objects((MANIFESTS / "clearance.yaml").read_text())
    for one in documents:  # what the tests before have applied
        if one["kind"] not in ("Namespace", "CustomResourceDefinition"):
            with contextlib.suppress(Refusal):
                plane.request("DELETE", f"{collection(one)}/{one['metadata']['name']}")
    values = {"governedNamespaces": [{"name": "helmed", "create": True}]}
    where = ("-n", SYSTEM, f"--kubeconfig={plane.kubeconfig}", "--wait=false")
    done = helm("install", "clearance", str(CHART), *where, values=values)
    assert done.returncode == 0, done.stderr
    assert "clearance-web" in done.stdout
    goal = yaml.safe_load((ROOT / "examples" / "checkout" / "goal.yaml").read_text())
    goals = "/apis/orchestration.ai/v1/namespaces/helmed/goals"

    def created() -> Any:
        try:
            return plane.request("POST", goals, {**goal, "metadata": {"name": "kept"}})
        except Refusal:  # not served yet, or the webhooks' processes do not run here
            return None

    plane.request("PATCH", "/api/v1/namespaces/helmed", {"metadata": {"labels": {
        "orchestration.ai/governed": None}}}, content_type=MERGE)  # fmt: skip
    before = eventually(created, "no Goal can be made")
    upgrade = {**values, "image": {"tag": "0.2.0"}}
    done = helm("upgrade", "clearance", str(CHART), *where, values=upgrade)
    assert done.returncode == 0, done.stderr
    done = helm("uninstall", "clearance", *where[:3])
    assert done.returncode == 0, done.stderr
    assert plane.request("GET", f"{goals}/kept")["metadata"]["uid"] == before["metadata"]["uid"]
    claims = plane.request("GET", f"/api/v1/namespaces/{SYSTEM}/persistentvolumeclaims")["items"]
    assert [one["metadata"]["name"] for one in claims] == [
        "clearance-state", "state-clearance-admission-0", "state-clearance-admission-1",
    ]  # fmt: skip
    accounts = plane.request("GET", f"/api/v1/namespaces/{SYSTEM}/serviceaccounts")["items"]
    assert [one["metadata"]["name"] for one in accounts] == ["default"]

"""Each process does its work with the rights the chart gives it, and has no others.

The product's own stories run here with tokens of the chart's service accounts; the audit log of
the API server says what they asked for, and the last test compares that with the chart's roles.
"""

import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from django.utils import timezone

from agents.admission.keeping import Keeper, Shown
from agents.attestation.kubernetes import KubernetesAttestor
from agents.cluster.base import ClusterUnavailable, WorkloadPhase, WorkloadSpec
from agents.cluster.kubernetes.api import KubernetesApi, object_path
from agents.cluster.kubernetes.cluster import KubernetesCluster
from agents.cluster.kubernetes.kueue import keep_checks_active
from agents.survey.surveyor import Survey
from goals.operator.agents import AGENTS, AgentMirror
from goals.operator.election import Election
from goals.operator.informer import Informer
from goals.operator.mirror import GOALS, Mirror
from tests.cluster import test_blocked, test_kubernetes, test_kueue, test_operator
from tests.cluster.conftest import Stand, numbers
from tests.cluster.control_plane import CONTEXT, ControlPlane, MissingControlPlane, control_plane
from tests.cluster.installing import SYSTEM, apply, find_helm, render
from tests.cluster.kueue_controller import MissingKueue, find_kueue, kueue_controller
from tests.cluster.rights import acting_as, audit_arguments, granted, refused, used
from tests.cluster.test_attestation import AUDIENCE, KubernetesPlatform
from tests.cluster.test_kueue import Hall
from tests.cluster.test_operator import Desk, desk  # noqa: F401 - a fixture

pytestmark = [
    pytest.mark.slow,
    pytest.mark.contract,
    pytest.mark.timeout(600),  # Kueue may take minutes to start on a machine that is busy
    pytest.mark.django_db(transaction=True),
    pytest.mark.usefixtures("twins"),
]

INSTALLED = {"Namespace", "CustomResourceDefinition", "ServiceAccount", "Secret", "Role",
             "ClusterRole", "RoleBinding", "ClusterRoleBinding"}  # fmt: skip
HOOKS = {"MutatingWebhookConfiguration", "ValidatingWebhookConfiguration"}
ATTEMPTS: list[Callable[[Stand], None]] = [
    test_kubernetes.test_an_attempt_runs_is_metered_and_succeeds,
    test_kubernetes.test_a_pause_suspends_the_job_and_keeps_what_ran,
    test_kubernetes.test_the_allowance_suspends_and_a_grant_lets_it_run_on,
    test_kubernetes.test_a_deleted_attempt_stays_readable_until_it_is_forgotten,
    test_kubernetes.test_a_name_means_one_specification,
    test_kubernetes.test_what_waits_for_a_gpu_says_so,
    test_kubernetes.test_a_quota_says_which,
    test_blocked.test_a_priority_class_that_the_cluster_has_not_keeps_nothing_from_running,
]
LOOKED_INTO: list[Callable[[Stand], None]] = [
    test_kubernetes.test_a_deleted_attempt_stays_readable_until_it_is_forgotten,
    test_kubernetes.test_a_quota_says_which,
]
QUEUED: list[Callable[[Hall], None]] = [
    test_kueue.test_what_waits_behind_a_quota_names_who_holds_it,
    test_kueue.test_a_pause_gives_the_place_back_and_a_resume_asks_for_it_again,
    test_kueue.test_what_is_denied_is_rejected,
]
MIRRORED: list[Callable[[Desk], None]] = [
    test_operator.test_a_goal_of_kubectl_becomes_a_row_and_tells_where_it_stands,
    test_operator.test_a_goal_of_the_console_appears_in_kubectl,
    test_operator.test_a_change_on_either_side_reaches_the_other,
    test_operator.test_one_deleted_with_kubectl_lands_first,
    test_operator.test_one_deleted_in_the_console_leaves_kubectl,
]
# Granted and not seen here, each with its reason. Whatever else is granted must be used.
REVIEWED: dict[str, dict[str, str]] = {
    "operator": {
        "create goals.orchestration.ai": "asked within a patch: server-side apply of a new Goal",
    },
}


@pytest.fixture(scope="module")
def plane(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ControlPlane]:
    """A control plane that writes down what the installation's accounts ask for."""
    find_helm()
    directory = tmp_path_factory.mktemp("rights")
    try:
        with control_plane(directory, *audit_arguments(directory)) as running:
            for name in ("node-a", "node-b"):
                running.add_node(name, gpus=2)
            running.add_namespace(SYSTEM)
            apply(running, [one for one in render() if one["kind"] in INSTALLED])
            yield running
    except MissingControlPlane as missing:
        pytest.skip(str(missing))


@pytest.fixture(scope="module")
def accounts(plane: ControlPlane, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The control plane as each process sees it."""
    directory = tmp_path_factory.mktemp("accounts")
    names = ("web", "otlp", "worker", "beat", "operator", "admission", "node", "init")
    return {name: acting_as(plane, name, directory) for name in names}


def client(plane: ControlPlane) -> KubernetesApi:
    return KubernetesApi(CONTEXT, config_file=str(plane.kubeconfig))


def govern(plane: ControlPlane, namespace: str) -> None:
    """Let attempts run there, as the chart does."""
    values = {"governedNamespaces": [{"name": namespace, "create": False}]}
    bindings = [one for one in render(values) if one["kind"] == "RoleBinding"]
    apply(plane, [one for one in bindings if one["metadata"]["namespace"] == namespace])


@pytest.fixture
def stand(plane: ControlPlane, accounts: dict[str, ControlPlane]) -> Iterator[Stand]:
    """A governed namespace, and the worker's own hands on it."""
    namespace = f"governed{next(numbers)}"
    plane.add_namespace(namespace, "optimizer")
    govern(plane, namespace)
    standing = Stand(accounts["worker"], namespace)
    yield standing
    standing.close()


@pytest.mark.parametrize("story", ATTEMPTS, ids=lambda one: one.__name__)
def test_the_worker_runs_attempts(stand: Stand, story: Callable[[Stand], None]) -> None:
    story(stand)


def test_the_worker_goes_on_where_it_was_killed(stand: Stand) -> None:
    stand.cluster.create(stand.spec())
    path = f"/apis/batch/v1/namespaces/{stand.namespace}/jobs/{stand.namespace}-tune-1"
    stand.plane.request("DELETE", f"{path}?propagationPolicy=Orphan")
    stand.until_gone("tune-1")
    stand.cluster.create(stand.spec())  # its Secret is there, its Job is not
    stand.until_phase("tune-1", WorkloadPhase.RUNNING)


class PagesCluster(KubernetesCluster):
    """What the pages do with attempts, which the worker has made."""

    def __init__(self, api: KubernetesApi, *, worker: KubernetesCluster) -> None:
        super().__init__(api)
        self._worker = worker

    def create(self, spec: WorkloadSpec) -> None:
        self._worker.create(spec)


@pytest.fixture
def pages(stand: Stand, accounts: dict[str, ControlPlane]) -> Iterator[Stand]:
    """The same namespace in the hands of the web process, which creates nothing."""
    worker, api = stand.cluster, client(accounts["web"])
    stand.cluster = PagesCluster(api, worker=worker)
    yield stand
    stand.cluster = worker
    api.close()


@pytest.mark.parametrize("story", LOOKED_INTO, ids=lambda one: one.__name__)
def test_the_pages_look_into_attempts_and_stop_them(
    pages: Stand, story: Callable[[Stand], None]
) -> None:
    story(pages)


def test_the_pages_show_gpus_and_output(pages: Stand) -> None:
    assert pages.cluster.gpus()
    pages.cluster.create(pages.spec())
    running = pages.until_phase("tune-1", WorkloadPhase.RUNNING)
    with pytest.raises(ClusterUnavailable, match="no preferred addresses"):  # a simulated kubelet
        pages.cluster.output(running.name)


@pytest.mark.parametrize("process", ["web", "worker"])
def test_pods_are_known_by_their_tokens_and_lose_what_they_have(
    stand: Stand, accounts: dict[str, ControlPlane], process: str
) -> None:
    platform = KubernetesPlatform(stand)
    pod = platform.start()
    api = client(accounts[process])
    attestor = KubernetesAttestor(api, KubernetesCluster(api), audience=AUDIENCE)
    if process == "web":  # agents ask it for their identities
        assert attestor.attest(platform.token(pod)) == pod
    assert attestor.withdraw(pod.workload, namespace=pod.namespace).secret
    stand.until("tune-1", lambda one: one.is_finished)
    api.close()


@pytest.mark.parametrize("story", MIRRORED, ids=lambda one: one.__name__)
def test_the_operator_keeps_goals_the_same(
    desk: Desk,  # noqa: F811 - the fixture
    accounts: dict[str, ControlPlane],
    story: Callable[[Desk], None],
) -> None:
    api = client(accounts["operator"])
    desk.mirror = Mirror(api, get=lambda _: desk.resource(), put=lambda _: None)
    story(desk)
    api.close()


def test_the_operator_registers_agents(plane: ControlPlane, accounts: dict[str, Any]) -> None:
    path = object_path(AGENTS, "default", "canary-deployer")
    document = {
        "apiVersion": "orchestration.ai/v1", "kind": "Agent",
        "metadata": {"name": "canary-deployer"},
        "spec": {"name": "canary_deployer", "image": "examples/canary:1.0", "role": "worker"},
    }  # fmt: skip
    plane.request("POST", object_path(AGENTS, "default"), document)
    api = client(accounts["operator"])
    mirror = AgentMirror(api, get=lambda _: plane.request("GET", path), put=lambda _: None)
    mirror.sync(("default", "canary-deployer"))
    assert plane.request("GET", path)["status"]["uid"]
    plane.request("DELETE", path)
    api.close()


def test_the_operator_leads_and_hears(accounts: dict[str, ControlPlane]) -> None:
    api = client(accounts["operator"])
    election = Election(api, identity="rights", namespace=SYSTEM)
    assert election.campaign()
    assert election.campaign()
    election.resign()
    for path in (GOALS, AGENTS):
        informer = Informer(api, f"/{path}", changed=lambda _: None)
        thread = threading.Thread(target=informer.run, daemon=True)
        thread.start()
        assert informer.synced.wait(20)
        informer.stop()
    api.close()


def test_the_operator_surveys_the_cluster(accounts: dict[str, ControlPlane]) -> None:
    api = client(accounts["operator"])
    survey = Survey(api, cluster="in-cluster", is_leader=lambda: True)
    thread = threading.Thread(target=survey.run, daemon=True)
    thread.start()
    deadline = time.monotonic() + 30
    while not survey.step():
        assert time.monotonic() < deadline
        time.sleep(0.2)
    assert survey.scan()
    survey.stop()
    thread.join(10)
    api.close()


@pytest.fixture(scope="module")
def queues(plane: ControlPlane) -> Iterator[None]:
    """Kueue, from here on."""
    try:
        find_kueue()
        with kueue_controller(plane):
            yield
    except MissingKueue as missing:
        pytest.skip(str(missing))


@pytest.fixture
def hall(plane: ControlPlane, accounts: dict[str, ControlPlane], queues: None) -> Iterator[Hall]:
    """A governed namespace with a queue, in the worker's hands."""
    namespace = f"queued{next(numbers)}"
    standing = Hall(accounts["worker"], namespace)
    govern(plane, namespace)
    operator = client(accounts["operator"])
    keep_checks_active(operator, now=timezone.now())
    operator.close()
    yield standing
    standing.close()


@pytest.mark.parametrize("story", QUEUED, ids=lambda one: one.__name__)
@pytest.mark.parametrize("process", ["worker", "web"])
def test_attempts_queue_in_kueue(
    hall: Hall, accounts: dict[str, ControlPlane], process: str, story: Callable[[Hall], None]
) -> None:
    if process == "worker":
        story(hall)
        return
    worker, api = hall.cluster, client(accounts["web"])
    hall.cluster = PagesCluster(api, worker=worker)
    story(hall)
    hall.cluster = worker
    api.close()


def test_the_webhooks_trust_what_admission_keeps(
    plane: ControlPlane, accounts: dict[str, ControlPlane]
) -> None:
    hooks = [one for one in render() if one["kind"] in HOOKS]
    assert len(hooks) == 2
    apply(plane, hooks)
    api = client(accounts["admission"])
    keeper = Keeper(api, Shown(), namespace=SYSTEM, hosts=[f"clearance-admission.{SYSTEM}.svc"])
    keeper.look()
    assert keeper.is_told
    assert KubernetesCluster(api).gpus()  # what policies are told of the fleet
    kind = "/apis/admissionregistration.k8s.io/v1/validatingwebhookconfigurations"
    (hook,) = plane.request("GET", f"{kind}/clearance-admission")["webhooks"]
    assert hook["clientConfig"]["caBundle"]
    apply(plane, hooks)  # an upgrade of the chart keeps it
    (after,) = plane.request("GET", f"{kind}/clearance-admission")["webhooks"]
    assert after["clientConfig"]["caBundle"] == hook["clientConfig"]["caBundle"]
    api.close()


def test_a_pods_own_credentials_are_read_anew(
    plane: ControlPlane, accounts: dict[str, ControlPlane], tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    host, _, port = plane.url.removeprefix("https://").partition(":")
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", host)
    monkeypatch.setenv("KUBERNETES_SERVICE_PORT", port)
    api = KubernetesApi("in-cluster", account=tmp_path)
    with pytest.raises(ClusterUnavailable, match="automountServiceAccountToken"):
        api.get("/api/v1/nodes")
    authority = plane.directory / "certs" / "apiserver.crt"
    (tmp_path / "ca.crt").write_bytes(authority.read_bytes())
    (tmp_path / "token").write_text("no.such.token")
    with pytest.raises(ClusterUnavailable, match="does not know us"):
        api.get("/api/v1/nodes")
    content = accounts["worker"].kubeconfig.read_text()
    (tmp_path / "token").write_text(content.partition('"token": "')[2].partition('"')[0])
    assert api.get("/api/v1/nodes")["items"]
    api.close()


def test_the_rights_are_enough_and_none_is_unused(
    plane: ControlPlane, queues: None, request: pytest.FixtureRequest
) -> None:
    told = {one.name.partition("[")[0] for one in request.session.items if one.path == request.path}
    if missing := {name for name in globals() if name.startswith("test_the_")} - told:
        pytest.skip(f"needs every story of this module, {min(missing)} too")
    refusals = refused(plane)
    assert refusals == [], "\n".join(refusals)
    seen, allowed = used(plane), granted(render())
    wrong = []
    for process, rights in sorted(allowed.items()):
        reviewed = REVIEWED.get(process, {})
        for unused in sorted(rights - seen.get(process, set())):
            wrong += [f"{process} never needs: {unused}"] if str(unused) not in reviewed else []
    assert wrong == [], "\n".join(wrong)

"""Tokens, pods and evictions of a real API server: who is vouched for, and until when."""

import base64
import json
import time
from typing import Any

import pytest

from agents.attestation.base import AttestationUnavailable, AttestedPod, TokenRefused
from agents.attestation.kubernetes import EVICTION_SECONDS, KubernetesAttestor
from agents.cluster.base import WorkloadPhase
from tests.cluster.conftest import MERGE, Stand, confined
from tests.contracts.attestation import *  # noqa: F403 - the cases

pytestmark = [pytest.mark.slow, pytest.mark.contract]

AUDIENCE = "clearance-identity"
ACCOUNT = "optimizer"
PATIENCE_SECONDS = 40.0  # the API server remembers for 10 s that a token was good


class KubernetesPlatform:
    """Jobs of the adapter on simulated nodes, and tokens as a kubelet asks for them."""

    def __init__(self, stand: Stand) -> None:
        self.stand = stand
        self.attestor = KubernetesAttestor(stand.api, stand.cluster, audience=AUDIENCE)

    def start(self) -> AttestedPod:
        spec = self.stand.spec(token_audience=AUDIENCE)
        self.stand.cluster.create(spec)
        self.stand.until_phase("tune-1", WorkloadPhase.RUNNING)
        (pod,) = self.stand.pods()
        return AttestedPod(
            self.stand.namespace, ACCOUNT, pod["metadata"]["name"], pod["metadata"]["uid"],
            spec.name, spec.attempt_uid, pod["spec"]["nodeName"],
        )  # fmt: skip

    def token(self, pod: AttestedPod, *, audience: str = "", is_bound: bool = True) -> str:
        wanted: dict[str, Any] = {"audiences": [audience or AUDIENCE], "expirationSeconds": 600}
        if is_bound:
            wanted["boundObjectRef"] = {
                "apiVersion": "v1", "kind": "Pod", "name": pod.pod, "uid": pod.pod_uid,
            }  # fmt: skip
        path = f"/api/v1/namespaces/{pod.namespace}/serviceaccounts/{pod.service_account}/token"
        request = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": wanted}
        return str(self.stand.plane.request("POST", path, request)["status"]["token"])

    def end(self, pod: AttestedPod) -> None:
        self.stand.end("tune-1", 0)
        self.stand.until_phase("tune-1", WorkloadPhase.SUCCEEDED)

    def accepts(self, token: str) -> bool:
        """What the API server itself says of a token."""
        review = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenReview",
                  "spec": {"token": token, "audiences": [AUDIENCE]}}  # fmt: skip
        path = "/apis/authentication.k8s.io/v1/tokenreviews"
        status = self.stand.plane.request("POST", path, review)["status"]
        return bool(status.get("authenticated"))


@pytest.fixture
def platform(stand: Stand) -> KubernetesPlatform:
    return KubernetesPlatform(stand)


def test_a_pod_asks_for_the_token_it_is_known_by(platform: KubernetesPlatform) -> None:
    platform.start()
    (pod,) = platform.stand.pods()
    (volume,) = pod["spec"]["volumes"]
    (source,) = volume["projected"]["sources"]
    assert source["serviceAccountToken"] == {
        "audience": AUDIENCE, "expirationSeconds": 600, "path": "token",
    }  # fmt: skip
    (mount,) = pod["spec"]["containers"][0]["volumeMounts"]
    assert (mount["mountPath"], mount["readOnly"]) == ("/var/run/secrets/orchestration.ai", True)


def test_a_token_that_is_bound_to_no_pod_proves_nothing(platform: KubernetesPlatform) -> None:
    pod = platform.start()
    with pytest.raises(TokenRefused, match="not bound to a pod"):
        platform.attestor.attest(platform.token(pod, is_bound=False))


def test_a_pod_that_somebody_else_made_is_not_an_attempts(platform: KubernetesPlatform) -> None:
    stand, real = platform.stand, platform.start()
    job = stand.job("tune-1")
    path = f"/api/v1/namespaces/{stand.namespace}/pods"
    foreign = {
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": "foreign"},
        "spec": confined({
            "serviceAccountName": ACCOUNT, "containers": [{"name": "agent", "image": "x:1"}],
        }),
    }  # fmt: skip
    made = stand.plane.request("POST", path, foreign)
    pod = AttestedPod(stand.namespace, ACCOUNT, "foreign", made["metadata"]["uid"], "", "")
    with pytest.raises(TokenRefused, match="belongs to no Job"):
        platform.attestor.attest(platform.token(pod))
    stand.plane.request("DELETE", f"{path}/foreign?gracePeriodSeconds=0")
    # One that says it was made by the attempt's Job: then there are two, and neither is believed.
    owner = {"apiVersion": "batch/v1", "kind": "Job", "name": job["metadata"]["name"],
             "uid": job["metadata"]["uid"], "controller": True}  # fmt: skip
    forged = {**foreign, "metadata": {"name": "forged", "ownerReferences": [owner]}}
    made = stand.plane.request("POST", path, forged)
    pod = AttestedPod(stand.namespace, ACCOUNT, "forged", made["metadata"]["uid"], "", "")
    with pytest.raises(TokenRefused, match="another pod"):
        platform.attestor.attest(platform.token(pod))
    platform.attestor.attest(platform.token(real))


def test_the_api_server_itself_refuses_after_a_revocation(platform: KubernetesPlatform) -> None:
    pod = platform.start()
    token = platform.token(pod)
    assert platform.accepts(token)
    platform.attestor.withdraw(pod.workload, namespace=pod.namespace)
    deadline = time.monotonic() + PATIENCE_SECONDS
    while platform.accepts(token):
        assert time.monotonic() < deadline
        time.sleep(0.5)
    done = platform.stand.until_phase("tune-1", WorkloadPhase.FAILED)
    assert done.is_finished
    assert platform.stand.pods() == []


def test_a_budget_for_disruptions_holds_a_revocation_back_for_seconds_only(
    platform: KubernetesPlatform,
) -> None:
    pod = platform.start()
    budget = {
        "apiVersion": "policy/v1", "kind": "PodDisruptionBudget", "metadata": {"name": "none"},
        "spec": {"minAvailable": 1, "selector": {"matchLabels": {
            "orchestration.ai/workload": pod.workload}}},
    }  # fmt: skip
    path = f"/apis/policy/v1/namespaces/{pod.namespace}/poddisruptionbudgets"
    platform.stand.plane.request("POST", path, budget)
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not platform.stand.plane.request("GET", f"{path}/none")["status"].get(
        "observedGeneration"
    ):
        assert time.monotonic() < deadline
        time.sleep(0.1)
    began = time.monotonic()
    taken = platform.attestor.withdraw(pod.workload, namespace=pod.namespace)
    assert EVICTION_SECONDS <= time.monotonic() - began < 2 * EVICTION_SECONDS
    assert (taken.evicted, list(taken.deleted)) == ([], [pod.pod])
    platform.stand.until_phase("tune-1", WorkloadPhase.FAILED)


def test_an_account_is_made_when_missing_and_never_changed(stand: Stand) -> None:
    accounts = f"/api/v1/namespaces/{stand.namespace}/serviceaccounts"
    stand.cluster.create(stand.spec(service_account="tuner"))
    made = stand.plane.request("GET", f"{accounts}/tuner")
    assert made["automountServiceAccountToken"] is False
    assert made["metadata"]["labels"]["app.kubernetes.io/managed-by"] == "clearance"
    theirs = {"metadata": {"labels": {"team": "shop"}}, "automountServiceAccountToken": True}
    stand.plane.request("PATCH", f"{accounts}/{ACCOUNT}", theirs, content_type=MERGE)
    before = stand.plane.request("GET", f"{accounts}/{ACCOUNT}")
    stand.cluster.create(stand.spec("tune-2"))
    assert stand.plane.request("GET", f"{accounts}/{ACCOUNT}") == before


def test_a_cluster_that_is_away_is_not_a_refusal(stand: Stand) -> None:
    from agents.cluster.kubernetes.api import KubernetesApi

    nowhere = KubernetesApi("nowhere", config_file=str(stand.plane.kubeconfig))
    attestor = KubernetesAttestor(nowhere, stand.cluster, audience=AUDIENCE)
    with pytest.raises(AttestationUnavailable):
        attestor.attest(signed({"aud": AUDIENCE, "kubernetes.io": {"pod": {}}}))
    with pytest.raises(AttestationUnavailable):
        attestor.withdraw("tune-1", namespace=stand.namespace)


def test_nothing_is_asked_about_what_cannot_be_good(stand: Stand) -> None:
    """The API server would be unreachable here: what is refused was not asked about."""
    from agents.cluster.kubernetes.api import KubernetesApi

    nowhere = KubernetesApi("nowhere", config_file=str(stand.plane.kubeconfig))
    attestor = KubernetesAttestor(nowhere, stand.cluster, audience=AUDIENCE)
    bound = {"kubernetes.io": {"pod": {"name": "p", "uid": "u"}}}
    for claims in (
        {**bound},
        {**bound, "aud": "other"},
        {**bound, "aud": {AUDIENCE: 1}},
        {"aud": [AUDIENCE]},
        {"aud": [AUDIENCE], "kubernetes.io": {}},
        [],
        7,
    ):
        with pytest.raises(TokenRefused):
            attestor.attest(signed(claims))
    with pytest.raises(AttestationUnavailable):
        attestor.attest(signed({**bound, "aud": [AUDIENCE]}))


def signed(claims: Any) -> str:
    """A token that says so, signed by nobody."""
    body = base64.urlsafe_b64encode(json.dumps(claims).encode()).decode().rstrip("=")
    return f"e30.{body}.AA"

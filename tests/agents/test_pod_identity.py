"""Identities of attempts in pods: the exchange, its one key, revocation, and what is taken back."""

import json
from typing import Any

import pytest
from django.urls import reverse

from agents.attestation.base import AttestationUnavailable, AttestedPod, TokenRefused
from agents.attestation.memory import MemoryAttestor
from agents.cluster.base import (
    TOKEN_FILE,
    TOKEN_FILE_VARIABLE,
    ClusterUnavailable,
    WorkloadSpec,
)
from agents.cluster.memory import MemoryCluster
from agents.domain.states import AttemptState
from agents.identity.memory import MemoryTrustDomain
from agents.models import Attempt, JoinToken, PodBinding
from agents.services.attempts import enforce_attempt
from agents.services.identity import (
    AttemptFinished,
    IdentityNotAvailable,
    IdentityRevoked,
    PodTokenRefused,
    authenticate_attempt,
    exchange_pod_token,
    identity_environment,
    prepare_identity,
)
from agents.services.revocation import revoke_agent_identities, revoke_identity
from agents.services.withdrawal import (
    withdraw_agent_identities,
    withdraw_at_once,
    withdraw_identity,
)
from governance.models import JournalRecord
from lineage.domain import Actor, ActorKind
from tests.agents.identities import AUDIENCE, csr_of, make_attempt, new_key, trust_domain

__all__ = ["trust_domain"]  # a fixture

pytestmark = pytest.mark.usefixtures("trust_domain")

OPERATOR = Actor(ActorKind.HUMAN, "ada")


@pytest.fixture
def attempt(db: None, trust_domain: MemoryTrustDomain) -> Attempt:
    return make_attempt()


@pytest.fixture
def platform() -> MemoryAttestor:
    return MemoryAttestor()


def pod_of(attempt: Attempt, **changes: str) -> AttestedPod:
    fields = {
        "namespace": attempt.namespace,
        "service_account": attempt.service_account,
        "pod": f"{attempt.workload}-abcde",
        "pod_uid": "",
        "workload": attempt.workload,
        "attempt_uid": str(attempt.uid),
        "node": "node-a",
    }
    return AttestedPod(**{**fields, **changes})


def exchange(platform: MemoryAttestor, token: str, key: Any = None) -> Any:
    csr = csr_of(key or new_key())
    return exchange_pod_token(token, csr_pem=csr, audience=AUDIENCE, attestor=platform)


def bodies(action: str) -> list[dict[str, Any]]:
    return [
        json.loads(one.canonical)["body"] for one in JournalRecord.objects.filter(action=action)
    ]


# --- exchange ------------------------------------------------------------------------------------


def test_a_pod_gets_the_identity_of_its_attempt(attempt: Attempt, platform: MemoryAttestor) -> None:
    pod = platform.start_pod(pod_of(attempt))
    issued = exchange(platform, platform.token(pod.pod_uid))
    assert authenticate_attempt(issued.jwt.token) == attempt
    [said] = bodies("svid.issued")
    assert (said["cause"], said["pod"], said["pod_uid"], said["node"]) == (
        "service-account-token", pod.pod, pod.pod_uid, "node-a",
    )  # fmt: skip


def test_the_first_key_is_the_only_one_of_a_pod(attempt: Attempt, platform: MemoryAttestor) -> None:
    pod, key = platform.start_pod(pod_of(attempt)), new_key()
    token = platform.token(pod.pod_uid)
    exchange(platform, token, key)
    exchange(platform, token, key)  # its first answer may have been lost
    for stolen in (token, platform.token(pod.pod_uid)):
        with pytest.raises(PodTokenRefused, match="another key"):
            exchange(platform, stolen)
    assert PodBinding.objects.get().attempt == attempt


def test_a_resumed_attempt_is_another_pod(attempt: Attempt, platform: MemoryAttestor) -> None:
    first = platform.start_pod(pod_of(attempt))
    exchange(platform, platform.token(first.pod_uid))
    platform.end_pod(first.pod_uid)
    second = platform.start_pod(pod_of(attempt))
    exchange(platform, platform.token(second.pod_uid))
    assert set(attempt.pods.values_list("pod_uid", flat=True)) == {first.pod_uid, second.pod_uid}


@pytest.mark.parametrize(
    "changes",
    [
        {"workload": "another-job"},
        {"attempt_uid": "another-attempt"},
        {"namespace": "elsewhere"},
        {"service_account": "somebody"},
    ],
)
def test_a_pod_of_anything_else_is_refused(
    attempt: Attempt, platform: MemoryAttestor, changes: dict[str, str]
) -> None:
    pod = platform.start_pod(pod_of(attempt, **changes))
    with pytest.raises(PodTokenRefused, match="not that of an attempt"):
        exchange(platform, platform.token(pod.pod_uid))
    assert not PodBinding.objects.exists()


def test_what_the_platform_refuses_is_refused(attempt: Attempt, platform: MemoryAttestor) -> None:
    pod = platform.start_pod(pod_of(attempt))
    with pytest.raises(PodTokenRefused, match="audience"):
        exchange(platform, platform.token(pod.pod_uid, audience="the API server"))
    platform.fail_next(AttestationUnavailable("Kubernetes is away: secret address"))
    with pytest.raises(IdentityNotAvailable, match="asked about the token now") as refusal:
        exchange(platform, platform.token(pod.pod_uid))
    assert "secret address" not in str(refusal.value)


def test_what_ended_or_was_revoked_gets_nothing(attempt: Attempt, platform: MemoryAttestor) -> None:
    pod = platform.start_pod(pod_of(attempt))
    revoke_identity(attempt, reason="drift", actor=OPERATOR)
    with pytest.raises(IdentityRevoked):
        exchange(platform, platform.token(pod.pod_uid))
    Attempt.objects.update(state=AttemptState.SUCCEEDED)
    with pytest.raises(AttemptFinished):
        exchange(platform, platform.token(pod.pod_uid))
    assert not PodBinding.objects.exists()


def test_without_a_cluster_there_are_join_tokens(attempt: Attempt, platform: Any) -> None:
    with pytest.raises(PodTokenRefused, match="join tokens"):
        exchange_pod_token("token", csr_pem=csr_of(new_key()), audience=AUDIENCE)
    assert "CLEARANCE_JOIN_TOKEN" in identity_environment(attempt)
    JoinToken.objects.all().delete()
    prepare_identity(attempt, attestor=platform)
    assert identity_environment(attempt, attestor=platform) == {TOKEN_FILE_VARIABLE: TOKEN_FILE}
    assert not JoinToken.objects.exists()


# --- API -----------------------------------------------------------------------------------------


@pytest.fixture
def reachable(settings: Any) -> MemoryAttestor:
    """The platform that the settings name."""
    from agents.attestation import get_attestor

    settings.CLUSTER_URL = "memory:?gpus=4&attests=1"
    settings.WORKLOAD_TOKEN_AUDIENCE = "for tests alone"
    found = get_attestor()
    assert isinstance(found, MemoryAttestor)
    return found


def test_the_endpoint_takes_one_proof(client: Any, attempt: Attempt, reachable: Any) -> None:
    def post(**body: str) -> Any:
        document = {"csr": csr_of(new_key()), **body}
        return client.post("/api/v1/identity/exchange", document, content_type="application/json")

    pod = reachable.start_pod(pod_of(attempt))
    token = reachable.token(pod.pod_uid)
    answer = post(service_account_token=token)
    assert answer.status_code == 200, answer.content
    assert answer.json()["spiffe_id"] == attempt.spiffe_id
    assert post().status_code == 422
    assert post(service_account_token=token, join_token="x").status_code == 422
    refused = post(service_account_token=token)
    assert (refused.status_code, refused.json()["title"]) == (401, "Identity refused")
    assert "another key" in refused.json()["detail"]


def test_an_attempts_page_names_the_pod_that_proved_itself(
    client: Any, people: dict[str, Any], attempt: Attempt, twins: Any
) -> None:
    client.force_login(people["admin"])
    path = reverse("attempt_detail", args=[attempt.uid])
    assert "Proved by pod" not in client.get(path).content.decode()
    PodBinding.objects.create(attempt=attempt, pod_uid="u", pod="tune-1-abcde", node="node-a")
    page = client.get(path).content.decode()
    assert "tune-1-abcde" in page
    assert "node-a" in page


# --- what is taken back --------------------------------------------------------------------------


def test_a_revocation_takes_back_what_the_platform_gave(
    attempt: Attempt, platform: MemoryAttestor
) -> None:
    pod = platform.start_pod(pod_of(attempt))
    token = platform.token(pod.pod_uid)
    assert withdraw_identity(attempt, attestor=platform) is None
    platform.attest(token)
    revoke_identity(attempt, reason="drift", actor=OPERATOR)
    for _ in range(2):
        withdraw_identity(attempt, attestor=platform)
    with pytest.raises(TokenRefused, match="ended"):
        platform.attest(token)
    [said] = bodies("identity.withdrawn")
    assert said == {
        "workload": attempt.workload, "evicted": [pod.pod], "deleted": [],
        "secret": attempt.workload, "reason": "drift",
    }  # fmt: skip
    platform.start_pod(pod_of(attempt))
    withdraw_identity(attempt, attestor=platform)
    assert len(bodies("identity.withdrawn")) == 2


def test_what_was_taken_back_before_a_crash_is_said_afterwards(
    attempt: Attempt, platform: MemoryAttestor
) -> None:
    platform.start_pod(pod_of(attempt))
    revoke_identity(attempt, reason="drift", actor=OPERATOR)
    platform.withdraw(attempt.workload, namespace=attempt.namespace)  # and then the process died
    withdraw_identity(attempt, attestor=platform)
    assert [said["evicted"] for said in bodies("identity.withdrawn")] == [[]]


def test_all_that_runs_of_an_agent_is_taken_back(
    attempt: Attempt, platform: MemoryAttestor
) -> None:
    attempts = [attempt, make_attempt(), make_attempt(agent="profiler")]
    tokens = [platform.token(platform.start_pod(pod_of(one)).pod_uid) for one in attempts]
    revoke_agent_identities(attempt.agent, reason="drift", actor=OPERATOR)
    assert withdraw_agent_identities(attempt.agent, attestor=platform) == 2
    for token in tokens[:2]:
        with pytest.raises(TokenRefused):
            platform.attest(token)
    platform.attest(tokens[2])


def test_a_cluster_that_is_away_does_not_keep_a_person_waiting(
    attempt: Attempt, platform: MemoryAttestor
) -> None:
    revoke_identity(attempt, reason="drift", actor=OPERATOR)
    platform.fail_next(AttestationUnavailable("away"))
    assert withdraw_at_once([attempt], attestor=platform) == 0
    assert withdraw_at_once([attempt], attestor=platform, within_seconds=0) == 0
    assert not bodies("identity.withdrawn")
    assert withdraw_at_once([attempt], attestor=platform) == 1


def test_the_reconciler_takes_back_what_nobody_did(attempt: Attempt, reachable: Any) -> None:
    cluster = MemoryCluster()
    cluster.create(
        WorkloadSpec(
            name=attempt.workload, namespace=attempt.namespace, goal_uid="g", task="t",
            attempt_uid=str(attempt.uid), agent="optimizer", service_account="optimizer",
            image="x:1", command=("optimizer",),
        )
    )  # fmt: skip
    token = reachable.token(reachable.start_pod(pod_of(attempt)).pod_uid)
    revoke_identity(attempt, reason="drift", actor=OPERATOR)
    reachable.fail_next(AttestationUnavailable("away"))
    with pytest.raises(ClusterUnavailable, match="away"):
        enforce_attempt(attempt, cluster=cluster)
    enforce_attempt(attempt, cluster=cluster)
    with pytest.raises(TokenRefused):
        reachable.attest(token)
    assert len(bodies("identity.withdrawn")) == 1

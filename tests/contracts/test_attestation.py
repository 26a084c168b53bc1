"""The attestor's twin keeps the rules that the real one keeps."""

import pytest

from agents.attestation.base import AttestationUnavailable, AttestedPod
from agents.attestation.memory import MemoryAttestor
from tests.contracts.attestation import *  # noqa: F403 - the cases

pytestmark = pytest.mark.contract


class MemoryPlatform:
    """Pods made by hand."""

    def __init__(self) -> None:
        self.attestor = MemoryAttestor()

    def start(self) -> AttestedPod:
        pod = AttestedPod("shop", "optimizer", "tune-1-abcde", "", "tune-1", "attempt", "node-a")
        return self.attestor.start_pod(pod)

    def token(self, pod: AttestedPod, *, audience: str = "") -> str:
        return self.attestor.token(pod.pod_uid, audience=audience)

    def end(self, pod: AttestedPod) -> None:
        self.attestor.end_pod(pod.pod_uid)


@pytest.fixture
def platform() -> MemoryPlatform:
    return MemoryPlatform()


def test_the_twin_fails_when_told_to(platform: MemoryPlatform) -> None:
    pod = platform.start()
    platform.attestor.fail_next(AttestationUnavailable("away"))
    with pytest.raises(AttestationUnavailable):
        platform.attestor.withdraw(pod.workload, namespace=pod.namespace)
    assert platform.attestor.attest(platform.token(pod)) == pod

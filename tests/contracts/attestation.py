"""What every attestor does; run on the twin and, in tests/cluster, on a real API server."""

from typing import Protocol

import pytest

from agents.attestation.base import AttestedPod, Attestor, TokenRefused

__all__ = [
    "Platform",
    "test_a_living_pod_is_known_by_its_token",
    "test_a_pod_that_ended_is_nobody",
    "test_a_token_for_others_proves_nothing",
    "test_what_is_no_token_proves_nothing",
    "test_what_is_taken_back_proves_nothing_any_more",
]


class Platform(Protocol):
    """An attestor and the levers on what it looks at."""

    attestor: Attestor

    def start(self) -> AttestedPod:
        """A living pod of a workload."""

    def token(self, pod: AttestedPod, *, audience: str = "") -> str:
        """A token bound to the pod, for the attestor's audience unless another is named."""

    def end(self, pod: AttestedPod) -> None:
        """The pod's program has ended."""


def test_a_living_pod_is_known_by_its_token(platform: Platform) -> None:
    pod = platform.start()
    assert platform.attestor.attest(platform.token(pod)) == pod


@pytest.mark.parametrize("token", ["", "no-token", "a.b.c", "ü", "x" * 10_000])
def test_what_is_no_token_proves_nothing(platform: Platform, token: str) -> None:
    with pytest.raises(TokenRefused):
        platform.attestor.attest(token)


def test_a_token_for_others_proves_nothing(platform: Platform) -> None:
    pod = platform.start()
    with pytest.raises(TokenRefused, match="audience"):
        platform.attestor.attest(platform.token(pod, audience="somebody-else"))


def test_a_pod_that_ended_is_nobody(platform: Platform) -> None:
    pod = platform.start()
    token = platform.token(pod)
    platform.end(pod)
    with pytest.raises(TokenRefused, match="ended"):
        platform.attestor.attest(token)


def test_what_is_taken_back_proves_nothing_any_more(platform: Platform) -> None:
    pod = platform.start()
    token = platform.token(pod)
    taken = platform.attestor.withdraw(pod.workload, namespace=pod.namespace)
    assert (list(taken.evicted), taken.secret) == ([pod.pod], pod.workload)
    with pytest.raises(TokenRefused):
        platform.attestor.attest(token)
    again = platform.attestor.withdraw(pod.workload, namespace=pod.namespace)
    assert not again.secret
    nothing = platform.attestor.withdraw("no-such-workload", namespace=pod.namespace)
    assert not nothing.is_news

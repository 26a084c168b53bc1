"""A platform without a cluster for tests: strict, stateful, its pods made and ended by hand."""

import itertools
from dataclasses import dataclass, field, replace
from typing import Final

from agents.attestation.base import (
    TOKEN_MAX_CHARACTERS,
    AttestationError,
    AttestedPod,
    TokenRefused,
    Withdrawal,
)

AUDIENCE: Final = "clearance-identity"


@dataclass(slots=True)
class _Kept:
    pod: AttestedPod
    is_ended: bool = False
    tokens: dict[str, str] = field(default_factory=dict)  # token -> audience


class MemoryAttestor:
    """Every rule of the port: a token counts for its audience while its pod lives, alone."""

    def __init__(self, *, audience: str = AUDIENCE) -> None:
        self._audience = audience
        self._pods: dict[str, _Kept] = {}  # by uid
        self._secrets: set[tuple[str, str]] = set()
        self._failures: list[AttestationError] = []
        self._numbers = itertools.count(1)

    # --- levers for tests ------------------------------------------------------------------------

    def fail_next(self, error: AttestationError) -> None:
        """The next call raises this and changes nothing; several are raised in turn."""
        self._failures.append(error)

    def start_pod(self, pod: AttestedPod) -> AttestedPod:
        """A pod of a workload, under a uid of its own, and the workload's Secret."""
        started = replace(pod, pod_uid=f"{pod.pod_uid or pod.pod}-{next(self._numbers)}")
        self._pods[started.pod_uid] = _Kept(started)
        self._secrets.add((pod.namespace, pod.workload))
        return started

    def end_pod(self, pod_uid: str) -> None:
        """Its program has ended."""
        self._pods[pod_uid].is_ended = True

    def token(self, pod_uid: str, *, audience: str = "") -> str:
        """A new token that is bound to a pod."""
        made = f"bound-token-{next(self._numbers)}"
        self._pods[pod_uid].tokens[made] = audience or self._audience
        return made

    # --- the port --------------------------------------------------------------------------------

    @property
    def audience(self) -> str:
        return self._audience

    def attest(self, token: str) -> AttestedPod:
        self._fail()
        if not token or len(token) > TOKEN_MAX_CHARACTERS:
            raise TokenRefused("The service account token is no token.")
        kept = next((one for one in self._pods.values() if token in one.tokens), None)
        if kept is None or kept.tokens[token] != self._audience:
            raise TokenRefused(
                f"Kubernetes does not accept the token for audience {self._audience}."
            )
        if kept.is_ended:
            raise TokenRefused("The pod that the token is bound to has ended or is ending.")
        others = [
            one
            for one in self._pods.values()
            if one.pod.workload == kept.pod.workload and one is not kept and not one.is_ended
        ]
        if others:
            raise TokenRefused("The attempt has another pod that has not ended.")
        return kept.pod

    def withdraw(self, workload: str, *, namespace: str) -> Withdrawal:
        self._fail()
        living = [
            one
            for one in self._pods.values()
            if (one.pod.namespace, one.pod.workload) == (namespace, workload) and not one.is_ended
        ]
        for one in living:
            one.is_ended = True
        secret = workload if (namespace, workload) in self._secrets else ""
        self._secrets.discard((namespace, workload))
        return Withdrawal(tuple(one.pod.pod for one in living), (), secret)

    def _fail(self) -> None:
        if self._failures:
            raise self._failures.pop(0)

"""What the platform says of a workload that shows a token of the platform's own."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Protocol

TOKEN_MAX_CHARACTERS: Final = 8192  # those of real clusters have 1,000 to 2,000


class AttestationError(Exception):
    """The platform did not vouch for a workload."""


class AttestationUnavailable(AttestationError):
    """The platform cannot be asked now; the same call may work later."""


class TokenRefused(AttestationError):
    """The token proves nothing; the text says why and is fit for whoever showed it."""


@dataclass(frozen=True, slots=True)
class AttestedPod:
    """Who showed a token: one pod of one workload, as the platform itself knows it."""

    namespace: str
    service_account: str
    pod: str
    pod_uid: str
    workload: str  # the Job that made the pod
    attempt_uid: str  # as that Job says, which only we write
    node: str = ""


@dataclass(frozen=True, slots=True)
class Withdrawal:
    """What was taken from a workload; nothing on a repeat."""

    evicted: Sequence[str] = ()  # pods
    deleted: Sequence[str] = ()  # pods that no eviction could end in time
    secret: str = ""

    @property
    def is_news(self) -> bool:
        return bool(self.evicted or self.deleted or self.secret)


class Attestor(Protocol):
    """Vouches for workloads. Every method raises only `AttestationError`s."""

    @property
    def audience(self) -> str:
        """For whom tokens must be made out."""

    def attest(self, token: str) -> AttestedPod:
        """The living pod that a token is bound to. Raises TokenRefused, AttestationUnavailable."""

    def withdraw(self, workload: str, *, namespace: str) -> Withdrawal:
        """Take from a workload what the platform gave it, and end its pods; repeat at will.

        Returns within a bounded time. Raises AttestationUnavailable.
        """

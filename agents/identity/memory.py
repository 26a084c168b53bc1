"""The trust domain's twin for tests: real keys and real documents, kept in memory."""

import threading

from agents.identity.authority import Authority, new_authority
from agents.identity.base import IdentityError
from agents.identity.issuing import Clock, IssuingTrustDomain, utc_now


class MemoryTrustDomain(IssuingTrustDomain):
    """Issues like the local trust domain and forgets its keys with the process."""

    def __init__(self, name: str, *, clock: Clock = utc_now) -> None:
        super().__init__(name, clock=clock)
        self._lock = threading.Lock()
        self._kept: Authority | None = None
        self._failures: list[IdentityError] = []

    def fail_next(self, error: IdentityError) -> None:
        """The next call raises `error`, whatever it asks; repeat for the calls after it."""
        with self._lock:
            self._failures.append(error)

    def rotate_jwt_key(self) -> None:
        """Publish a new JWT key; it signs once relying parties have had time to fetch it."""
        rotated = self._authority().rotated(self._clock())
        with self._lock:
            self._kept = rotated

    def _authority(self) -> Authority:
        with self._lock:
            if self._failures:
                raise self._failures.pop(0)
            if self._kept is None:
                self._kept = new_authority(self._name, now=self._clock())
            return self._kept

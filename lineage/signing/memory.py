"""A signer with its keys and log in this process's memory: real signatures, for tests."""

import time
from collections.abc import Callable
from pathlib import Path

from lineage.signing.base import SigningError
from lineage.signing.keys import DEFAULT_ISSUER, SigningKeys, make_keys
from lineage.signing.local import LocalSigner
from lineage.signing.log import TransparencyLog


class MemorySigner(LocalSigner):
    """As strict as the real one, since only where things are kept differs."""

    def __init__(
        self, *, issuer: str = DEFAULT_ISSUER, clock: Callable[[], float] = time.time
    ) -> None:
        super().__init__(Path("/nonexistent"), issuer=issuer, clock=clock)
        self._log = TransparencyLog(None)
        self._failures: list[SigningError] = []

    def fail_next(self, error: SigningError) -> None:
        """Make the next call that needs the keys raise `error`; calls queue up."""
        self._failures.append(error)

    def _open(self) -> SigningKeys:
        if self._failures:
            raise self._failures.pop(0)
        if self._keys is None:
            self._keys = make_keys(now=self._clock())
        return self._keys

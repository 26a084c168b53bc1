"""The trust domain that `TRUST_DOMAIN_URL` names."""

import functools
from pathlib import Path

from django.conf import settings
from django.core.exceptions import ImproperlyConfigured

from agents.identity.base import InvalidSpiffeId, TrustDomain
from agents.identity.local import LocalTrustDomain
from agents.identity.memory import MemoryTrustDomain
from agents.identity.names import spiffe_id

__all__ = ["get_trust_domain", "spiffe_id"]

ACCEPTED = "`local:<trust domain>`, or `memory:<trust domain>` in tests"


def get_trust_domain() -> TrustDomain:
    """The one trust domain of this process. Raises ImproperlyConfigured."""
    return _trust_domain(settings.TRUST_DOMAIN_URL, Path(settings.CLEARANCE_DATA))


@functools.cache
def _trust_domain(url: str, data_directory: Path) -> TrustDomain:
    scheme, _, name = url.partition(":")
    try:
        if scheme == "local":
            return LocalTrustDomain(name, directory=data_directory / "keys" / "identity")
        if scheme == "memory":
            return MemoryTrustDomain(name)
    except InvalidSpiffeId as error:
        raise ImproperlyConfigured(f"TRUST_DOMAIN_URL={url!r}: {error}") from error
    raise ImproperlyConfigured(f"TRUST_DOMAIN_URL={url!r} is not supported: use {ACCEPTED}.")

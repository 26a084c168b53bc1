"""Signing: sigstore bundles and signed notes that outsiders verify offline."""

import functools
from pathlib import Path

from django.conf import settings
from django.core.exceptions import ImproperlyConfigured

from lineage.signing.base import Signer
from lineage.signing.local import LocalSigner
from lineage.signing.memory import MemorySigner

_FORMS = "`local:` (keys under CLEARANCE_DATA/keys/signing) or, in tests, `memory:`"


@functools.cache
def get_signer() -> Signer:
    """The signer SIGNING_URL names; one per process."""
    return open_signer(settings.SIGNING_URL, folder=settings.CLEARANCE_DATA)


def open_signer(url: str, *, folder: Path) -> Signer:
    """The signer of one URL; `local:` keeps its keys in `folder`/keys/signing.

    Raises ImproperlyConfigured for a URL of no known form.
    """
    if url == "local:":
        return LocalSigner(folder / "keys" / "signing")
    if url == "memory:":
        return MemorySigner()
    raise ImproperlyConfigured(f"SIGNING_URL has no form we know: use {_FORMS}.")

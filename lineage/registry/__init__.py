"""The artifact registry: content-addressed weights, datasets, bundles and evidence."""

import functools
from pathlib import Path

from django.conf import settings
from django.core.exceptions import ImproperlyConfigured

from lineage.registry.base import Registry
from lineage.registry.layout import LayoutRegistry
from lineage.registry.memory import MemoryRegistry
from lineage.registry.oci import OciRegistry

_FORMS = (
    "`layout:` (under CLEARANCE_DATA), `layout:/absolute/path`, "
    "`oci://host[:port]/prefix[?insecure=1]` or, in tests, `memory:`"
)


@functools.cache
def get_registry() -> Registry:
    """The registry REGISTRY_URL names; one per process."""
    return open_registry(settings.REGISTRY_URL, folder=settings.CLEARANCE_DATA)


def open_registry(url: str, *, folder: Path) -> Registry:
    """The registry of one URL; `layout:` keeps its blobs in `folder`/registry.

    Raises ImproperlyConfigured for a URL of no known form.
    """
    scheme, _, rest = url.partition(":")
    if scheme == "memory" and not rest:
        return MemoryRegistry()
    if scheme == "layout":
        if not rest:
            return LayoutRegistry(folder / "registry")
        if rest.startswith("/") and not rest.startswith("//"):
            return LayoutRegistry(Path(rest))
    if scheme == "oci" and rest.startswith("//"):
        try:
            return OciRegistry.from_url(url)
        except ValueError as error:
            raise ImproperlyConfigured(f"REGISTRY_URL: {error} Use {_FORMS}.") from error
    raise ImproperlyConfigured(f"REGISTRY_URL has no form we know: use {_FORMS}.")

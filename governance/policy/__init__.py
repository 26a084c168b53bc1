"""The policy port: `get_policy_engine()` gives the engine that `POLICY_URL` names."""

import functools
from importlib import import_module
from typing import cast
from urllib.parse import parse_qsl, urlsplit

from governance.policy.base import PolicyEngine

# Module and class per scheme. They are imported when asked for, not above: the sandbox child
# imports this package too, and must bring neither Django nor an HTTP client into its memory.
_ENGINES = {
    "regorus": ("governance.policy.regorus", "RegorusPolicy"),
    "http": ("governance.policy.opa", "OpaPolicy"),
    "https": ("governance.policy.opa", "OpaPolicy"),
    "memory": ("governance.policy.memory", "MemoryPolicy"),
}
_REGORUS_OPTIONS = {
    "workers": int,
    "timeout_seconds": float,
    "cpu_seconds": int,
    "memory_bytes": int,
}
_FORMS = (
    "POLICY_URL must be regorus: (with ?workers=, timeout_seconds=, cpu_seconds=, memory_bytes=), "
    "http(s)://host:port of an OPA, or memory:"
)


def policy_engine_from(url: str) -> PolicyEngine:
    """A new engine for a URL; opens nothing. Raises `ValueError` naming the accepted forms."""
    parts = urlsplit(url)
    if parts.scheme not in _ENGINES:
        raise ValueError(f"{_FORMS}, not {parts.scheme or url[:20]!r}.")
    module, name = _ENGINES[parts.scheme]
    options: dict[str, object] = {}
    if parts.scheme in ("http", "https"):
        options["url"] = url
    elif parts.query:
        try:
            pairs = parse_qsl(parts.query, strict_parsing=True)
            options = {key: _REGORUS_OPTIONS[key](value) for key, value in pairs}
        except (KeyError, ValueError) as error:
            raise ValueError(f"{_FORMS}; cannot read {error}.") from error
    try:
        return cast("PolicyEngine", getattr(import_module(module), name)(**options))
    except TypeError as error:
        raise ValueError(f"{_FORMS}.") from error


@functools.cache
def get_policy_engine() -> PolicyEngine:
    """The engine of this process. Raises `ImproperlyConfigured` when `POLICY_URL` names none."""
    settings = import_module("django.conf").settings
    try:
        return policy_engine_from(settings.POLICY_URL)
    except ValueError as error:
        improper: type[Exception] = import_module("django.core.exceptions").ImproperlyConfigured
        raise improper(str(error)) from error

"""System checks: what must not stand in the settings of a tower that others rely on."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from django.conf import settings
from django.core import checks
from django.core.checks import CheckMessage, Error, Tags, register

PORT_VARIABLES = (
    "TELEMETRY_URL",
    "REGISTRY_URL",
    "POLICY_URL",
    "CLUSTER_URL",
    "SIGNING_URL",
    "TRUST_DOMAIN_URL",
)
TWIN_SCHEME = "memory"


@register(Tags.security)
def check_no_twins(app_configs: Sequence[Any] | None, **_: Any) -> list[CheckMessage]:
    """A memory twin forgets everything at a restart and proves nothing."""
    if settings.DEBUG:
        return []
    return [
        Error(
            f"{name} names an in-memory twin, which is for tests.",
            hint=f"Unset {name} for the embedded default, or set DEBUG=true for a trial.",
            id="clearance.E001",
        )
        for name in PORT_VARIABLES
        if str(getattr(settings, name)).partition(":")[0] == TWIN_SCHEME
    ]


@register(Tags.security)
def check_secret_key_is_kept(app_configs: Sequence[Any] | None, **_: Any) -> list[CheckMessage]:
    """A key made up by each process ends every session and join token at its restart."""
    kept = Path(settings.CLEARANCE_DATA) / "keys" / "secret_key"
    if os.environ.get("SECRET_KEY") or os.environ.get("SECRET_KEY_FILE") or kept.is_file():
        return []
    return [
        checks.Warning(
            "No SECRET_KEY is set or kept: this process made one up.",
            hint=f"Set SECRET_KEY or SECRET_KEY_FILE, or let `manage.py tower` make {kept}.",
            id="clearance.W001",
        )
    ]

"""Put in place what a new installation needs besides tables: the starter policy bundle."""

from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand

from governance.services.bundles import ensure_starter_bundle
from lineage.telemetry import get_telemetry


class Command(BaseCommand):
    """`manage.py bootstrap`: safe to repeat; the tower runs it at every start."""

    help = "Enforce the starter policy bundle of a new installation and make the telemetry tables."

    def handle(self, *_args: Any, **_options: Any) -> None:
        """Repeating it changes nothing."""
        get_telemetry().ensure_schema()
        version = ensure_starter_bundle(identity=f"{settings.WEB_URL}/bootstrap")
        print(f"policy bundle {version.name} v{version.version}: {version.stage}")

"""The `otlp` process: `uvicorn console.otlp:application` takes spans from attempts."""

import os

import django
from django.conf import settings
from django.utils import timezone

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "console.settings")
django.setup()

from agents.fleet.news import Publisher, SpanNews  # noqa: E402
from agents.ingest import authenticate_export  # noqa: E402  needs loaded models
from lineage.otlp import OtlpTraceApp, SpanWriter  # noqa: E402
from lineage.telemetry import get_telemetry  # noqa: E402
from lineage.telemetry.base import Telemetry, TelemetryError  # noqa: E402


def _ready_telemetry() -> Telemetry:
    """The store with its tables. Ends the process otherwise; its supervisor starts it again.

    An ingest without tables would refuse spans for good that it only had to take later.
    """
    telemetry = get_telemetry()
    try:
        telemetry.ensure_schema()
    except TelemetryError as error:
        raise SystemExit(f"otlp cannot prepare the store of TELEMETRY_URL: {error}") from error
    return telemetry


# Open maps hear the last span of each attempt, once it is stored.
store = SpanNews(_ready_telemetry(), Publisher(settings.REDIS_URL))
application = OtlpTraceApp(authenticate_export, SpanWriter(store), timezone.now)

"""Where spans are kept: chosen by TELEMETRY_URL."""

from functools import lru_cache, partial
from urllib.parse import parse_qs, unquote, urlsplit

from django.conf import settings
from django.core.exceptions import ImproperlyConfigured
from django.utils.module_loading import import_string

from lineage.telemetry.base import Telemetry
from lineage.telemetry.store_token import store_token

# Adapters are named, as Django names its backends, and not imported here: the store process lives
# in this package too and must not pay for a client that it never uses.
CLICKHOUSE = "lineage.telemetry.clickhouse.ClickHouseTelemetry"
MEMORY = "lineage.telemetry.memory.MemoryTelemetry"

ACCEPTED = (
    "TELEMETRY_URL must be 'embedded:', 'memory:' or"
    " 'clickhouse://user:password@host:port/database' with an optional '?secure=1'"
)
CLICKHOUSE_PORT = 8123
CLICKHOUSE_TLS_PORT = 8443
EMBEDDED_HOST = "127.0.0.1"


def telemetry_from_url(url: str) -> Telemetry:
    """A telemetry port for a URL; opens nothing.

    Raises: ImproperlyConfigured naming the variable and the accepted forms.
    """
    parts = urlsplit(url)
    match parts.scheme:
        case "embedded":
            return _adapter(
                CLICKHOUSE,
                host=EMBEDDED_HOST,
                port=settings.STORE_PORT,
                user="default",
                password=partial(store_token, settings.CLEARANCE_DATA / "keys" / "store.token"),
            )
        case "memory":
            return _adapter(MEMORY)
        case "clickhouse":
            return _clickhouse(url)
    raise ImproperlyConfigured(f"{ACCEPTED}; its scheme '{parts.scheme}' is none of these.")


def _clickhouse(url: str) -> Telemetry:
    parts = urlsplit(url)
    try:
        port = parts.port
        query = parse_qs(parts.query, strict_parsing=bool(parts.query))
    except ValueError as error:
        raise ImproperlyConfigured(f"{ACCEPTED}; its port or query cannot be read.") from error
    secure = query.pop("secure", ["0"])
    if not parts.hostname or query or secure not in (["0"], ["1"]):
        raise ImproperlyConfigured(f"{ACCEPTED}; its host or query is not of that form.")
    is_secure = secure == ["1"]
    password = unquote(parts.password or "")
    return _adapter(
        CLICKHOUSE,
        host=parts.hostname,
        port=port or (CLICKHOUSE_TLS_PORT if is_secure else CLICKHOUSE_PORT),
        user=unquote(parts.username or "default"),
        password=lambda: password,
        database=unquote(parts.path.strip("/")) or "default",
        is_secure=is_secure,
    )


def _adapter(dotted_path: str, **options: object) -> Telemetry:
    made: Telemetry = import_string(dotted_path)(**options)
    return made


@lru_cache(maxsize=1)
def get_telemetry() -> Telemetry:
    """The telemetry store of this process, as TELEMETRY_URL says."""
    return telemetry_from_url(settings.TELEMETRY_URL)

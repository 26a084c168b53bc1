"""Fixtures every test may use."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

TWIN_URLS = {
    "TELEMETRY_URL": "memory:",
    "REGISTRY_URL": "memory:",
    "CLUSTER_URL": "memory:?gpus=4",
    "SIGNING_URL": "memory:",
    "TRUST_DOMAIN_URL": "memory:clearance.test",
}


def pytest_addoption(parser: pytest.Parser) -> None:
    """What `tests.run` needs to ask for."""
    parser.addoption(
        "--database-only", action="store_true", help="leave out tests that touch no database"
    )


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """With --database-only: a test that touches no database says nothing new of another one."""
    if not config.getoption("--database-only"):
        return
    kept, left = [], []
    for item in items:
        touches = "db" in getattr(item, "fixturenames", ()) or (
            item.get_closest_marker("django_db") is not None
        )
        (kept if touches else left).append(item)
    config.hook.pytest_deselected(items=left)
    items[:] = kept


@dataclass(frozen=True)
class Twins:
    """The in-memory twins that the product uses in this test."""

    telemetry: Any
    registry: Any
    cluster: Any
    signer: Any
    trust_domain: Any


@pytest.fixture(scope="session")
def django_db_modify_db_settings(
    django_db_modify_db_settings: None, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """SQLite in a file, as in life, where each thread has a connection of its own.

    In memory they share one: a thread inside SQLite that calls back into Python waits for the
    interpreter's lock, and the thread that holds it waits for SQLite's, for ever.
    """
    from django.conf import settings

    database = settings.DATABASES["default"]
    if database["ENGINE"] == "django.db.backends.sqlite3":
        where = tmp_path_factory.mktemp("database") / "tests.sqlite3"
        database.setdefault("TEST", {})["NAME"] = str(where)
        options = database["OPTIONS"]
        # No test asks what a power cut leaves of this database.
        options["init_command"] = options["init_command"].replace("=FULL", "=OFF")


@pytest.fixture(scope="session")
def django_db_setup(django_db_setup: None, django_db_blocker: Any) -> Iterator[None]:
    """The test database, let go by threads that outlive their test: PostgreSQL drops no other."""
    yield
    from django.db import connection

    if connection.vendor == "postgresql":
        with django_db_blocker.unblock(), connection.cursor() as cursor:
            cursor.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
                "WHERE datname = current_database() AND pid <> pg_backend_pid()"
            )


def _forget_ports() -> None:
    """Drop the ports that are kept once per process; the others are kept per data directory."""
    from agents.cluster import kubernetes_cluster
    from lineage.registry import get_registry
    from lineage.signing import get_signer
    from lineage.telemetry import get_telemetry

    for getter in (get_registry, get_signer, get_telemetry, kubernetes_cluster):
        getter.cache_clear()


@pytest.fixture
def twins(settings: Any, tmp_path: Path) -> Iterator[Twins]:
    """Every port but policy replaced by its in-memory twin; policy is the real sandbox."""
    for name, url in TWIN_URLS.items():
        setattr(settings, name, url)
    settings.CLEARANCE_DATA = tmp_path / "data"
    settings.SECRET_KEY = "a key of the tests alone, long enough for Django's checks to be content"
    settings.CHANNEL_LAYERS = {"default": {"BACKEND": "channels.layers.InMemoryChannelLayer"}}
    _forget_ports()
    from agents.cluster import get_cluster
    from agents.identity import get_trust_domain
    from lineage.registry import get_registry
    from lineage.signing import get_signer
    from lineage.telemetry import get_telemetry

    telemetry = get_telemetry()
    telemetry.ensure_schema()
    yield Twins(telemetry, get_registry(), get_cluster(), get_signer(), get_trust_domain())
    _forget_ports()


@pytest.fixture
def people(db: None) -> dict[str, Any]:
    """One user a role, each in namespace `default` alone, and an administrator of everything."""
    from django.contrib.auth.models import User

    from governance.domain import EVERY_NAMESPACE, Role
    from governance.models import Membership

    users = {}
    for role in Role:
        user = User.objects.create_user(username=role.value, password="correct horse battery")
        namespace = EVERY_NAMESPACE if role is Role.ADMIN else "default"
        Membership.objects.create(user=user, namespace=namespace, role=role)
        users[role.value] = user
    return users

"""Fixtures of the console: a tower on twins, and a client for each person."""

from typing import Any

import pytest

from tests.towers import Tower


@pytest.fixture(autouse=True)
def _quick_passwords(settings: Any) -> None:
    """Six people a test: what slows a guesser down would take most of the time."""
    settings.PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]


@pytest.fixture
def tower(people: dict[str, Any], twins: Any) -> Tower:
    """A tower with the starter bundle in force."""
    from governance.services.bundles import ensure_starter_bundle

    ensure_starter_bundle(identity="https://clearance.test/bootstrap")
    return Tower(people, twins)


@pytest.fixture
def signed_in(people: dict[str, Any]) -> Any:
    """A client signed in as one of the people, e.g. `signed_in("viewer")`."""
    from django.test import Client

    def client(name: str) -> Client:
        browser = Client()
        browser.force_login(people[name])
        return browser

    return client

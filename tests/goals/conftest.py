"""Fixtures of Goals: registered agents, a starter bundle in force, a Goal to steer."""

from typing import Any

import pytest

from tests.towers import Tower


@pytest.fixture
def tower(people: dict[str, Any], twins: Any) -> Tower:
    """A tower with the starter bundle in force."""
    from governance.services.bundles import ensure_starter_bundle

    ensure_starter_bundle(identity="https://clearance.test/bootstrap")
    return Tower(people, twins)

"""The command that sets the checkout example up, on the twins."""

from typing import Any

import pytest
from django.core.management import call_command

from agents.models import Agent
from goals.models import Goal, Release
from goals.services.releases import current_release

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("people", "twins")]


@pytest.fixture
def _bundle() -> None:
    from governance.services.bundles import ensure_starter_bundle

    ensure_starter_bundle(identity="https://clearance.test/bootstrap")


@pytest.mark.usefixtures("_bundle")
def test_agents_find_the_service_where_it_listens_and_a_repeat_changes_nothing(
    settings: Any,
) -> None:
    settings.CHECKOUT_PORT = 18089
    for _ in range(2):
        call_command("example")
    assert {
        agent.name: agent.manifest["spec"]["env"].get("CHECKOUT_URL")
        for agent in Agent.objects.all()
    } == {
        "profiler": "http://127.0.0.1:18089",
        "optimizer": None,
        "canary_deployer": "http://127.0.0.1:18089",
        "fine_tuner": None,
    }
    assert sorted(Goal.objects.values_list("name", flat=True)) == [
        "reduce-p99-latency",
        "rogue-fine-tune",
    ]
    assert current_release("default", service="checkout", environment="production") is not None
    assert Release.objects.count() == 1

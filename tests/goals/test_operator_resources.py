"""A Goal's row as the resource that kubectl shows."""

from typing import Any

import pytest

from goals.domain.states import Phase
from goals.models import Account
from goals.operator.resources import status_of
from goals.pages import account_views
from goals.selectors import account_documents
from goals.services.steering import cancel_goal

pytestmark = pytest.mark.django_db
FOUND: dict[str, Any] = {"metadata": {"generation": 1}}


@pytest.mark.parametrize(
    ("budget", "settled_ms", "spent", "limit"),
    [
        ("30 GPU-seconds", 2_500, "2.5 GPU-seconds", "30 GPU-seconds"),
        ("50 GPU-minutes", 90_000, "1.5 GPU-minutes", "50 GPU-minutes"),
        ("2 GPU-hours", 0, "0.0 GPU-hours", "2 GPU-hours"),
    ],
)
def test_what_is_spent_is_said_in_the_unit_of_its_limit(
    tower: Any, budget: str, settled_ms: int, spent: str, limit: str
) -> None:
    tower.register("profiler")
    goal = tower.apply("spends", budget=budget).goal
    Account.objects.filter(goal=goal, unit="gpu_ms").update(settled=settled_ms)
    status = status_of(goal, FOUND, [])
    assert (status["spent"], status["limit"]) == (spent, limit)


def test_a_goal_that_has_landed_shows_the_limit_it_had(tower: Any, twins: Any) -> None:
    tower.register("profiler")
    for wanted in ("50 GPU-minutes, 1k tokens", "40 GPU-minutes, 1k tokens"):
        goal = tower.apply("lands", budget=wanted).goal
        Account.objects.filter(goal=goal, unit="gpu_ms").update(settled=90_000)
        cancel_goal(goal, principal=tower.operator)
        goal = tower.reconcile(goal)
        assert goal.phase == Phase.CANCELLED
        status = status_of(goal, FOUND, [])
        assert status["spent"] == "1.5 GPU-minutes, 0 tokens"
        assert status["limit"] == wanted
        (gpu, _) = account_documents(goal)  # as the API and the pages say it
        minutes = int(wanted.split()[0])
        assert (gpu["granted"], gpu["settled"]) == (minutes * 60_000, 90_000)
        (shown, _) = account_views([goal])[goal.pk]
        assert (shown.granted, shown.returned) == (minutes * 60_000, minutes * 60_000 - 90_000)
    assert status["returned"] == "38.5 GPU-minutes, 1000 tokens"

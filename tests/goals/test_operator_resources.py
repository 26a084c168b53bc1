"""A Goal's row as the resource that kubectl shows."""

from typing import Any

import pytest

from goals.models import Account
from goals.operator.resources import status_of

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

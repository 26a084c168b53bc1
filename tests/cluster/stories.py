"""All stories that are told under faults, each with the end it must come to."""

from collections.abc import Callable
from typing import Any, Final

from tests.cluster.attempt_stories import ATTEMPT_STORIES, AttemptRun
from tests.cluster.fault_plan import CALM, Plan
from tests.cluster.goal_stories import GOAL_STORIES, GoalRun
from tests.cluster.telling import Place

STORIES: Final[tuple[Callable[[Any], None], ...]] = (*GOAL_STORIES, *ATTEMPT_STORIES)


def tell(place: Place, name: str, story: Callable[[Any], None], plan: Plan, expected: Any) -> Any:
    """Tell one story under a plan; its end and the run. Raises Unlike."""
    kind = GoalRun if story in GOAL_STORIES else AttemptRun
    run = kind(place, name, plan)
    return run.run(story, expected), run


def reference(place: Place, name: str, story: Callable[[Any], None]) -> Any:
    """How the story ends when nothing goes wrong."""
    return tell(place, name, story, CALM, None)[0]

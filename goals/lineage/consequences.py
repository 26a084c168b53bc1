"""What follows from a recall: what the digest touched, and what to do about each part of it."""

from collections.abc import Sequence
from dataclasses import dataclass

from agents.domain.states import ACTIVE_STATES
from agents.models import Attempt
from goals.domain.states import TERMINAL_PHASES, ReleaseState
from goals.models import Goal, Release
from lineage.models import Artifact, Recall
from lineage.services.recall import Touched, touched_by

SHOWN_MAX = 100  # of each kind; the counts say how many there are


@dataclass(frozen=True, slots=True)
class GoalAtRisk:
    """A Goal that still runs with what was touched; `attempts` of it do so at this moment."""

    goal: Goal
    attempts: int


@dataclass(frozen=True, slots=True)
class ReleaseAtRisk:
    """A release in force that rests on it, and the last good one to go back to, if there is any."""

    release: Release
    back_to: Release | None


@dataclass(frozen=True, slots=True)
class Consequences:
    """Everything downstream of a digest and what a person may do about it."""

    touched: Touched
    goals: tuple[GoalAtRisk, ...]
    releases: tuple[ReleaseAtRisk, ...]
    artifacts: tuple[Artifact, ...]
    recalls: tuple[Recall, ...]  # of this digest, newest first


def consequences(artifact: Artifact) -> Consequences:
    """Walk everything downstream and pair what still runs or serves with its remedy."""
    touched = touched_by(artifact)
    tainted = {artifact.digest, *touched.artifacts}
    here = {"namespace": artifact.namespace}
    in_force = Release.objects.filter(
        **here, pk__in=touched.releases, state=ReleaseState.ACTIVE
    ).order_by("service", "environment")
    return Consequences(
        touched=touched,
        goals=_goals_at_risk(touched, artifact.namespace),
        releases=tuple(
            ReleaseAtRisk(release, _last_good(release, tainted)) for release in in_force[:SHOWN_MAX]
        ),
        artifacts=tuple(Artifact.objects.filter(**here, digest__in=touched.artifacts[:SHOWN_MAX])),
        recalls=tuple(Recall.objects.filter(**here, digest=artifact.digest)[:SHOWN_MAX]),
    )


def _goals_at_risk(touched: Touched, namespace: str) -> tuple[GoalAtRisk, ...]:
    running: dict[str, int] = {}
    active = Attempt.objects.filter(
        namespace=namespace, pk__in=touched.attempts, state__in=ACTIVE_STATES
    )
    for goal_uid in active.values_list("goal_uid", flat=True):
        running[str(goal_uid)] = running.get(str(goal_uid), 0) + 1
    goals = Goal.objects.filter(
        namespace=namespace, pk__in=touched.goals, deleted_at__isnull=True
    ).exclude(phase__in=TERMINAL_PHASES)
    return tuple(GoalAtRisk(goal, running.get(str(goal.uid), 0)) for goal in goals[:SHOWN_MAX])


def _last_good(release: Release, tainted: Sequence[str] | set[str]) -> Release | None:
    """The newest release that served there before and is neither tainted nor recalled."""
    before = Release.objects.filter(
        namespace=release.namespace,
        service=release.service,
        environment=release.environment,
        state=ReleaseState.SUPERSEDED,
    ).order_by("-number")
    candidates = [one for one in before[:SHOWN_MAX] if one.digest not in tainted]
    recalled = set(
        Artifact.objects.filter(
            namespace=release.namespace,
            digest__in=[one.digest for one in candidates],
            recalled_at__isnull=False,
        ).values_list("digest", flat=True)
    )
    return next((one for one in candidates if one.digest not in recalled), None)

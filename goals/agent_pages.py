"""What the pages of agents show: what one may do, its identities, its registrations, its record."""

import json
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from django.core.paginator import Page, Paginator
from django.db.models import Count
from django.utils import timezone

from agents.domain.states import ACTIVE_STATES
from agents.models import Agent, AgentRevision, Attempt, IssuedSvid
from agents.services.drift import differences, registered_manifest
from goals.domain.states import ReleaseState
from goals.models import AttemptConduct, Release
from governance.access import Principal, visible_decisions
from governance.models import Decision

SVIDS_PAGE: Final = 25
GENERATIONS_MAX: Final = 20
GOALS_MAX: Final = 50  # the newest Goals whose decisions about the agent are counted
PAIRS_MAX: Final = 100  # its newest attempts, which name those Goals
DENIALS_MAX: Final = 5
RUNNING_MAX: Final = 1000  # attempts compared for one page of the list


@dataclass(frozen=True, slots=True)
class FieldChange:
    """One field of a registration before and after; None where it was not there."""

    path: str
    before: str | None
    after: str | None


@dataclass(frozen=True, slots=True)
class RevisionView:
    """A generation and what it changed; `changes` None for the oldest that is kept."""

    revision: AgentRevision
    changes: tuple[FieldChange, ...] | None


@dataclass(frozen=True, slots=True)
class Pulse:
    """What runs of an agent now, for its row in the list."""

    running: int
    revoked: int
    drifted: int


def pulses(agents: list[Agent]) -> dict[Any, Pulse]:
    """What runs of each agent, and what of it waits for a person's word: two queries for all."""
    by_pk = {agent.pk: agent for agent in agents}
    running: dict[Any, list[Attempt]] = {pk: [] for pk in by_pk}
    found = Attempt.objects.filter(agent__in=agents, state__in=ACTIVE_STATES)
    for attempt in found.order_by("-created_at")[:RUNNING_MAX]:
        running[attempt.agent_id].append(attempt)
    held = AttemptConduct.objects.filter(answer="").exclude(standing="")
    held = held.filter(agent_name__in={one.name for one in agents})
    drifters = Counter(held.values_list("namespace", "agent_name"))
    return {
        pk: _pulse(by_pk[pk], attempts, drifters[by_pk[pk].namespace, by_pk[pk].name])
        for pk, attempts in running.items()
    }


def _pulse(agent: Agent, attempts: list[Attempt], held: int) -> Pulse:
    registered = registered_manifest(agent) if attempts else None
    return Pulse(
        running=len(attempts),
        revoked=sum(attempt.identity_revoked_at is not None for attempt in attempts),
        drifted=held + sum(bool(registered and differences(one, registered)) for one in attempts),
    )


def live_svids(agent: Agent, *, page: str | None = None) -> Page[IssuedSvid]:
    """Documents of the agent's attempts that are accepted now, soonest to expire first."""
    standing = Attempt.objects.filter(
        agent=agent, state__in=ACTIVE_STATES, identity_revoked_at__isnull=True
    )
    found = (
        IssuedSvid.objects.filter(attempt__in=standing, expires_at__gt=timezone.now())
        .select_related("attempt")
        .only("kind", "serial", "issued_at", "expires_at", "attempt__task", "attempt__number")
        .order_by("expires_at", "pk")
    )
    return Paginator(found, SVIDS_PAGE).get_page(page)


def released_digests(namespace: str) -> frozenset[str]:
    """What the environments of a namespace serve."""
    found = Release.objects.filter(namespace=namespace, state=ReleaseState.ACTIVE)
    return frozenset(found.values_list("digest", flat=True))


def revision_views(agent: Agent) -> list[RevisionView]:
    """The newest generations, each with what it changed."""
    kept = list(agent.revisions.order_by("-generation")[: GENERATIONS_MAX + 1])
    older: list[AgentRevision | None] = [*kept[1:], None]
    views = [
        RevisionView(one, _changes(before.manifest, one.manifest) if before else None)
        for one, before in zip(kept, older, strict=True)
    ]
    return views[:GENERATIONS_MAX]


def decision_counts(
    agent: Agent, principal: Principal
) -> tuple[list[tuple[str, int]], list[Decision]]:
    """How policy judged the agent's tasks in its newest Goals, and the last that it denied."""
    tasks = Attempt.objects.filter(agent=agent).order_by("-created_at")
    pairs = list(tasks.values_list("goal_uid", "task")[:PAIRS_MAX])
    goals = list(dict.fromkeys(goal for goal, _ in pairs))[:GOALS_MAX]
    names = {task for _, task in pairs} | {agent.name}
    found = visible_decisions(principal).filter(
        goal_uid__in=goals, subject_kind="task", subject_id__in=names, namespace=agent.namespace
    )
    counted = found.order_by().values_list("outcome").annotate(number=Count("pk"))
    denied = found.filter(outcome="deny").order_by("-at").defer("input_canonical")
    return sorted(counted), list(denied[:DENIALS_MAX])


def _changes(before: Mapping[str, Any], after: Mapping[str, Any]) -> tuple[FieldChange, ...]:
    old, new = dict(_flat(before)), dict(_flat(after))
    paths = sorted(path for path in {*old, *new} if old.get(path) != new.get(path))
    return tuple(FieldChange(path, old.get(path), new.get(path)) for path in paths)


def _flat(value: Any, path: str = "") -> Iterable[tuple[str, str]]:
    if isinstance(value, Mapping) and value:
        for key, inner in value.items():
            yield from _flat(inner, f"{path}.{key}" if path else str(key))
    else:
        yield path, value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)

"""Workloads of the cluster that are not ours, as the hub puts them on the map."""

import datetime as dt
from typing import Any, Final
from uuid import UUID

from django.db.models import Q, QuerySet
from django.utils import timezone

from agents.domain.states import AttemptState
from agents.fleet.domain import FOREIGN_ROLE, Changes, RunFact
from agents.models import ClusterSurvey, ClusterWorkload

NO_GOAL: Final = UUID(int=0)  # no Goal has it, so it is drawn as "no Goal"
# The survey looks every two seconds and the hub every five: older than that nobody has looked.
HEARD_SECONDS: Final = 10.0
ENDED_MINUTES: Final = 15  # as long as runs of ours stay on the map
OVERLAP: Final = dt.timedelta(seconds=30)  # clocks differ, and transactions take their time
LIVE: Final = (AttemptState.RUNNING.value, AttemptState.PENDING.value)
FIELDS: Final = (
    "uid", "namespace", "name", "kind", "state", "gpus", "nodes", "started_at", "first_seen_at",
    "changed_at",
)  # fmt: skip


class ForeignFeed:
    """What is on the map, and what has changed of it since the last look. For one thread."""

    def __init__(self) -> None:
        self._heard_at: dt.datetime | None = None
        self._is_heard = False
        self._seen_at: dt.datetime | None = None

    def load(self) -> list[RunFact]:
        """Everything; the next `changes` are those after it."""
        now = timezone.now()
        self._listen(now)
        self._seen_at = now
        return self._facts(_shown(now))

    def changes(self) -> Changes:
        """News since the last look. A survey that is not heard makes all of it unknown."""
        now = timezone.now()
        was_heard = self._is_heard
        self._listen(now)
        if self._seen_at is None or self._is_heard != was_heard:
            return Changes(runs=self.load())
        rows = ClusterWorkload.objects.filter(changed_at__gte=self._seen_at - OVERLAP)
        self._seen_at = now
        return Changes(
            runs=self._facts(rows.exclude(state="")),
            gone_runs=list(rows.filter(state="").values_list("uid", flat=True)),
        )

    def _facts(self, rows: QuerySet[ClusterWorkload]) -> list[RunFact]:
        return [self._fact(values) for values in rows.values(*FIELDS)]

    def _listen(self, now: dt.datetime) -> None:
        self._heard_at = ClusterSurvey.objects.values_list("heard_at", flat=True).first()
        age = None if self._heard_at is None else (now - self._heard_at).total_seconds()
        self._is_heard = age is not None and age <= HEARD_SECONDS

    def _fact(self, row: dict[str, Any]) -> RunFact:
        changed_at = row["changed_at"]
        if not self._is_heard:  # what it does is not known since then
            changed_at = max(changed_at, self._heard_at or changed_at)
        return RunFact(
            uid=row["uid"],
            goal_uid=NO_GOAL,
            namespace=row["namespace"],
            agent=row["name"],
            role=FOREIGN_ROLE,
            task=row["kind"],
            node=", ".join(row["nodes"]),
            state=row["state"] if self._is_heard else AttemptState.LOST.value,
            gpus=row["gpus"],
            gpu_ms=0,
            created_ms=_ms(row["started_at"] or row["first_seen_at"]),
            changed_ms=_ms(changed_at),
        )


def _shown(now: dt.datetime) -> QuerySet[ClusterWorkload]:
    since = now - dt.timedelta(minutes=ENDED_MINUTES)
    return ClusterWorkload.objects.exclude(state="").filter(
        Q(state__in=LIVE) | Q(changed_at__gte=since)
    )


def _ms(moment: dt.datetime) -> float:
    return moment.timestamp() * 1000

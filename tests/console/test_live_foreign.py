"""Workloads that are not ours on the map: told, told again when changed, unknown when unheard."""

import datetime as dt
from typing import Any

import pytest
from django.utils import timezone

from agents.domain.states import AttemptState
from agents.fleet.columns import FleetColumns
from agents.fleet.domain import FOREIGN_ROLE, Kind
from agents.models import ClusterSurvey, ClusterWorkload
from agents.services.survey import note_heard, record_foreign
from agents.survey.domain import fleet_of, foreign_workloads
from console.live.foreign import ForeignFeed
from console.live.sources import FleetSource
from tests.agents.cluster_objects import pod, pods

pytestmark = pytest.mark.django_db
TRAIN = pod("train", gpus=2, node="n1")


def _survey(*objects: Any) -> None:
    now = timezone.now()
    found = pods(*objects)
    record_foreign(foreign_workloads(found), at=now)
    note_heard(cluster="prod", at=now, fleet=fleet_of([], found))


def test_they_are_drawn_apart_without_a_goal_in_their_own_namespace() -> None:
    _survey(TRAIN, pod("stuck", phase="Pending", namespace="team-a"))
    columns = FleetColumns()
    changes, _ = FleetSource().load()
    columns.apply(changes, now_ms=0)
    rows = columns.run_rows[columns.run_rows["is_used"]]
    assert set(rows["kind"].tolist()) == {Kind.FOREIGN}
    told = {
        run.agent: (run.namespace, run.task, run.role, run.node, run.state, run.gpus)
        for run in changes.runs
    }
    assert told == {
        "train": ("team-b", "Pod", FOREIGN_ROLE, "n1", "running", 2),
        "stuck": ("team-a", "Pod", FOREIGN_ROLE, "", "pending", 0),
    }


def test_a_change_is_told_and_what_is_gone_leaves() -> None:
    _survey(TRAIN)
    feed = FleetSource()
    columns = FleetColumns()
    columns.apply(feed.load()[0], now_ms=0)
    _survey(pod("train", gpus=1, node="n1", phase="Pending"))
    columns.apply(feed.meters(), now_ms=0)
    row = columns.run_of(ClusterWorkload.objects.get().uid)
    assert (row["state"], row["gpus"]) == (0, 1)
    _survey()
    changes = feed.meters()
    columns.apply(changes, now_ms=0)
    assert len(columns) == 0


def test_a_survey_that_is_not_heard_makes_them_unknown_until_it_is_again() -> None:
    _survey(TRAIN)
    feed = ForeignFeed()
    assert [run.state for run in feed.load()] == ["running"]
    ClusterSurvey.objects.update(heard_at=timezone.now() - dt.timedelta(seconds=30))
    lost = feed.changes().runs
    assert [run.state for run in lost] == [AttemptState.LOST]
    ClusterSurvey.objects.update(heard_at=timezone.now())
    assert [run.state for run in feed.changes().runs] == ["running"]


def test_what_ended_long_ago_is_not_put_on_the_map_again() -> None:
    _survey(pod("done", phase="Succeeded"))
    assert len(ForeignFeed().load()) == 1
    ClusterWorkload.objects.update(changed_at=timezone.now() - dt.timedelta(minutes=16))
    assert ForeignFeed().load() == []

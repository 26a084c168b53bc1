"""Workloads that ended are forgotten once they are settled and old, and nothing else is."""

import datetime as dt
from typing import Any

import pytest
from django.utils import timezone

from agents.cluster.base import ClusterUnavailable
from agents.models import Attempt
from agents.services.retention import forget_workloads
from tests.goals.provenance import as_

DAY = dt.timedelta(days=1)


@pytest.fixture
def ended(tower: Any) -> list[Attempt]:
    """Three attempts that ran and were settled."""
    tower.register("worker", gpus=1)
    found = []
    for name in ("one", "two", "three"):
        goal = tower.apply(name, agents="worker", budget="60 GPU-seconds").goal
        for _ in range(4):
            tower.reconcile(goal)
            tower.twins.cluster.advance(1_000)
        (attempt,) = tower.attempts(goal)
        tower.twins.cluster.finish(attempt.workload, 0)
        for _ in range(4):
            tower.reconcile(goal)
        attempt.refresh_from_db()
        found.append(attempt)
    return found


def kept(tower: Any, ended: list[Attempt]) -> set[str]:
    """Which of them the cluster still knows; the Goals may have gone on with other attempts."""
    return {one.name for one in tower.twins.cluster.list()} & {one.workload for one in ended}


@pytest.mark.django_db
def test_what_ended_long_ago_is_forgotten_and_nothing_else(tower: Any, ended: Any) -> None:
    cluster = tower.twins.cluster
    now = cluster.now
    assert all(one.gpu_allowance_ms == one.gpu_settled_ms for one in ended)
    assert forget_workloads(now=now + DAY - dt.timedelta(minutes=5)) == 0
    assert forget_workloads(now=now + DAY * 2, at_once=1) == 1
    assert kept(tower, ended) == {one.workload for one in ended[1:]}  # the oldest first
    # One whose ledger is not settled, or that still runs for us, is kept.
    unsettled, running = ended[1:]
    Attempt.objects.filter(pk=unsettled.pk).update(gpu_allowance_ms=unsettled.gpu_settled_ms + 1)
    Attempt.objects.filter(pk=running.pk).update(state="running")
    assert forget_workloads(now=now + DAY * 2) == 0
    Attempt.objects.filter(pk=running.pk).update(state="succeeded")
    assert forget_workloads(now=now + DAY * 2) == 1
    assert forget_workloads(now=now + DAY * 2) == 0
    assert kept(tower, ended) == {unsettled.workload}


@pytest.mark.django_db
def test_a_workload_that_nobody_knows_is_kept(tower: Any, ended: Any) -> None:
    Attempt.objects.filter(pk=ended[0].pk).update(workload="another")
    assert forget_workloads(now=tower.twins.cluster.now + DAY * 2) == 2
    assert kept(tower, ended) == {ended[0].workload}


@pytest.mark.django_db
def test_the_setting_says_how_long(tower: Any, ended: Any, settings: Any) -> None:
    settings.WORKLOAD_RETENTION_SECONDS = 60
    now = tower.twins.cluster.now
    assert forget_workloads(now=now + dt.timedelta(minutes=10)) == 3


@pytest.mark.django_db
def test_a_cluster_that_is_away_loses_nothing(tower: Any, ended: Any) -> None:
    tower.twins.cluster.fail_next(ClusterUnavailable("It is away."))
    with pytest.raises(ClusterUnavailable):
        forget_workloads(now=tower.twins.cluster.now + DAY * 2)
    assert forget_workloads(now=tower.twins.cluster.now + DAY * 2) == 3


@pytest.mark.django_db
def test_the_page_says_that_output_is_no_longer_kept(tower: Any, people: Any, ended: Any) -> None:
    (attempt, *_) = ended
    forget_workloads(now=tower.twins.cluster.now + DAY * 2)
    browser = as_(people, "viewer")
    Attempt.objects.filter(pk=attempt.pk).update(finished_at=timezone.now())
    page = browser.get(f"/attempts/{attempt.uid}").content.decode()
    assert "the cluster does not know this workload" in page
    Attempt.objects.filter(pk=attempt.pk).update(finished_at=timezone.now() - DAY * 2)
    page = browser.get(f"/attempts/{attempt.uid}").content.decode()
    assert "No longer kept: output is removed 1 d" in page

"""An operator that acts on what it heard some time ago: it loses nobody's change."""

from collections.abc import Callable
from typing import Any

import pytest

from agents.cluster.base import ClusterError
from agents.cluster.kubernetes.api import KubernetesApi, ObjectConflict
from goals.models import Goal
from goals.operator.mirror import Mirror
from goals.operator.resources import FINALIZER
from goals.services.apply import delete_goal
from tests.cluster.conftest import MERGE
from tests.cluster.control_plane import CONTEXT, ControlPlane
from tests.cluster.test_operator import Desk, desk

__all__ = ["desk"]  # the fixture

pytestmark = [
    pytest.mark.slow,
    pytest.mark.contract,
    pytest.mark.django_db(transaction=True),
    pytest.mark.usefixtures("twins"),
]


def act_on(desk: Desk, heard: dict[str, Any] | None, *, api: KubernetesApi | None = None) -> None:
    """One look of an operator that has heard this, and nothing since."""
    mirror = Mirror(api or desk.api, get=lambda _: heard, put=lambda _: None)
    mirror.sync(("default", desk.name))


def test_what_kubectl_changed_since_is_not_overwritten(desk: Desk) -> None:
    desk.kubectl()
    desk.look()
    desk.tower.apply(desk.name, budget="45 GPU-minutes")
    heard = desk.found()
    desk.kubectl(budget="20 GPU-minutes")
    with pytest.raises(ObjectConflict):
        act_on(desk, heard)
    assert desk.found()["spec"]["budget"] == "20 GPU-minutes"
    desk.look()  # and then it is settled, and said
    assert desk.conditions()["Synced"]["reason"] == "Conflict"


def test_a_resource_that_was_not_heard_of_is_not_overwritten(desk: Desk) -> None:
    desk.tower.apply(desk.name, budget="45 GPU-minutes")
    desk.kubectl(budget="20 GPU-minutes")
    before = desk.found()
    with pytest.raises(ObjectConflict):
        act_on(desk, None)
    assert desk.found() == before


def test_what_the_console_took_back_is_not_asked_again(desk: Desk) -> None:
    desk.kubectl()
    desk.look()
    desk.kubectl(budget="20 GPU-minutes")
    heard = desk.found()
    desk.look()
    desk.tower.apply(desk.name)
    with pytest.raises(ObjectConflict):
        act_on(desk, heard)
    assert (desk.row().spec["budget"], desk.row().generation) == ("50 GPU-minutes", 3)
    desk.look()
    assert desk.found()["spec"]["budget"] == "50 GPU-minutes"


def test_a_resource_that_has_gone_makes_no_goal(desk: Desk) -> None:
    desk.kubectl()
    finalizers = {"metadata": {"finalizers": [FINALIZER]}}
    desk.plane.request("PATCH", desk.path, finalizers, content_type=MERGE)
    heard = desk.found()
    desk.plane.request("PATCH", desk.path, {"metadata": {"finalizers": []}}, content_type=MERGE)
    desk.plane.request("DELETE", desk.path)
    with pytest.raises(ClusterError):
        act_on(desk, heard)
    assert desk.row() is None


def test_a_deletion_of_long_ago_ends_no_new_goal(desk: Desk) -> None:
    desk.kubectl()
    finalizers = {"metadata": {"finalizers": [FINALIZER]}}
    desk.plane.request("PATCH", desk.path, finalizers, content_type=MERGE)
    desk.plane.request("DELETE", desk.path)
    heard = desk.found()
    desk.plane.request("PATCH", desk.path, {"metadata": {"finalizers": []}}, content_type=MERGE)
    desk.kubectl(budget="20 GPU-minutes")
    desk.look()
    with pytest.raises(ClusterError):
        act_on(desk, heard)
    assert desk.row().deletion_requested_at is None


def test_a_deletion_in_the_console_takes_no_newer_wish_with_it(desk: Desk) -> None:
    desk.kubectl()
    desk.look()
    heard = desk.found()
    delete_goal(desk.row(), principal=desk.tower.operator)
    desk.kubectl(budget="20 GPU-minutes")
    with pytest.raises(ObjectConflict):
        act_on(desk, heard)
    assert "deletionTimestamp" not in desk.found()["metadata"]


class Interrupted(KubernetesApi):
    """Between its last question and what follows from the answer, something happens."""

    happens: Callable[[], None]

    def get(self, path: str, **query: Any) -> dict[str, Any]:
        found = super().get(path, **query)
        self.happens()
        return found


def test_one_that_was_stopped_in_between_changes_no_newer_row(
    plane: ControlPlane, desk: Desk
) -> None:
    desk.kubectl()
    desk.look()
    desk.kubectl(budget="20 GPU-minutes")
    api = Interrupted(CONTEXT, config_file=str(plane.kubeconfig))
    api.happens = lambda: desk.tower.apply(desk.name, budget="45 GPU-minutes")
    with pytest.raises(ObjectConflict):
        act_on(desk, desk.found(), api=api)
    assert desk.row().spec["budget"] == "45 GPU-minutes"
    api.close()


def test_one_that_was_stopped_in_between_makes_no_second_goal(
    plane: ControlPlane, desk: Desk
) -> None:
    desk.kubectl()
    finalizers = {"metadata": {"finalizers": [FINALIZER]}}
    desk.plane.request("PATCH", desk.path, finalizers, content_type=MERGE)
    api = Interrupted(CONTEXT, config_file=str(plane.kubeconfig))
    api.happens = lambda: desk.tower.apply(desk.name, budget="45 GPU-minutes")
    with pytest.raises(ObjectConflict):
        act_on(desk, desk.found(), api=api)
    assert desk.row().spec["budget"] == "45 GPU-minutes"
    assert Goal.objects.filter(name=desk.name).count() == 1
    api.close()

"""Our client of the API server when the way there is bad: what it does, and how often it asks."""

import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from agents.cluster.base import ClusterUnavailable
from agents.cluster.kubernetes.api import (
    KubernetesApi,
    NotOurs,
    ObjectConflict,
    RateLimit,
    TooManyRequests,
    object_path,
)
from goals.operator.informer import Informer
from goals.operator.mirror import GOALS
from goals.operator.pace import Pace
from tests.cluster.conftest import install_resources
from tests.cluster.control_plane import CONTEXT, ControlPlane
from tests.cluster.fault_plan import Fault, Plan
from tests.cluster.fault_proxy import FaultProxy, Route, fault_proxy
from tests.cluster.storm import over_limit

pytestmark = [pytest.mark.slow, pytest.mark.contract]

ALWAYS = 60.0  # seconds; longer than any test
DEFAULT = "/api/v1/namespaces/default"
SECRETS = "/api/v1/namespaces/default/secrets"


@pytest.fixture
def proxy(plane: ControlPlane) -> Iterator[FaultProxy]:
    with fault_proxy(plane) as serving:
        yield serving


def client(route: Route, directory: Path, **more: Any) -> KubernetesApi:
    return KubernetesApi(CONTEXT, config_file=str(route.kubeconfig(directory)), **more)


def always(fault: Fault) -> Plan:
    return Plan(rates={fault: 1.0}, seconds=ALWAYS)


def test_who_is_asked_to_wait_does_not_ask_again(proxy: FaultProxy, tmp_path: Path) -> None:
    route = proxy.route("throttled", always(Fault.THROTTLE))
    began = time.monotonic()
    with pytest.raises(TooManyRequests) as caught:
        client(route, tmp_path).get(DEFAULT)
    assert caught.value.seconds == 1.0
    assert (route.asked, time.monotonic() - began < 0.9) == (1, True)


@pytest.mark.parametrize("fault", [Fault.RESET_BEFORE, Fault.RESET_AFTER, Fault.TORN])
def test_a_broken_connection_is_said_and_not_tried_in_secret(
    proxy: FaultProxy, tmp_path: Path, fault: Fault
) -> None:
    route = proxy.route("broken", always(fault))
    api = client(route, tmp_path)
    for call in (lambda: api.get(DEFAULT), lambda: api.delete(f"{SECRETS}/absent")):
        before = route.asked
        with pytest.raises(ClusterUnavailable):
            call()
        assert route.asked == before + 1


def test_an_answer_that_drips_ends_in_time(proxy: FaultProxy, tmp_path: Path) -> None:
    route = proxy.route("slow", always(Fault.SLOW))
    began = time.monotonic()
    with pytest.raises(ClusterUnavailable):
        client(route, tmp_path, total_seconds=0.15).get(DEFAULT)
    assert time.monotonic() - began < 0.3
    client(route, tmp_path).get(DEFAULT)


def test_an_answer_that_never_comes_ends_in_time(proxy: FaultProxy, tmp_path: Path) -> None:
    route = proxy.route("hanging", always(Fault.HANG))
    began = time.monotonic()
    with pytest.raises(ClusterUnavailable):
        client(route, tmp_path, timeouts=(0.5, 0.5)).get(DEFAULT)
    assert time.monotonic() - began < 1.5


def test_a_client_without_a_limit_has_one_all_the_same(proxy: FaultProxy, tmp_path: Path) -> None:
    route = proxy.route("limited")
    api = client(route, tmp_path)
    threads = [
        threading.Thread(target=lambda: [api.get(DEFAULT) for _ in range(60)]) for _ in range(6)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    times = [call.at for call in route.calls]
    assert len(times) == 360
    assert over_limit(times, per_second=100, burst=200) == 0


def test_a_watch_that_fell_silent_is_given_up(api: KubernetesApi) -> None:
    path = "/api/v1/namespaces/kube-public/secrets"
    _, version = api.list_at(path)
    began = time.monotonic()
    with pytest.raises(ClusterUnavailable):
        list(api.watch(path, version=version, seconds=30, silence_seconds=0.5))
    assert time.monotonic() - began < 5


def test_nothing_is_written_once_it_may_not(proxy: FaultProxy, tmp_path: Path) -> None:
    route = proxy.route("fenced")
    may: list[bool] = [False]
    api = client(route, tmp_path).fenced(lambda: may[0])
    body = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "fenced"}}
    with pytest.raises(NotOurs):
        api.create(SECRETS, body)
    api.get(DEFAULT)
    assert [call.method for call in route.calls] == ["GET"]
    may[0] = True
    api.create(SECRETS, body)
    api.delete(f"{SECRETS}/fenced")


def test_what_is_to_be_new_takes_nothing_from_others(
    plane: ControlPlane, api: KubernetesApi
) -> None:
    """What the mirror relies on: apply with a version that never was only ever creates."""
    path = f"{DEFAULT}/configmaps/new"
    body = {
        "apiVersion": "v1", "kind": "ConfigMap", "data": {"a": "1"},
        "metadata": {"name": "new", "resourceVersion": "1"},
    }  # fmt: skip
    made = api.apply(path, body, manager="first", is_forced=False)
    try:
        with pytest.raises(ObjectConflict):
            api.apply(path, body, manager="first", is_forced=False)
        assert api.get(path)["metadata"]["resourceVersion"] == made["metadata"]["resourceVersion"]
    finally:
        api.delete(path)


class Ear:
    """An informer of one namespace on a faulty way, and everything it ever held of one Goal."""

    def __init__(self, plane: ControlPlane, route: Route, directory: Path, pace: Pace) -> None:
        install_resources(plane)
        self.plane, self.route = plane, route
        self.namespace = route.url.rpartition("/")[2]
        plane.add_namespace(self.namespace)
        self.collection = object_path(GOALS, self.namespace)
        self.held: list[int] = []
        limit = RateLimit(per_second=20, burst=20)
        self.api = client(route, directory, limit=limit)
        self.informer = Informer(self.api, self.collection, changed=self._hear, pace=pace)
        self.thread = threading.Thread(target=self.informer.run, daemon=True)

    def _hear(self, key: tuple[str, str]) -> None:
        found = self.informer.get(key)
        self.held.append(int(found["metadata"]["resourceVersion"]) if found else 0)

    def create(self) -> None:
        spec = {"objective": "a < 1", "budget": "1 GPU-minutes", "agents": ["profiler"]}
        body = {
            "apiVersion": "orchestration.ai/v1", "kind": "Goal", "metadata": {"name": "one"},
            "spec": spec,
        }  # fmt: skip
        self.plane.request("POST", self.collection, body)

    def number(self, number: int) -> None:
        """Change the Goal."""
        self.plane.request(
            "PATCH", f"{self.collection}/one",
            {"metadata": {"annotations": {"number": str(number)}}},
            content_type="application/merge-patch+json",
        )  # fmt: skip

    def heard(self) -> int:
        found = self.informer.get((self.namespace, "one")) or {}
        return int(found.get("metadata", {}).get("annotations", {}).get("number", 0))

    def until(self, holds: Callable[[], bool], what: str) -> None:
        deadline = time.monotonic() + 20.0
        while not holds():
            assert time.monotonic() < deadline, f"never {what}"
            time.sleep(0.02)

    def close(self) -> None:
        self.informer.stop()
        self.route.cut()
        self.thread.join(5)
        self.api.close()


def test_an_event_told_again_later_brings_nothing_back(
    plane: ControlPlane, proxy: FaultProxy, tmp_path: Path
) -> None:
    ear = Ear(plane, proxy.route("late", always(Fault.LATE)), tmp_path, Pace())
    ear.thread.start()
    ear.until(ear.informer.synced.is_set, "listed")
    ear.create()
    for number in range(1, 6):
        ear.number(number)
    ear.until(lambda: ear.heard() == 5, "up to date")
    plane.request("DELETE", f"{ear.collection}/one")
    ear.until(lambda: ear.informer.all_keys() == [], "empty")
    time.sleep(0.3)  # what comes late has come by now
    assert ear.informer.all_keys() == []
    assert ear.held == [*sorted(ear.held[:-1]), 0]
    ear.close()


def test_a_list_of_an_earlier_moment_is_not_believed(
    plane: ControlPlane, proxy: FaultProxy, tmp_path: Path
) -> None:
    """Unless the server stays there: then it is the server that has gone back."""
    pace = Pace(first_pause=0.02, longest_pause=0.1, relist=1.0, watch=1)
    plan = Plan(seed=5, rates={Fault.STALE: 0.6}, seconds=5.0)
    ear = Ear(plane, proxy.route("stale", plan), tmp_path, pace)
    ear.thread.start()
    ear.until(ear.informer.synced.is_set, "listed")
    ear.create()
    for number in range(1, 40):
        ear.number(number)
        time.sleep(0.1)
    ear.until(lambda: ear.heard() == 39, "up to date")
    lists = [call for call in ear.route.calls if not call.is_watch]
    assert any(call.fault == Fault.STALE for call in lists)
    assert ear.held == sorted(ear.held)
    ear.close()


QUICK = Pace(first_pause=0.1, longest_pause=2.0, relist=2.0, watch=5)


@pytest.mark.parametrize("fault", [Fault.GONE, Fault.GONE_IN_WATCH, Fault.CUT, Fault.THROTTLE])
def test_an_informer_in_a_loop_asks_less_and_less(
    plane: ControlPlane, proxy: FaultProxy, tmp_path: Path, fault: Fault
) -> None:
    """And hears of everything once the loop ends."""
    plan = Plan(rates={fault: 1.0}, seconds=4.0)
    route = proxy.route(f"loop-{fault.name.lower().replace('_', '-')}", plan)
    ear = Ear(plane, route, tmp_path, QUICK)
    ear.create()
    ear.thread.start()
    deadline, number = time.monotonic() + 4.0, 0
    while time.monotonic() < deadline:  # so that a watch has something to tell
        number += 1
        ear.number(number)
        time.sleep(0.2)
    asked = route.asked
    ear.until(lambda: ear.heard() == number, "up to date")
    ear.close()
    # Pauses of 0.1, 0.2, … 2.0 s: about seven looks in four seconds, of at most two calls each,
    # and a list every two seconds.
    assert asked <= 20

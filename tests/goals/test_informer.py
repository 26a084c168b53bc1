"""What an informer believes of lists and watches, told word by word."""

import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from agents.cluster.base import ClusterUnavailable
from goals.operator.informer import OLD_LISTS, Informer
from goals.operator.pace import Pace

KEY = ("default", "one")


def goal(version: int, *, uid: str = "u") -> dict[str, Any]:
    metadata = {"namespace": "default", "name": "one", "uid": uid, "resourceVersion": str(version)}
    return {"metadata": {**metadata, "managedFields": [{"manager": "kubectl"}]}}


class Server:
    """Answers what it is told to: lists in turn, the last for ever, and the events of one watch."""

    def __init__(self, *lists: tuple[int, list[dict[str, Any]]]) -> None:
        self.lists = list(lists)
        self.asked = 0
        self.events: list[tuple[str, dict[str, Any]]] = []
        self.may_tell = threading.Event()
        self.may_tell.set()
        self.has_told = threading.Event()
        self.is_over = threading.Event()

    def list_at(
        self, path: str, *, lean: Callable[[dict[str, Any]], dict[str, Any]]
    ) -> tuple[list[dict[str, Any]], str]:
        version, found = self.lists[min(self.asked, len(self.lists) - 1)]
        self.asked += 1
        return [lean(one) for one in found], str(version)

    def watch(self, path: str, *, version: str, seconds: int) -> Iterator[dict[str, Any]]:
        if not self.events:
            raise ClusterUnavailable("no watch today")
        self.may_tell.wait(10)
        for kind, found in self.events:
            yield {"type": kind, "object": found}
        self.has_told.set()
        self.is_over.wait(20)


@pytest.fixture
def started() -> Iterator[Callable[..., Informer]]:
    ends: list[Callable[[], None]] = []

    def start(
        server: Server, *, relist: float = 600.0, changed: Callable[[Any], None] = lambda _: None
    ) -> Informer:
        pace = Pace(first_pause=0.001, longest_pause=0.002, relist=relist)
        informer = Informer(server, "/goals", changed=changed, pace=pace)  # type: ignore[arg-type]
        thread = threading.Thread(target=informer.run, daemon=True)
        thread.start()
        ends.extend([informer.stop, server.is_over.set, lambda: thread.join(10)])
        return informer

    yield start
    for end in ends:
        end()


def until(holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 10
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.002)


def version(informer: Informer) -> str:
    found = informer.get(KEY)
    return found["metadata"]["resourceVersion"] if found else ""


def told(server: Server, started: Callable[..., Informer]) -> Informer:
    informer = started(server)
    assert server.has_told.wait(10)
    return informer


def test_a_server_that_has_gone_back_is_believed_in_the_end(
    started: Callable[..., Informer],
) -> None:
    server = Server((100, [goal(90)]), (50, [goal(40)]))
    informer = started(server, relist=0.0)
    until(lambda: version(informer) == "40")
    assert server.asked >= 1 + OLD_LISTS + 1


def test_one_list_that_is_old_is_not(started: Callable[..., Informer]) -> None:
    server = Server((100, [goal(90)]), (50, [goal(40)]), (101, [goal(90)]))
    changes: list[Any] = []
    informer = started(server, relist=0.0, changed=changes.append)
    until(lambda: server.asked > 20)
    assert (changes, version(informer)) == ([KEY], "90")


def test_what_was_told_before_is_passed_over(started: Callable[..., Informer]) -> None:
    server = Server((10, []))
    server.events = [
        ("ADDED", goal(11)), ("MODIFIED", goal(12)), ("DELETED", goal(13)), ("MODIFIED", goal(12)),
    ]  # fmt: skip
    informer = told(server, started)
    assert informer.get(KEY) is None
    informer.put(goal(12))  # a write's answer that was slower than the watch
    assert informer.get(KEY) is None
    informer.put(goal(14, uid="v"))
    assert version(informer) == "14"


def test_the_end_of_an_old_one_does_not_take_the_new_one_with_it(
    started: Callable[..., Informer],
) -> None:
    server = Server((10, [goal(9)]))
    server.events = [("MODIFIED", goal(12)), ("DELETED", goal(13))]
    server.may_tell.clear()
    informer = started(server)
    until(informer.synced.is_set)
    informer.put(goal(20, uid="v"))
    server.may_tell.set()
    assert server.has_told.wait(10)
    assert version(informer) == "20"


def test_who_manages_which_field_is_not_kept(started: Callable[..., Informer]) -> None:
    server = Server((10, [goal(9)]))
    server.events = [("MODIFIED", goal(12))]
    informer = told(server, started)
    found = informer.get(KEY)
    assert found is not None
    assert "managedFields" not in found["metadata"]

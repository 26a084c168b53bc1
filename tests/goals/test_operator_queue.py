"""The operator's queue and its limit on requests, on a clock of the tests."""

import threading

import pytest

from agents.cluster.kubernetes.api import RateLimit
from goals.operator.work_queue import FIRST_SECONDS, LONGEST_SECONDS, WorkQueue


class Clock:
    """Time that passes when told, or when somebody sleeps."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def queue(clock: Clock) -> WorkQueue[str]:
    return WorkQueue(clock=clock, chance=lambda: 0.5)


def taken(queue: WorkQueue[str]) -> str | None:
    return queue.take(timeout_seconds=0.0)


def test_a_key_is_given_out_once(queue: WorkQueue[str]) -> None:
    for _ in range(3):
        queue.add("a")
    assert len(queue) == 1
    assert (taken(queue), taken(queue)) == ("a", None)


def test_one_worker_a_key_and_what_came_meanwhile_is_not_lost(queue: WorkQueue[str]) -> None:
    queue.add("a")
    assert taken(queue) == "a"
    queue.add("a")
    assert taken(queue) is None
    queue.done("a")
    assert (taken(queue), taken(queue)) == ("a", None)


def test_many_are_given_out_at_once_and_none_twice(queue: WorkQueue[str], clock: Clock) -> None:
    for key in "abcd":
        queue.add(key)
    queue.add("later", after_seconds=1)
    assert taken(queue) == "a"
    queue.add("a")
    assert queue.more(2) == ["b", "c"]
    assert queue.more(9) == ["d"]
    queue.done("a")
    assert queue.more(9) == ["a"]
    clock.now = 1.0
    assert queue.more(9) == ["later"]


def test_the_earliest_wish_counts(queue: WorkQueue[str], clock: Clock) -> None:
    queue.add("a", after_seconds=10)
    queue.add("a", after_seconds=2)
    queue.add("a", after_seconds=5)
    assert taken(queue) is None
    clock.now = 2.0
    assert taken(queue) == "a"
    queue.done("a")
    clock.now = 20.0
    assert taken(queue) is None


def test_a_failure_waits_longer_each_time_up_to_a_limit(queue: WorkQueue[str]) -> None:
    waits = [queue.retry("a") for _ in range(20)]
    assert waits[:3] == [FIRST_SECONDS, 2 * FIRST_SECONDS, 4 * FIRST_SECONDS]
    assert waits[-1] == LONGEST_SECONDS
    queue.forget("a")
    assert queue.retry("a") == FIRST_SECONDS
    assert queue.retry("a", at_least_seconds=30.0) == 30.0


def test_what_failed_together_is_not_tried_together() -> None:
    chances = iter([0.0, 1.0])
    queue: WorkQueue[str] = WorkQueue(chance=lambda: next(chances))
    assert queue.retry("a") < FIRST_SECONDS < queue.retry("b")


def test_a_waiting_worker_is_woken_and_a_closed_queue_gives_nothing() -> None:
    queue: WorkQueue[str] = WorkQueue()
    found: list[str | None] = []
    worker = threading.Thread(target=lambda: found.append(queue.take()))
    worker.start()
    queue.add("a")
    worker.join(10)
    assert found == ["a"]
    worker = threading.Thread(target=lambda: found.append(queue.take()))
    worker.start()
    queue.close()
    worker.join(10)
    assert found == ["a", None]


def test_many_keys_are_each_worked_on_by_one_at_a_time() -> None:
    queue: WorkQueue[int] = WorkQueue()
    guard, active, most = threading.Lock(), dict.fromkeys(range(20), 0), 0

    def work() -> None:
        nonlocal most
        while (key := queue.take(timeout_seconds=0.5)) is not None:
            with guard:
                active[key] += 1
                most = max(most, active[key])
            with guard:
                active[key] -= 1
            queue.done(key)

    workers = [threading.Thread(target=work) for _ in range(4)]
    for worker in workers:
        worker.start()
    for number in range(2000):
        queue.add(number % 20)
    for worker in workers:
        worker.join(20)
    assert most == 1
    assert len(queue) == 0


def test_requests_stay_within_the_limit(clock: Clock) -> None:
    limit = RateLimit(per_second=10, burst=5, clock=clock, sleep=clock.sleep)
    for _ in range(5):
        limit.wait()
    assert clock.now == 0.0
    for _ in range(100):
        limit.wait()
    assert clock.now == pytest.approx(10.0)
    clock.now += 60.0
    for _ in range(5):
        limit.wait()
    assert clock.now == pytest.approx(70.0)

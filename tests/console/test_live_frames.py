"""Frames and views: what is encoded is what is seen, and nothing else."""

import random
from typing import Any
from uuid import UUID

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agents.fleet.columns import FleetColumns
from agents.fleet.domain import STATES, Changes, SpanFact, clip, confidence_code
from agents.fleet.frames import (
    ADDED_COLUMNS,
    CHANGED_COLUMNS,
    GOAL_COLUMNS,
    HEADER,
    REMOVED_COLUMNS,
    Frame,
    FrameError,
    FrameKind,
    Stamp,
    decode,
    encode,
)
from agents.fleet.views import FleetView
from tests.console.live_map import NOW_MS, LiveMap, goal_fact, run_fact

U32 = st.integers(0, 2**32 - 1)
NEVER = (0, 0)


def columns_of(shape: tuple[tuple[str, str], ...]) -> st.SearchStrategy[dict[str, Any]]:
    def fill(count: int, seed: int) -> dict[str, Any]:
        bits = np.random.default_rng(seed)
        filled: dict[str, Any] = {}
        for name, kind in shape:
            if kind == "uid":
                filled[name] = bits.integers(0, 256, (count, 16)).astype("u1")
            elif kind == "<f8":
                filled[name] = bits.normal(size=count) * 1e12
            else:
                filled[name] = bits.integers(0, np.iinfo(kind).max, count, endpoint=True)
        return filled if count else {}

    return st.builds(fill, st.integers(0, 40), st.integers(0, 2**32))


FRAMES = st.builds(
    Frame,
    kind=st.sampled_from(FrameKind),
    stamp=st.builds(
        Stamp, epoch=U32, sequence=U32, at_ms=st.floats(0, 1e14), database_age_ms=U32,
        bus_age_ms=U32, flags=U32, total=U32,
    ),
    names=st.lists(st.text(max_size=20), max_size=8).map(tuple),
    goals=columns_of(GOAL_COLUMNS),
    added=columns_of(ADDED_COLUMNS),
    changed=columns_of(CHANGED_COLUMNS),
    removed=columns_of(REMOVED_COLUMNS),
)  # fmt: skip


@given(FRAMES)
def test_a_frame_comes_back_as_it_was(frame: Frame) -> None:
    raw = encode(frame)
    again = decode(raw)
    assert (again.kind, again.stamp, again.names) == (frame.kind, frame.stamp, frame.names)
    for section in ("goals", "added", "changed", "removed"):
        before, after = getattr(frame, section), getattr(again, section)
        assert list(before) == list(after)
        assert all(np.array_equal(before[name], after[name]) for name in before)
    assert len(raw) % 8 == 0


@given(FRAMES, st.data())
def test_a_frame_that_was_cut_is_no_frame(frame: Frame, data: st.DataObject) -> None:
    raw = encode(frame)
    with pytest.raises(FrameError):
        decode(raw[: data.draw(st.integers(0, len(raw) - 1))])
    with pytest.raises(FrameError):
        decode(raw + b"\0")


def test_the_header_has_the_offsets_that_the_browser_reads() -> None:
    stamp = Stamp(epoch=0x01020304, sequence=7, at_ms=1.5, database_age_ms=8, bus_age_ms=9, total=3)
    raw = encode(Frame(kind=FrameKind.DELTA, stamp=stamp, names=("ab",)))
    assert HEADER.size == 64
    assert raw[:4] == b"CF\x01\x02"
    assert raw[4:8] == b"\x04\x03\x02\x01"
    assert [int.from_bytes(raw[at : at + 4], "little") for at in (8, 12, 16, 32, 36, 56)] == [
        7, 8, 9, 1, 2, 3,
    ]  # fmt: skip
    assert np.frombuffer(raw[24:32], "<f8")[0] == 1.5


@pytest.mark.parametrize(
    ("value", "code"), [(None, 255), (0.0, 0), (1.0, 200), (0.87, 174), (2.0, 255), (-1.0, 255)]
)
def test_confidence_is_a_byte_and_nonsense_is_unknown(value: float | None, code: int) -> None:
    assert confidence_code(value) == code
    assert confidence_code(float("nan")) == 255


def test_a_name_is_clipped_and_cannot_move_the_cursor() -> None:
    assert clip("a\x1b[2J\n" + "x" * 500) == "a [2J " + "x" * 74


class World:
    """A fleet that changes at random, and the feeds of two people who see different parts."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.columns = FleetColumns()
        self.views = {
            spaces: FleetView(self.columns, spaces)
            for spaces in (None, frozenset({"a"}), frozenset({"b", "c"}))
        }
        self.goals = [goal_fact(namespace=name, name=f"goal-{name}") for name in "abc"]
        self.uids: list[UUID] = []
        self.now = NOW_MS

    def step(self) -> Changes:
        self.now += 250
        goals = [
            goal_fact(uid=goal.uid, namespace=goal.namespace, name=goal.name,
                      settled_share=self.random.randint(0, 10_000))
            for goal in self.random.sample(self.goals, self.random.randint(0, 3))
        ]  # fmt: skip
        fresh = range(self.random.randint(0, 4))
        self.uids += [UUID(int=self.random.getrandbits(128)) for _ in fresh]
        chosen = self.random.sample(self.uids, min(len(self.uids), 5))
        runs = [self.run(uid) for uid in chosen]
        changes = Changes(runs=runs, goals=goals)
        self.columns.apply(changes, now_ms=self.now)
        self.columns.apply_spans(
            SpanFact(uid, self.random.choice(["tune", "look"]), self.random.random(), self.now)
            for uid in chosen[:2]
        )
        self.columns.drop_finished(before_ms=self.now - 1000)
        return changes

    def run(self, uid: UUID) -> Any:
        goal = self.goals[uid.int % 3]
        return run_fact(
            uid=uid, goal_uid=goal.uid, namespace=goal.namespace, agent=f"agent-{uid.int % 5}",
            state=self.random.choice(STATES).value, gpu_ms=self.random.randint(0, 10**9),
            changed_ms=self.now,
        )  # fmt: skip

    def frames(self) -> dict[Any, bytes | None]:
        frames = {key: view.delta(at_ms=self.now, ages=NEVER) for key, view in self.views.items()}
        self.columns.settle()
        return frames

    def truth(self, spaces: frozenset[str] | None) -> LiveMap:
        """What somebody sees who has just come."""
        fresh = LiveMap()
        fresh.take(FleetView(self.columns, spaces).snapshot(at_ms=self.now, ages=NEVER))
        return fresh


@pytest.mark.parametrize("seed", range(5))
def test_deltas_lead_to_the_same_picture_as_a_snapshot(seed: int) -> None:
    world = World(seed)
    maps = {key: LiveMap() for key in world.views}
    for key, view in world.views.items():
        maps[key].take(view.snapshot(at_ms=world.now, ages=NEVER))
    for _ in range(80):
        world.step()
        for key, raw in world.frames().items():
            if raw is not None:
                maps[key].take(raw)
        for key, one in maps.items():
            truth = world.truth(key)
            assert not one.has_gap
            assert one.picture() == truth.picture()
            assert one.goal_picture() == truth.goal_picture()
            assert one.last is not None
            assert one.last.stamp.total == len(one.runs)


def test_no_byte_of_another_namespace_is_in_a_frame() -> None:
    world = World(1)
    others = (b"goal-b", b"goal-c")
    raws = [world.views[frozenset({"a"})].snapshot(at_ms=NOW_MS, ages=NEVER)]
    for _ in range(40):
        changes = world.step()
        raw = world.frames()[frozenset({"a"})]
        if all(run.namespace != "a" for run in changes.runs) and not any(
            goal.namespace == "a" for goal in changes.goals
        ):
            assert raw is None or decode(raw).removed  # even the sequence does not move
        if raw is not None:
            raws.append(raw)
    hidden = [uid.bytes for uid in world.uids if uid.int % 3]
    shown = [uid.bytes for uid in world.uids if not uid.int % 3]
    everything = b"".join(raws)
    assert not any(text in everything for text in (*others, *hidden))
    assert any(uid in everything for uid in shown)
    slots = [slot for raw in raws for slot in decode(raw).added.get("slot", np.zeros(0)).tolist()]
    assert set(slots) == set(range(len(set(slots))))  # numbers count only what may be seen


def test_a_feed_that_gave_out_too_many_numbers_begins_anew() -> None:
    columns = FleetColumns()
    view = FleetView(columns, None)
    one = LiveMap()
    one.take(view.snapshot(at_ms=NOW_MS, ages=NEVER))
    for step in range(12):
        now = NOW_MS + step * 1000
        columns.apply(
            Changes(runs=[run_fact(state="failed", changed_ms=now) for _ in range(1000)]),
            now_ms=now,
        )
        columns.drop_finished(before_ms=now)
        raw = view.delta(at_ms=now, ages=NEVER)
        columns.settle()
        assert raw is not None
        one.take(raw)
        assert not one.has_gap
        assert len(one.runs) == 1000
    assert one.snapshots > 1
    assert len(columns.runs) < 4096  # places of runs that are gone are used again


def test_more_runs_than_are_kept_is_said() -> None:
    columns = FleetColumns(max_runs=3)
    columns.apply(Changes(runs=[run_fact() for _ in range(5)]), now_ms=NOW_MS)
    one = LiveMap()
    one.take(FleetView(columns, None).snapshot(at_ms=NOW_MS, ages=NEVER))
    assert len(one.runs) == 3
    assert one.last is not None
    assert one.last.stamp.flags == 1


def test_the_end_of_a_budget_is_foretold_from_its_rate() -> None:
    columns = FleetColumns()
    goal = goal_fact(settled_share=1000)
    columns.apply(Changes(goals=[goal]), now_ms=NOW_MS)
    assert np.isnan(columns.goal_rows["exhausts"][0])
    later = goal_fact(uid=goal.uid, settled_share=2000)
    columns.apply(Changes(goals=[later]), now_ms=NOW_MS + 20_000)
    assert columns.goal_rows["exhausts"][0] == NOW_MS + 20_000 + 160_000


def test_a_goal_that_is_no_more_leaves_the_map() -> None:
    columns = FleetColumns()
    view, one, goal = FleetView(columns, None), LiveMap(), goal_fact()
    columns.apply(Changes(goals=[goal]), now_ms=NOW_MS)
    columns.settle()
    view.begin()
    one.take(view.snapshot(at_ms=NOW_MS, ages=NEVER))
    assert set(one.goal_picture()) == {goal.uid}
    columns.apply(Changes(gone_goals=[goal.uid]), now_ms=NOW_MS)
    raw = view.delta(at_ms=NOW_MS, ages=NEVER)
    columns.settle()
    assert raw is not None
    one.take(raw)
    assert one.goal_picture() == {}
    fresh = LiveMap()
    fresh.take(FleetView(columns, None).snapshot(at_ms=NOW_MS, ages=NEVER))
    assert fresh.goals == {}

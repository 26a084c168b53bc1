"""Layered positions: effects to the right of causes, rows apart, cycles and size no trouble."""

import itertools
import random
import time

from lineage.layering import lay_out

BIG = 10_000
BIG_SECONDS = 5.0  # a tenth of a second on an idle machine; the bound is for a loaded one


def test_every_effect_stands_to_the_right_of_its_causes() -> None:
    edges = [("a", "b"), ("a", "c"), ("b", "d"), ("c", "d"), ("a", "d")]
    layout = lay_out("abcd", edges)
    for cause, effect in edges:
        assert layout.places[cause].layer < layout.places[effect].layer
    assert layout.layers == 3


def test_a_diamond_stands_level() -> None:
    layout = lay_out("abcd", [("a", "b"), ("a", "c"), ("b", "d"), ("c", "d")])
    assert (layout.rows, layout.waypoints) == (2.0, {})
    assert layout.places["a"].row == layout.places["d"].row == 0.5


def test_a_long_edge_passes_between_the_nodes_of_the_layers_it_crosses() -> None:
    layout = lay_out("abcd", [("a", "b"), ("b", "c"), ("c", "d"), ("a", "d")])
    passed = layout.waypoints["a", "d"]
    assert [place.layer for place in passed] == [1, 2]
    for name, place in zip("bc", passed, strict=True):
        assert abs(layout.places[name].row - place.row) >= 1


def test_a_cycle_is_cut_and_everything_is_placed() -> None:
    layout = lay_out("abcx", [("a", "b"), ("b", "c"), ("c", "a"), ("c", "x"), ("x", "x")])
    assert [layout.places[one].layer for one in "abcx"] == [0, 1, 2, 3]


def test_a_late_source_stands_right_before_what_it_causes() -> None:
    layout = lay_out("abcs", [("a", "b"), ("b", "c"), ("s", "c")])
    assert layout.places["s"].layer == layout.places["b"].layer


def test_nothing_is_laid_out_as_nothing() -> None:
    layout = lay_out([], [])
    assert (layout.places, layout.layers, layout.rows) == ({}, 0, 0.0)


def test_ten_thousand_nodes_stand_a_row_apart_in_no_time() -> None:
    chance = random.Random(1)
    edges = [(chance.randrange(max(0, n - 300), n), n) for n in range(1, BIG) for _ in range(2)]
    began = time.perf_counter()
    layout = lay_out(range(BIG), edges)
    assert time.perf_counter() - began < BIG_SECONDS
    columns: dict[int, list[float]] = {}
    for place in layout.places.values():
        columns.setdefault(place.layer, []).append(place.row)
    for rows in columns.values():
        rows.sort()
        assert all(below - above > 0.999 for above, below in itertools.pairwise(rows))
    assert all(layout.places[a].layer < layout.places[b].layer for a, b in edges)

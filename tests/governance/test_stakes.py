"""What several answers allow together, and how the ways to go on with less are said."""

from typing import Any

import pytest

from goals.domain.degrade import Degradation, parse_degradation
from governance.domain import (
    ApprovalInvalid,
    ModelPrice,
    ModelWay,
    less_words,
    narrowest,
    usd_text,
)


@pytest.mark.parametrize(
    ("one", "other", "both"),
    [
        ({"grant": 5}, {"grant": 3}, {"grant": 3}),
        ({"grant": 5}, {}, {"grant": 5}),
        (
            {"until": "2026-01-31T18:00:00+00:00"},
            {"until": "2026-01-31T18:30:00+01:00"},
            {"until": "2026-01-31T18:30:00+01:00"},
        ),
        ({"degrade": {"gpus": 2}}, {"degrade": {"gpus": 1}}, {"degrade": {"gpus": 1}}),
        (
            {"degrade": {"last_iteration": False, "gpus": 1}},
            {"degrade": {"last_iteration": True}},
            {"degrade": {"last_iteration": True, "gpus": 1}},
        ),
        ({"degrade": {"model": "z"}}, {"degrade": {"model": "z"}}, {"degrade": {"model": "z"}}),
        (
            {"degrade": {"model": "z"}},
            {"degrade": {"model": "a"}},
            {"degrade": {"model": ["a", "z"]}},
        ),
        (
            {"degrade": {"model": ["a", "z"]}},
            {"degrade": {"model": "m"}},
            {"degrade": {"model": ["a", "m", "z"]}},
        ),
    ],
)
def test_two_answers_allow_the_least_of_both(one: Any, other: Any, both: Any) -> None:
    assert narrowest([one, other]) == narrowest([other, one]) == both


def test_answers_that_cannot_be_compared_are_refused() -> None:
    with pytest.raises(ApprovalInvalid, match=r"grant: 5 and 'all'.*agree on one of them"):
        narrowest([{"grant": 5}, {"grant": "all"}])


def test_each_agent_goes_on_with_the_smallest_that_it_lists() -> None:
    both = parse_degradation({"model": "small"}).tightened(parse_degradation({"model": "middle"}))
    assert both.models_of(("big", "middle", "small", "tiny")) == ("small", "tiny")
    assert both.models_of(("small", "middle")) == ("middle",)  # by its own order
    assert both.models_of(("other",)) == ("other",)
    assert both.models_of(()) == ()
    assert Degradation().models_of(("big", "small")) == ("big", "small")


def test_a_task_as_it_is_to_run_now() -> None:
    less = parse_degradation({"model": "small", "gpus": 1})
    node = {"name": "a", "gpus": 4, "agent": {"name": "a", "models": ["big", "small"]}}
    assert less.applied(node)["agent"] == {"name": "a", "models": ["small"]}
    assert less.applied(node)["gpus"] == 1
    assert less.applied({"name": "a", "gpus": 0, "agent": {"name": "a"}})["agent"] == {"name": "a"}
    assert node["agent"] == {"name": "a", "models": ["big", "small"]}


def test_less_in_words() -> None:
    everything = {"gpus": 1, "parallel": 2, "last_iteration": True, "model": ["a", "b"]}
    assert less_words(everything) == (
        "at most 1 GPU for each task, at most 2 tasks at once, no further iteration, "
        "no bigger model than a or b"
    )
    assert less_words({}) == ""


def test_a_model_against_several() -> None:
    way = ModelWay(
        ModelPrice("small", 250_000, None),
        (ModelPrice("big", 3_000_000, 15_000_000), ModelPrice("huge", None, 75_000_000)),
        tasks=2,
    )
    assert way.words == (
        "input 0.25 against 3.00 (big) and unknown (huge) USD per 1M tokens, "
        "output unknown against 15.00 (big) and 75.00 (huge); what it burns a minute is unknown"
    )


@pytest.mark.parametrize(
    ("micro_usd", "text"),
    [(None, "unknown"), (0, "0.00"), (250_000, "0.25"), (75_500, "0.0755"), (1, "0.000001"),
     (12_345_678, "12.35"), (1_500_000_000, "1,500.00")],
)  # fmt: skip
def test_usd_as_people_write_it(micro_usd: int | None, text: str) -> None:
    assert usd_text(micro_usd) == text

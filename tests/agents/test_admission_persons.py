"""Who asked for a Goal with kubectl: written down by admission, and by nobody else."""

import copy
import json
from pathlib import Path
from typing import Any

import pytest

from agents.admission.app import MUTATE_GOALS
from agents.admission.persons import (
    EDITED_BY,
    PERSONS_MAX,
    REQUESTED_BY,
    Persons,
    are_current,
    read_persons,
)
from governance.policy.memory import MemoryPolicy
from tests.agents.admission_desk import Desk
from tests.agents.admission_reviews import OWN, review

pytestmark = pytest.mark.usefixtures("twins")
CONSOLE = "clearance-console"


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    return Desk(tmp_path, MemoryPolicy())


def goal(**spec: Any) -> dict[str, Any]:
    asked = {"objective": "p99 latency < 120 ms for /checkout", "budget": "1 GPU-minute", **spec}
    metadata: dict[str, Any] = {"name": "faster", "namespace": "shop"}
    kind = {"apiVersion": "orchestration.ai/v1", "kind": "Goal"}
    return {**kind, "metadata": metadata, "spec": asked}


def stamped(desk: Desk, found: dict[str, Any], **changes: Any) -> dict[str, Any]:
    return desk.change(review(found, **changes), MUTATE_GOALS)


def edited(desk: Desk, before: dict[str, Any], user: str, **spec: Any) -> dict[str, Any]:
    found = copy.deepcopy(before)
    found["spec"] |= spec
    return stamped(desk, found, before=before, user=user)


def test_the_person_who_asks_is_written_down_and_never_changed(desk: Desk) -> None:
    made = stamped(desk, goal(), user="alice")
    assert made["metadata"]["annotations"][REQUESTED_BY] == "alice"
    once = edited(desk, made, "bob", budget="2 GPU-minutes")
    twice = edited(desk, once, "carol", budget="3 GPU-minutes")
    again = edited(desk, twice, "bob", budget="4 GPU-minutes")
    assert again["metadata"]["annotations"][REQUESTED_BY] == "alice"
    assert json.loads(again["metadata"]["annotations"][EDITED_BY]) == ["carol", "bob"]
    assert read_persons(again) == Persons("alice", ("carol", "bob"))
    assert read_persons(again).latest == "bob"


def test_what_a_client_writes_is_overwritten(desk: Desk) -> None:
    forged = goal()
    forged["metadata"]["annotations"] = {REQUESTED_BY: "alice", EDITED_BY: '["bob"]', "x": "y"}
    made = stamped(desk, forged, user="mallory")
    assert made["metadata"]["annotations"][REQUESTED_BY] == "mallory"
    assert EDITED_BY not in made["metadata"]["annotations"]
    assert made["metadata"]["annotations"]["x"] == "y"
    erased = copy.deepcopy(made)
    erased["metadata"]["annotations"] = {REQUESTED_BY: "alice"}
    erased["spec"]["budget"] = "9 GPU-minutes"
    kept = stamped(desk, erased, before=made, user="mallory")
    assert read_persons(kept) == Persons("mallory", ("mallory",))


def test_a_name_without_our_seal_is_nobodys(desk: Desk) -> None:
    made = stamped(desk, goal(), user="alice")
    for name, text in ((REQUESTED_BY, "bob"), (EDITED_BY, '["bob"]'), (EDITED_BY, "no list")):
        forged = copy.deepcopy(made)
        forged["metadata"]["annotations"][name] = text
        assert read_persons(forged) == Persons()
    copied = copy.deepcopy(made)
    copied["metadata"]["name"] = "another"
    assert read_persons(copied) == Persons()
    changed = copy.deepcopy(made)
    changed["spec"]["budget"] = "9 GPU-minutes"  # in a namespace where admission is not asked
    assert read_persons(changed) == Persons("alice")
    assert are_current(made)
    assert not are_current(changed)


def test_a_name_that_the_api_server_makes_up_is_sealed_all_the_same(desk: Desk) -> None:
    asked = goal()
    asked["metadata"]["generateName"] = "faster-"
    made = stamped(desk, asked, user="alice")
    made["metadata"]["name"] = "faster-x7k2p"
    assert read_persons(made) == Persons("alice")


def test_a_goal_that_cannot_be_read_is_refused_with_its_fields(desk: Desk) -> None:
    desk.app.wrong_with_goal = lambda found: "spec.budget: what?" if found["spec"]["budget"] else ""
    refusal = desk.ask(review(goal()), MUTATE_GOALS)
    assert (refusal["allowed"], refusal["status"]["message"]) == (False, "spec.budget: what?")
    landing = copy.deepcopy(goal())
    landing["metadata"]["finalizers"] = []
    assert desk.ask(review(landing, before=goal()), MUTATE_GOALS)["allowed"]  # it asks nothing


def test_what_changes_nothing_that_is_asked_has_no_editor(desk: Desk) -> None:
    made = stamped(desk, goal(), user="alice")
    touched = copy.deepcopy(made)
    touched["metadata"]["finalizers"] = ["orchestration.ai/landing"]
    touched["metadata"]["annotations"]["orchestration.ai/agreed"] = "u/1/d/v"
    kept = stamped(desk, touched, before=made, user="bob")
    assert read_persons(kept) == Persons("alice")
    labelled = copy.deepcopy(made)
    labelled["metadata"]["labels"] = {"team": "shop"}
    assert read_persons(stamped(desk, labelled, before=made, user="bob")).edited_by == ("bob",)


def test_our_own_writes_are_no_persons(desk: Desk) -> None:
    made = stamped(desk, goal(), user=OWN, manager=CONSOLE)
    assert "annotations" not in made["metadata"]
    changed = copy.deepcopy(made)
    changed["spec"]["budget"] = "2 GPU-minutes"
    ours = stamped(desk, changed, before=made, user=OWN, manager=CONSOLE)
    assert read_persons(ours) == Persons()
    # Nobody becomes us by saying so, and a person with our credential is still a person.
    theirs = stamped(desk, changed, before=made, user="mallory", manager=CONSOLE)
    assert read_persons(theirs).edited_by == ("mallory",)
    by_hand = stamped(desk, changed, before=made, user=OWN, manager="kubectl")
    assert read_persons(by_hand).edited_by == (OWN,)


def test_there_is_an_end_to_those_who_can_be_written_down(desk: Desk) -> None:
    made = stamped(desk, goal(), user="alice")
    for number in range(PERSONS_MAX):
        made = edited(desk, made, f"person-{number}", budget=f"{number + 2} GPU-minutes")
    assert len(read_persons(made).edited_by) == PERSONS_MAX
    found = copy.deepcopy(made)
    found["spec"]["budget"] = "3 GPU-minutes"
    answer = desk.ask(review(found, before=made, user="carol"), MUTATE_GOALS)
    assert not answer["allowed"]
    assert "make another Goal" in answer["status"]["message"]

"""Going on with a smaller model: what is offered, what it costs, what it ends and starts anew."""

import json
from contextlib import suppress
from itertools import count
from typing import Any

import pytest
from django.urls import reverse

from agents.models import Attempt
from agents.services.attempts import workload_spec
from goals.domain.states import Phase, Unit
from goals.models import Goal
from goals.services.conditions import condition_of
from goals.services.degrade import degradation_of
from goals.services.ledger import is_balanced
from goals.services.prices import set_price
from goals.services.ways import ways_to_degrade
from governance.approval_inbox import stakes_for
from governance.domain import ApprovalInvalid, ModelWay
from governance.models import Approval, Decision, JournalRecord
from lineage.telemetry.base import TelemetryUnavailable
from tests.goals.test_crashes import Killed, expire_lease, failing_at, visit
from tests.goals.test_throttle import account, answer, pending, use_tokens

pytestmark = pytest.mark.django_db


def run_dry(tower: Any, *, models: str = "big, middle, small", tokens: int = 3000) -> Goal:
    """A Goal whose agent used more tokens than the budget has, with the model it prefers."""
    tower.register("writer", models=models)
    goal: Goal = tower.apply(agents="writer", budget="1k tokens").goal
    tower.reconcile(goal)
    return use_up(tower, goal, tokens=tokens, model=models.partition(",")[0] or "big")


def use_up(tower: Any, goal: Goal, *, tokens: int = 3000, **more: Any) -> Goal:
    tower.twins.cluster.advance(60_000)
    use_tokens(tower, goal, **{"model": "big", "tokens": tokens, **more})
    tower.reconcile(goal)
    assert goal.phase == Phase.PAUSED
    return goal


def used_first(attempt: Attempt) -> str | None:
    return workload_spec(attempt).environment.get("CLEARANCE_MODEL")


def offered(goal: Goal) -> list[str]:
    return [one.name for one in ways_to_degrade(goal).models]


def way(goal: Goal, name: str) -> ModelWay:
    one = pending(goal)
    ways = stakes_for([one], has_ways=True)[one.uid].ways
    assert ways is not None
    return next(found for found in ways.models if found.name == name)


# --- what an attempt gets -----------------------------------------------------------------------


def test_an_attempt_is_told_its_models(tower: Any) -> None:
    goal = run_dry(tower)
    (attempt,) = tower.attempts(goal)
    assert attempt.specification["models"] == ["big", "middle", "small"]
    assert used_first(attempt) == "big"
    for judged in Decision.objects.filter(goal_uid=goal.uid, point="workload"):
        pod = json.loads(judged.input_canonical)
        assert pod["metadata"]["annotations"]["orchestration.ai/model"] == "big"
    for judged in Decision.objects.filter(goal_uid=goal.uid, point="graph"):
        (task,) = json.loads(judged.input_canonical)["tasks"]
        assert task["agent"]["models"] == ["big", "middle", "small"]
    record = JournalRecord.objects.get(action="attempt.created")
    assert json.loads(record.canonical)["body"]["models"] == ["big", "middle", "small"]


def test_without_models_nothing_is_named_offered_or_limited(tower: Any) -> None:
    goal = run_dry(tower, models="")
    (attempt,) = tower.attempts(goal)
    assert (attempt.specification["models"], used_first(attempt)) == ([], None)
    assert offered(goal) == []
    with pytest.raises(ApprovalInvalid, match="no open task has a smaller model: leave it out"):
        answer(tower, pending(goal), degrade={"model": "small"})


# --- what is taken ------------------------------------------------------------------------------


def test_a_smaller_model_ends_what_may_use_a_bigger_one_and_starts_it_anew(tower: Any) -> None:
    goal = run_dry(tower)
    assert offered(goal) == ["middle", "small"]
    answer(tower, pending(goal), degrade={"model": "middle"})
    (big,) = tower.attempts(goal)
    assert big.desired == "stopped"
    tower.reconcile(goal)
    big, middle = tower.attempts(goal)
    assert (big.state, middle.state, goal.phase) == ("stopped", "running", Phase.RUNNING)
    assert middle.specification["models"] == ["middle", "small"]
    assert used_first(middle) == "middle"
    said = condition_of(goal, "Degraded")
    assert said is not None
    assert said["message"] == "approver: no bigger model than middle."
    record = JournalRecord.objects.get(action="approval.approved")
    assert json.loads(record.canonical)["body"]["answer"] == {"degrade": {"model": "middle"}}
    assert account(goal, Unit.TOKENS).reserved == 0
    assert tower.reconcile(goal).phase == Phase.RUNNING
    assert len(tower.attempts(goal)) == 2


def test_gpus_and_money_reserved_are_given_back(tower: Any) -> None:
    tower.register("writer", gpus=1, models="big, small")
    goal = tower.apply(agents="writer", budget="100 GPU-seconds, 1k tokens").goal
    tower.reconcile(goal)
    use_up(tower, goal)
    answer(tower, pending(goal), degrade={"model": "small"})
    tower.reconcile(goal)
    first, second = tower.attempts(goal)
    assert (first.state, second.state) == ("stopped", "running")
    gpu = goal.accounts.get(unit=Unit.GPU_MS)
    assert is_balanced(gpu)
    assert gpu.reserved == second.gpu_allowance_ms - second.gpu_settled_ms


def test_a_later_answer_with_a_bigger_model_is_refused_and_none_widens(tower: Any) -> None:
    goal = run_dry(tower)
    answer(tower, pending(goal), degrade={"model": "small"})
    tower.reconcile(goal)
    assert offered(goal) == []
    use_up(tower, goal, tokens=9000, number=2, attempt=1, model="small")
    with pytest.raises(ApprovalInvalid, match=r"degrade\.model"):
        answer(tower, pending(goal), degrade={"model": "middle"})
    answer(tower, pending(goal))
    tower.reconcile(goal)
    assert degradation_of(goal).models == ("small",)
    assert len(tower.attempts(goal)) == 2


def test_agents_that_do_not_list_it_are_left_as_they_are(tower: Any) -> None:
    tower.register("a", models="big, small", produces="x")
    tower.register("b", models="other, tiny", produces="y")
    tower.register("c", models="small, big", produces="z")
    goal = tower.apply(agents="a, b, c", budget="1k tokens").goal
    tower.reconcile(goal)
    use_up(tower, goal)
    assert offered(goal) == ["small", "tiny", "big"]
    with pytest.raises(ApprovalInvalid, match=r"'other' after the model .*choose small or tiny"):
        answer(tower, pending(goal), degrade={"model": "other"})
    answer(tower, pending(goal), degrade={"model": "small"})
    tower.reconcile(goal)
    found = {
        one.task: (one.number, one.specification["models"])
        for one in tower.attempts(goal)
        if one.state == "running"
    }
    assert found == {
        "a": (2, ["small"]),
        "b": (1, ["other", "tiny"]),
        "c": (1, ["small", "big"]),
    }


def test_the_next_iteration_starts_with_the_smaller_model(tower: Any) -> None:
    goal = run_dry(tower)
    answer(tower, pending(goal), degrade={"model": "small"})
    tower.reconcile(goal)
    second = tower.attempts(goal)[1]
    tower.observe(goal, second, 900.0)
    tower.twins.cluster.finish(second.workload)
    tower.reconcile(goal)
    third = tower.attempts(goal)[2]
    assert (third.iteration, third.specification["models"]) == (2, ["small"])


@pytest.mark.django_db(transaction=True)
def test_who_is_killed_at_any_write_leaves_nothing_to_mend(tower: Any) -> None:
    goal = run_dry(tower)
    for write in count(1):
        with suppress(Killed), failing_at(write, Killed()) as seen:
            answer(tower, pending(goal), degrade={"model": "small"})
        if len(seen) < write:
            break
        assert tower.attempts(goal)[0].desired == "paused"  # all of it or nothing
    for write in count(1):
        expire_lease(goal)
        with suppress(Killed), failing_at(write, Killed()) as seen:
            visit(goal)
        if len(seen) < write:
            break
    assert write > 5
    big, small = tower.attempts(goal)
    assert (big.state, small.state) == ("stopped", "running")
    assert small.specification["models"] == ["small"]
    assert account(goal, Unit.TOKENS).reserved == 0
    running = [one.name for one in tower.twins.cluster.list() if not one.is_finished]
    assert running == [small.workload]


# --- what is used all the same ------------------------------------------------------------------


def test_tokens_of_a_model_that_is_not_allowed_are_settled_all_the_same(tower: Any) -> None:
    goal = run_dry(tower)
    answer(tower, pending(goal), degrade={"model": "small"})
    tower.reconcile(goal)
    before = account(goal, Unit.TOKENS)
    use_tokens(tower, goal, model="big", tokens=70, number=5, attempt=1)
    tower.reconcile(goal)
    after = account(goal, Unit.TOKENS)
    assert after.settled + after.overrun == before.settled + before.overrun + 70


# --- what it costs ------------------------------------------------------------------------------


def test_the_card_says_what_each_costs_against_the_present_one(tower: Any) -> None:
    goal = run_dry(tower, models="big, small")
    actor = tower.admin.actor
    assert way(goal, "small").words == (
        "input unknown against unknown USD per 1M tokens, output unknown against unknown; "
        "what it burns a minute is unknown"
    )
    for kind, name, micro_usd in (
        ("input_token", "big", 2_000_000),
        ("input_token", "big", 3_000_000),
        ("output_token", "big", 15_000_000),
        ("input_token", "small", 250_000),
    ):
        set_price(kind=kind, name=name, micro_usd=micro_usd, actor=actor)
    assert way(goal, "small").words == (
        "input 0.25 against 3.00 USD per 1M tokens, output unknown against 15.00; "
        "what it burns a minute is unknown"
    )
    set_price(kind="output_token", name="small", micro_usd=2_000_000, actor=actor)
    one = way(goal, "small")
    # 1500 tokens in and 1500 out in one minute.
    assert (one.micro_usd_per_minute_now, one.micro_usd_per_minute) == (27_000, 3_375)
    assert one.words.endswith("about 0.0034 instead of 0.027 USD a minute of running")
    assert (one.tasks, [p.name for p in one.instead_of]) == (1, ["big"])


def test_what_it_burns_is_unknown_while_the_telemetry_store_is_down(tower: Any) -> None:
    goal = run_dry(tower)
    tower.twins.telemetry.fail_next(TelemetryUnavailable("down"))
    assert "what it burns a minute is unknown" in way(goal, "small").words


# --- the page, the API --------------------------------------------------------------------------


def test_the_page_offers_and_takes_it(tower: Any, client: Any) -> None:
    goal = run_dry(tower)
    one = pending(goal)
    client.force_login(tower.people["approver"])
    page = client.get(reverse("approval_detail", args=[one.uid])).content.decode()
    assert '<option value="small">small</option>' in page
    assert "against unknown USD per 1M tokens" in page
    posted = {
        "decision": "approve",
        "reason": "Cheaper.",
        "request_digest": one.request_digest,
        "model": "nonsense",
    }
    url = reverse("approval_answer", args=[one.uid])
    refused = client.post(url, posted)
    assert (refused.status_code, "choose middle or small" in refused.content.decode()) == (
        422,
        True,
    )
    assert client.post(url, {**posted, "model": "small"}).status_code == 302
    said = client.get(reverse("approval_detail", args=[one.uid])).content.decode()
    assert "goes on with less: no bigger model than small." in said
    tower.reconcile(goal)
    small = tower.attempts(goal)[1]
    page = client.get(reverse("attempt_detail", args=[small.uid])).content.decode()
    assert '<dd>small <span class="quiet">are allowed' in page
    assert client.get(f"/api/v1/attempts/{small.uid}").json()["models"] == ["small"]
    decided = client.get(reverse("approval_decided")).content.decode()
    assert "degraded: no bigger model than small" in decided


def test_the_page_offers_no_model_where_there_is_none(tower: Any, client: Any) -> None:
    one = pending(run_dry(tower, models="only"))
    client.force_login(tower.people["approver"])
    page = client.get(reverse("approval_detail", args=[one.uid])).content.decode()
    assert 'name="model"' not in page


def test_the_api_offers_and_takes_it(tower: Any, client: Any) -> None:
    one = pending(run_dry(tower))
    client.force_login(tower.people["approver"])
    found = client.get(f"/api/v1/approvals/{one.uid}").json()
    assert [each["model"]["name"] for each in found["stake"]["ways"]["models"]] == [
        "middle",
        "small",
    ]
    body = {"reason": "Cheaper.", "request_digest": one.request_digest}
    refused = client.post(
        f"/api/v1/approvals/{one.uid}/degrade",
        {**body, "degrade": {"model": "huge"}},
        content_type="application/json",
    )
    assert refused.status_code == 422
    assert "degrade.model: no open task lists 'huge'" in refused.json()["detail"]
    taken = client.post(
        f"/api/v1/approvals/{one.uid}/degrade",
        {**body, "degrade": {"model": "small"}},
        content_type="application/json",
    )
    assert (taken.status_code, taken.json()["answer"]) == (200, {"degrade": {"model": "small"}})


def test_of_two_approvers_the_smaller_model_holds(tower: Any) -> None:
    goal = run_dry(tower)
    Approval.objects.filter(pk=pending(goal).pk).update(quorum=2)
    answer(tower, pending(goal), degrade={"model": "small"})
    one = pending(goal)
    tower.approver = tower.admin
    answer(tower, one, degrade={"model": "middle"})
    one.refresh_from_db()
    assert (one.state, one.answer["degrade"]) == ("approved", {"model": ["middle", "small"]})
    tower.reconcile(goal)
    assert tower.attempts(goal)[-1].specification["models"] == ["small"]

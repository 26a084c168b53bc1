"""The economic throttle: who is asked, how often, and what each answer and each price does."""

import json
from typing import Any

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from goals.domain.states import Phase, Unit
from goals.models import Goal
from goals.services.apply import pause_goal, resume_goal
from goals.services.conditions import condition_of
from goals.services.ledger import is_balanced
from goals.services.prices import set_price
from governance.domain import ApprovalInvalid
from governance.models import Approval, JournalRecord
from governance.services.approvals import decide_approval, expire_approvals
from lineage.telemetry.base import SpanBatch, SpanOwner

pytestmark = pytest.mark.django_db


def answer(tower: Any, approval: Approval, *, approve: bool = True, **grant: Any) -> Approval:
    return decide_approval(
        approval,
        principal=tower.approver,
        approve=approve,
        reason="Considered.",
        request_digest=approval.request_digest,
        answer=grant,
    )


def pending(goal: Goal) -> Approval:
    return Approval.objects.get(goal_uid=goal.uid, state="pending")


def use_tokens(
    tower: Any, goal: Goal, *, model: str = "m", tokens: int, number: int = 1, attempt: int = 0
) -> None:
    """Report a call of a language model, half its tokens in and half out."""
    owner = tower.attempts(goal)[attempt]
    request = ExportTraceServiceRequest()
    span = request.resource_spans.add().scope_spans.add().spans.add()
    span.trace_id = number.to_bytes(16, "big")
    span.span_id = (goal.uid.int % 2**32 * 1000 + number).to_bytes(8, "big")
    span.name = "chat"
    span.start_time_unix_nano = span.end_time_unix_nano = 1_800_000_000_000_000_000
    for key, value in (("input_tokens", tokens // 2), ("output_tokens", tokens - tokens // 2)):
        attribute = span.attributes.add()
        attribute.key, attribute.value.int_value = f"gen_ai.usage.{key}", value
    attribute = span.attributes.add()
    attribute.key, attribute.value.string_value = "gen_ai.request.model", model
    who = SpanOwner("default", str(goal.uid), owner.agent_name, owner.task, str(owner.uid))
    tower.twins.telemetry.write_spans([SpanBatch(who, request.SerializeToString())])


def account(goal: Goal, unit: str) -> Any:
    found = goal.accounts.get(unit=unit)
    assert is_balanced(found)
    return found


def asked(approval: Approval) -> int:
    return int(json.loads(approval.request_canonical)["ask"])


def run_out(tower: Any, *, more: str = "", budget: str = "12 GPU-seconds") -> Goal:
    tower.register("tuner", gpus=1)
    goal = tower.apply(agents="tuner", budget=budget, more=more).goal
    for _ in range(5):
        tower.reconcile(goal)
        tower.twins.cluster.advance(4_000)
    return tower.reconcile(goal)  # type: ignore[no-any-return]


def test_waiting_for_an_answer_writes_nothing(tower: Any) -> None:
    goal = run_out(tower)
    assert goal.phase == Phase.PAUSED
    tower.reconcile(goal)
    records = JournalRecord.objects.count()
    for _ in range(10):
        tower.reconcile(goal)
    assert JournalRecord.objects.count() == records
    assert Approval.objects.count() == 1


def test_where_a_pause_ends_the_program_a_whole_run_is_asked_for(tower: Any) -> None:
    tower.twins.cluster.keeps_paused = False
    goal = run_out(tower)
    first = pending(goal)
    assert asked(first) == 20_000  # its estimate, and not the 12 that were budgeted
    answer(tower, first)
    for _ in range(10):
        tower.reconcile(goal)
        tower.twins.cluster.advance(4_000)
    tower.reconcile(goal)
    assert asked(pending(goal)) == 32_000  # that was not enough


def test_less_may_be_granted_and_what_it_does_not_cover_is_asked_anew(tower: Any) -> None:
    goal = run_out(tower)
    first = pending(goal)
    answer(tower, first, grant=4_000)
    for _ in range(4):
        tower.reconcile(goal)
        tower.twins.cluster.advance(4_000)
    tower.reconcile(goal)
    assert (goal.phase, account(goal, Unit.GPU_MS).settled) == (Phase.PAUSED, 16_000)
    assert pending(goal).pk != first.pk


@pytest.mark.parametrize("grant", [0, -1, 10**15, True, "9", 1.5, None, 2**70, float("nan")])
def test_a_grant_is_between_one_and_what_was_asked(tower: Any, grant: Any) -> None:
    goal = run_out(tower)
    with pytest.raises(ApprovalInvalid):
        answer(tower, pending(goal), grant=grant)
    assert pending(goal)
    assert account(goal, Unit.GPU_MS).limit == 12_000


def test_a_budget_question_that_nobody_answers_lands_as_exhausted(tower: Any) -> None:
    from django.utils import timezone

    goal = run_out(tower)
    Approval.objects.update(expires_at=timezone.now() - timezone.timedelta(seconds=1))
    assert expire_approvals() == 1
    tower.reconcile(goal)
    assert (goal.phase, goal.landing_reason) == (Phase.EXHAUSTED, "BudgetDenied")
    assert tower.attempts(goal)[0].identity_revoked_at is not None


def test_a_person_may_pause_what_waits_for_budget_and_the_grant_does_not_resume_it(
    tower: Any,
) -> None:
    goal = run_out(tower)
    pause_goal(goal, principal=tower.operator)
    answer(tower, pending(goal))
    tower.reconcile(goal)
    assert goal.phase == Phase.PAUSED
    resume_goal(goal, principal=tower.operator)
    tower.reconcile(goal)
    assert goal.phase == Phase.RUNNING


def test_two_dimensions_that_run_short_are_asked_for_one_after_the_other(tower: Any) -> None:
    goal = run_out(tower, budget="12 GPU-seconds, 100 tokens")
    use_tokens(tower, goal, tokens=500)
    tower.reconcile(goal)
    assert '"gpu_ms"' in pending(goal).request_canonical
    answer(tower, pending(goal))
    tower.reconcile(goal)
    second = pending(goal)
    assert '"tokens"' in second.request_canonical
    answer(tower, second, grant=400)
    tower.reconcile(goal)
    assert goal.phase == Phase.RUNNING
    assert (account(goal, Unit.TOKENS).settled, account(goal, Unit.TOKENS).overrun) == (500, 0)


def test_a_voided_question_is_asked_again(tower: Any) -> None:
    from governance.services.approvals import void_approvals

    goal = run_out(tower)
    void_approvals(subject_kind="goal", subject_id=str(goal.uid), why="A slip.")
    tower.reconcile(goal)
    assert pending(goal)
    assert goal.phase == Phase.PAUSED


def test_eighty_percent_warns_once(tower: Any) -> None:
    tower.register("tuner", gpus=1)
    goal = tower.apply(agents="tuner", budget="20 GPU-seconds").goal
    said = []
    for _ in range(5):
        tower.reconcile(goal)
        said.append(condition_of(goal, "BudgetAvailable")["reason"])  # type: ignore[index]
        tower.twins.cluster.advance(4_000)
    assert said == ["WithinBudget"] * 4 + ["SoftLimitReached"]


def test_tokens_the_budget_does_not_name_pause_and_ask(tower: Any) -> None:
    tower.register("profiler")
    goal = tower.reconcile(tower.apply(budget="5 GPU-minutes").goal)
    use_tokens(tower, goal, tokens=1_000)
    tower.reconcile(goal)
    assert goal.phase == Phase.PAUSED
    tokens = account(goal, Unit.TOKENS)
    assert (tokens.settled, tokens.overrun) == (0, 1_000)
    answer(tower, pending(goal))
    tower.reconcile(goal)
    tokens.refresh_from_db()
    assert (goal.phase, tokens.settled, tokens.overrun) == (Phase.RUNNING, 1_000, 0)


def test_models_whose_names_begin_alike_are_counted_apart(tower: Any) -> None:
    tower.register("profiler")
    goal = tower.reconcile(tower.apply(budget="10k tokens").goal)
    for number, model in enumerate(("llama3:8b", "llama3", "Llama3", "llama3:8b:q4", "m" * 400), 1):
        use_tokens(tower, goal, model=model, tokens=100, number=number)
        tower.reconcile(goal)
        tower.reconcile(goal)
    assert account(goal, Unit.TOKENS).settled == 500


def test_a_token_settlement_that_is_covered_bit_by_bit_never_reuses_a_key(tower: Any) -> None:
    from goals.domain.states import EntryKind
    from goals.services.ledger import Source, post_entry
    from goals.services.metering import METER

    tower.register("profiler")
    goal = tower.reconcile(tower.apply(budget="100 tokens").goal)
    tokens = account(goal, Unit.TOKENS)
    source = Source(actor=METER, note="held by another")
    post_entry(tokens, kind=EntryKind.RESERVE, amount=90, key="a", source=source)
    use_tokens(tower, goal, tokens=60)
    tower.reconcile(goal)
    assert account(goal, Unit.TOKENS).settled == 10
    post_entry(tokens, kind=EntryKind.RELEASE, amount=20, key="b", source=source)
    tower.reconcile(goal)  # the same total and the same limit, another rest
    assert account(goal, Unit.TOKENS).settled == 30
    assert (condition_of(goal, "Reconciled") or {"status": "True"})["status"] == "True"


def test_gpus_without_a_price_are_denied_before_anything_runs(tower: Any) -> None:
    tower.register("tuner", gpus=1)
    goal = tower.reconcile(tower.apply(agents="tuner", budget="5 GPU-minutes, 1 USD").goal)
    assert (goal.phase, goal.landing_reason) == (Phase.DENIED, "PriceUnknown")
    assert "No price is set for gpu 'default'" in goal.landing_message
    assert tower.attempts(goal) == []
    assert goal.landed_at is not None
    assert {a.available for a in goal.accounts.all()} == {0}


def test_gpu_time_is_metered_in_time_and_in_money(tower: Any) -> None:
    set_price(kind="gpu", name="default", micro_usd=3_600_000, actor=tower.admin.actor)
    tower.register("tuner", gpus=1)
    goal = tower.apply(agents="tuner", budget="5 GPU-minutes, 0.013 USD").goal
    for _ in range(6):
        tower.reconcile(goal)
        tower.twins.cluster.advance(4_000)
    tower.reconcile(goal)
    # 1 micro-USD a millisecond: the money ends first, to the last millisecond it covers.
    assert (account(goal, Unit.GPU_MS).settled, account(goal, Unit.MICRO_USD).settled) == (
        13_000,
        13_000,
    )
    assert goal.phase == Phase.PAUSED
    assert '"micro_usd"' in pending(goal).request_canonical


def test_tokens_are_paid_at_the_price_in_force_when_the_attempt_began(tower: Any) -> None:
    for kind in ("input_token", "output_token"):
        set_price(kind=kind, name="m", micro_usd=2_000_000, actor=tower.admin.actor)
    tower.register("profiler")
    goal = tower.reconcile(tower.apply(budget="10k tokens, 1 USD").goal)
    use_tokens(tower, goal, tokens=100)
    tower.reconcile(goal)
    assert account(goal, Unit.MICRO_USD).settled == 200
    for kind in ("input_token", "output_token"):
        set_price(kind=kind, name="m", micro_usd=9_000_000, actor=tower.admin.actor)
    use_tokens(tower, goal, tokens=100, number=2)
    tower.reconcile(goal)
    assert account(goal, Unit.MICRO_USD).settled == 400


def test_a_model_without_a_price_ends_a_goal_with_money_in_its_budget(tower: Any) -> None:
    tower.register("profiler")
    goal = tower.reconcile(tower.apply(budget="10k tokens, 1 USD").goal)
    use_tokens(tower, goal, model="unheard-of", tokens=100)
    tower.reconcile(goal)
    assert (goal.phase, goal.landing_reason) == (Phase.DENIED, "PriceUnknown")
    assert account(goal, Unit.TOKENS).settled == 100
    assert tower.attempts(goal)[0].state == "stopped"


def test_tokens_an_attempt_reserved_are_given_back_when_it_ends(tower: Any) -> None:
    from goals.domain.states import EntryKind
    from goals.services.ledger import Source, post_entry
    from goals.services.metering import METER

    tower.register("profiler")
    goal = tower.reconcile(tower.apply(budget="100 tokens").goal)
    (attempt,) = tower.attempts(goal)
    source = Source(actor=METER, attempt_uid=attempt.uid)
    tokens = account(goal, Unit.TOKENS)
    post_entry(tokens, kind=EntryKind.RESERVE, amount=90, key="a", source=source)
    use_tokens(tower, goal, tokens=60)
    tower.reconcile(goal)
    assert (account(goal, Unit.TOKENS).settled, account(goal, Unit.TOKENS).reserved) == (60, 30)
    tower.observe(goal, attempt, 80.0)
    tower.twins.cluster.finish(attempt.workload)
    tower.reconcile(goal)
    tokens.refresh_from_db()
    assert goal.phase == Phase.SATISFIED
    assert (tokens.settled, tokens.reserved, tokens.available) == (60, 0, 0)

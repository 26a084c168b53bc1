"""The way of a Goal from Draft to one terminal phase, on the twins and the real policy engine."""

from typing import Any

import pytest

from agents.models import Attempt
from goals.domain.states import Phase
from goals.models import Goal
from goals.services.ledger import is_balanced
from governance.models import Approval, Decision, JournalRecord

pytestmark = pytest.mark.django_db


def balanced(goal: Goal) -> bool:
    return all(is_balanced(account) for account in goal.accounts.all())


def test_a_goal_is_planned_judged_run_measured_and_landed(tower: Any) -> None:
    tower.register("profiler", produces="latency-profile")
    tower.register("optimizer", gpus=1, consumes="latency-profile", produces="candidate")
    goal = tower.apply(agents="profiler, optimizer").goal
    tower.reconcile(goal)
    assert goal.phase == Phase.RUNNING
    assert [a.task for a in tower.attempts(goal)] == ["profiler"]
    (profiler,) = tower.attempts(goal)
    tower.twins.cluster.finish(profiler.workload)
    tower.reconcile(goal)
    optimizer = tower.attempts(goal)[1]
    assert optimizer.gpu_allowance_ms == 10_000
    tower.twins.cluster.advance(5_000)
    tower.reconcile(goal)
    tower.observe(goal, profiler, 88.0)
    tower.twins.cluster.finish(optimizer.workload)
    tower.reconcile(goal)
    assert (goal.phase, goal.satisfied) == (Phase.SATISFIED, True)
    assert goal.measured_value == 88.0
    account = goal.accounts.get(unit="gpu_ms")
    assert (account.settled, account.reserved) == (5_000, 0)
    assert balanced(goal)
    assert Decision.objects.filter(goal_uid=goal.uid, point="graph").count() == 1
    assert Decision.objects.filter(goal_uid=goal.uid, point="workload").count() == 2
    assert all(a.identity_revoked_at for a in tower.attempts(goal))
    actions = list(JournalRecord.objects.filter(goal_uid=goal.uid).values_list("action", flat=True))
    for action in ("goal.created", "goal.phase", "attempt.created", "ledger.settle"):
        assert action in actions


def test_an_unmet_objective_iterates_then_fails(tower: Any) -> None:
    tower.register("profiler")
    goal = tower.apply(more="maxIterations: 2").goal
    for iteration in (1, 2):
        tower.reconcile(goal)
        assert goal.iteration == iteration
        attempt = tower.attempts(goal)[-1]
        tower.observe(goal, attempt, 300.0, span_id=f"{iteration:016x}")
        tower.twins.cluster.finish(attempt.workload)
    tower.reconcile(goal)
    assert (goal.phase, goal.landing_reason) == (Phase.FAILED, "ObjectiveNotMet")


def run_to_limit(tower: Any) -> Goal:
    tower.register("tuner", gpus=1)
    goal = tower.apply("rogue", agents="tuner", budget="30 GPU-seconds").goal
    for _ in range(8):
        tower.reconcile(goal)
        tower.twins.cluster.advance(5_000)
    return tower.reconcile(goal)


def test_the_limit_pauses_and_asks_and_a_grant_resumes(tower: Any) -> None:
    from governance.services.approvals import decide_approval

    goal = run_to_limit(tower)
    assert goal.phase == Phase.PAUSED
    account = goal.accounts.get(unit="gpu_ms")
    assert account.settled == 30_000
    approval = Approval.objects.get(goal_uid=goal.uid)
    facts = {fact["key"]: fact["value"] for fact in approval.facts}
    assert facts["spent"] == "30.0 GPU-seconds"
    assert facts["progress"] is None
    decide_approval(
        approval,
        principal=tower.approver,
        approve=True,
        reason="One more round.",
        request_digest=approval.request_digest,
        answer={"grant": 10_000},
    )
    tower.reconcile(goal)
    assert goal.phase == Phase.RUNNING
    tower.twins.cluster.advance(4_000)
    tower.reconcile(goal)
    account.refresh_from_db()
    assert (account.limit, account.settled) == (40_000, 34_000)
    assert balanced(goal)
    assert len(tower.attempts(goal)) == 1


def test_a_denied_overrun_lands_as_exhausted(tower: Any) -> None:
    from governance.services.approvals import decide_approval

    goal = run_to_limit(tower)
    approval = Approval.objects.get(goal_uid=goal.uid)
    decide_approval(
        approval,
        principal=tower.approver,
        approve=False,
        reason="It will never converge.",
        request_digest=approval.request_digest,
    )
    tower.reconcile(goal)
    assert goal.phase == Phase.EXHAUSTED
    (attempt,) = tower.attempts(goal)
    assert attempt.state == "stopped"
    assert balanced(goal)


def test_policy_denies_an_experimental_agent_with_three_gpus(tower: Any) -> None:
    tower.register("greedy", gpus=3, role="experimental")
    goal = tower.reconcile(tower.apply(agents="greedy").goal)
    assert goal.phase == Phase.DENIED
    admitted = next(c for c in goal.conditions if c["type"] == "Admitted")
    assert "2 GPUs" in admitted["message"]
    assert ".rego:" in admitted["message"]
    assert not Attempt.objects.exists()


def test_a_goal_that_asks_for_approval_waits_and_a_changed_one_asks_anew(tower: Any) -> None:
    from governance.domain import ApprovalConflict
    from governance.services.approvals import decide_approval

    tower.register("profiler")
    goal = tower.reconcile(tower.apply(more="requireApproval: true").goal)
    assert goal.phase == Phase.AWAITING_APPROVAL
    first = Approval.objects.get(goal_uid=goal.uid)
    tower.apply(more="requireApproval: true", budget="60 GPU-minutes")
    tower.reconcile(goal)
    with pytest.raises(ApprovalConflict):
        decide_approval(
            first,
            principal=tower.approver,
            approve=True,
            reason="Fine.",
            request_digest=first.request_digest,
        )
    second = Approval.objects.get(goal_uid=goal.uid, state="pending")
    decide_approval(
        second,
        principal=tower.approver,
        approve=True,
        reason="Fine.",
        request_digest=second.request_digest,
    )
    tower.reconcile(goal)
    assert goal.phase == Phase.RUNNING


def test_applying_the_same_manifest_twice_changes_nothing(tower: Any) -> None:
    tower.register("profiler")
    first = tower.apply()
    records = JournalRecord.objects.count()
    again = tower.apply()
    assert (first.outcome, again.outcome) == ("created", "unchanged")
    assert JournalRecord.objects.count() == records
    assert again.goal.generation == 1


def test_pause_resume_and_cancel(tower: Any) -> None:
    from goals.services.apply import cancel_goal, pause_goal, resume_goal

    tower.register("tuner", gpus=1)
    goal = tower.reconcile(tower.apply(agents="tuner").goal)
    pause_goal(goal, principal=tower.operator)
    tower.reconcile(goal)
    (attempt,) = tower.attempts(goal)
    assert (goal.phase, attempt.state) == (Phase.PAUSED, "paused")
    resume_goal(goal, principal=tower.operator)
    tower.reconcile(goal)
    (attempt,) = tower.attempts(goal)
    assert (goal.phase, attempt.state) == (Phase.RUNNING, "running")
    cancel_goal(goal, principal=tower.operator)
    tower.reconcile(goal)
    (attempt,) = tower.attempts(goal)
    assert (goal.phase, attempt.state) == (Phase.CANCELLED, "stopped")
    assert balanced(goal)


def test_a_failing_task_is_retried_and_then_fails_the_goal(tower: Any) -> None:
    tower.register("profiler")
    goal = tower.apply(more="retries: 1").goal
    for number in (1, 2):
        tower.reconcile(goal)
        attempt = tower.attempts(goal)[-1]
        assert attempt.number == number
        tower.twins.cluster.finish(attempt.workload, exit_code=3)
    tower.reconcile(goal)
    assert (goal.phase, goal.landing_reason) == (Phase.FAILED, "TaskFailed")

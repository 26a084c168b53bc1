"""Drift: what attempts do is judged, a drifter is ended at once, and a human has the next word."""

import html
import json
import re
from collections import Counter
from contextlib import suppress
from itertools import count
from typing import Any

import pytest
from django.test import Client
from django.utils import timezone

from agents.models import Attempt
from goals.domain.states import Phase
from goals.models import AttemptConduct, Goal
from goals.services.conditions import condition_of
from goals.services.ledger import is_balanced
from governance.domain import ApprovalForbidden
from governance.models import Approval, BundleVersion, Decision, JournalRecord
from governance.services.approvals import decide_approval
from governance.services.decisions import replay_decision
from lineage.telemetry.base import TelemetryUnavailable
from tests.goals.test_crashes import STRIDE, Killed, expire_lease, failing_at, visit
from tests.otlp_exports import batch, span
from tests.towers import AGENT, Tower

pytestmark = pytest.mark.django_db

SEEN = "c" * 16
_ids = count(1)


def register(tower: Tower, name: str, *, targets: str = "orders-db") -> Any:
    from agents.domain.documents import load_documents
    from agents.domain.manifest import parse_agent
    from agents.services.registry import register_agent

    text = AGENT.format(name=name, gpus=1, consumes="", produces=f"of-{name}", role="worker")
    scope = f"scope: {{releases: [checkout/canary], targets: [{targets}]}}"
    text = text.replace("scope: {releases: [checkout/production, checkout/canary]}", scope)
    return register_agent(parse_agent(load_documents(text)[0]), actor=tower.admin.actor)


def started(tower: Tower, *, agents: str = "tuner", **how: Any) -> Goal:
    for name in agents.split(", "):
        register(tower, name, **how)
    goal: Goal = tower.apply(agents=agents).goal
    tower.reconcile(goal)
    tower.twins.cluster.advance(3_000)
    tower.reconcile(goal)
    assert goal.phase == Phase.RUNNING
    return goal


def act(
    tower: Tower, attempt: Attempt, *, times: int = 1, because: str = SEEN, **values: Any
) -> str:
    """Write an observation and actions upon it as the attempt's SDK would; the last one's id."""
    owner = {
        "namespace": attempt.namespace, "goal_uid": str(attempt.goal_uid),
        "agent": attempt.agent_name, "task": attempt.task, "attempt_uid": str(attempt.uid),
    }  # fmt: skip
    spans = [span(SEEN, name="observe", observation__metric="latency")]
    name = values.pop("name", "tune")
    for _ in range(times):
        number = next(_ids)
        spans.append(span(f"{number:016x}", because=because, at=number * 5, name=name, **values))
    tower.twins.telemetry.write_spans([batch(*spans, **owner)])
    return f"{number:016x}"


def only(goal: Goal) -> Attempt:
    (attempt,) = Attempt.objects.filter(goal_uid=goal.uid)
    return attempt


def question(goal: Goal) -> Approval:
    return Approval.objects.get(kind="drift", state="pending", goal_uid=goal.uid)


def answer(tower: Tower, goal: Goal, *, approve: bool, by: Any = None) -> None:
    asked = question(goal)
    decide_approval(
        asked, principal=by or tower.approver, approve=approve, reason="Looked at it.",
        request_digest=asked.request_digest,
    )  # fmt: skip
    tower.reconcile(goal)


def says(goal: Goal, kind: str = "Drifted") -> tuple[str, str]:
    known = condition_of(goal, kind) or {}
    return known.get("status", ""), known.get("reason", "")


def actions(goal: Goal) -> Counter[str]:
    found = JournalRecord.objects.filter(goal_uid=goal.uid)
    return Counter(found.values_list("action", flat=True))


def facts(approval: Approval) -> dict[str, Any]:
    return {one["key"]: one["value"] for one in approval.facts}


def test_what_is_within_its_scope_goes_on(tower: Tower) -> None:
    goal = started(tower)
    act(tower, only(goal), change__target="orders-db", action__confidence=0.9)
    act(tower, only(goal), change__target="checkout/canary", action__confidence=0.9)
    tower.reconcile(goal)
    row = AttemptConduct.objects.get(pk=only(goal).uid)
    assert (row.outcome, row.standing, row.messages) == ("allow", "", [])
    assert row.document["agent"]["scope"] == ["checkout/canary", "orders-db"]
    assert says(goal) == ("", "")
    (decision,) = Decision.objects.filter(point="drift")
    assert (decision.subject_kind, decision.subject_id) == ("attempt", str(only(goal).uid))
    assert replay_decision(decision).agrees


def test_the_same_conduct_is_judged_and_recorded_once(tower: Tower) -> None:
    goal = started(tower)
    act(tower, only(goal), change__target="orders-db")
    for _ in range(3):
        tower.reconcile(goal)
    assert Decision.objects.filter(point="drift").count() == 1
    act(tower, only(goal), change__target="orders-db")  # news, and nothing else is said of it
    tower.reconcile(goal)
    assert Decision.objects.filter(point="drift").count() == 1
    row = AttemptConduct.objects.get(pk=only(goal).uid)
    assert row.document["actions"]["total"] == 2
    long_ago = timezone.now() - timezone.timedelta(seconds=61)
    AttemptConduct.objects.update(recorded_at=long_ago)
    act(tower, only(goal), change__target="orders-db")
    tower.reconcile(goal)
    assert Decision.objects.filter(point="drift").count() == 2


def test_a_drifter_is_ended_and_a_human_asked_while_siblings_go_on(tower: Tower) -> None:
    goal = started(tower, agents="tuner, scout")
    drifter, sibling = tower.attempts(goal)
    offence = act(tower, drifter, change__target="users-db", name="drop", action__confidence=0.9)
    tower.reconcile(goal)
    drifter.refresh_from_db()
    sibling.refresh_from_db()
    assert (drifter.state, drifter.desired) == ("stopped", "stopped")
    assert drifter.identity_revoked_at is not None
    assert "users-db" in drifter.identity_revoked_reason
    assert (sibling.state, sibling.identity_revoked_at) == ("running", None)
    assert tower.twins.cluster.get(drifter.workload) is None or (
        tower.twins.cluster.get(drifter.workload).is_finished
    )
    # What it used is settled, the rest went back.
    assert drifter.gpu_settled_ms == drifter.gpu_allowance_ms == drifter.gpu_ms > 0
    assert all(is_balanced(account) for account in goal.accounts.all())
    assert says(goal) == ("True", "PolicyDenied")
    row = AttemptConduct.objects.get(pk=drifter.uid)
    assert (row.standing, row.offence_span_id) == ("stopped", offence)
    assert row.revoked_after_seconds is not None
    assert row.ended_after_seconds is not None
    assert 0 <= row.revoked_after_seconds <= 5
    card = facts(question(goal))
    assert next(iter(card)) == "why"
    assert "users-db" in card["why"]
    assert "clearance.drift.deny, drift.rego:" in card["rule"]
    assert (card["span"], card["decision"]) == (offence, str(row.decision_uid))
    assert card["scope"] == "checkout/canary, orders-db"
    assert "revoked" in card["identity"]
    assert card["revoked_after"].endswith(" s")
    assert card["ended_after"].endswith(" s")
    assert "change.target: users-db" in question(goal).agent_words
    assert {"attempt.drifted": 1, "attempt.drift_ended": 1}.items() <= actions(goal).items()
    for _ in range(3):  # nothing more happens, and it is not started again
        tower.reconcile(goal)
    assert len(tower.attempts(goal)) == 2
    assert actions(goal)["attempt.drifted"] == 1


def test_approved_it_runs_again_as_somebody_new(tower: Tower) -> None:
    goal = started(tower)
    act(tower, only(goal), change__target="users-db")
    tower.reconcile(goal)
    with pytest.raises(ApprovalForbidden):  # four eyes, and operators do not approve
        answer(tower, goal, approve=True, by=tower.operator)
    answer(tower, goal, approve=True)
    first, second = tower.attempts(goal)
    assert (first.number, second.number) == (1, 2)
    assert second.identity_revoked_at is None
    assert says(goal) == ("False", "Approved")
    assert goal.phase == Phase.RUNNING
    act(tower, second, change__target="users-db")  # judged as before
    tower.reconcile(goal)
    assert json.loads(question(goal).request_canonical)["attempt"] == str(second.uid)


@pytest.mark.parametrize("how", ["denied", "expired"])
def test_denied_or_unanswered_the_goal_fails(tower: Tower, how: str) -> None:
    from governance.services.approvals import expire_approvals

    goal = started(tower, agents="tuner, scout")
    act(tower, tower.attempts(goal)[0], change__target="users-db")
    tower.reconcile(goal)
    if how == "denied":
        answer(tower, goal, approve=False)
    else:
        Approval.objects.update(expires_at=timezone.now() - timezone.timedelta(hours=1))
        assert expire_approvals() == 1
        tower.reconcile(goal)
    assert (goal.phase, goal.landing_reason) == (Phase.FAILED, "Drifted")
    assert not Attempt.objects.filter(goal_uid=goal.uid, finished_at__isnull=True).exists()
    assert not Approval.objects.filter(state="pending").exists()


def confident(tower: Tower, attempt: Attempt, times: int, sure: float) -> None:
    act(tower, attempt, times=times, action__confidence=sure, name="guess")


def test_collapsing_confidence_pauses_and_asks(tower: Tower) -> None:
    goal = started(tower, agents="tuner, scout")
    attempt, sibling = tower.attempts(goal)
    confident(tower, attempt, 25, 0.9)
    tower.reconcile(goal)
    confident(tower, attempt, 20, 0.2)
    tower.reconcile(goal)
    assert tower.twins.cluster.get(attempt.workload).phase == "Paused"  # at once
    tower.reconcile(goal)
    attempt.refresh_from_db()
    sibling.refresh_from_db()
    assert (attempt.state, attempt.desired) == ("paused", "paused")
    assert attempt.identity_revoked_at is None
    assert sibling.state == "running"
    assert says(goal) == ("True", "ApprovalRequired")
    Goal.objects.filter(pk=goal.pk).update(desired="pause")
    tower.reconcile(goal)
    Goal.objects.filter(pk=goal.pk).update(desired="run")
    tower.reconcile(goal)
    attempt.refresh_from_db()
    assert attempt.state == "paused"  # resuming the Goal does not answer the question
    answer(tower, goal, approve=True)
    attempt.refresh_from_db()
    assert (attempt.state, attempt.identity_revoked_at) == ("running", None)
    confident(tower, attempt, 3, 0.2)  # the same rule asks no more of this attempt
    tower.reconcile(goal)
    attempt.refresh_from_db()
    assert attempt.state == "running"
    act(tower, attempt, change__target="users-db")  # another does
    tower.reconcile(goal)
    attempt.refresh_from_db()
    assert attempt.state == "stopped"


def test_an_attempt_that_is_paused_and_denied_is_ended(tower: Tower) -> None:
    goal = started(tower)
    confident(tower, only(goal), 25, 0.9)
    confident(tower, only(goal), 20, 0.2)
    tower.reconcile(goal)
    answer(tower, goal, approve=False)
    attempt = only(goal)
    assert (attempt.state, goal.phase, goal.landing_reason) == ("stopped", "Failed", "Drifted")
    assert attempt.identity_revoked_reason.startswith("drift: denied")
    assert AttemptConduct.objects.get(pk=attempt.uid).ended_at is not None


@pytest.mark.parametrize(
    ("values", "models", "said"),
    [
        ({"gen_ai__request__model": "huge"}, True, "used model"),
        ({"because": "d" * 16}, False, "another Goal"),
        ({"times": 26, "change__target": "orders-db"}, False, "26 times in a row"),
    ],
)
def test_what_else_the_starter_bundle_stops(
    tower: Tower, values: dict[str, Any], models: bool, said: str
) -> None:
    other = span("d" * 16, name="observe", observation__metric="latency")
    tower.twins.telemetry.write_spans([batch(other, goal_uid="another", attempt_uid="one")])
    goal = started(tower)
    attempt = only(goal)
    if models:
        specification = {**attempt.specification, "models": ["large", "small"]}
        Attempt.objects.filter(pk=attempt.pk).update(specification=specification)
    last = act(tower, attempt, **values)
    tower.reconcile(goal)
    card = facts(question(goal))
    assert said in card["why"]
    assert card["span"] == last
    assert only(goal).state == "stopped"


def test_many_orphans_warn_and_end_nothing(tower: Tower) -> None:
    goal = started(tower)
    act(tower, only(goal), times=20, because="", action__confidence=0.9)
    tower.reconcile(goal)
    row = AttemptConduct.objects.get(pk=only(goal).uid)
    assert (row.outcome, row.standing) == ("warn", "")
    assert "20 of 20 actions name no observation" in row.messages[0]["text"]
    assert (only(goal).state, says(goal)) == ("running", ("", ""))


@pytest.mark.parametrize(("stage", "reason"), [("shadow", ""), ("warn", "WouldBeStopped")])
def test_a_bundle_that_is_only_tried_ends_nothing(tower: Tower, stage: str, reason: str) -> None:
    starter = BundleVersion.objects.get()
    tried = BundleVersion.objects.get(pk=starter.pk)
    tried.pk, tried.version, tried.stage = None, 2, stage
    goal = started(tower, targets="orders-db, users-db")
    tried.modules = [
        {"path": "strict.rego", "source": "package clearance.drift\nimport rego.v1\n"
         'deny contains "nothing may be changed" if count(input.actions.names) > 0\n'}
    ]  # fmt: skip
    tried.digest = "sha256:" + "7" * 64
    tried.save(force_insert=True)
    act(tower, only(goal), change__target="users-db")
    tower.reconcile(goal)
    assert (only(goal).state, only(goal).identity_revoked_at) == ("running", None)
    assert says(goal)[1] == reason
    assert not Approval.objects.filter(kind="drift").exists()
    assert Decision.objects.filter(point="drift", stage=stage, outcome="deny").count() == 1


def test_a_store_that_is_down_ends_nothing_and_is_made_up_for(tower: Tower) -> None:
    goal = started(tower)
    act(tower, only(goal), change__target="users-db")
    for _ in range(2):  # tokens, then conduct
        tower.twins.telemetry.fail_next(TelemetryUnavailable("down"))
    visit(goal)
    assert only(goal).identity_revoked_at is None
    tower.reconcile(goal)
    assert only(goal).state == "stopped"


def broken(tower: Tower) -> BundleVersion:
    """A version in force that has no rule for this point: what is asked of it is undecidable."""
    starter = BundleVersion.objects.get(stage="enforce")
    rest = [one for one in starter.modules if not one["path"].startswith("drift")]
    BundleVersion.objects.filter(pk=starter.pk).update(modules=rest, digest="sha256:" + "8" * 64)
    return starter


def test_without_an_answer_of_policy_nothing_is_started_and_nothing_ended(tower: Tower) -> None:
    goal = started(tower, agents="tuner, scout")
    starter = broken(tower)
    drifter, sibling = tower.attempts(goal)
    act(tower, drifter, change__target="users-db")
    tower.twins.cluster.finish(sibling.workload, exit_code=1)
    tower.reconcile(goal)
    drifter.refresh_from_db()
    assert (drifter.state, drifter.identity_revoked_at) == ("running", None)
    assert says(goal, "Judged") == ("False", "PolicyUndecided")
    tower.reconcile(goal)
    assert len(tower.attempts(goal)) == 2  # the sibling is not tried again yet
    BundleVersion.objects.filter(pk=starter.pk).update(
        modules=starter.modules, digest=starter.digest
    )
    tower.reconcile(goal)
    drifter.refresh_from_db()
    assert drifter.state == "stopped"
    assert says(goal, "Judged") == ("True", "PolicyAnswers")
    assert len(tower.attempts(goal)) == 3


def test_conduct_that_cannot_be_judged_while_other_can_is_put_before_a_human(
    tower: Tower,
) -> None:
    goal = started(tower, agents="tuner, scout")
    starter = BundleVersion.objects.get()
    stumbles = {
        "path": "stumble.rego",
        "source": "package clearance.drift\nimport rego.v1\n"
        'deny contains "never" if { some name in input.actions.names; to_number(name) == 1 }\n',
    }
    BundleVersion.objects.filter(pk=starter.pk).update(
        modules=[*starter.modules, stumbles], digest="sha256:" + "9" * 64
    )
    attempt, sibling = tower.attempts(goal)
    act(tower, attempt, change__target="orders-db")  # no number: the built-in fails
    act(tower, sibling, action__confidence=0.9)
    tower.reconcile(goal)
    tower.reconcile(goal)
    attempt.refresh_from_db()
    sibling.refresh_from_db()
    assert (attempt.state, attempt.identity_revoked_at) == ("paused", None)
    assert sibling.state == "running"
    assert "could not judge" in facts(question(goal))["why"]
    answer(tower, goal, approve=True)
    tower.reconcile(goal)
    attempt.refresh_from_db()
    assert attempt.state == "running"
    assert says(goal, "Judged")[0] != "False"  # a human has answered for it


def test_what_ended_before_it_was_judged_does_not_count_either(tower: Tower) -> None:
    goal = started(tower)
    act(tower, only(goal), change__target="users-db")
    tower.twins.cluster.finish(only(goal).workload)
    tower.reconcile(goal)
    assert only(goal).state == "succeeded"
    assert goal.phase == Phase.RUNNING
    assert says(goal) == ("True", "PolicyDenied")
    answer(tower, goal, approve=True)
    assert [one.number for one in tower.attempts(goal)] == [1, 2]


def test_a_changed_goal_takes_its_question_back(tower: Tower) -> None:
    goal = started(tower)
    act(tower, only(goal), change__target="users-db")
    tower.reconcile(goal)
    tower.apply(agents="tuner", budget="60 GPU-minutes")
    assert not Approval.objects.filter(kind="drift", state="pending").exists()
    tower.reconcile(goal)
    assert goal.phase == Phase.RUNNING


def signed_in(tower: Tower, name: str) -> Client:
    client = Client()
    client.force_login(tower.people[name])
    return client


def text_of(client: Client, path: str) -> str:
    response = client.get(path)
    assert response.status_code == 200, path
    return re.sub(r"\s+", " ", html.unescape(re.sub(r"<[^>]+>", " ", response.content.decode())))


def test_people_see_what_drifted_how_fast_and_why(tower: Tower) -> None:
    goal = started(tower)
    offence = act(tower, only(goal), change__target="users-db", action__confidence=0.9)
    tower.reconcile(goal)
    attempt, approver = only(goal), signed_in(tower, "approver")
    inbox = text_of(approver, "/approvals")
    assert "tuner of default/reduce-p99-latency drifted" in inbox
    assert "outside its scope" in inbox
    path = f"/approvals/{question(goal).uid}"
    card = text_of(approver, path)
    for words in (
        "clearance.drift.deny, drift.rego:", "(starter version 1)", "revoked, and nothing is",
        "From the span to the end of the workload", "a new attempt with a new identity",
        "lands as Failed (Drifted)", "unverified", "change.target: users-db",
    ):  # fmt: skip
        assert words in card, words
    links = approver.get(path).content.decode()
    decision = AttemptConduct.objects.get().decision_uid
    for link in (f"/spans/{offence}", f"/decisions/{decision}", f"/attempts/{attempt.uid}"):
        assert f'href="{link}"' in links
    viewer = signed_in(tower, "viewer")
    for page in ("/agents/default/tuner", f"/attempts/{attempt.uid}"):
        told = text_of(viewer, page)
        for words in ("drifted: ended", "Identity revoked after", "waits for an answer",
                      "1, of which 0 named no", "0.90 now, unknown before"):  # fmt: skip
            assert words in told, (page, words)
    assert "1 drifted" in text_of(viewer, "/agents")
    (told,) = viewer.get("/api/v1/agents/default/tuner/drift").json()
    assert told["attempt"] == str(attempt.uid)
    seen = told["conduct"]
    assert (seen["standing"], seen["outcome"], seen["targets"]) == ("stopped", "deny", ["users-db"])
    assert seen["offending_span"] == offence
    assert 0 <= seen["revoked_after_seconds"] <= seen["ended_after_seconds"] + 5


def test_names_that_agents_choose_are_escaped_and_kept_whole(tower: Tower) -> None:
    goal = started(tower)
    bad = "<script>alert(1)</script>\u202e"
    act(tower, only(goal), change__target=bad, name=bad)
    tower.reconcile(goal)
    approver = signed_in(tower, "approver")
    for page in (f"/approvals/{question(goal).uid}", "/approvals", "/agents/default/tuner"):
        body = approver.get(page).content.decode()
        assert "alert(1)" in body, page
        assert "<script>alert" not in body


# Every write is tried with CRASH_STRIDE=1, as in test_crashes.
@pytest.mark.parametrize("first", [0, 5])
def test_killed_at_any_write_the_drifter_ends_once(tower: Tower, first: int) -> None:
    register(tower, "tuner")
    for number in range(1 + first, 80, STRIDE):
        goal = tower.apply(f"goal-{number}", agents="tuner").goal
        tower.reconcile(goal)
        tower.twins.cluster.advance(1_000)
        tower.reconcile(goal)
        act(tower, only(goal), change__target="users-db")
        with failing_at(number, Killed()) as seen, suppress(Killed):
            visit(goal)
        is_over = len(seen) < number
        for _ in range(4):
            expire_lease(goal)
            tower.reconcile(goal)
        attempt = only(goal)
        assert attempt.state == "stopped", number
        assert attempt.identity_revoked_at is not None
        assert attempt.gpu_settled_ms == attempt.gpu_allowance_ms
        done = actions(goal)
        assert (done["attempt.drifted"], done["attempt.drift_ended"]) == (1, 1), number
        assert Approval.objects.filter(kind="drift", goal_uid=goal.uid).count() == 1
        assert facts(question(goal))["ended_after"] is not None
        assert all(is_balanced(account) for account in goal.accounts.all())
        answer(tower, goal, approve=False)
        assert goal.landing_reason == "Drifted"
        if is_over:
            break

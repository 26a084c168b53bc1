"""The kill switch on the twins: what it covers ends, stays ended, and starts again once lifted."""

import socket
import time
from typing import Any

import pytest
from django.test import Client

from agents.cluster import get_cluster
from agents.cluster.shim.processes import descendants, read_process
from agents.domain.states import AttemptState, DesiredState
from agents.models import Attempt
from goals.domain.killing import KillScope
from goals.models import Goal, KillSwitch
from goals.services.apply import cancel_goal
from goals.services.conditions import condition_of
from goals.services.kill import (
    EFFECTIVE_SECONDS,
    Kill,
    find_target,
    lift_switch,
    preview_kill,
    throw_switch,
)
from goals.services.prices import set_price
from goals.services.steering import Step, preview_steps, steer_many
from governance.access import NotAllowed, NotVisible, principal_of
from governance.models import JournalRecord, Membership
from lineage.telemetry import get_telemetry

pytestmark = pytest.mark.django_db

DEADLINE_SECONDS = 30.0
PROCESSES_EACH = 4  # a shell, the three that it starts


def running(tower: Any, name: str = "rogue", agent: str = "tuner") -> Goal:
    """A Goal whose one attempt runs."""
    tower.register(agent, gpus=1)
    goal: Goal = tower.apply(name, agents=agent, budget="60 GPU-seconds").goal
    tower.reconcile(goal)
    return goal


def throw(tower: Any, scope: str, *, by: Any = None, **where: str) -> Kill:
    who = by or tower.operator
    return throw_switch(find_target(who, scope=scope, **where), principal=who, reason="looks odd")


@pytest.mark.parametrize(
    ("scope", "where", "by"),
    [
        ("goal", {"namespace": "default", "name": "rogue"}, "operator"),
        ("namespace", {"namespace": "default"}, "operator"),
        ("everything", {}, "admin"),
    ],
)
def test_what_is_covered_ends_and_lands(tower: Any, scope: str, where: Any, by: str) -> None:
    goal = running(tower)
    (attempt,) = tower.attempts(goal)
    kill = throw(tower, scope, by=getattr(tower, by), **where)
    assert (kill.burn.agents, kill.stopped, kill.running, kill.problems) == (1, 1, (), {})
    assert tower.twins.cluster.get(attempt.workload).is_finished
    attempt.refresh_from_db()
    assert (attempt.state, attempt.desired) == (AttemptState.STOPPED, DesiredState.STOPPED)
    assert attempt.identity_revoked_at is not None
    assert attempt.identity_revoked_reason.startswith("kill switch over ")
    goal.refresh_from_db()
    assert (goal.landing, goal.landing_reason) == ("Cancelled", "KillSwitch")
    tower.reconcile(goal)
    assert goal.phase == "Cancelled"
    account = goal.accounts.get(unit="gpu_ms")
    assert account.reserved == 0
    actions = list(JournalRecord.objects.values_list("action", flat=True))
    for action in ("kill_switch.thrown", "attempt.killed", "attempt.stopped", "goal.landing"):
        assert actions.count(action) == 1, action


def test_an_agent_that_is_held_waits_and_goes_on_once_the_switch_is_lifted(tower: Any) -> None:
    goal = running(tower)
    kill = throw(tower, "agent", namespace="default", name="tuner")
    assert (kill.stopped, kill.goals) == (1, 0)
    tower.reconcile(goal)
    assert [one.state for one in tower.attempts(goal)] == [AttemptState.STOPPED]
    assert goal.phase == "Running"
    condition = condition_of(goal, "Launching")
    assert condition is not None
    assert condition["status"] == "False"
    assert "thrown by operator" in condition["message"]
    lift_switch(kill.switch, principal=tower.operator)
    lift_switch(kill.switch, principal=tower.operator)
    tower.reconcile(goal)
    assert [one.state for one in tower.attempts(goal)] == [
        AttemptState.STOPPED, AttemptState.RUNNING
    ]  # fmt: skip
    launching = condition_of(goal, "Launching")
    assert launching is not None
    assert launching["status"] == "True"
    assert JournalRecord.objects.filter(action="kill_switch.lifted").count() == 1


def test_a_goal_asked_for_while_the_switch_stands_is_not_started(tower: Any) -> None:
    kill = throw(tower, "namespace", namespace="default")
    goal = running(tower)
    assert tower.attempts(goal) == []
    lift_switch(kill.switch, principal=tower.admin)
    tower.reconcile(goal)
    assert [one.state for one in tower.attempts(goal)] == [AttemptState.RUNNING]


def test_thrown_again_it_ends_what_is_left_and_stands_once(tower: Any) -> None:
    running(tower)
    first = throw(tower, "namespace", namespace="default")
    second = throw(tower, "namespace", namespace="default")
    assert second.switch.pk == first.switch.pk
    assert (second.burn.agents, second.goals) == (0, 0)
    assert KillSwitch.objects.count() == 1
    assert second.switch.attempts == 1


def test_a_worker_that_read_the_attempt_before_starts_nothing(tower: Any) -> None:
    """The row is written before the cluster is asked: whoever creates late sees it and deletes."""
    from agents.services.attempts import enforce_attempt

    goal = running(tower)
    (attempt,) = tower.attempts(goal)
    tower.twins.cluster.delete(attempt.workload, grace_seconds=0.0)
    tower.twins.cluster.advance(1_000)
    tower.twins.cluster.forget(attempt.workload)
    type(attempt).objects.filter(pk=attempt.pk).update(started_at=None, state="pending")
    (stale,) = tower.attempts(goal)
    throw(tower, "namespace", namespace="default")
    enforce_attempt(stale, cluster=tower.twins.cluster)
    tower.twins.cluster.advance(10_000)
    assert tower.twins.cluster.get(attempt.workload).is_finished


def test_the_preview_says_what_is_hit(tower: Any) -> None:
    running(tower)
    target = find_target(tower.operator, scope="namespace", namespace="default")
    preview = preview_kill(target, principal=tower.operator)
    assert preview.burn.words == "1 agent, 1 GPU, cost unknown: no GPU price is set"
    set_price(kind="gpu", name="default", micro_usd=744_000_000, actor=tower.admin.actor)
    preview = preview_kill(target, principal=tower.operator)
    assert preview.burn.words == "1 agent, 1 GPU, 12.40 USD a minute"
    assert (preview.goals, preview.standing) == (1, None)


def test_who_may_throw_it(tower: Any) -> None:
    running(tower)
    viewer = principal_of(tower.people["viewer"])
    for scope, where, refused in [
        ("namespace", {"namespace": "default"}, NotAllowed),
        ("agent", {"namespace": "default", "name": "tuner"}, NotAllowed),
        ("goal", {"name": "rogue"}, NotAllowed),
        ("everything", {}, NotAllowed),
        ("namespace", {"namespace": "other"}, NotVisible),
        ("agent", {"namespace": "default", "name": "nobody"}, NotVisible),
        ("goal", {"name": "nothing"}, NotVisible),
    ]:
        with pytest.raises(refused):
            throw(tower, scope, by=viewer, **where)
    with pytest.raises(NotAllowed):  # everything is more than one namespace
        throw(tower, "everything", by=tower.operator)
    Membership.objects.create(user=tower.people["operator"], namespace="*", role="operator")
    everywhere = principal_of(tower.people["operator"])
    assert throw(tower, "everything", by=everywhere).switch.scope == KillScope.EVERYTHING
    assert KillSwitch.objects.count() == 1


PARENT = "trap '' TERM; sleep 600 & setsid sleep 600 & while :; do sleep 1; done"
AGENT = """
apiVersion: orchestration.ai/v1
kind: Agent
metadata: {name: stubborn, namespace: default}
spec:
  role: worker
  image: examples/stubborn:1.0
  command: [/bin/sh, -c, "%s"]
  serviceAccountName: stubborn
"""


def stubborn(tower: Any, name: str) -> Goal:
    """A Goal whose agent ignores SIGTERM, and whose children leave its process group."""
    from agents.domain.documents import load_documents
    from agents.domain.manifest import parse_agent
    from agents.services.registry import register_agent

    register_agent(parse_agent(load_documents(AGENT % PARENT)[0]), actor=tower.admin.actor)
    goal: Goal = tower.apply(name, agents="stubborn", budget="60 GPU-seconds").goal
    return goal


@pytest.mark.kill
@pytest.mark.django_db(transaction=True)
def test_real_processes_end_within_two_seconds_without_broker_and_store(
    tower: Any, settings: Any
) -> None:
    settings.CLUSTER_URL = "local:?gpus=0"
    goals = [stubborn(tower, f"stubborn-{n}") for n in range(4)]
    for goal in goals:
        tower.reconcile(goal)
    cluster = get_cluster()
    attempts = [one for goal in goals for one in tower.attempts(goal)]
    assert len(attempts) == len(goals)
    groups = [pids_of(cluster, one.workload) for one in attempts]
    # From here on nothing listens where the broker and the telemetry store should be.
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        dead = f"127.0.0.1:{closed.getsockname()[1]}"
    settings.CELERY_BROKER_URL = f"redis://{dead}/0"
    settings.TELEMETRY_URL = f"clickhouse://{dead}/clearance"
    get_telemetry.cache_clear()
    kill = throw(tower, "namespace", namespace="default")
    assert (kill.stopped, kill.running, kill.problems) == (len(goals), (), {})
    assert kill.seconds <= EFFECTIVE_SECONDS
    assert [pid for pids in groups for pid in pids if is_alive(pid)] == []
    for goal in goals:
        goal.refresh_from_db()
        assert goal.landing == "Cancelled"
        assert [one.state for one in tower.attempts(goal)] == [AttemptState.STOPPED]


def pids_of(cluster: Any, workload: str) -> list[int]:
    """The program and the three processes that it started, once they are all there."""
    deadline = time.monotonic() + DEADLINE_SECONDS
    while True:
        status = cluster.get(workload)
        program = read_process(status.pid) if status is not None and status.pid else None
        found = [one.pid for one in descendants(program.parent)] if program else []
        if len(found) >= PROCESSES_EACH:
            return found
        assert time.monotonic() < deadline, status
        time.sleep(0.02)


def is_alive(pid: int) -> bool:
    process = read_process(pid)
    return process is not None and process.state not in "ZX"


def test_a_step_for_many_says_what_it_skips_and_is_done_once(tower: Any) -> None:
    goals = [running(tower, name) for name in ("one", "two", "three")]
    cancel_goal(goals[2], principal=tower.operator)
    attempts = [attempt.uid for goal in goals for attempt in tower.attempts(goal)]
    preview = preview_steps(Step.PAUSE, principal=tower.operator, attempts=attempts)
    assert preview.words == "2 agents in 2 Goals, 2 GPUs, cost unknown: no GPU price is set"
    assert {one.goal.name: one.skipped for one in preview.goals} == {
        "one": "", "two": "", "three": "is landing: Cancelled"
    }  # fmt: skip
    uids = [one.goal.uid for one in preview.goals]
    for outcomes in (["done", "skipped", "done"], ["skipped"] * 3):
        results = steer_many(Step.PAUSE, uids, principal=tower.operator)
        assert [one.outcome for one in results] == outcomes
    assert JournalRecord.objects.filter(action="goal.desired_pause").count() == 2
    for goal in goals[:2]:
        tower.reconcile(goal)
        assert goal.phase == "Paused"
    results = steer_many(Step.RESUME, uids, principal=tower.operator)
    assert [one.outcome for one in results] == ["done", "skipped", "done"]
    results = steer_many(Step.CANCEL, uids, principal=tower.operator, reason="enough")
    assert [one.outcome for one in results] == ["done", "skipped", "done"]
    assert JournalRecord.objects.filter(action="goal.cancelled").count() == 3


def test_rights_are_asked_for_each_goal(tower: Any) -> None:
    mine, other, hidden = (running(tower, name) for name in ("mine", "other", "hidden"))
    for goal, namespace in ((other, "seen"), (hidden, "unseen")):
        Goal.objects.filter(pk=goal.pk).update(namespace=namespace)
        Attempt.objects.filter(goal_uid=goal.pk).update(namespace=namespace)
    Membership.objects.create(user=tower.people["operator"], namespace="seen", role="viewer")
    operator = principal_of(tower.people["operator"])
    attempts = list(Attempt.objects.values_list("uid", flat=True))
    preview = preview_steps(Step.CANCEL, principal=operator, attempts=attempts)
    assert [(one.goal.name, one.skipped) for one in preview.goals] == [
        ("mine", ""),
        ("other", "This needs the role operator or admin in namespace seen; ask admin."),
    ]
    assert preview.left_out == 1
    uids = [mine.uid, other.uid, hidden.uid]
    results = steer_many(Step.CANCEL, uids, principal=operator)
    assert [(one.goal.name, one.outcome) for one in results] == [
        ("mine", "done"), ("other", "skipped")
    ]  # fmt: skip
    assert set(Goal.objects.filter(landing="").values_list("name", flat=True)) == {
        "other", "hidden"
    }  # fmt: skip


def test_the_api_throws_lists_and_lifts(tower: Any) -> None:
    running(tower)
    browser = Client()
    browser.force_login(tower.people["operator"])

    def ask(path: str, **document: Any) -> Any:
        return browser.post(f"/api/v1{path}", document, content_type="application/json")

    order = {"scope": "agent", "namespace": "default", "name": "tuner"}
    shown = ask("/kill", **order, dry_run=True).json()
    assert (shown["agents"], shown["gpus"], shown["micro_usd_per_minute"]) == (1, 1, None)
    assert KillSwitch.objects.count() == 0
    thrown = ask("/kill", **order, reason="odd").json()
    assert (thrown["stopped"], thrown["running"]) == (1, [])
    (listed,) = browser.get("/api/v1/kill-switches?standing=true").json()["results"]
    assert (listed["uid"], listed["label"]) == (thrown["switch"], "default/tuner")
    assert ask(f"/kill-switches/{listed['uid']}/lift", reason="fine").json()["lifted_by"]
    assert browser.get("/api/v1/kill-switches?standing=true").json()["results"] == []
    assert ask("/kill", scope="goal", name="nothing").status_code == 404
    assert ask("/kill", scope="everything").status_code == 403
    goal = str(Goal.objects.get().uid)
    assert ask("/steer", step="pause", goals=[goal], dry_run=True).json()["goals"][0]["goal"]


def test_the_page_shows_what_is_hit_throws_and_lifts(tower: Any) -> None:
    running(tower)
    browser = Client()
    assert browser.get("/kill").status_code == 302
    browser.force_login(tower.people["operator"])
    assert b"No kill switch stands" in browser.get("/kill").content
    target = {"scope": "goal", "namespace": "default", "name": "rogue"}
    shown = browser.get("/kill", target).content.decode()
    assert "End goal default/rogue?" in shown
    assert "1 agent, 1 GPU, cost unknown" in shown
    assert "End 1 agent now" in shown
    answer = browser.post("/kill", {**target, "reason": "odd <b>"}, follow=True)
    text = answer.content.decode()
    assert "Kill switch thrown over goal default/rogue: 1 agent ended in" in text
    assert "Kill switch over goal default/rogue." in text
    assert "odd &lt;b&gt;" in text
    (switch,) = KillSwitch.objects.all()
    answer = browser.post(f"/kill/{switch.uid}/lift", follow=True)
    assert b"No kill switch stands" in answer.content
    assert b"Kill switch over" not in browser.get("/tower").content
    assert browser.get("/kill", {"scope": "agent", "namespace": "default"}).status_code == 422
    assert browser.get("/kill", {"scope": "goal", "name": "nothing"}).status_code == 404
    browser.force_login(tower.people["viewer"])
    refused = browser.get("/kill", {"scope": "namespace", "namespace": "default"})
    assert refused.status_code == 403
    assert b"End 0 agents" not in refused.content
    assert browser.post("/kill", {"scope": "namespace", "namespace": "default"}).status_code == 403

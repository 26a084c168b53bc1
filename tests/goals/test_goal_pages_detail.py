"""Pages of one Goal: its graph at any size, planned against executed, who changed what."""

import time
from typing import Any
from uuid import uuid4

import pytest
from django.forms.models import model_to_dict
from django.test import Client

from agents.models import Attempt
from goals.pages import graph_view
from goals.services.apply import apply_goal, cancel_goal, pause_goal
from goals.services.verdicts import recorded_verdicts, verdict_rows
from goals.views.goal_graph import graph_page
from goals.views.goal_timeline import timeline
from governance.models import Approval, Decision, JournalRecord

pytestmark = pytest.mark.django_db


@pytest.fixture
def operator(tower: Any) -> Client:
    tower.register("profiler", produces="profile")
    tower.register("optimizer", gpus=1, consumes="profile")
    client = Client()
    client.force_login(tower.people["operator"])
    return client


def words(answer: Any) -> str:
    return " ".join(answer.content.decode().split())


def test_the_overview_sets_what_ran_beside_what_was_planned(operator: Client, tower: Any) -> None:
    goal = tower.reconcile(tower.apply(agents="profiler, optimizer").goal)
    said = words(operator.get(f"/goals/{goal}"))
    assert "1 of 2 <span" in said
    assert "20.0 GPU-seconds planned at P50" in said
    assert 'class="gt"' in said
    assert ">Edit</a>" in said
    (attempt,) = Attempt.objects.all()
    assert f"/attempts/{attempt.uid}" in said


def test_a_task_stands_where_its_newest_run_does(tower: Any) -> None:
    tower.register("profiler")
    goal = tower.reconcile(tower.apply().goal)

    def state() -> str | None:
        graph = graph_view(goal)
        assert graph is not None
        return graph.tasks[0].state

    assert state() == "running"
    pause_goal(goal, principal=tower.operator)
    tower.reconcile(goal)
    assert state() == "paused"
    cancel_goal(goal, principal=tower.operator)
    tower.reconcile(goal)
    assert (goal.phase, state()) == ("Cancelled", "stopped")


def test_a_timeline_has_a_bar_for_each_attempt_in_the_order_of_the_graph(tower: Any) -> None:
    tower.register("profiler")
    tower.register("watcher")
    goal = tower.reconcile(tower.apply(agents="watcher, profiler").goal)
    drawn = timeline(goal, [], order=["profiler", "watcher"])
    assert drawn is not None
    tried = set(Attempt.objects.values_list("task", flat=True))
    assert [row.label for row in drawn.rows] == [n for n in ("profiler", "watcher") if n in tried]
    bars = [bar for row in drawn.rows for bar in row.bars if bar.url]
    assert len(bars) == Attempt.objects.filter(started_at__isnull=False).count()
    assert all(0 < bar.x <= drawn.width and bar.x + bar.width <= drawn.width for bar in bars)
    assert all(x + 18 <= drawn.width for x, _ in drawn.ticks)  # half of "+0:01"


def big_graph(tasks: int) -> Any:
    from goals.pages import GraphView, TaskFacts

    unknown = {"p50": None, "p90": None, "source": "unknown"}
    facts = tuple(
        TaskFacts(
            name=f"t{n}", short=f"t{n}", agent=f"t{n}", role="even" if n % 2 == 0 else "odd",
            gpus=0, depends_on=(f"t{n - 100}",) if n >= 100 else (), state="succeeded",
            attempts=1, attempt_uid=None, gpu_ms=0, ran_ms=0, micro_usd=None, outcome="allow",
            decision_uid=None, messages=(), estimate=unknown, seconds=unknown,
        )
        for n in range(tasks)
    )  # fmt: skip
    return GraphView("sha256:0", facts, {}, (), "allow")


def test_ten_thousand_tasks_are_stages_that_open(rf: Any) -> None:
    graph = big_graph(10_000)
    began = time.monotonic()
    folded = graph_page(rf.get("/"), graph)
    assert time.monotonic() - began < 5
    assert folded.is_folded
    assert len(folded.drawing.nodes) <= 40
    assert sum(node.facts.tasks for node in folded.drawing.nodes) == 10_000
    assert len(folded.page.object_list) == 50
    key = folded.drawing.nodes[0].facts.key
    opened = graph_page(rf.get("/", {"stage": key, "page": "2"}), graph)
    assert opened.stage is not None
    assert opened.page.paginator.count == opened.stage.tasks
    assert len(opened.drawing.nodes) <= 48
    assert opened.page.number == 2
    assert graph_page(rf.get("/", {"stage": "none"}), graph).is_folded


def test_ten_thousand_decisions_that_say_the_same_are_read_as_one(
    tower: Any, django_assert_num_queries: Any
) -> None:
    tower.register("profiler")
    goal = tower.reconcile(tower.apply().goal)
    once = recorded_verdicts(goal, graph_digest=goal.graph_digest)
    (said,) = Decision.objects.filter(goal_uid=goal.uid, subject_kind="task")
    again = [Decision(**{**model_to_dict(said), "uid": uuid4()}) for _ in range(20)]
    Decision.objects.bulk_create(again)
    with django_assert_num_queries(1):
        assert recorded_verdicts(goal, graph_digest=goal.graph_digest) != []
    found = recorded_verdicts(goal, graph_digest=goal.graph_digest)
    assert [(one.subject_id, one.outcome, one.messages) for one in found] == [
        (one.subject_id, one.outcome, one.messages) for one in once
    ]
    assert {one.decision_uid for one in found} <= set(
        Decision.objects.filter(goal_uid=goal.uid).values_list("uid", flat=True)
    )


def test_a_stricter_word_of_a_bundle_that_is_only_tried_binds_nothing(tower: Any) -> None:
    tower.register("profiler")
    goal = tower.reconcile(tower.apply().goal)
    said = Decision.objects.filter(goal_uid=goal.uid, subject_kind="task").first()
    assert said is not None
    message = {"outcome": "deny", "text": "never", "rule": "r", "path": "p.rego", "line": 3}
    for stage in ("shadow", "warn"):
        fields = {**model_to_dict(said), "uid": uuid4(), "stage": stage, "outcome": "deny"}
        Decision.objects.create(**{**fields, "messages": [message], "bundle_digest": stage})
    graph = graph_view(goal)
    assert graph is not None
    assert graph.outcome == "warn"
    (task,) = graph.tasks
    assert task.outcome == "warn"
    assert message in task.messages
    rows = [row for row in verdict_rows(graph.verdicts) if row.text == "never"]
    assert [(row.stage, row.is_binding) for row in rows] == [("warn", False), ("shadow", False)]


def test_many_questions_about_a_goal_do_not_bury_its_page(operator: Client, tower: Any) -> None:
    goal = tower.reconcile(tower.apply(more="requireApproval: true").goal)
    asked = Approval.objects.get(goal_uid=goal.uid)
    assert words(operator.get(f"/goals/{goal}")).count("Waiting for a human") == 1
    for n in range(4):
        asked.pk, asked.subject_id, asked.request_digest = None, f"copy-{n}", f"sha256:{n:064}"
        asked.save(force_insert=True)
    said = words(operator.get(f"/goals/{goal}"))
    assert said.count("Waiting for a human") == 2
    assert f'/goals/{goal}/decisions#approvals-title">More wait for a human.' in said


def test_who_changed_the_retries(operator: Client, tower: Any) -> None:
    goal = tower.apply(more="retries: 2").goal
    tower.apply(more="retries: 5", by=tower.admin)
    tower.apply(more="retries: 5", budget="40 GPU-minutes")
    page = words(operator.get(f"/goals/{goal}/changes"))
    assert page.count("<strong>Generation") == 3
    only = words(operator.get(f"/goals/{goal}/changes?field=retries"))
    assert only.count("<strong>Generation") == 2
    assert "<del>2</del>" in only
    assert "<ins>5</ins>" in only
    assert 'title="admin"' in only
    record = JournalRecord.objects.filter(action="goal.changed").order_by("seq").first()
    assert record is not None
    assert f"/journal/{record.seq}" in only


def test_changes_of_another_namespace_are_not_found(operator: Client, tower: Any) -> None:
    from agents.domain.documents import load_documents
    from agents.domain.manifest import parse_agent
    from agents.services.registry import register_agent
    from goals.domain.manifest import parse_goal
    from tests.towers import AGENT, GOAL

    text = AGENT.format(name="spy", gpus=0, consumes="", produces="", role="worker")
    spy = parse_agent(load_documents(text.replace("namespace: default", "namespace: other"))[0])
    register_agent(spy, actor=tower.admin.actor)
    text = GOAL.format(name="hidden", agents="spy", budget="1 USD", more="")
    hidden = parse_goal(load_documents(text.replace("namespace: default", "namespace: other"))[0])
    goal = apply_goal(hidden, principal=tower.admin).goal
    assert operator.get(f"/goals/{goal.uid}/changes").status_code == 404
    assert operator.get(f"/goals/{goal.uid}/edit").status_code == 404

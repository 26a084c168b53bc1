"""Pages: the form of a Goal, its live check, dry run, clone and edit."""

import json
from typing import Any

import pytest
from django.test import Client

from goals.models import Goal, Price
from goals.services.drafts import examples, fresh_name
from governance.models import JournalRecord

pytestmark = pytest.mark.django_db

TEXT = """\
# mine
apiVersion: orchestration.ai/v1
kind: Goal
metadata: {name: faster, namespace: default}
spec:
  objective: "p99 latency < 120 ms for /checkout"
  budget: 50 GPU-minutes  # agreed
  agents: [profiler]
"""
SPENDER = """
apiVersion: orchestration.ai/v1
kind: Agent
metadata: {name: spender, namespace: default}
spec:
  role: worker
  image: examples/spender:1.0
  command: [python, spender.py]
  serviceAccountName: spender
  resources: {limits: {nvidia.com/gpu: 1}}
  estimate: {seconds: 1800, gpuSeconds: 1800, tokens: 0}
"""


@pytest.fixture
def operator(tower: Any) -> Client:
    tower.register("profiler")
    client = Client()
    client.force_login(tower.people["operator"])
    return client


def draft(client: Client, text: str, fields: dict[str, str] | None = None) -> dict[str, Any]:
    body = json.dumps({"text": text, "fields": fields})
    answer = client.post("/goals/new/draft", body, content_type="application/json")
    assert answer.status_code == 200, answer.content
    return dict(answer.json())


def test_a_field_is_written_into_the_text_and_checked(operator: Client) -> None:
    found = draft(operator, TEXT, {"budget": "5 bananas", "retries": "many"})
    assert "  budget: 5 bananas  # agreed\n" in found["text"]
    assert found["text"].startswith("# mine\n")
    wrong = {one["field"]: one for one in found["problems"]}
    assert set(wrong) == {"budget", "retries"}
    assert (wrong["budget"]["line"], wrong["retries"]["line"]) == (7, 9)
    assert wrong["budget"]["column"] >= 11
    assert found["fields"]["name"] == {"value": "faster", "why_not": ""}


def test_a_text_that_is_no_yaml_says_where_and_has_no_form(operator: Client) -> None:
    found = draft(operator, TEXT.replace("{name: faster", "{name: [faster"))
    assert found["fields"] is None
    (problem,) = found["problems"]
    assert problem["line"] >= 4
    assert "line" not in problem["message"][:5]


def test_an_agent_that_nobody_registered_is_marked_where_it_is_listed(operator: Client) -> None:
    (problem,) = draft(operator, TEXT.replace("[profiler]", "[profiler, ghost]"))["problems"]
    assert (problem["field"], problem["line"], problem["column"]) == ("agents", 8, 22)
    assert "ghost" in problem["message"]


@pytest.mark.parametrize("body", ["", "[]", '{"text": 5}', '{"text": "", "fields": {"a": 1}}'])
def test_a_body_that_is_no_draft_is_refused(operator: Client, body: str) -> None:
    answer = operator.post("/goals/new/draft", body, content_type="application/json")
    assert answer.status_code == 422
    assert "must be JSON" in answer.json()["detail"]


def test_another_namespace_tells_nothing_of_its_agents(operator: Client) -> None:
    (problem,) = draft(operator, TEXT.replace("namespace: default", "namespace: secret"))[
        "problems"
    ]
    assert problem["field"] == "namespace"
    assert "role operator" in problem["message"]


def test_a_viewer_gets_no_draft(tower: Any) -> None:
    client = Client()
    client.force_login(tower.people["viewer"])
    body = json.dumps({"text": TEXT})
    answer = client.post("/goals/new/draft", body, content_type="application/json")
    assert answer.status_code == 403


def test_the_dry_run_names_rule_line_bundle_price_and_need(operator: Client, tower: Any) -> None:
    from agents.domain.documents import load_documents
    from agents.domain.manifest import parse_agent
    from agents.services.registry import register_agent

    register_agent(parse_agent(load_documents(SPENDER)[0]), actor=tower.admin.actor)
    text = TEXT.replace("[profiler]", "[spender]").replace("50 GPU-minutes", "10 GPU-minutes")
    said = operator.post("/goals/new", {"manifest": text, "step": "check", "mode": "yaml"})
    words = " ".join(said.content.decode().split())
    assert "No price is set" in words
    assert "less than one pass" in words
    Price.objects.create(kind="gpu", name="default", micro_usd=2_000_000, set_by="test")
    said = operator.post("/goals/new", {"manifest": text, "step": "check", "mode": "yaml"})
    words = " ".join(said.content.decode().split())
    assert "1.00 USD to 3.00 USD" in words
    assert not Goal.objects.exists()


def test_a_denied_plan_says_which_rule_in_which_line_of_which_bundle(
    operator: Client, tower: Any
) -> None:
    tower.register("greedy", gpus=64)
    text = TEXT.replace("[profiler]", "[greedy]")
    answer = operator.post("/goals/new", {"manifest": text, "step": "check", "mode": "yaml"})
    words = " ".join(answer.content.decode().split())
    assert "Policy would deny this" in words
    assert "by rule <code>" in words
    assert 'href="/policies/' in words


def test_a_form_without_script_makes_the_goal_it_shows(operator: Client) -> None:
    fields = {"f-name": "by-form", "f-objective": "loss < 1", "f-retries": "5"}
    posted = {"manifest": TEXT, "mode": "form", "step": "apply", **fields}
    answer = operator.post("/goals/new", posted)
    assert answer.status_code == 302
    goal = Goal.objects.get(name="by-form")
    assert (goal.spec["retries"], goal.objective) == (5, "loss < 1")


def test_what_was_typed_stands_when_it_is_refused(operator: Client) -> None:
    posted = {"manifest": TEXT, "mode": "form", "step": "apply", "f-retries": "many & more"}
    answer = operator.post("/goals/new", posted)
    assert answer.status_code == 422
    page = answer.content.decode()
    assert 'value="many &amp; more"' in page
    assert 'aria-invalid="true"' in page
    assert "# mine" in page


def test_the_two_views_turn_into_each_other_without_script(operator: Client) -> None:
    posted = {"manifest": TEXT, "mode": "form", "step": "to_yaml", "f-name": "other"}
    assert (
        "{name: other, namespace: default}" in operator.post("/goals/new", posted).content.decode()
    )
    back = operator.post("/goals/new", {"manifest": "a: [", "mode": "yaml", "step": "to_form"})
    assert back.status_code == 422
    assert "a: [" in back.content.decode()


def test_a_clone_has_a_fresh_name_and_the_same_spec(operator: Client, tower: Any) -> None:
    goal = tower.apply("slow", more="retries: 7").goal
    page = operator.get(f"/goals/new?from={goal.uid}&as=yaml").content.decode()
    assert "name: slow-2" in page
    assert "retries: 7" in page
    assert fresh_name("default", "slow-2") == "slow-2"
    assert operator.get("/goals/new?from=default/none").status_code == 404


def test_an_edit_makes_the_next_generation_once(operator: Client, tower: Any) -> None:
    goal = tower.apply("slow").goal
    url = f"/goals/{goal}/edit"
    page = operator.get(url)
    assert page.status_code == 200
    text = page.context["draft"].text
    posted = {"manifest": text, "mode": "form", "step": "apply", "generation": "1"}
    assert operator.post(url, {**posted, "f-retries": "6"}).status_code == 302
    goal.refresh_from_db()
    assert (goal.generation, goal.spec["retries"]) == (2, 6)
    late = operator.post(url, {**posted, "f-retries": "8"})
    assert late.status_code == 409
    assert "is generation 2 and you began from 1" in late.content.decode()
    goal.refresh_from_db()
    assert goal.spec["retries"] == 6
    assert JournalRecord.objects.filter(action="goal.changed", goal_uid=goal.uid).count() == 1


def test_an_edit_may_not_become_another_goal(operator: Client, tower: Any) -> None:
    goal = tower.apply("slow").goal
    posted = {"manifest": TEXT, "mode": "yaml", "step": "apply", "generation": "1"}
    answer = operator.post(f"/goals/{goal}/edit", posted)
    assert answer.status_code == 422
    assert "clone it" in answer.content.decode()
    assert not Goal.objects.filter(name="faster").exists()


def test_a_viewer_may_not_edit(tower: Any) -> None:
    tower.register("profiler")
    goal = tower.apply("slow").goal
    client = Client()
    client.force_login(tower.people["viewer"])
    assert client.get(f"/goals/{goal}/edit").status_code == 403


def test_every_example_is_offered_and_opens(operator: Client) -> None:
    assert len(examples()) >= 2
    for example in examples():
        answer = operator.get("/goals/new", {"example": example.key})
        assert answer.status_code == 200
        assert example.name in answer.content.decode()
    assert operator.get("/goals/new", {"example": "none"}).status_code == 404

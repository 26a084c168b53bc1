"""The catalogue: its page and API, and pods of others on the GPUs page; who sees and may what."""

import datetime as dt
import json
from typing import Any

import pytest
import yaml
from django.test import Client
from django.utils import timezone

from agents.catalogue.reading import scan_cluster
from agents.domain.manifest import parse_agent
from agents.models import Agent, ClusterSurvey, ClusterWorkload
from agents.services.catalogue import record_scan
from agents.services.gpus import record_sample
from agents.services.survey import note_heard, record_foreign
from agents.survey.devices import by_node, declared
from agents.survey.domain import NodeFact, fleet_of
from governance.models import JournalRecord, Membership
from tests.agents.cluster_objects import Listed, cron, pod, pods, workload
from tests.towers import Tower

BOT = workload("Deployment", "support-bot", namespace="default", env=("OPENAI_API_KEY",))
FAR = workload("Deployment", "far-bot", namespace="team-b", env=("OPENAI_API_KEY",))
PLAIN = workload("Deployment", "web", namespace="default", account="web")
TRAIN = pod("train-7", namespace="team-b", gpus=1, node="n9")


@pytest.fixture
def tower(people: dict[str, Any], twins: Any, settings: Any) -> Tower:
    settings.CLUSTER_URL = "kubernetes:prod"
    _survey(BOT, FAR, PLAIN, running=[TRAIN])
    return Tower(people, twins)


def _survey(*objects: Any, running: list[Any] | None = None) -> None:
    now = timezone.now()
    found = pods(*(running or []))
    fleet = fleet_of([NodeFact(name="n9")], found)
    record_foreign(fleet.foreign, at=now)
    record_scan(scan_cluster(Listed(*objects), pods=found), cluster="prod", at=now)
    note_heard(cluster="prod", at=now, fleet=fleet)


def _client(tower: Tower, name: str) -> Client:
    client = Client()
    client.force_login(tower.people[name])
    return client


def _uid(name: str) -> str:
    return str(ClusterWorkload.objects.get(name=name).uid)


def _page(tower: Tower, path: str = "/catalogue", name: str = "viewer", **query: str) -> str:
    answer = _client(tower, name).get(path, query)
    assert answer.status_code == 200
    return answer.content.decode()


def test_what_looks_like_an_agent_is_listed_with_its_evidence(tower: Tower) -> None:
    text = _page(tower)
    assert "support-bot" in text
    assert "OPENAI_API_KEY" in text
    assert "pods heard" in text
    assert "in prod" in text
    assert ">web</a>" not in text
    assert "web</a>" in _page(tower, show="other")


def test_other_namespaces_are_nobody_elses_business(tower: Tower) -> None:
    for text in (_page(tower), _page(tower, show="all"), _page(tower, format="csv")):
        assert "far-bot" not in text
    far = _uid("far-bot")
    client = _client(tower, "viewer")
    for path in (f"/catalogue/{far}", f"/catalogue/{far}/proposal", f"/api/v1/catalogue/{far}"):
        assert client.get(path).status_code == 404
    assert "far-bot" not in client.get("/api/v1/catalogue?show=all").content.decode()


def test_a_gpu_of_others_is_named_to_who_may_see_their_namespace(tower: Tower) -> None:
    node = NodeFact(name="n9", gpus={"nvidia.com/gpu": 2})
    record_sample(declared(node, by_node(pods(TRAIN))["n9"], at=timezone.now()))
    text = _page(tower, "/gpus")
    assert "held, not ours" in text
    assert "in a namespace you may not see" in text
    assert "train-7" not in text
    assert "declared by the cluster, not measured" in text
    Membership.objects.create(user=tower.people["viewer"], namespace="team-b", role="viewer")
    text = _page(tower, "/gpus")
    assert "team-b/train-7</a>, not ours" in text
    assert f"/catalogue/{_uid('train-7')}" in text
    (held,) = _client(tower, "viewer").get("/api/v1/gpus?show=held").json()["results"]
    assert held["foreign_holder"] == {
        "namespace": "team-b", "pod": "train-7", "workload": "Pod train-7",
    }  # fmt: skip
    assert (held["is_measured"], held["source"], held["holder"]) == (False, "cluster", None)


def test_the_proposal_is_a_file_that_registers_here(tower: Tower) -> None:
    answer = _client(tower, "viewer").get(f"/catalogue/{_uid('support-bot')}/proposal")
    assert answer["Content-Disposition"] == 'attachment; filename="deployment-support-bot.yaml"'
    documents = list(yaml.safe_load_all(answer.content))
    assert [one["kind"] for one in documents] == [
        "ServiceAccount", "Role", "RoleBinding", "Deployment", "Agent",
    ]  # fmt: skip
    assert parse_agent(documents[-1]).service_account == "support-bot"


def test_registering_takes_an_operator_and_is_journaled_once(tower: Tower) -> None:
    uid = _uid("support-bot")
    assert _client(tower, "viewer").post(f"/catalogue/{uid}/register").status_code == 403
    assert not Agent.objects.exists()
    text = _page(tower, f"/catalogue/{uid}")
    assert 'disabled aria-describedby="why-not-register"' in text
    for _ in range(2):
        answer = _client(tower, "operator").post(f"/catalogue/{uid}/register")
        assert answer["Location"] == "/agents/default/support-bot"
    assert JournalRecord.objects.filter(action="catalogue.registered").count() == 1
    assert "support-bot" not in _page(tower).partition("<tbody")[2]
    assert "support-bot" in _page(tower, show="registered")


def test_an_answer_that_is_refused_says_why_on_the_page(tower: Tower) -> None:
    _survey(BOT, workload("Deployment", "broken", namespace="default", image="Not An Image"))
    client = _client(tower, "operator")
    answer = client.post(f"/catalogue/{_uid('broken')}/register")
    assert answer.status_code == 409
    assert "its image is not known here" in answer.content.decode()
    answer = client.post(f"/catalogue/{_uid('support-bot')}/ignore", {"reason": ""})
    assert answer.status_code == 422
    assert "Say why" in answer.content.decode()


def test_ignoring_is_a_persons_word_and_can_be_taken_back(tower: Tower) -> None:
    uid = _uid("support-bot")
    client = _client(tower, "operator")
    client.post(f"/catalogue/{uid}/ignore", {"reason": "a chat page"})
    assert "support-bot" not in _page(tower).partition("<tbody")[2]
    assert "a chat page" in _page(tower, f"/catalogue/{uid}")
    client.post(f"/catalogue/{uid}/restore")
    assert "support-bot" in _page(tower)
    actions = ["catalogue.ignored", "catalogue.restored"]
    assert list(JournalRecord.objects.values_list("action", flat=True)) == actions


def test_the_api_does_what_the_page_does(tower: Tower) -> None:
    client = _client(tower, "operator")
    (one,) = client.get("/api/v1/catalogue").json()["results"]
    assert (one["name"], one["standing"], one["score"]) == (
        "support-bot", "looks like an agent", 95,
    )  # fmt: skip
    assert one["variables"] == ["OPENAI_API_KEY"]
    uid = one["uid"]

    def post(step: str, **body: str) -> Any:
        return client.post(
            f"/api/v1/catalogue/{uid}/{step}", json.dumps(body), content_type="application/json"
        ).json()

    assert post("ignore", reason="no")["standing"] == "ignored"
    assert post("restore")["standing"] == "looks like an agent"
    assert post("register") == {"agent": "default/support-bot", "outcome": "created"}
    assert post("register")["outcome"] == "unchanged"
    assert "registered: it is an agent" in post("ignore", reason="no")["detail"]
    text = client.get(f"/api/v1/catalogue/{uid}/proposal")
    assert text["Content-Type"] == "application/yaml; charset=utf-8"
    assert client.get("/api/v1/catalogue?show=none").status_code == 422
    assert client.get("/api/v1/catalogue?q=-l+size=1").status_code == 422


def test_pages_of_the_api_go_on_where_the_last_ended(tower: Tower) -> None:
    _survey(*(cron(f"agent-{at:02d}", "0 2 * * *", namespace="default") for at in range(25)))
    client = _client(tower, "operator")
    found: list[str] = []
    cursor = ""
    while True:
        answer = client.get(f"/api/v1/catalogue?page_size=10&cursor={cursor}").json()
        found += [one["name"] for one in answer["results"]]
        if not answer["next"]:
            break
        cursor = answer["next"].partition("cursor=")[2].partition("&")[0]
    assert sorted(found) == sorted({*found})
    assert len(found) == 25


def test_old_news_is_called_old(tower: Tower) -> None:
    ClusterSurvey.objects.update(
        heard_at=timezone.now() - dt.timedelta(seconds=20),
        scanned_at=timezone.now() - dt.timedelta(minutes=5),
        trouble="prod cannot be reached.", scan_trouble="/api/v1/serviceaccounts: forbidden",
    )  # fmt: skip
    text = _page(tower)
    assert "stale: pods" in text
    assert "prod cannot be reached. What is shown is the last that was heard." in text
    assert "/api/v1/serviceaccounts: forbidden" in text
    assert "is-stale" in text


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("local:?gpus=2", "There is no cluster to look at"),
        ("kubernetes:prod", "Nobody has looked at the cluster yet."),
    ],
)
def test_without_a_cluster_or_a_look_at_it_the_page_says_what_to_do(
    people: dict[str, Any], twins: Any, settings: Any, url: str, words: str
) -> None:
    settings.CLUSTER_URL = url
    text = _page(Tower(people, twins))
    assert words in text
    assert "python manage.py operator" in text

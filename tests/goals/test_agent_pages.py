"""The page of an agent: rights, live identities, revocation, registrations, drift."""

import datetime as dt
import re
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from django.test import Client
from django.utils import timezone

from agents.domain.documents import load_documents
from agents.domain.manifest import parse_agent
from agents.models import Agent, AgentRevision, Attempt, IssuedSvid
from agents.services.drift import drift_of
from agents.services.identity import (
    AUDIENCE,
    IdentityRevoked,
    authenticate_attempt,
    exchange_join_token,
    join_token_of,
)
from agents.services.registry import register_agent
from agents.services.revocation import revoke_agent_identities
from governance.models import JournalRecord
from governance.services.verification import verify_journal
from lineage.domain import Actor, ActorKind
from lineage.models import Artifact
from lineage.services.artifacts import recall_artifact, record_use
from tests.agents.identities import csr_of
from tests.goals.test_releases import push
from tests.towers import AGENT, Tower

pytestmark = pytest.mark.django_db
ADA = Actor(ActorKind.HUMAN, "ada")
PAGE = "/agents/default/tuner"


def running(tower: Tower, name: str = "tune") -> Attempt:
    """A running attempt of the agent `tuner`."""
    if not Agent.objects.exists():
        tower.register("tuner", gpus=1)
    goal = tower.apply(name, agents="tuner", budget="60 GPU-seconds").goal
    for _ in range(3):
        tower.reconcile(goal)
    (attempt,) = tower.attempts(goal)
    assert attempt.state == "running"
    return attempt


def identity_of(attempt: Attempt) -> str:
    issued = exchange_join_token(
        join_token_of(attempt),
        csr_pem=csr_of(ec.generate_private_key(ec.SECP256R1())),
        audience=[AUDIENCE],
    )
    return issued.jwt.token


def register_anew(tower: Tower, **spec: Any) -> Agent:
    text = AGENT.format(name="tuner", gpus=1, consumes="", produces="", role="worker")
    document = load_documents(text)[0]
    document["spec"].update(spec)
    return register_agent(parse_agent(document), actor=tower.admin.actor).agent


def browser_of(tower: Tower, name: str) -> Client:
    browser = Client()
    browser.force_login(tower.people[name])
    return browser


def text_of(answer: Any) -> str:
    return re.sub(r"\s+", " ", re.sub(r"<[^>]*>", " ", answer.content.decode()))


def test_the_page_says_what_it_may_do_and_counts_its_identities_down(tower: Tower) -> None:
    attempt = running(tower)
    identity_of(attempt)
    page = browser_of(tower, "viewer").get(PAGE)
    html = page.content.decode()
    text = text_of(page)
    assert "checkout/production" in text
    assert "X.509-SVID" in text
    assert "JWT-SVID" in text
    assert html.count("<time data-until") == 2
    for svid in IssuedSvid.objects.all():
        assert svid.serial in html
    assert "Policy said" in text
    assert re.search(r'class="danger"\s+disabled aria-describedby="why-not"', html)
    assert "role operator in namespace default; ask operator or admin." in text
    assert "None" not in text
    part = browser_of(tower, "viewer").get(PAGE, headers={"HX-Request": "true"})
    assert part.content.decode().lstrip().startswith("<div")


def test_expired_and_finished_identities_are_not_live(tower: Tower) -> None:
    identity_of(running(tower))
    page = browser_of(tower, "viewer")
    IssuedSvid.objects.filter(kind="jwt").update(expires_at=timezone.now())
    assert page.get(PAGE).content.decode().count("<time data-until") == 1
    Attempt.objects.update(state="succeeded")
    assert "No identity of this agent is accepted now" in text_of(page.get(PAGE))


def test_an_operator_revokes_one_or_all_and_it_counts_at_once(tower: Tower) -> None:
    first, second = running(tower, "one"), running(tower, "two")
    tokens = [identity_of(first), identity_of(second)]
    operator = browser_of(tower, "operator")
    unsaid = operator.post(f"/attempts/{first.uid}/revoke", {"reason": " "})
    assert unsaid.status_code == 422
    assert "Say why" in text_of(unsaid)
    assert authenticate_attempt(tokens[0]) == first
    answer = operator.post(f"/attempts/{first.uid}/revoke", {"reason": "It leaks."})
    assert answer["Location"] == PAGE
    with pytest.raises(IdentityRevoked):
        authenticate_attempt(tokens[0])
    assert authenticate_attempt(tokens[1]) == second
    operator.post(f"{PAGE}/revoke", {"reason": "All of it."})
    with pytest.raises(IdentityRevoked):
        authenticate_attempt(tokens[1])
    records = JournalRecord.objects.filter(action="identity.revoked").order_by("seq")
    assert [record.object_id for record in records] == [str(first.uid), str(second.uid)]
    assert {record.actor_id for record in records} == {"operator"}
    assert revoke_agent_identities(first.agent, reason="again", actor=ADA) == 0
    first.refresh_from_db()
    assert first.identity_revoked_reason == "It leaks."
    assert verify_journal().holds
    assert "It leaks." in text_of(operator.get(PAGE))


def test_who_may_only_look_revokes_nothing(tower: Tower) -> None:
    attempt = running(tower)
    token = identity_of(attempt)
    viewer = browser_of(tower, "viewer")
    for path in (f"{PAGE}/revoke", f"/attempts/{attempt.uid}/revoke"):
        refused = viewer.post(path, {"reason": "x"})
        assert refused.status_code == 403
        assert "ask operator or admin" in text_of(refused)
    Attempt.objects.update(namespace="other")
    Agent.objects.update(namespace="other")
    operator = browser_of(tower, "operator")
    assert operator.get("/agents/other/tuner").status_code == 404
    assert operator.post("/agents/other/tuner/revoke", {"reason": "x"}).status_code == 404
    assert operator.post(f"/attempts/{attempt.uid}/revoke", {"reason": "x"}).status_code == 404
    Attempt.objects.update(namespace="default")
    assert authenticate_attempt(token) == attempt


def test_each_registration_is_kept_with_what_it_changed(tower: Tower) -> None:
    tower.register("tuner", gpus=1)
    tower.register("tuner", gpus=1)
    agent = register_anew(tower, image="examples/tuner:2.0", env={"MODE": "fast"})
    generations = AgentRevision.objects.filter(agent=agent).values_list("generation", flat=True)
    assert list(generations) == [2, 1]
    text = text_of(browser_of(tower, "viewer").get(PAGE))
    assert "Generation 2" in text
    assert "spec.image before examples/tuner:1.0 after examples/tuner:2.0" in text
    assert "spec.env.MODE" in text
    assert "The first." in text


def test_drift_is_what_runs_otherwise_than_registered_now(tower: Tower) -> None:
    attempt = running(tower)
    (same,) = drift_of(attempt.agent)
    assert (same.generation, same.differences, same.has_drifted) == (1, (), False)
    viewer = browser_of(tower, "viewer")
    assert "Everything that runs was started as registered now" in text_of(viewer.get(PAGE))
    agent = register_anew(
        tower, image="examples/tuner:2.0", command=["python", "new.py"], env={"MODE": "fast"}
    )
    (one,) = drift_of(agent)
    assert {d.what: (d.running, d.registered) for d in one.differences} == {
        "image": ("examples/tuner:1.0", "examples/tuner:2.0"),
        "command": ("python tuner.py", "python new.py"),
        "env MODE": ("not set", "fast"),
    }
    assert one.generation == 1
    text = text_of(viewer.get(PAGE))
    assert "1 of 1 running" in text
    assert "started under generation 1" in text
    assert "1 drifted" in text_of(viewer.get("/agents"))
    Attempt.objects.update(state="succeeded")
    assert drift_of(agent) == []
    assert "idle" in text_of(viewer.get("/agents"))


def test_an_artifact_that_is_read_and_recalled_is_drift(tower: Tower) -> None:
    attempt = running(tower)
    artifact: Artifact = push(b"weights")
    record_use(artifact, attempt_uid=attempt.uid, goal_uid=attempt.goal_uid)
    (one,) = drift_of(attempt.agent)
    assert [(d.standing, one.has_drifted) for d in one.digests] == [("not released", False)]
    (one,) = drift_of(attempt.agent, released=[artifact.digest])
    assert [d.standing for d in one.digests] == ["in force"]
    recall_artifact(artifact, reason="It leaks.", actor=ADA)
    (one,) = drift_of(attempt.agent)
    assert [(d.standing, d.reason, one.has_drifted) for d in one.digests] == [
        ("recalled", "It leaks.", True)
    ]
    assert "It leaks." in text_of(browser_of(tower, "viewer").get(PAGE))


def test_the_api_says_and_does_the_same(tower: Tower) -> None:
    attempt = running(tower)
    token = identity_of(attempt)
    register_anew(tower, image="examples/tuner:2.0")
    operator = browser_of(tower, "operator")
    (one,) = operator.get(f"/api/v1{PAGE}/drift").json()
    assert one["attempt"] == str(attempt.uid)
    assert one["differences"][0]["running"] == "examples/tuner:1.0"
    assert operator.get(f"/api/v1{PAGE}").json()["generation"] == 2
    done = operator.post(
        f"/api/v1{PAGE}/revoke", {"reason": "Leak."}, content_type="application/json"
    )
    assert done.json() == {"revoked": 1}
    with pytest.raises(IdentityRevoked):
        authenticate_attempt(token)


def test_a_page_of_many_attempts_costs_as_much_as_of_few(
    tower: Tower, django_assert_max_num_queries: Any
) -> None:
    attempt = running(tower)
    identity_of(attempt)
    Attempt.objects.bulk_create(
        Attempt(
            goal_uid=attempt.goal_uid,
            namespace="default",
            graph_digest=attempt.graph_digest,
            iteration=1,
            task=f"task-{number}",
            number=1,
            agent=attempt.agent,
            agent_name="tuner",
            service_account="tuner",
            spiffe_id=attempt.spiffe_id,
            workload=f"copy-{number}",
            specification=attempt.specification,
            created_at=timezone.now() - dt.timedelta(hours=number),
            state="running",
        )
        for number in range(120)
    )
    viewer = browser_of(tower, "viewer")
    viewer.get("/goals")
    with django_assert_max_num_queries(30):
        page = viewer.get(PAGE)
    assert "121 attempts" in text_of(page)
    export = viewer.get(f"{PAGE}?table=attempts&format=csv")
    assert len(b"".join(export).splitlines()) == 122


def test_an_agent_with_memory_alone_is_said_to_hold_no_gpu(tower: Tower, people: Any) -> None:
    text = AGENT.format(name="tuner", gpus=0, consumes="", produces="", role="worker").replace(
        "nvidia.com/gpu: 0", "memory: 2Gi"
    )
    register_agent(parse_agent(load_documents(text)[0]), actor=ADA)
    browser = Client()
    browser.force_login(people["viewer"])
    page = re.sub(r"\s+", " ", browser.get(PAGE).content.decode())
    assert "<dt>GPUs</dt> <dd> none </dd>" in page
    assert "<dt>Memory</dt> <dd> 2Gi </dd>" in page

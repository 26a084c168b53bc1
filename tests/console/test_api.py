"""The API as a person and as an agent at work use it."""

import gzip
import io
import json
import tarfile
from base64 import b64encode
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from django.test import Client

from agents.models import Attempt
from goals.models import Goal
from tests.agents.identities import csr_of
from tests.goals.conftest import tower
from tests.towers import AGENT, GOAL, Tower

__all__ = ["tower"]

pytestmark = pytest.mark.django_db


class Api:
    """A client with a bearer token."""

    def __init__(self, token: str = "") -> None:
        self.client = Client(headers={"Authorization": f"Bearer {token}"} if token else {})

    def get(self, path: str, **query: Any) -> Any:
        return self.client.get(f"/api/v1{path}", query)

    def post(self, path: str, body: Any = None, **headers: str) -> Any:
        return self.client.post(
            f"/api/v1{path}",
            json.dumps(body or {}),
            content_type="application/json",
            headers=headers,
        )

    def apply(self, text: str) -> Any:
        return self.client.post("/api/v1/apply", text, content_type="application/yaml")


def api_of(tower: Tower, name: str) -> Api:
    from governance.access import principal_of
    from governance.services.tokens import create_token

    user = tower.people[name]
    _, text = create_token(user, principal=principal_of(user), name="test")
    return Api(text)


def manifests() -> str:
    agent = AGENT.format(name="profiler", role="worker", gpus=0, consumes="", produces="profile")
    goal = GOAL.format(name="fast", budget="50 GPU-minutes", agents="profiler", more="")
    return f"{agent}\n---\n{goal}"


def test_apply_get_pause_and_the_same_again(tower: Tower) -> None:
    api = api_of(tower, "operator")
    first = api.apply(manifests())
    assert [row["outcome"] for row in first.json()] == ["created", "created"]
    assert [row["outcome"] for row in api.apply(manifests()).json()] == ["unchanged", "unchanged"]
    goal = api.get("/goals/default/fast").json()
    assert goal["status"]["phase"] == "Draft"
    assert goal["spec"]["budget"] == "50 GPU-minutes"
    assert api.get("/goals").json()["results"][0]["metadata"]["name"] == "fast"
    tower.reconcile(Goal.objects.get())
    assert api.post("/goals/fast/pause").json()["status"]["desired"] == "pause"


def test_a_file_is_applied_whole_or_not_at_all(tower: Tower) -> None:
    from agents.models import Agent

    api = api_of(tower, "operator")
    agent, goal = manifests().split("---")
    backwards = f"{goal}\n---\n{agent}"
    dry = api.client.post(
        "/api/v1/apply?dry_run=true", backwards, content_type="application/yaml"
    ).json()
    assert [row["outcome"] for row in dry] == ["created", "created"]
    assert not Agent.objects.exists()
    broken = f"{agent}\n---\n{goal.replace('[profiler]', '[profiler, ghost]')}"
    assert api.apply(broken).status_code == 422
    assert not Agent.objects.exists()
    assert [row["kind"] for row in api.apply(backwards).json()] == ["Goal", "Agent"]


def test_plan_shows_price_and_verdicts_and_keeps_nothing(tower: Tower) -> None:
    from governance.models import Decision

    tower.register("greedy", gpus=3, role="experimental")
    api = api_of(tower, "viewer")
    goal = GOAL.format(name="x", budget="1 GPU-minute", agents="greedy", more="")
    answer = api.client.post("/api/v1/plan", goal, content_type="application/yaml").json()
    assert answer["outcome"] == "deny"
    assert answer["graph"]["tasks"][0]["estimate"]["gpu_seconds"]["source"] == "declared"
    denied = [d for d in answer["decisions"] if d["outcome"] == "deny"]
    assert denied[0]["messages"][0]["line"] > 0
    assert not Decision.objects.exists()
    assert not Goal.objects.exists()


@pytest.mark.parametrize(
    ("text", "status", "words"),
    [
        ("kind: [", 422, "line"),
        ("kind: Pod", 422, "kind"),
        (GOAL.format(name="x", budget="50 GPU-parsecs", agents="nobody", more=""), 422, "budget"),
        (GOAL.format(name="x", budget="1 GPU-minute", agents="nobody", more=""), 422, "nobody"),
        (GOAL.format(name="x", budget="1 GPU-minute", agents="a", more="bogus: 1"), 422, "bogus"),
        ("\xff\xfe", 422, ""),
    ],
)
def test_bad_manifests_get_a_problem_that_names_the_field(
    tower: Tower, text: str, status: int, words: str
) -> None:
    answer = api_of(tower, "operator").apply(text)
    assert answer.status_code == status
    assert answer["Content-Type"] == "application/problem+json"
    assert words in answer.content.decode()
    assert "Traceback" not in answer.content.decode()
    assert not Goal.objects.exists()


def encoded(text: str) -> str:
    return b64encode(text.encode()).decode()


@pytest.mark.parametrize("cursor", ["é", "x" * 100, *map(encoded, ["p=x", "o=x", "o=-1"])])
def test_a_cursor_that_is_not_ours_is_refused(tower: Tower, cursor: str) -> None:
    tower.register("profiler")
    tower.apply()
    answer = api_of(tower, "viewer").get("/goals", cursor=cursor)
    assert (answer.status_code, answer.json()["errors"][0]["path"]) == (422, "cursor")


def test_nobody_and_other_namespaces_see_nothing(tower: Tower) -> None:
    tower.register("profiler")
    tower.apply()
    assert Api().get("/goals").status_code == 401
    assert Api("clearance_pat_forged").get("/goals").status_code == 401
    Goal.objects.update(namespace="elsewhere")
    api = api_of(tower, "viewer")
    assert api.get("/goals").json()["results"] == []
    assert api.get("/goals/elsewhere/reduce-p99-latency").status_code == 404
    assert api.post("/goals/elsewhere/reduce-p99-latency/pause").status_code == 404


def test_a_viewer_may_not_apply(tower: Tower) -> None:
    answer = api_of(tower, "viewer").apply(manifests())
    assert (answer.status_code, answer.json()["title"]) == (403, "Not allowed")


def test_a_repeated_request_with_a_key_has_one_effect(tower: Tower) -> None:
    api = api_of(tower, "admin")
    body = {"kind": "gpu", "name": "default", "micro_usd": 2_000_000}
    first = api.post("/prices", body, **{"Idempotency-Key": "k1"})
    again = api.post("/prices", body, **{"Idempotency-Key": "k1"})
    other = api.post("/prices", {**body, "micro_usd": 1}, **{"Idempotency-Key": "k1"})
    assert (first.status_code, again.status_code, other.status_code) == (201, 201, 422)
    assert again["Idempotency-Replayed"] == "true"
    assert again.json() == first.json()


def test_an_answer_that_holds_a_secret_is_never_kept(tower: Tower) -> None:
    from console.models import KeptAnswer

    key = {"Idempotency-Key": "k1"}
    login = {"username": "operator", "password": "correct horse battery"}
    signed_in = Api().post("/login", login, **key)
    assert signed_in.status_code == 200
    made = Api(signed_in.json()["token"]).post("/tokens", {"name": "t"}, **key)
    assert made.status_code == 201
    assert (
        Api().post("/identity/exchange", {"join_token": "x", "csr": "y"}, **key).status_code == 401
    )
    assert not KeptAnswer.objects.exists()


def test_a_cookie_alone_changes_nothing(tower: Tower) -> None:
    client = Client(enforce_csrf_checks=True)
    client.force_login(tower.people["operator"])
    assert client.get("/api/v1/goals").status_code == 200
    answer = client.post("/api/v1/tokens", '{"name": "t"}', content_type="application/json")
    assert answer.status_code == 403


def agent_api(tower: Tower, attempt: Attempt) -> Api:
    """What the attempt's program does first: trade its join token."""
    token = tower.twins.cluster_spec(attempt).environment["CLEARANCE_JOIN_TOKEN"]
    csr, other = (csr_of(ec.generate_private_key(ec.SECP256R1())) for _ in range(2))
    answer = Api().post("/identity/exchange", {"join_token": token, "csr": csr})
    assert answer.status_code == 200, answer.content
    assert Api().post("/identity/exchange", {"join_token": token, "csr": other}).status_code == 401
    return Api(answer.json()["jwt_svid"])


@pytest.fixture
def running(tower: Tower) -> tuple[Goal, Attempt]:
    from agents.services.attempts import workload_spec

    text = AGENT.format(name="tuner", role="worker", gpus=1, consumes="", produces="model")
    text = text.replace("scope: {", "scope: {artifacts: [model, evidence], ")
    api_of(tower, "operator").apply(text)
    goal = tower.reconcile(tower.apply(agents="tuner").goal)
    object.__setattr__(tower.twins, "cluster_spec", workload_spec)
    return goal, tower.attempts(goal)[0]


def push(api: Api, content: bytes, **query: str) -> Any:
    words = "&".join(f"{k}={v}" for k, v in {"kind": "model", "name": "risk", **query}.items())
    return api.client.post(
        f"/api/v1/artifacts?{words}", content, content_type="application/octet-stream"
    )


def test_an_agent_pushes_releases_and_is_revoked_at_once(
    tower: Tower, running: tuple[Goal, Attempt]
) -> None:
    goal, attempt = running
    agent = agent_api(tower, attempt)
    assert agent.get("/self").json()["goal"]["name"] == goal.name
    pushed = push(agent, b"weights")
    assert pushed.status_code == 201, pushed.content
    digest = pushed.json()["digest"]
    assert pushed.json()["signed"]
    assert push(agent, b"weights").json()["digest"] == digest
    assert b"".join(agent.get(f"/artifacts/{digest}/content")) == b"weights"
    release = {"service": "checkout", "environment": "production", "digest": digest}
    made = agent.post("/releases", release)
    assert made.status_code == 201, made.content
    current = agent.get("/releases/current", service="checkout", environment="production")
    assert current.json()["digest"] == digest
    other = agent.post("/releases", {**release, "service": "billing"})
    assert (other.status_code, other.json()["title"]) == (403, "Out of scope")
    assert agent.get("/goals").status_code == 403
    operator = api_of(tower, "operator")
    operator.post(f"/attempts/{attempt.uid}/revoke", {"reason": "It misbehaves."})
    assert agent.get("/self").status_code == 401


def test_a_recalled_model_is_not_released(tower: Tower, running: tuple[Goal, Attempt]) -> None:
    agent = agent_api(tower, running[1])
    digest = push(agent, b"bad weights").json()["digest"]
    operator = api_of(tower, "operator")
    operator.post(f"/artifacts/{digest}/recall", {"reason": "It leaks."})
    answer = agent.post(
        "/releases", {"service": "checkout", "environment": "production", "digest": digest}
    )
    assert (answer.status_code, answer.json()["title"]) == (403, "Denied by policy")
    assert answer.json()["messages"][0]["line"] > 0


def test_the_announced_digest_must_match(tower: Tower, running: tuple[Goal, Attempt]) -> None:
    agent = agent_api(tower, running[1])
    answer = agent.client.post(
        "/api/v1/artifacts?kind=model&name=risk",
        b"weights",
        content_type="application/octet-stream",
        headers={"X-Content-SHA256": "0" * 64},
    )
    assert (answer.status_code, answer.json()["title"]) == (422, "Digest mismatch")


def tar_of(files: dict[str, bytes]) -> bytes:
    target = io.BytesIO()
    with tarfile.open(fileobj=target, mode="w") as archive:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return target.getvalue()


def test_a_model_directory_is_signed_as_a_whole(
    tower: Tower, running: tuple[Goal, Attempt], tmp_path: Any
) -> None:
    from goals.services.evidence import evidence_pack
    from lineage.evidence.inspect import inspect_pack

    agent = agent_api(tower, running[1])
    files = {"config.json": b"{}", "weights/part-1.bin": b"w" * 5000}
    pushed = push(agent, tar_of(files), directory="true")
    assert pushed.status_code == 201, pushed.content
    digest = pushed.json()["digest"]
    assert sorted(layer["title"] for layer in pushed.json()["layers"]) == sorted(files)
    again = push(agent, tar_of(dict(reversed(files.items()))), directory="true")
    assert again.json()["digest"] == digest
    part = agent.get(f"/artifacts/{digest}/content/weights/part-1.bin")
    assert b"".join(part) == files["weights/part-1.bin"]
    assert agent.get(f"/artifacts/{digest}/content").status_code == 422
    assert agent.get(f"/artifacts/{digest}/content/nothing").status_code == 404
    pack = tmp_path / "pack.zip"
    pack.write_bytes(evidence_pack(running[0]))
    assert inspect_pack(pack, signer=tower.twins.signer).ok


@pytest.mark.parametrize(
    "content",
    [
        b"no tar",
        tar_of({}),
        tar_of({"../escape": b"x"}),
        tar_of({"/etc/passwd": b"x"}),
        tar_of({"a": b"x", "./a": b"y"}),
        gzip.compress(tar_of({"a": b"x"}), mtime=0),
    ],
    ids=["no tar", "empty", "upwards", "absolute", "twice", "compressed"],
)
def test_a_hostile_directory_is_refused_whole(
    tower: Tower, running: tuple[Goal, Attempt], content: bytes
) -> None:
    from lineage.models import Artifact

    answer = push(agent_api(tower, running[1]), content, directory="true")
    assert (answer.status_code, answer.json()["title"]) == (422, "Invalid artifact")
    assert not Artifact.objects.exists()


def test_a_person_pushes_evidence_in_a_namespace_of_theirs(tower: Tower) -> None:
    api = api_of(tower, "admin")
    digest = push(api, b"weights", namespace="shop").json()["digest"]
    statement = {"name": "ab-test", "about": [digest], "predicate": {}, "namespace": "shop"}
    answer = api.post("/evidence", statement)
    assert (answer.status_code, answer.json().get("namespace")) == (201, "shop")


def test_the_openapi_document_is_3_1(tower: Tower) -> None:
    document = Client().get("/api/v1/openapi.json").json()
    assert document["openapi"].startswith("3.1")


def test_the_evidence_pack_verifies_and_a_changed_byte_does_not(
    tower: Tower, running: tuple[Goal, Attempt], tmp_path: Any
) -> None:
    from goals.services.apply import cancel_goal
    from lineage.evidence.inspect import inspect_pack

    goal, attempt = running
    push(agent_api(tower, attempt), b"weights")
    cancel_goal(goal, principal=tower.operator)
    tower.reconcile(goal)
    answer = api_of(tower, "auditor").get(f"/goals/{goal.uid}/evidence")
    assert answer.status_code == 200, answer.content
    pack = tmp_path / "pack.zip"
    pack.write_bytes(answer.content)
    report = inspect_pack(pack, signer=tower.twins.signer)
    assert report.ok, report
    changed = bytearray(answer.content)
    changed[len(changed) // 2] ^= 1
    pack.write_bytes(bytes(changed))
    assert not inspect_pack(pack, signer=tower.twins.signer).ok


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/goals?phase=%00", None),
        ("/goals/a%00b", None),
        ("/tokens", '{"name": "a\\u0000b"}'),
    ],
)
def test_a_nul_is_refused_with_the_part_it_is_in(tower: Tower, path: str, body: Any) -> None:
    client = api_of(tower, "operator").client
    url = f"/api/v1{path}"
    answer = (
        client.get(url) if body is None else client.post(url, body, content_type="application/json")
    )
    assert (answer.status_code, answer.json()["title"]) == (422, "NUL character")

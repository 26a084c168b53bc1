"""What looks like an agent, why, what is proposed for it, and what people make of it."""

import datetime as dt
from typing import Any

import pytest
import yaml

from agents.catalogue.domain import LOOKS_LIKE, evidence_of, is_at_night, score_of
from agents.catalogue.entries import standing_of
from agents.catalogue.proposals import FROM, UNKNOWN_IMAGE, Proposal, propose
from agents.catalogue.reading import Scan, scan_cluster
from agents.domain.manifest import parse_agent
from agents.models import Agent, ClusterSurvey, ClusterWorkload
from agents.services.catalogue import (
    CatalogueConflict,
    entry_of,
    ignore_entry,
    match_agents,
    record_scan,
    register_entry,
    restore_entry,
)
from agents.services.registry import Outcome, register_agent
from agents.survey.domain import Kind
from governance.models import JournalRecord
from lineage.domain import Actor, ActorKind
from tests.agents.cluster_objects import (
    PATHS,
    Listed,
    account,
    bound,
    cron,
    pod,
    pods,
    role,
    workload,
)

AT = dt.datetime(2026, 3, 1, 2, 0, tzinfo=dt.UTC)
ADA = Actor(ActorKind.HUMAN, "ada")
MAKES_JOBS = {"apiGroups": ["batch"], "resources": ["jobs"], "verbs": ["create"]}
READS = {"apiGroups": [""], "resources": ["configmaps"], "verbs": ["get", "list"]}
db = pytest.mark.django_db


def _codes(*objects: Any, name: str) -> dict[str, int]:
    scan = scan_cluster(Listed(*objects))
    (facts,) = [one for one in scan.facts if one.holder.name == name]
    return {one.code: one.points for one in evidence_of(facts)}


def _score(one: Any, *more: Any) -> int:
    return sum(_codes(one, *more, name=one["metadata"]["name"]).values())


@pytest.mark.parametrize(
    ("one", "codes"),
    [
        (workload("Deployment", "web", account="web", image="r/web@sha256:" + "a" * 64), set()),
        (workload("Deployment", "web"), {"default-account", "mutable-image"}),
        (
            workload("Deployment", "web", account="w", env=("OPENAI_API_KEY", "PORT")),
            {"model-key", "mutable-image"},
        ),
        (
            workload("DaemonSet", "x", account="x", env=("LANGSMITH_PROJECT",)),
            {"agent-tools", "mutable-image"},
        ),
        (workload("Job", "x", account="x", gpus=2), {"unowned-gpus", "mutable-image"}),
        (workload("Deployment", "support-bot", account="x"), {"name", "mutable-image"}),
        (workload("Deployment", "x", account="x", image="langchain/app:1"),
         {"framework", "mutable-image"}),
        (workload("Deployment", "x", account="x", image="ghcr.io/me/llama-index:1"),
         {"framework", "mutable-image"}),
        (workload("Deployment", "x", account="x", command=("python", "-m", "crewai.run")),
         {"framework", "mutable-image"}),
        (workload("DaemonSet", "datadog-agent", account="x"), {"infrastructure", "mutable-image"}),
        (workload("Deployment", "x", account="x", image="agent.example.com/web:1"),
         {"mutable-image"}),
        (cron("report", "0 2 * * *", account="x"), {"night-schedule", "mutable-image"}),
        (cron("report", "*/5 * * * *", account="x"), {"schedule", "mutable-image"}),
    ],
)  # fmt: skip
def test_what_speaks_for_an_agent(one: Any, codes: set[str]) -> None:
    assert set(_codes(one, name=one["metadata"]["name"])) == codes


def test_weak_signs_alone_are_not_enough_and_a_strong_one_with_a_weak_one_is() -> None:
    assert _score(workload("Deployment", "web")) < LOOKS_LIKE
    assert _score(cron("backup", "0 2 * * *")) < LOOKS_LIKE
    assert _score(workload("DaemonSet", "datadog-agent")) < LOOKS_LIKE
    assert _score(workload("Deployment", "web", env=("ANTHROPIC_API_KEY",))) >= LOOKS_LIKE
    assert _score(workload("StatefulSet", "train", gpus=1)) >= LOOKS_LIKE


@pytest.mark.parametrize(
    "name",
    ["OPENAI_API_KEY", "ANTHROPIC_API_KEY", "AZURE_OPENAI_ENDPOINT", "HF_TOKEN", "GEMINI_API_KEY",
     "OPENAI_ORG_API_KEY", "OLLAMA_HOST", "GOOGLE_API_KEY", "LLM_BASE_URL"],
)  # fmt: skip
def test_names_of_keys_to_models(name: str) -> None:
    one = workload("Deployment", "x", account="x", env=(name,))
    assert "model-key" in _codes(one, name="x")


@pytest.mark.parametrize("name", ["API_KEY", "DATABASE_URL", "MY_OPENAI", "GROQUERY", "TOKEN"])
def test_names_that_are_no_keys_to_models(name: str) -> None:
    one = workload("Deployment", "x", account="x", env=(name,))
    assert "model-key" not in _codes(one, name="x")


@pytest.mark.parametrize(
    ("schedule", "expected"),
    [
        ("0 2 * * *", True), ("30 22-23,0-5 * * 1-5", True), ("0 0-5/2 * * *", True),
        ("@daily", True), ("0 2,14 * * *", False), ("*/5 * * * *", False), ("@hourly", False),
        ("0 6 * * *", False), ("0 2-8 * * *", False), ("nonsense", False), ("0 x * * *", False),
        ("0 5/1 * * *", False), ("0 99 * * *", False),
    ],
)  # fmt: skip
def test_schedules_at_night(schedule: str, expected: bool) -> None:
    assert is_at_night(schedule) is expected


def test_no_value_of_a_variable_and_no_word_of_a_command_is_kept() -> None:
    secret = workload(
        "Deployment", "bot", env=("OPENAI_API_KEY",), command=("run", "--key=sk-in-it")
    )
    (facts,) = scan_cluster(Listed(secret)).facts
    kept = f"{facts.document()} {[one.text for one in evidence_of(facts)]}"
    assert "OPENAI_API_KEY" in kept
    assert "sk-" not in kept


@pytest.mark.parametrize(
    ("objects", "expected"),
    [
        ([role("r", MAKES_JOBS), bound("r", to="runner")], ("jobs",)),
        ([role("r", MAKES_JOBS)], ()),
        ([role("r", MAKES_JOBS), bound("r", to="other")], ()),
        ([role("r", MAKES_JOBS, namespace="far"), bound("r", to="runner", namespace="far")], ()),
        ([role("r", READS), bound("r", to="runner")], ()),
        ([role("r", {**MAKES_JOBS, "resourceNames": ["one"]}), bound("r", to="runner")], ()),
    ],
)
def test_who_may_start_more_of_itself(objects: list[Any], expected: tuple[str, ...]) -> None:
    scan = scan_cluster(Listed(workload("Deployment", "x", account="runner"), *objects))
    assert scan.facts[0].may_create == expected


@db
def test_rights_that_cannot_be_read_are_unknown_and_not_none() -> None:
    listed = Listed(workload("Deployment", "bot", account="runner"))
    listed.refused.add(PATHS["ClusterRoleBinding"])
    (facts,) = scan_cluster(listed).facts
    assert "rights-unknown" in {one.code for one in evidence_of(facts)}
    record_scan(scan_cluster(listed), cluster="c", at=AT)
    assert "may be too small" in propose(entry_of(_row("bot"))).text


def test_a_cluster_role_holds_where_it_is_bound() -> None:
    everything = {"apiGroups": ["*"], "resources": ["*"], "verbs": ["*"]}
    admin = {"kind": "ClusterRole", "metadata": {"name": "admin"}, "rules": [everything]}
    one = workload("Deployment", "x", account="runner")
    bindings = [
        bound("admin", to="runner", kind="ClusterRole"),
        bound("admin", to="runner", kind="ClusterRole", everywhere=True),
    ]
    for binding in bindings:
        assert "pods" in scan_cluster(Listed(one, admin, binding)).facts[0].may_create
    binding = bound("admin", to="x", kind="ClusterRole", everywhere=True)
    binding["subjects"] = [{"kind": "Group", "name": "system:serviceaccounts:team-b"}]
    assert "pods" in scan_cluster(Listed(one, admin, binding)).facts[0].may_create


def test_what_is_ours_owned_or_the_clusters_is_no_entry() -> None:
    owned = workload("Job", "nightly-29061240")
    owned["metadata"]["ownerReferences"] = [
        {"kind": "CronJob", "name": "nightly", "controller": True}
    ]
    scan = scan_cluster(
        Listed(
            owned,
            workload("Job", "ours", labels={"orchestration.ai/workload": "x"}),
            workload("Deployment", "coredns", namespace="kube-system"),
            workload("Deployment", "web", labels={"app.kubernetes.io/part-of": "clearance"}),
        ),
        pods=pods(pod("alone"), pod("of-job", owner=("Job", "j"))),
    )
    assert [str(one.holder) for one in scan.facts] == ["Pod team-b/alone"]


# --- Proposals -----------------------------------------------------------------------------------


def _proposal(one: Any, *more: Any) -> Proposal:
    record_scan(scan_cluster(Listed(one, *more)), cluster="c", at=AT)
    return propose(entry_of(_row(one["metadata"]["name"])))


def _row(name: str) -> ClusterWorkload:
    return ClusterWorkload.objects.get(name=name)


@db
def test_a_proposal_is_valid_here_and_gives_an_account_of_its_own() -> None:
    proposal = _proposal(workload("Deployment", "train.eu", gpus=2, image="r.example/train:1"))
    documents = {one["kind"]: one for one in yaml.safe_load_all(proposal.text)}
    manifest = parse_agent(documents["Agent"])
    assert (manifest.name, manifest.namespace, manifest.gpus) == ("train-eu", "team-b", 2)
    assert (manifest.service_account, manifest.memory_bytes) == ("train-eu", 2 << 30)
    assert manifest.annotations[FROM] == "Deployment/train.eu"
    assert documents["ServiceAccount"]["automountServiceAccountToken"] is False
    assert documents["RoleBinding"]["subjects"][0]["name"] == "train-eu"
    template = documents["Deployment"]["spec"]["template"]
    assert template["spec"] == {"serviceAccountName": "train-eu"}
    assert template["metadata"]["labels"] == {"agent_id": "train-eu"}
    assert documents["Deployment"]["metadata"]["name"] == "train.eu"


@db
def test_an_account_of_its_own_is_kept_and_its_rights_are_cut_to_what_is_harmless() -> None:
    wild = {"apiGroups": ["*"], "resources": ["*"], "verbs": ["get"]}
    secrets = {"apiGroups": [""], "resources": ["secrets"], "verbs": ["get"]}
    proposal = _proposal(
        workload("Deployment", "bot", account="runner"),
        role("r", MAKES_JOBS, READS, wild, secrets), bound("r", to="runner"),
    )  # fmt: skip
    documents = {one["kind"]: one for one in yaml.safe_load_all(proposal.text)}
    assert documents["ServiceAccount"] == {
        "apiVersion": "v1", "kind": "ServiceAccount",
        "metadata": {"name": "runner", "namespace": "team-b"},
    }  # fmt: skip
    assert documents["Role"]["rules"] == [READS]
    assert "create on jobs of batch" in proposal.text
    assert "get on secrets" in proposal.text


@db
@pytest.mark.parametrize(
    ("one", "kind", "path"),
    [
        (cron("bot", "0 2 * * *"), "CronJob", ("jobTemplate", "spec", "template")),
        (workload("StatefulSet", "bot"), "StatefulSet", ("template",)),
    ],
)
def test_the_patch_goes_where_the_template_is(one: Any, kind: str, path: tuple[str, ...]) -> None:
    found = yaml.safe_load(_proposal(one).patch_yaml)
    assert found["kind"] == kind
    spec = found["spec"]
    for step in path:
        spec = spec[step]
    assert spec["spec"]["serviceAccountName"] == "bot"


@db
def test_what_cannot_be_changed_gets_no_patch_and_what_is_not_known_is_left_to_fill_in() -> None:
    job = _proposal(workload("Job", "bot", image="Not An Image"))
    assert job.patch_yaml == ""
    assert "cannot be changed" in job.text
    assert job.manifest.image == UNKNOWN_IMAGE
    only = _proposal(account("planner"))
    assert (only.patch_yaml, only.manifest.service_account) == ("", "planner")


@db
def test_a_memory_that_no_manifest_may_hold_is_left_out() -> None:
    one = workload("Deployment", "bot", gpus=1)
    limits = one["spec"]["template"]["spec"]["containers"][0]["resources"]["limits"]
    limits["memory"] = "1k"
    assert _proposal(one).manifest.memory_bytes is None


# --- Rows ----------------------------------------------------------------------------------------


@db
def test_a_scan_makes_rows_and_the_same_again_changes_nothing() -> None:
    listed = Listed(workload("Deployment", "bot"), account("planner"))
    assert record_scan(scan_cluster(listed), cluster="c", at=AT) == 2
    assert record_scan(scan_cluster(listed), cluster="c", at=AT + dt.timedelta(minutes=1)) == 0
    assert ClusterSurvey.objects.get().scanned_at == AT + dt.timedelta(minutes=1)
    assert {row.changed_at for row in ClusterWorkload.objects.all()} == {AT}
    record_scan(Scan(), cluster="c", at=AT)
    assert not ClusterWorkload.objects.filter(is_listed=True).exists()


@db
def test_a_list_that_is_refused_is_said_and_its_rows_stay() -> None:
    listed = Listed(workload("Deployment", "bot"), cron("night", "0 2 * * *"))
    record_scan(scan_cluster(listed), cluster="c", at=AT)
    listed.refused.add(PATHS["CronJob"])
    listed.objects.clear()
    record_scan(scan_cluster(listed), cluster="c", at=AT)
    assert "may not list /apis/batch/v1/cronjobs" in ClusterSurvey.objects.get().scan_trouble
    assert [row.name for row in ClusterWorkload.objects.filter(is_listed=True)] == ["night"]


@db
def test_an_account_is_known_by_what_runs_as_it() -> None:
    keys = ("OPENAI_API_KEY",)
    listed = Listed(
        workload("Deployment", "a", account="shared", env=keys),
        workload("Deployment", "b", account="shared", env=keys),
        workload("Deployment", "web", account="web"),
        account("shared"), account("web"),
    )  # fmt: skip
    record_scan(scan_cluster(listed), cluster="c", at=AT)
    shared = ClusterWorkload.objects.get(kind=Kind.SERVICE_ACCOUNT, name="shared")
    assert {one["code"] for one in shared.evidence} == {"runs-agents", "shared-account"}
    assert shared.score >= LOOKS_LIKE
    assert ClusterWorkload.objects.get(kind=Kind.SERVICE_ACCOUNT, name="web").score == 0


@db
def test_registering_is_journaled_and_done_once() -> None:
    _proposal(workload("Deployment", "bot", image="r.example/bot:1"))
    assert register_entry(_row("bot"), actor=ADA).outcome is Outcome.CREATED
    assert register_entry(_row("bot"), actor=ADA).outcome is Outcome.UNCHANGED
    agent = Agent.objects.get()
    assert (agent.name, agent.service_account, agent.registered_by) == ("bot", "bot", "ada")
    actions = list(JournalRecord.objects.order_by("seq").values_list("action", flat=True))
    assert actions == ["agent.created", "catalogue.registered"]
    assert standing_of(_row("bot")).value == "registered"
    assert match_agents() == 0
    Agent.objects.update(retired_at=AT)
    assert match_agents() == 1
    assert _row("bot").agent is None


@db
def test_what_people_made_of_a_registration_is_not_overwritten() -> None:
    _proposal(workload("Deployment", "bot", image="r.example/bot:1"))
    register_entry(_row("bot"), actor=ADA)
    Agent.objects.update(role="revenue-critical", generation=2)
    register_entry(_row("bot"), actor=ADA)
    assert Agent.objects.get().role == "revenue-critical"


@db
def test_a_name_that_is_taken_by_something_else_is_refused() -> None:
    _proposal(workload("Deployment", "bot", image="r.example/bot:1"))
    register_entry(_row("bot"), actor=ADA)
    record_scan(scan_cluster(Listed(workload("StatefulSet", "bot"))), cluster="c", at=AT)
    other = ClusterWorkload.objects.get(kind="StatefulSet")
    with pytest.raises(CatalogueConflict, match="registered already"):
        register_entry(other, actor=ADA)
    assert Agent.objects.count() == 1


@db
def test_an_image_that_is_not_known_is_not_registered() -> None:
    _proposal(account("planner"))
    with pytest.raises(CatalogueConflict, match="image is not known"):
        register_entry(_row("planner"), actor=ADA)
    assert not Agent.objects.exists()


@db
def test_an_agent_that_was_registered_by_hand_is_known_again() -> None:
    proposal = _proposal(workload("Deployment", "bot", account="bot", image="r.example/bot:1"))
    document = proposal.manifest.to_document()
    del document["metadata"]["annotations"]
    register_agent(parse_agent(document), actor=ADA)
    assert match_agents() == 1
    assert standing_of(_row("bot")).value == "registered"


@db
def test_ignoring_is_journaled_done_once_and_taken_back() -> None:
    _proposal(workload("Deployment", "bot", env=("HF_TOKEN",)))
    assert ignore_entry(_row("bot"), reason="a chat page", actor=ADA)
    assert not ignore_entry(_row("bot"), reason="again", actor=ADA)
    row = _row("bot")
    assert (standing_of(row).value, row.ignored_reason) == ("ignored", "a chat page")
    record_scan(scan_cluster(Listed(workload("Deployment", "bot"))), cluster="c", at=AT)
    assert standing_of(_row("bot")).value == "ignored"
    assert restore_entry(_row("bot"), actor=ADA)
    assert not restore_entry(_row("bot"), actor=ADA)
    actions = list(JournalRecord.objects.order_by("seq").values_list("action", flat=True))
    assert actions == ["catalogue.ignored", "catalogue.restored"]


def test_the_score_is_bounded() -> None:
    one = workload(
        "Deployment", "agent-bot", gpus=1, image="langchain/x:1",
        env=("OPENAI_API_KEY", "LANGSMITH_API_KEY"),
    )  # fmt: skip
    (facts,) = scan_cluster(Listed(one)).facts
    assert score_of(evidence_of(facts)) == 100

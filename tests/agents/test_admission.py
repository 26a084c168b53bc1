"""Admission as the API server meets it: reviews in, answers, patches and decisions out."""

import base64
import json
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from django.core.management import CommandError, call_command

from agents.admission.app import MUTATE_WORKLOADS, WAITING_MAX
from agents.admission.configurations import GOVERNED, configurations
from agents.admission.program import admission_engine, warm_up
from agents.domain.naming import agent_id_of
from governance.domain import Stage
from governance.models import BundleVersion, Decision, JournalRecord
from governance.policy.base import PolicyEngine
from governance.services.decisions import replay_decision
from lineage.models import Artifact
from tests.agents.admission_desk import Desk
from tests.agents.admission_reviews import JOB_CONTROLLER, OWN, job, pod, review
from tests.contracts.test_policy import opa_url  # noqa: F401 - a fixture

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("twins")]
ROOT = Path(__file__).resolve().parents[2]
MODEL = "sha256:" + "5" * 64
APPROVAL = """package clearance.workload
require_approval[msg] {
    input.kind == "Pod"
    input.metadata.labels.agent_role == "deployer"
    msg := "deployers are let in by a person"
}
deny[msg] { input.metadata.labels.agent_role == "nobody"; msg := "nobody" }
warn[msg] { input.spec.hostNetwork; msg := "shares the network of its node" }
"""


@pytest.fixture(scope="module")
def engine() -> Iterator[PolicyEngine]:
    """The sandbox, as the process has it."""
    found = admission_engine("regorus:")
    yield found
    found.close()


@pytest.fixture
def starter(db: None, twins: Any) -> BundleVersion:
    from governance.services.bundles import ensure_starter_bundle

    return ensure_starter_bundle(identity="https://clearance.test/bootstrap")


@pytest.fixture
def desk(tmp_path: Path, engine: PolicyEngine, starter: BundleVersion) -> Iterator[Desk]:
    made = Desk(tmp_path, engine)
    made.policies.refresh()
    yield made
    made.close()


def enforce(desk: Desk, source: str, *, stage: Stage = Stage.ENFORCE) -> None:
    """Another bundle, in that stage."""
    modules = [{"path": "extra.rego", "source": source}]
    BundleVersion.objects.create(
        name="extra", version=1, digest="sha256:" + "e" * 64, modules=modules, stage=stage
    )
    desk.policies.refresh()


def test_what_policy_allows_is_let_in_and_written_down_once(desk: Desk) -> None:
    asked = review(pod(), uid="7c0f")
    assert desk.ask(asked)["allowed"]
    assert desk.ask(asked)["allowed"]  # the API server asks again when an answer was lost
    assert not Decision.objects.exists()  # no database stands on the path
    desk.drain.step()
    (decision,) = Decision.objects.all()
    assert (decision.point, decision.subject_kind, decision.subject_id) == (
        "workload", "pod", "shop/agent",
    )  # fmt: skip
    assert replay_decision(decision).agrees
    assert JournalRecord.objects.filter(action="decision.made").count() == 1
    desk.drain.step()
    assert Decision.objects.count() == 1
    assert [*desk.spool.directory.iterdir()] == [desk.spool.path]


@pytest.mark.parametrize(
    ("found", "said"),
    [
        (pod(image="optimizer:latest"), "uses the tag latest: pin it by digest (rule "),
        (pod(image="optimizer:latest"), "clearance.workload.deny, image_tag.rego:"),
        (pod(gpus=3, labels={"agent_role": "experimental"}), "limited to 2 GPUs: this pod asks"),
        (job(pod(image="optimizer")), "has neither tag nor digest"),
        (pod(labels={"agent_id": "profiler"}), "clearance.admission.agent_id"),
    ],
)
def test_what_policy_denies_is_refused_with_the_rule(
    desk: Desk, found: dict[str, Any], said: str
) -> None:
    answer = desk.ask(review(found))
    assert not answer["allowed"]
    assert answer["status"]["code"] == 403
    assert said in answer["status"]["message"]
    desk.drain.step()
    assert {one.outcome for one in Decision.objects.all()} == {"deny"}
    assert all(replay_decision(one).agrees for one in Decision.objects.all())


def end(desk: Desk, engine: PolicyEngine) -> None:
    """Once nothing is asked of the engine any more: a review may have been given up meanwhile."""
    desk.close()
    for thread in threading.enumerate():
        if thread.name.startswith("review"):
            thread.join(10)
    engine.close()


def test_opa_answers_reviews_as_the_sandbox_does(
    desk: Desk,
    tmp_path: Path,
    opa_url: str,  # noqa: F811 - the fixture
) -> None:
    opa = admission_engine(opa_url)
    beside = Desk(tmp_path / "opa", opa)
    beside.policies.refresh()
    experimental = {"agent_role": "experimental"}
    found = [
        pod(), pod(image="optimizer:latest"), pod(gpus=3, labels=experimental),
        pod(gpus=2, labels=experimental), job(pod(image="optimizer")),
    ]  # fmt: skip
    warm_up(opa, beside.policies.snapshot, times=1)  # as the process does before it is ready
    for one in found:
        asked = review(one)
        assert beside.ask(asked) == desk.ask(asked)
    desk.app.close()
    end(beside, opa)


@pytest.mark.parametrize("is_there", [True, False], ids=["hangs", "is away"])
def test_opa_that_says_nothing_denies_in_time(
    tmp_path: Path, starter: BundleVersion, is_there: bool
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}"
        if not is_there:
            silent.close()
        opa = admission_engine(url)
        asked = Desk(tmp_path, opa)
        asked.policies.refresh()
        warm_up(opa, asked.policies.snapshot, times=1)  # the sandbox that reads Rego
        began = time.monotonic()
        answer = asked.ask(review(pod()))
        assert time.monotonic() - began < 2.0, "the API server has given up by then"
        assert not answer["allowed"]
        end(asked, opa)


def test_a_dry_run_is_judged_and_leaves_nothing(desk: Desk) -> None:
    assert not desk.ask(review(pod(image="a:latest"), dryRun=True))["allowed"]
    assert desk.spool.path.stat().st_size == 0


def test_an_ephemeral_container_is_judged(desk: Desk) -> None:
    before = pod()
    debugger = {"name": "debugger", "image": "busybox:latest"}
    asked = review(
        pod(ephemeralContainers=[debugger]), before=before, subResource="ephemeralcontainers"
    )
    assert 'container "debugger"' in desk.ask(asked)["status"]["message"]


def test_an_update_that_leaves_the_pod_alone_is_no_question_of_policy(desk: Desk) -> None:
    """A pod whose image was forbidden meanwhile must still lose its finalizers."""
    old = pod(image="a:latest")
    old["metadata"]["finalizers"] = ["batch.kubernetes.io/job-tracking"]
    new = pod(image="a:latest")
    assert desk.ask(review(new, before=old))["allowed"]
    running, suspended = job(pod(image="a:latest")), job(pod(image="a:latest"))
    suspended["spec"]["suspend"] = True
    assert desk.ask(review(suspended, before=running))["allowed"]
    changed = job(pod(image="b:latest"))
    assert not desk.ask(review(changed, before=running))["allowed"]


def test_a_recalled_digest_is_refused_in_its_namespace(desk: Desk) -> None:
    Artifact.objects.create(
        namespace="shop", kind="model", name="risk", digest=MODEL, blob_digest="sha256:" + "b" * 64,
        media_type="x", size_bytes=1, pushed_by_kind="human", pushed_by_id="a",
        recalled_at="2026-01-01T00:00:00Z", recall_reason="it flags every order",
    )  # fmt: skip
    asked = pod()
    asked["metadata"]["annotations"] = {"orchestration.ai/model": f"models/risk@{MODEL}"}
    assert desk.ask(review(asked))["allowed"]  # as the snapshot is
    desk.policies.refresh()
    message = desk.ask(review(asked))["status"]["message"]
    assert f"artifact {MODEL} was recalled: it flags every order" in message
    elsewhere = review(asked)
    elsewhere["request"]["namespace"] = "other"
    assert desk.ask(elsewhere)["allowed"]


def test_an_approval_is_needed_but_by_what_was_approved_already(desk: Desk) -> None:
    enforce(desk, APPROVAL)
    deployer = pod(labels={"agent_role": "deployer", "orchestration.ai/workload": "tune-1"})
    message = desk.ask(review(deployer))["status"]["message"]
    assert "deployers are let in by a person. Only an attempt of an approved Goal" in message
    ours = job(deployer, labels={"orchestration.ai/workload": "tune-1"})
    assert desk.ask(review(ours, user=OWN))["allowed"]
    assert not desk.ask(review(ours, user="mallory"))["allowed"]
    made = json.loads(json.dumps(deployer))
    made["metadata"]["ownerReferences"] = [{"kind": "Job", "name": "tune-1", "controller": True}]
    assert desk.ask(review(made, user=JOB_CONTROLLER))["allowed"]
    assert not desk.ask(review(made, user="mallory"))["allowed"]
    nobody = job(
        pod(labels={"agent_role": "nobody"}), labels={"orchestration.ai/workload": "tune-1"}
    )
    assert not desk.ask(review(nobody, user=OWN))["allowed"]  # a denial binds us, too


def test_gpus_that_are_kept_are_kept_from_pods_of_no_goal(desk: Desk, twins: Any) -> None:
    desk.policies.cluster = lambda: twins.cluster  # 4 GPUs, none in use
    desk.policies.refresh()
    assert desk.ask(review(pod(gpus=3)))["allowed"]
    message = desk.ask(review(pod(gpus=4)))["status"]["message"]
    assert "4 GPUs with 0 in use, but 3 of 4 are open" in message
    labels = {"orchestration.ai/workload": "tune-1"}
    ours = job(pod(gpus=4, labels=labels), labels=labels)
    assert desk.ask(review(ours, user=OWN))["allowed"]


def test_warnings_reach_the_person(desk: Desk) -> None:
    enforce(desk, APPROVAL, stage=Stage.WARN)
    answer = desk.ask(review(pod(hostNetwork=True, labels={"agent_role": "nobody"})))
    assert answer["allowed"]
    assert {one.split(" (")[0] for one in answer["warnings"]} == {
        "nobody", "shares the network of its node",
    }  # fmt: skip
    BundleVersion.objects.filter(name="extra").update(stage=Stage.SHADOW)
    desk.policies.refresh()
    silent = desk.ask(review(pod(labels={"agent_role": "nobody"})))
    assert silent["allowed"]
    assert "warnings" not in silent
    desk.drain.step()
    assert Decision.objects.filter(bundle_name="extra", stage="shadow", outcome="deny").exists()


def test_no_secret_is_kept(desk: Desk) -> None:
    asked = pod()
    asked["spec"]["containers"][0]["env"] = [{"name": "PASSWORD", "value": "hunter2"}]
    asked["metadata"]["annotations"] = {
        "kubectl.kubernetes.io/last-applied-configuration": '{"value":"hunter2"}'
    }
    assert desk.ask(review(asked))["allowed"]
    desk.drain.step()
    kept = Decision.objects.get().input_canonical
    assert "PASSWORD" in kept
    assert "hunter2" not in kept
    assert "secret" not in kept


def test_without_any_policy_everything_is_denied(tmp_path: Path, engine: PolicyEngine) -> None:
    desk = Desk(tmp_path, engine)
    assert desk.call("GET", "/readyz")[0] == 503
    unheard = desk.ask(review(pod()))["status"]
    assert "has not read any policy" in unheard["message"]
    assert unheard["code"] == 503  # an attempt of ours is tried again, and not failed
    desk.policies.refresh()
    assert desk.call("GET", "/readyz")[0] == 200
    assert "No policy bundle is in force" in desk.ask(review(pod()))["status"]["message"]
    desk.close()


def test_a_policy_that_hangs_denies_in_time(desk: Desk) -> None:
    bomb = """package clearance.workload
    deny[msg] {
        some a, b, c, d
        numbers.range(1, 900)[a] + numbers.range(1, 900)[b] + numbers.range(1, 900)[c] == d
        msg := "never"
    }"""
    enforce(desk, bomb)
    answer = desk.ask(review(pod()))
    assert not answer["allowed"]
    assert "could not be evaluated" in answer["status"]["message"]
    desk.drain.step()
    assert Decision.objects.get(bundle_name="extra").error == "timeout"


def test_more_than_can_wait_is_refused_at_once(desk: Desk) -> None:
    desk.app._waiting = WAITING_MAX
    assert "reviews are waiting already" in desk.ask(review(pod()))["status"]["message"]


@pytest.mark.parametrize("body", [b"", b"[]", b'{"apiVersion":"admission.k8s.io/v1beta1"}'])
def test_what_is_no_review_is_told_so(desk: Desk, body: bytes) -> None:
    assert desk.call("POST", "/validate/workloads", body)[0] == 400


def test_what_admission_does_is_counted(desk: Desk) -> None:
    desk.ask(review(pod()))
    desk.ask(review(pod(image="a:latest")))
    status, body = desk.call("GET", "/metrics")
    assert status == 200
    lines = body.decode().splitlines()
    name = 'clearance_admission_reviews_total{webhook="/validate/workloads",outcome='
    assert {f'{name}"allow"}} 1', f'{name}"deny"}} 1'} <= set(lines)
    assert any(line.startswith("clearance_admission_snapshot_age_seconds 0") for line in lines)
    assert 'clearance_admission_review_seconds_bucket{le="+Inf"} 2' in lines


# --- agent_id -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "found", [pod(labels={"agent_id": "me"}), pod(), job(pod(labels={"agent_id": "me"}))]
)
def test_the_agent_is_whom_the_service_account_says(desk: Desk, found: dict[str, Any]) -> None:
    changed = desk.change(review(found), MUTATE_WORKLOADS)
    made = changed["spec"]["template"] if found["kind"] == "Job" else changed
    assert made["metadata"]["labels"]["agent_id"] == "optimizer"


def test_the_label_is_added_where_there_are_none(desk: Desk) -> None:
    for metadata in ({"name": "a", "namespace": "shop"}, {"name": "a", "namespace": "shop",
                     "labels": {"app": "shop"}}):  # fmt: skip
        found = {**pod(), "metadata": metadata}
        changed = desk.change(review(found), MUTATE_WORKLOADS)
        assert changed["metadata"]["labels"]["agent_id"] == "optimizer"
    template = {"spec": pod()["spec"]}
    cron = {
        "apiVersion": "batch/v1", "kind": "CronJob", "metadata": {"name": "a", "namespace": "shop"},
        "spec": {"jobTemplate": {"spec": {"template": template}}},
    }  # fmt: skip
    changed = desk.change(review(cron), MUTATE_WORKLOADS)
    inner = changed["spec"]["jobTemplate"]["spec"]["template"]
    assert inner["metadata"]["labels"] == {"agent_id": "optimizer"}


def test_a_template_that_cannot_be_changed_any_more_is_left(desk: Desk) -> None:
    unlabelled = job(pod(labels={"agent_id": "me"}))
    answer = desk.ask(review(unlabelled, before=unlabelled), MUTATE_WORKLOADS)
    assert "patch" not in answer


def test_a_long_name_is_shortened_to_one_that_nobody_can_have(desk: Desk) -> None:
    longest = "a" * 253
    assert agent_id_of("a" * 63) == "a" * 63
    short = agent_id_of(longest)
    assert len(short) == 63
    assert "_" in short  # which no service account's name has
    assert short != agent_id_of("a" * 252)
    changed = desk.change(review(pod(account=longest)), MUTATE_WORKLOADS)
    assert changed["metadata"]["labels"]["agent_id"] == short
    assert desk.ask(review(changed))["allowed"]


def test_an_answer_is_one_that_the_api_server_takes(desk: Desk) -> None:
    answer = desk.ask(review(pod(labels={"agent_id": "me"})), MUTATE_WORKLOADS)
    assert answer["patchType"] == "JSONPatch"
    (operation,) = json.loads(base64.b64decode(answer["patch"]))
    assert operation == {"op": "add", "path": "/metadata/labels/agent_id", "value": "optimizer"}


# --- The process ----------------------------------------------------------------------------------


def test_the_file_says_what_the_process_expects() -> None:
    text = (ROOT / "deploy" / "admission" / "webhooks.yaml").read_text()
    service = ("clearance", "clearance-admission")
    assert list(yaml.safe_load_all(text)) == list(configurations(service=service).values())


def test_closed_in_governed_namespaces_and_only_there() -> None:
    assert GOVERNED == {"orchestration.ai/governed": "true"}
    for document in configurations(url="https://127.0.0.1:1").values():
        for hook in document["webhooks"]:
            assert hook["failurePolicy"] == "Fail"
            assert hook["namespaceSelector"] == {
                "matchLabels": {"orchestration.ai/governed": "true"}
            }
            assert hook["timeoutSeconds"] == 2


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], "set it to kubernetes:CONTEXT"),
        (["--url", "http://127.0.0.1:8443"], "https://HOST:PORT"),
        (["--service", "clearance"], "NAMESPACE/NAME"),
        (["--certificate-days", "0"], "from 1/24"),
        (["--client-ca-file", "/no/such/file"], "--client-ca-file /no/such/file: No such file"),
        (["--client-ca-file", __file__], "no PEM certificate in it"),
    ],
)
def test_what_it_cannot_start_with_is_said(settings: Any, words: list[str], said: str) -> None:
    if words:
        settings.CLUSTER_URL = "kubernetes:nowhere"
    with pytest.raises(CommandError, match=said):
        call_command("admission", *words)

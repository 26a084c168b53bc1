"""The seed's Goal from `kubectl apply` to satisfied, with agents that really run in pods."""

import json
import sqlite3
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.cluster.conftest import MERGE, ROOT
from tests.cluster.control_plane import MissingControlPlane, Refusal
from tests.cluster.stage import Stage, stage
from tests.kill.people import Person, sign_in

pytestmark = [pytest.mark.slow, pytest.mark.contract, pytest.mark.timeout(1200)]

PATIENCE_SECONDS = 420.0  # 60 s on an idle machine
GOALS = "/apis/orchestration.ai/v1/namespaces/default/goals"
LABELLED = "?labelSelector=orchestration.ai%2Fworkload"
HOOKS = "/apis/admissionregistration.k8s.io/v1/validatingwebhookconfigurations"
NAME = "reduce-p99-latency"
ASKER = "ada"  # whoever applies a Goal may not approve its budget
# Less than the optimizer takes, so that the Goal has to ask.
BUDGET = "3 GPU-seconds"


@pytest.fixture(scope="module")
def on(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    try:
        with stage(tmp_path_factory.mktemp("stage"), EXAMPLE="1") as running:
            log = running.tower.data / "logs" / "example.log"
            eventually(lambda: log.exists() and "kubectl apply" in log.read_text(), "set up", log)
            labels = {"metadata": {"labels": {"orchestration.ai/governed": "true"}}}
            path = "/api/v1/namespaces/default"
            running.plane.request("PATCH", path, labels, content_type=MERGE)
            account = {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "tuner"}}
            running.plane.request("POST", f"{path}/serviceaccounts", account)
            eventually(lambda: running.plane.request("GET", HOOKS)["items"], "webhooks")
            yield running
    except MissingControlPlane as missing:
        pytest.skip(str(missing))


def eventually(holds: Callable[[], Any], what: str, *logs: Path) -> Any:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not (found := holds()):
        said = "\n".join(log.read_text()[-2000:] for log in logs if log.exists())
        assert time.monotonic() < deadline, f"never {what}\n{said}"
        time.sleep(0.3)
    return found


def of_kubectl(on: Stage) -> dict[str, Any]:
    return dict(on.plane.request("GET", f"{GOALS}/{NAME}").get("status") or {})


def items(on: Stage, collection: str) -> list[dict[str, Any]]:
    """What belongs to attempts in the namespace."""
    return list(on.plane.request("GET", f"/{collection}{LABELLED}")["items"])


def bodies(on: Stage, action: str) -> list[dict[str, Any]]:
    path = on.tower.data / "clearance.sqlite3"
    with sqlite3.connect(f"file:{path}?mode=ro", uri=True) as rows:
        found = rows.execute(
            "SELECT canonical FROM governance_journalrecord WHERE action = ? ORDER BY seq",
            (action,),
        ).fetchall()
    return [json.loads(text)["body"] for (text,) in found]


def answer(admin: Person, *, seen: list[str]) -> None:
    """Grant whatever the Goal asks for."""
    for approval in admin.insist("GET", "approvals?state=pending")["results"]:
        assert admin.answer(approval, grant=int(approval["request"]["ask"])) == 200
        seen.append(approval["uid"])


def same_on_both_sides(on: Stage, admin: Person) -> bool:
    mine, theirs = admin.goals()[NAME], of_kubectl(on)
    conditions = {one["type"]: one["status"] for one in theirs.get("conditions") or []}
    return (
        (mine["phase"], mine["satisfied"]) == (theirs.get("phase"), theirs.get("satisfied"))
        and mine["uid"] == theirs.get("uid")
        and all(conditions.get(one["type"]) == one["status"] for one in mine["conditions"])
    )


@pytest.mark.parametrize(
    ("image", "gpus", "said"),
    [
        ("x/y:latest", "1", "image_tag.rego"),
        ("x/y:1.0", "3", "experimental_workload.rego"),
    ],
)
def test_the_webhook_names_the_rule(on: Stage, image: str, gpus: str, said: str) -> None:
    limits = {"nvidia.com/gpu": gpus}
    container = {"name": "main", "image": image, "resources": {"limits": limits}}
    labels = {"agent_role": "experimental"}
    pod = {
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": "refused", "labels": labels},
        "spec": {"serviceAccountName": "tuner", "containers": [container]},
    }  # fmt: skip
    path = "/api/v1/namespaces/default/pods?dryRun=All"

    def refusal() -> str:
        with pytest.raises(Refusal) as refused:
            on.plane.request("POST", path, pod)
        return str(refused.value)

    eventually(lambda: said in refusal(), f"refused by {said}")


def test_the_seeds_goal_runs_asks_and_lands(on: Stage) -> None:
    admin, seen = sign_in(on.tower), list[str]()
    goal = yaml.safe_load((ROOT / "examples" / "checkout" / "goal.yaml").read_text())
    goal["spec"]["budget"] = BUDGET
    on.plane.request("POST", GOALS, goal, user=ASKER)

    # Over budget: its Job is suspended and its pod is gone.
    eventually(lambda: of_kubectl(on).get("phase") == "Paused", "paused")
    (waiting,) = [one for one in items(on, "apis/batch/v1/jobs") if one["spec"].get("suspend")]
    name = waiting["metadata"]["name"]
    assert waiting["metadata"]["labels"]["orchestration.ai/agent"] == "optimizer"
    eventually(lambda: name not in living(on), "without a pod")
    eventually(lambda: same_on_both_sides(on, admin), "the same on both sides")

    # Approved: it resumes in a pod of its own, and lands.
    def is_satisfied() -> bool:
        answer(admin, seen=seen)
        return bool(of_kubectl(on).get("satisfied"))

    eventually(is_satisfied, "satisfied", *on.pods.glob("*/agent.log"))
    eventually(lambda: same_on_both_sides(on, admin), "the same on both sides")
    assert (of_kubectl(on)["phase"], len(seen) >= 1) == ("Satisfied", True)

    # Who ran was known by the tokens of its pods, and nothing secret lay in the cluster.
    issued = bodies(on, "svid.issued")
    assert {one["cause"] for one in issued} <= {"service-account-token", "renewal"}
    pods: dict[str, set[str]] = {}
    for one in issued:
        if one["cause"] == "service-account-token":
            agent = one["spiffe_id"].rpartition("/")[2]
            pods.setdefault(agent, set()).add(one["pod_uid"])
    assert set(pods) == {"profiler", "optimizer", "canary_deployer"}
    assert len(pods["optimizer"]) >= 2
    assert not [one for one in items(on, "api/v1/secrets") if "JOIN" in json.dumps(one)]
    accounts = on.plane.request("GET", "/api/v1/namespaces/default/serviceaccounts")["items"]
    assert {"profiler", "optimizer", "canary-deployer"} <= {
        one["metadata"]["name"] for one in accounts
    }


def living(on: Stage) -> set[str]:
    """Workloads that have a pod which has not ended."""
    return {
        one["metadata"]["labels"]["orchestration.ai/workload"]
        for one in items(on, "api/v1/pods")
        if one["status"].get("phase") not in ("Succeeded", "Failed")
    }


def test_a_revoked_agent_loses_its_pod(on: Stage) -> None:
    admin = sign_in(on.tower)
    goal = yaml.safe_load((ROOT / "examples" / "checkout" / "rogue-fine-tune.yaml").read_text())
    goal["spec"]["budget"] = "10 GPU-minutes"
    on.plane.request("POST", GOALS, goal, user=ASKER)

    def exchanged() -> list[str]:
        return [one["pod_uid"] for one in bodies(on, "svid.issued")
                if "fine_tuner" in one["spiffe_id"] and "pod_uid" in one]  # fmt: skip

    (first,) = eventually(exchanged, "an identity")
    attempts = "attempts?state=running&page_size=100"
    (attempt,) = eventually(
        lambda: [
            one for one in admin.insist("GET", attempts)["results"] if one["task"] == "fine_tuner"
        ],
        "running",
    )
    admin.insist("POST", f"attempts/{attempt['uid']}/revoke", {"reason": "drift"})
    began = time.monotonic()
    eventually(
        lambda: first not in {one["metadata"]["uid"] for one in items(on, "api/v1/pods")},
        "evicted",
    )
    assert time.monotonic() - began < 30
    (said,) = bodies(on, "identity.withdrawn")
    assert (len(said["evicted"]), said["reason"]) == (1, "drift")
    admin.insist("DELETE", f"goals/{admin.goals()['rogue-fine-tune']['uid']}")

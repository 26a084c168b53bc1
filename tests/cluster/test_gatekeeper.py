"""Bundles as Gatekeeper's objects: the real `gator` says of them what our engine says."""

import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from governance.policy.base import PolicyBundle, PolicyModule, PolicyPoint
from governance.policy.bundle import build_bundle, load_starter_bundle
from governance.policy.exports.gatekeeper import gatekeeper_objects
from governance.policy.exports.modules import BundleLabel
from governance.policy.regorus import RegorusPolicy

pytestmark = pytest.mark.slow

CASES = Path(__file__).parents[1] / "contracts" / "policy_cases.json"
# Nested where only a real engine tells whether the moved reference is found.
HOUSE = PolicyModule(
    "house.rego",
    "package house.rules\n\nimport rego.v1\n\n"
    'warn contains msg if {\n\tinput.kind == "Pod"\n\tcount(data.house.teams) == 2\n'
    "\tnot is_known\n"
    '\tmsg := sprintf("no team of %v", [data.house.teams])\n}\n\n'
    "is_known if input.metadata.labels.team in data.house.teams\n\n"
    'violation contains {"msg": msg} if {\n\tsome container in input.spec.containers\n'
    "\tcontainer.resources.limits_normalised.memory > data.house.memory_max_bytes\n"
    '\tmsg := sprintf("%s wants %v bytes", [container.name, '
    "container.resources.limits_normalised.memory])\n}\n",
)
HOUSE_DATA = {"house": {"teams": ["a", "b"], "memory_max_bytes": 1 << 30}}


def gator() -> str:
    cached = Path.home() / ".cache/clearance/bin/gator"
    found = shutil.which("gator") or (str(cached) if cached.exists() else "")
    if not found:
        pytest.skip("needs gator: bash .ci/tools gator builds it")
    return found


@pytest.fixture(scope="module")
def parser() -> Iterator[RegorusPolicy]:
    engine = RegorusPolicy()
    yield engine
    engine.close()


def bundle_of() -> PolicyBundle:
    starter = load_starter_bundle()
    return build_bundle([*starter.modules, HOUSE], data={**starter.data, **HOUSE_DATA})


def objects() -> list[dict[str, Any]]:
    """The workloads of the contract's cases and some of ours, as an API server would send them."""
    cases = json.loads(CASES.read_text())["workload"]
    found = [case for case in cases if case["kind"] in ("Pod", "Job")]
    limits = [{"memory": "2Gi"}, {"memory": "512Mi", "cpu": "250m"}, {"nvidia.com/mig-1g.5gb": 3}]
    for amounts in limits:
        container = {"name": "c", "image": "app:v1", "resources": {"limits": amounts}}
        spec = {"serviceAccountName": "a", "containers": [container]}
        labels = {"agent_id": "a", "agent_role": "experimental", "team": "a"}
        found.append({"apiVersion": "v1", "kind": "Pod", "metadata": {"labels": labels},
                      "spec": spec})  # fmt: skip
        template = {"metadata": {"labels": labels}, "spec": spec}
        inner = {"spec": {"template": template}}
        found.append({"apiVersion": "batch/v1", "kind": "CronJob", "metadata": {},
                      "spec": {"schedule": "0 2 * * *", "jobTemplate": inner}})  # fmt: skip
    numbered = []
    for index, case in enumerate(found):
        metadata = {**case["metadata"], "name": f"case-{index}", "namespace": "shop"}
        version = case.get("apiVersion", "v1")
        numbered.append({**case, "apiVersion": version, "metadata": metadata})
    return numbered


def said_by_gator(documents: bytes, given: list[dict[str, Any]], where: Path) -> dict[str, Any]:
    """Messages by object, those of refusals and of warnings apart."""
    governed = {"orchestration.ai/governed": "true"}
    namespace = {"apiVersion": "v1", "kind": "Namespace",
                 "metadata": {"name": "shop", "labels": governed}}  # fmt: skip
    (where / "policy.yaml").write_bytes(documents)
    (where / "objects.yaml").write_text(yaml.safe_dump_all([namespace, *given]))
    command = [gator(), "test", f"--filename={where}"]
    done = subprocess.run(
        [*command, "--output=json"], capture_output=True, text=True, check=False, timeout=120
    )
    assert done.returncode in (0, 1), done.stderr
    found: dict[str, Any] = {}
    for violation in json.loads(done.stdout) or []:
        action = violation["enforcementAction"]
        subject = violation["violatingObject"]["metadata"]["name"]
        found.setdefault(subject, set()).add((action, violation["msg"]))
    return found


def test_gatekeeper_says_what_our_engine_says(parser: RegorusPolicy, tmp_path: Path) -> None:
    bundle, given = bundle_of(), objects()
    label = BundleLabel("house-rules", 3, "enforce", bundle.digest)
    said = said_by_gator(gatekeeper_objects(bundle, label, parser=parser), given, tmp_path)
    verdicts = parser.evaluate(bundle, PolicyPoint.WORKLOAD, given)
    actions = {"deny": "deny", "require_approval": "deny", "warn": "warn"}
    wanted = {
        one["metadata"]["name"]: {
            (actions[message.outcome.value], f"{message.rule}: {message.text}")
            for message in verdict.messages
        }
        for one, verdict in zip(given, verdicts, strict=True)
    }
    assert said == {name: messages for name, messages in wanted.items() if messages}
    assert sum(map(len, said.values())) > 20
    text = str(said)
    for rule in ("uses the tag latest", "limited to 2 GPUs", "no team of", "wants 2147483648"):
        assert rule in text


@pytest.mark.parametrize(("stage", "action"), [("warn", "warn"), ("shadow", "dryrun")])
def test_a_stage_that_does_not_deny_does_not_deny_there(
    parser: RegorusPolicy, tmp_path: Path, stage: str, action: str
) -> None:
    bundle = bundle_of()
    label = BundleLabel("house-rules", 3, stage, bundle.digest)
    said = said_by_gator(gatekeeper_objects(bundle, label, parser=parser), objects(), tmp_path)
    assert {one for messages in said.values() for one, _ in messages} == {action}


def test_the_objects_say_where_they_come_from(parser: RegorusPolicy) -> None:
    bundle = bundle_of()
    label = BundleLabel("house-rules", 3, "enforce", bundle.digest)
    documents = list(yaml.safe_load_all(gatekeeper_objects(bundle, label, parser=parser)))
    kinds = [one["kind"] for one in documents]
    assert kinds[0] == "ConstraintTemplate"
    assert re.fullmatch(r"ClearanceHouseRules[0-9a-f]{8}", kinds[1])
    assert kinds[1] == kinds[2]
    for one in documents:
        assert one["metadata"]["annotations"]["orchestration.ai/bundle"] == "house-rules@3"
        assert one["metadata"]["annotations"]["orchestration.ai/bundle-digest"] == bundle.digest

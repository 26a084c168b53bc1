"""Bundles as OPA loads them: the real `opa` says of the tarball what our engine says."""

import io
import json
import subprocess
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from governance.policy.base import PolicyBundle, PolicyError, PolicyModule, PolicyPoint
from governance.policy.bundle import build_bundle, load_starter_bundle
from governance.policy.exports.gatekeeper import gatekeeper_objects
from governance.policy.exports.modules import BundleLabel
from governance.policy.exports.opa_bundle import opa_bundle
from governance.policy.normalise import workload_input
from governance.policy.regorus import RegorusPolicy
from tests.contracts.test_policy import opa_program

pytestmark = pytest.mark.contract

SEED = PolicyModule(
    "seed.rego",
    'deny[msg] {\n  input.kind == "Pod"\n  input.metadata.labels.agent_role == "experimental"\n'
    "  input.spec.containers[_].resources.limits.gpu > 2\n"
    '  msg := "experimental agents limited to 2 GPUs"\n}\n',
)
POD = {
    "apiVersion": "v1",
    "kind": "Pod",
    "metadata": {"name": "p", "labels": {"agent_id": "a", "agent_role": "experimental"}},
    "spec": {
        "serviceAccountName": "a",
        "containers": [
            {"name": "c", "image": "app:latest", "resources": {"limits": {"nvidia.com/gpu": "3"}}}
        ],
    },
}


def label(bundle: PolicyBundle, stage: str = "enforce") -> BundleLabel:
    return BundleLabel("starter", 7, stage, bundle.digest)


@pytest.fixture(scope="module")
def parser() -> Iterator[RegorusPolicy]:
    engine = RegorusPolicy()
    yield engine
    engine.close()


def with_seed() -> PolicyBundle:
    starter = load_starter_bundle()
    return build_bundle([*starter.modules, SEED], data=starter.data)


def unpack(content: bytes) -> dict[str, bytes]:
    with tarfile.open(fileobj=io.BytesIO(content), mode="r:gz") as archive:
        return {
            entry.name.lstrip("/"): archive.extractfile(entry).read()  # type: ignore[union-attr]
            for entry in archive
        }


def test_opa_says_what_our_engine_says(parser: RegorusPolicy, tmp_path: Path) -> None:
    bundle = with_seed()
    tarball = tmp_path / "bundle.tar.gz"
    tarball.write_bytes(opa_bundle(bundle, label(bundle), parser=parser))
    given = tmp_path / "input.json"
    given.write_text(json.dumps(workload_input(POD)))
    query = "data.clearance.workload.deny"
    command = [opa_program(), "eval", "-b", str(tarball), "-i", str(given), "-f", "json", query]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    said = json.loads(done.stdout)["result"][0]["expressions"][0]["value"]
    verdict = parser.evaluate(bundle, PolicyPoint.WORKLOAD, [POD])[0]
    assert sorted(said) == sorted({message.text for message in verdict.messages})
    assert "experimental agents limited to 2 GPUs" in said  # the seed's own rule, in Rego v0


def test_the_manifest_names_the_version_and_every_root(parser: RegorusPolicy) -> None:
    bundle = with_seed()
    content = opa_bundle(bundle, label(bundle), parser=parser)
    files = unpack(content)
    manifest = json.loads(files[".manifest"])
    assert manifest["revision"] == bundle.digest
    assert manifest["roots"] == ["clearance"]
    assert manifest["file_rego_versions"] == {"/seed.rego": 0}
    assert manifest["metadata"] == {"name": "starter", "version": 7, "stage": "enforce"}
    assert json.loads(files["data.json"]) == bundle.data
    assert not [name for name in files if name.endswith("_test.rego")]
    assert content == opa_bundle(bundle, label(bundle), parser=parser)


@pytest.mark.parametrize(
    ("source", "data", "said"),
    [
        ("package clearance.graph\ndeny[msg] { msg := input.x }", {}, "no rule for workloads"),
        ("package a\ndeny[msg] { msg := input.x }", {"a-b": {}}, "data.json: a-b: letters"),
        ("package a\ndeny[msg] { msg := input.x }", {"limit": 3}, "data.json: limit: must be"),
    ],
)
def test_gatekeeper_is_not_given_what_it_cannot_judge(
    parser: RegorusPolicy, source: str, data: dict[str, Any], said: str
) -> None:
    bundle = build_bundle([PolicyModule("a.rego", source)], data=data)
    with pytest.raises(PolicyError, match=said):
        gatekeeper_objects(bundle, label(bundle), parser=parser)

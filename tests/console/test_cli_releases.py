"""Releases and evidence from the command line: policy's no, rollback, recall, and verifying."""

import json
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from goals.models import Release
from governance.models import BundleVersion
from tests.console.cli_runs import Cli, cli_of, doorbell, paused_goal, release
from tests.towers import Tower

__all__ = ["cli_of", "doorbell"]

pytestmark = pytest.mark.django_db(transaction=True)


def test_release_roll_back_and_recall(cli_of: Callable[..., Cli]) -> None:
    cli = cli_of("operator")
    old, new = cli.push("old", b"one"), cli.push("new", b"two")
    first = release(cli, old)
    release(cli, new)
    said = cli.good("rollback", first[:8], "--reason", "worse")
    assert said.endswith(f"active: checkout/canary -> {old}\n")
    newest = Release.objects.order_by("-number")[0]
    assert (newest.digest, newest.is_rollback, newest.reason) == (old, True, "worse")
    assert cli.good("recall", new, "--reason", "bad data") == f"artifact/{new} recalled\n"
    alone = cli.run("lift-recall", new, "--reason", "it is fine")
    assert (alone.exit_code, "somebody else must lift it" in alone.stderr) == (5, True)
    refused = cli.run(
        *("release", "--service", "checkout", "--environment", "canary"),
        *("--digest", new, "--reason", "r"),
    )
    assert (refused.exit_code, "recalled" in refused.stderr) == (3, True)


def test_without_a_bundle_in_force_policy_denies(cli_of: Callable[..., Cli]) -> None:
    cli = cli_of("operator")
    digest = cli.push("tiny")
    BundleVersion.objects.update(stage="draft")
    result = cli.run(
        *("release", "--service", "checkout", "--environment", "canary"),
        *("--digest", digest, "--reason", "r"),
    )
    assert result.exit_code == 3
    assert result.stderr.startswith("clearance: Denied by policy: No policy bundle is in force")


def test_a_digest_is_written_whole_and_known(cli_of: Callable[..., Cli]) -> None:
    cli = cli_of("operator")
    where = ("release", "--service", "checkout", "--environment", "canary", "--reason", "r")
    assert cli.run(*where, "--digest", "sha256:abc").exit_code == 2
    assert cli.run(*where, "--digest", "sha256:" + "0" * 64).exit_code == 4
    assert cli.run("recall", "sha256:" + "0" * 64, "--reason", "r").exit_code == 4
    assert cli.run("rollback", "0" * 8, "--reason", "r").exit_code == 4


def test_evidence_verifies_and_a_changed_byte_does_not(
    tower: Tower, cli_of: Callable[..., Cli], tmp_path: Path
) -> None:
    paused_goal(tower)
    cli = cli_of("auditor")
    pack = tmp_path / "pack.zip"
    result = cli.run("evidence", "goal", "fast", "-o", str(pack))
    assert (result.exit_code, result.stdout) == (0, "")
    assert f"clearance verify {pack}" in result.stderr
    assert [path.name for path in tmp_path.iterdir() if path.suffix == ".zip"] == ["pack.zip"]
    offline = Cli("http://127.0.0.1:1", "", home=tmp_path, programs=[])
    said = offline.good("verify", str(pack))
    assert said.endswith("\nVERIFIED\n")
    assert "FAIL" not in said
    report = json.loads(offline.good("verify", str(pack), "-o", "json"))
    assert report["ok"] is True
    right = ("verify", str(pack), "--fingerprint", report["fingerprint"])
    assert "as wanted" in offline.good(*right)
    assert offline.run("verify", str(pack), "--fingerprint", "00").exit_code == 1
    _change_a_record(pack)
    bad = offline.run("verify", str(pack))
    assert bad.exit_code == 1
    assert "FAIL" in bad.stdout
    assert "first bad record: sequence number" in bad.stdout
    assert bad.stdout.endswith("\nNOT VERIFIED\n")


def _change_a_record(pack: Path) -> None:
    with zipfile.ZipFile(pack) as archive:
        files = {name: archive.read(name) for name in archive.namelist()}
    (records,) = [name for name in files if name.startswith("records")]
    lines = files[records].splitlines(keepends=True)
    lines[3] = lines[3].replace(b'"action":"', b'"action":"x', 1)
    files[records] = b"".join(lines)
    with zipfile.ZipFile(pack, "w") as archive:
        for name, content in files.items():
            archive.writestr(name, content)


def test_evidence_to_stdout_and_to_nowhere(
    tower: Tower, cli_of: Callable[..., Cli], tmp_path: Path
) -> None:
    paused_goal(tower)
    cli = cli_of("auditor")
    result = cli.run("evidence", "fast", "-o", "-")
    assert result.stdout_bytes.startswith(b"PK")
    nowhere = cli.run("evidence", "fast", "-o", str(tmp_path / "none" / "p.zip"))
    assert (nowhere.exit_code, "cannot write" in nowhere.stderr) == (2, True)
    assert cli.run("verify", str(tmp_path / "none.zip")).exit_code == 2
    (tmp_path / "junk.zip").write_bytes(b"junk")
    assert cli.run("verify", str(tmp_path / "junk.zip")).exit_code == 1

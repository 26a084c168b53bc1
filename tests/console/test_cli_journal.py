"""The journal, packs and revocation from the command line."""

import json
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from agents.models import Attempt
from governance.models import JournalRecord
from governance.services.checkpoints import make_checkpoint
from tests.console.cli_runs import Cli, cli_of, doorbell, paused_goal
from tests.towers import Tower

__all__ = ["cli_of", "doorbell"]

pytestmark = pytest.mark.django_db(transaction=True)


def test_the_journal_is_searched(tower: Tower, cli_of: Callable[..., Cli]) -> None:
    paused_goal(tower)
    cli = cli_of("auditor")
    lines = cli.good("journal", "search", "action:goal.created").splitlines()
    assert lines[0].split()[:3] == ["NAMESPACE", "SEQ", "AT"]
    (row,) = lines[1:]
    assert "goal.created" in row
    found = json.loads(cli.good("journal", "search", "action:goal.*", "-o", "json"))["items"]
    assert len(found) > 1
    assert [one["seq"] for one in found] == sorted((one["seq"] for one in found), reverse=True)
    two = cli.run("journal", "search", "action:goal.*", "--limit", "2")
    assert len(two.stdout.splitlines()) == 3
    assert "the newest 2" in two.stderr
    assert "no record" in cli.run("journal", "search", "actor:nobody").stderr
    wrong = cli.run("journal", "search", "colour:red")
    assert wrong.exit_code == 1
    assert "q:" in wrong.stderr


def test_the_journal_is_verified_and_a_changed_record_named(
    tower: Tower, cli_of: Callable[..., Cli]
) -> None:
    paused_goal(tower)
    make_checkpoint()
    cli = cli_of("auditor")
    assert cli.good("journal", "verify", "--status").strip() == "not verified yet"
    assert "records hold, under 1 signed roots" in cli.good("journal", "verify")
    assert "records hold" in cli.good("journal", "verify", "--status")
    assert cli.good("journal", "checkpoints").splitlines()[0].startswith("RECORDS")
    JournalRecord.objects.filter(seq=3).update(action="nothing.happened")
    bad = cli.run("journal", "verify", "--from-start")
    assert (bad.exit_code, bad.stdout[:19]) == (1, "BROKEN at record 3:")
    assert (
        json.loads(cli.run("journal", "verify", "--status", "-o", "json").stdout)["flaw_seq"] == 3
    )
    refused = cli_of("viewer").run("journal", "verify")
    assert refused.exit_code == 5
    assert "ask admin." in refused.stderr


def test_a_pack_of_a_time_is_taken_listed_and_verified(
    tower: Tower, cli_of: Callable[..., Cli], tmp_path: Path
) -> None:
    paused_goal(tower)
    pack = tmp_path / "pack.zip"
    cli = cli_of("auditor")
    result = cli.run("pack", "create", "--last", "1h", "-o", str(pack))
    assert (result.exit_code, result.stdout) == (0, ""), result.stderr
    assert zipfile.is_zipfile(pack)
    offline = Cli("http://127.0.0.1:1", "", home=tmp_path, programs=[])
    assert offline.good("verify", str(pack)).endswith("\nVERIFIED\n")
    assert "default, since" in cli.good("pack", "list")
    admin = cli_of("admin")
    whole = tmp_path / "whole.zip"
    admin.good("pack", "create", "-A", "--since", "2026-01-01", "-o", str(whole))
    assert "not adjacent" not in offline.good("verify", str(whole))
    assert cli.run("pack", "create", "-A", "--last", "1h", "-o", str(pack)).exit_code == 5
    both = ("--last", "1h", "--since", "2026-01-01")
    for wrong in (("--last", "soon"), ("--since", "then"), (), both):
        assert cli.run("pack", "create", *wrong).exit_code == 2, wrong
    none = cli.run("pack", "create", "--since", "2001-01-01", "--until", "2001-01-02")
    assert (none.exit_code, "has no record of it" in none.stderr) == (6, True)
    assert not (Path.cwd() / "default-evidence.zip").exists()


def test_an_agent_and_an_attempt_are_revoked(tower: Tower, cli_of: Callable[..., Cli]) -> None:
    goal = paused_goal(tower)
    attempt = next(one for one in tower.attempts(goal) if one.identity_revoked_at is None)
    cli = cli_of("operator")
    why = ("--reason", "It drifts.")
    unsure = cli.run("revoke", "agent", attempt.agent_name, *why, stdin="n\n")
    assert (unsure.exit_code, "nothing was revoked" in unsure.stderr) == (1, True)
    assert not Attempt.objects.filter(pk=attempt.pk, identity_revoked_at__isnull=False).exists()
    said = cli.good("revoke", "attempt", str(attempt.uid), *why, "--yes")
    assert said == f"attempt/{attempt.uid} revoked\n"
    attempt.refresh_from_db()
    assert attempt.identity_revoked_reason == "It drifts."
    said = cli.good("revoke", "agent", attempt.agent_name, *why, stdin="y\n")
    assert said == f"agent/default/{attempt.agent_name} revoked\n"
    viewer = cli_of("viewer")
    assert viewer.run("revoke", "agent", attempt.agent_name, *why, "--yes").exit_code == 5
    assert viewer.run("revoke", "agent", "nobody", *why, "--yes").exit_code == 4


def test_gpus_are_listed(cli_of: Callable[..., Cli]) -> None:
    assert "no gpus" in cli_of("viewer").run("get", "gpus").stderr

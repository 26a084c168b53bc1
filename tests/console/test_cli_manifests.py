"""`clearance apply` and `plan`: files, folders and stdin; what is refused says which field."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from agents.models import Agent
from goals.models import Goal
from governance.models import Decision
from tests.console.cli_runs import Cli, agent_text, cli_of, doorbell, goal_text
from tests.towers import Tower

__all__ = ["cli_of", "doorbell"]

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Manifests whose names put the Goal before the agent it needs."""
    (tmp_path / "a-goal.yaml").write_text(goal_text("fast"))
    (tmp_path / "b-agent.yml").write_text(agent_text("profiler", gpus=1))
    (tmp_path / "notes.txt").write_text("not a manifest")
    return tmp_path


def test_apply_a_folder_twice(cli_of: Callable[..., Cli], folder: Path) -> None:
    cli = cli_of("operator")
    assert cli.good("apply", "-f", str(folder)).splitlines() == [
        "agent/profiler created",
        "goal/fast created",
    ]
    assert cli.good("apply", "-f", str(folder), "-o", "name").split() == [
        "agent/profiler",
        "goal/fast",
    ]
    again = json.loads(cli.good("apply", "-f", str(folder), "-o", "json"))
    assert [row["outcome"] for row in again["items"]] == ["unchanged", "unchanged"]


def test_apply_from_stdin_and_dry_run(cli_of: Callable[..., Cli]) -> None:
    cli = cli_of("operator")
    said = cli.good("apply", "-f", "-", "--dry-run", stdin=agent_text("profiler"))
    assert said == "agent/profiler created (dry run)\n"
    assert not Agent.objects.exists()
    cli.good("apply", "-f", "-", stdin=agent_text("profiler"))
    assert Agent.objects.get().name == "profiler"


def test_a_refused_file_is_named_with_each_field(cli_of: Callable[..., Cli], folder: Path) -> None:
    bad = goal_text("bad", budget="five potatoes").replace("agents: [profiler]", "agents: []")
    (folder / "c-bad.yaml").write_text(bad)
    result = cli_of("operator").run("apply", "-f", str(folder))
    assert result.exit_code == 1
    assert result.stdout.splitlines() == ["agent/profiler created", "goal/fast created"]
    lines = result.stderr.splitlines()
    assert lines[0].endswith("c-bad.yaml: Invalid manifest")
    assert {line.split(":")[0].strip() for line in lines[1:]} == {"spec.budget", "spec.agents"}


def test_apply_needs_readable_files_and_a_role(cli_of: Callable[..., Cli], tmp_path: Path) -> None:
    cli = cli_of("viewer")
    assert cli.run("apply", "-f", str(tmp_path / "none.yaml")).exit_code == 2
    assert cli.run("apply", "-f", str(tmp_path)).exit_code == 2
    refused = cli.run("apply", "-f", "-", stdin=agent_text("profiler"))
    assert (refused.exit_code, "role operator" in refused.stderr) == (5, True)


def test_plan_shows_tasks_prices_and_verdicts(tower: Tower, cli_of: Callable[..., Cli]) -> None:
    tower.register("profiler", produces="profile")
    tower.register("optimizer", gpus=2, consumes="profile")
    text = goal_text("fast", agents="profiler, optimizer")
    said = cli_of("viewer").good("plan", "-f", "-", stdin=text)
    (row,) = [line for line in said.splitlines() if line.startswith("optimizer ")]
    assert [cell.strip() for cell in row.split("   ") if cell.strip()] == [
        "optimizer",
        "optimizer",
        "profiler",
        "2",
        "40 GPU-s / 40 GPU-s",
        "declared",
        "20 s / 20 s",
        "declared",
        "allow",
    ]
    assert "Total GPU time:   40 GPU-s / 40 GPU-s (P50 / P90)" in said
    assert not Goal.objects.exists()
    assert not Decision.objects.exists()


def test_a_price_that_nobody_knows_is_unknown(tower: Tower, cli_of: Callable[..., Cli]) -> None:
    cli = cli_of("operator")
    cli.good(
        "apply", "-f", "-", stdin=agent_text("guess", gpus=1).replace("estimate: {seconds: 20}", "")
    )
    said = cli.good("plan", "-f", "-", stdin=goal_text("fast", agents="guess"))
    assert "Total GPU time:   unknown: 1 of 1 tasks are unknown" in said
    (row,) = [line for line in said.splitlines() if line.startswith("guess ")]
    assert row.split().count("unknown") == 4


def test_a_denied_plan_names_the_rule_and_exits_3(tower: Tower, cli_of: Callable[..., Cli]) -> None:
    tower.register("greedy", gpus=3, role="experimental")
    cli = cli_of("viewer")
    result = cli.run("plan", "-f", "-", stdin=goal_text("x", agents="greedy"))
    assert result.exit_code == 3
    assert "Policy: deny" in result.stdout
    assert "experimental agents limited to 2 GPUs" in result.stdout
    assert ".rego:" in result.stdout
    for form in ("json", "yaml"):
        other = cli.run("plan", "-f", "-", "-o", form, stdin=goal_text("x", agents="greedy"))
        assert (other.exit_code, yaml.safe_load(other.stdout)["outcome"]) == (3, "deny")

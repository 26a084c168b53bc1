"""Policies over the command line: versions listed, and exported to other engines."""

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.console.cli_runs import Cli, cli_of, doorbell

__all__ = ["cli_of", "doorbell"]

pytestmark = pytest.mark.django_db(transaction=True)


def test_the_version_in_force_is_exported(cli_of: Callable[..., Cli], tmp_path: Path) -> None:
    cli = cli_of("viewer")
    table = cli.good("policy", "versions", "starter")
    assert "enforce" in table
    file = tmp_path / "starter.yaml"
    cli.good("policy", "export", "starter", "--for", "gatekeeper", "-o", str(file))
    assert "kind: ConstraintTemplate" in file.read_text()
    cli.good("policy", "export", "starter@1", "--for", "opa", "-o", str(tmp_path / "b.tar.gz"))
    assert (tmp_path / "b.tar.gz").read_bytes().startswith(b"\x1f\x8b")


def test_refusals_leave_no_file(cli_of: Callable[..., Cli], tmp_path: Path) -> None:
    cli, file = cli_of("viewer"), tmp_path / "none"
    wrong = cli.run("policy", "export", "starter@x", "--for", "opa", "-o", str(file))
    assert wrong.exit_code == 2
    assert "NAME@VERSION: 'x' is no number." in wrong.stderr
    absent = cli.run("policy", "export", "nothing", "--for", "opa", "-o", str(file))
    assert absent.exit_code == 4
    assert "no version of nothing is in force" in absent.stderr
    assert cli.run("policy", "export", "starter@9", "--for", "opa", "-o", str(file)).exit_code == 4
    assert not list(tmp_path.iterdir())

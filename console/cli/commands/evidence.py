"""`clearance evidence` and `clearance verify`: packs that are checked without the server."""

import shutil
import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from console.cli.downloads import download
from console.cli.exits import ExitCode
from console.cli.invocation import (
    Invocation,
    connection_options,
    goal_arguments,
    output_option,
    pass_invocation,
)
from console.cli.printing import is_document, print_document, print_table, printable, tell
from console.cli.quantities import size

if TYPE_CHECKING:
    from lineage.evidence.inspect import PackReport

STDOUT = "-"


@click.command()
@goal_arguments
@click.option("-o", "--output", "target", help="File to write; - is stdout.  [NAME-evidence.zip]")
@connection_options
@pass_invocation
def evidence(invocation: Invocation, *, name: str, target: str | None) -> None:
    """Fetch the evidence pack of a Goal: a ZIP that is verified without the server."""
    path = f"{invocation.goal_path(name)}/evidence"
    save_pack(invocation, path, target or f"{name.rpartition('/')[2]}-evidence.zip")


def save_pack(
    invocation: Invocation, path: str, target: str, document: dict[str, Any] | None = None
) -> None:
    """Write the pack that the server answers to a file, or to stdout."""
    if target == STDOUT:
        stdout = sys.stdout.buffer
        if stdout.isatty():
            raise click.UsageError("a ZIP is not for a terminal: name a file with -o.")
        with invocation.client.stream(path, document) as response:
            shutil.copyfileobj(response, stdout)
        return
    file = Path(target)
    written = download(invocation, path, file, document)
    tell(f"wrote {file}, {size(written)}; check it with: clearance verify {file}")


@click.command()
@click.argument("pack", type=click.Path(exists=True, path_type=Path))
@click.option("--fingerprint", default="", help="What the pack's keys must have; get it elsewhere.")
@output_option("table", "json", "yaml")
def verify(*, pack: Path, fingerprint: str, form: str) -> None:
    """Verify an evidence pack (a ZIP or a folder) without any server; exits 1 when it fails.

    Without --fingerprint the pack's keys are only shown to be consistent: compare the fingerprint
    with the one that was published elsewhere.
    """
    from lineage.evidence.inspect import inspect_pack  # noqa: PLC0415 - sigstore loads for a second

    report = inspect_pack(pack)
    is_trusted = not fingerprint or report.fingerprint.lower() == fingerprint.strip().lower()
    is_good = report.ok and is_trusted
    if is_document(form):
        print_document({"ok": is_good, **asdict(report)}, form=form)
    else:
        _print_report(report, wanted=fingerprint, is_trusted=is_trusted)
    if not is_good:
        raise click.exceptions.Exit(ExitCode.REFUSED)


def _print_report(report: "PackReport", *, wanted: str, is_trusted: bool) -> None:
    rows = [["ok" if step.ok else "FAIL", step.name, step.detail] for step in report.steps]
    if wanted:
        said = "as wanted" if is_trusted else f"not {wanted}"
        rows.append(["ok" if is_trusted else "FAIL", "fingerprint", said])
    print_table(("", "STEP", "DETAIL"), rows)
    if report.first_bad is not None:
        bad = report.first_bad
        click.echo(
            f"\nfirst bad record: sequence number {bad.seq}, "
            f"{printable(bad.action)} (position {bad.position} in the pack)"
        )
    if report.gaps:
        click.echo("\nwhat this pack cannot show:")
        for gap in report.gaps:
            click.echo(f"  - {printable(gap)}")
    click.echo(f"\nfingerprint of the keys: {printable(report.fingerprint) or 'unknown'}")
    click.echo("VERIFIED" if report.ok and is_trusted else "NOT VERIFIED")

"""`clearance policy`: versions of bundles, and their export to OPA and Gatekeeper."""

from pathlib import Path
from typing import Any

import click

from console.cli.client import segment
from console.cli.downloads import download
from console.cli.exits import CliError, ExitCode
from console.cli.invocation import (
    Invocation,
    connection_options,
    output_option,
    pass_invocation,
)
from console.cli.printing import is_document, print_document, print_table, tell
from console.cli.quantities import size

FILES = {"opa": "{name}-{version}.tar.gz", "gatekeeper": "{name}-{version}-gatekeeper.yaml"}


@click.group()
def policy() -> None:
    """Versions of policy bundles."""


@policy.command("versions")
@click.argument("name")
@output_option("table", "json", "yaml")
@connection_options
@pass_invocation
def list_versions(invocation: Invocation, *, name: str, form: str) -> None:
    """List the versions of a bundle, newest first."""
    rows = _versions(invocation, name)
    if is_document(form):
        print_document(rows, form=form)
        return
    cells = [[str(row["version"]), row["stage"], row["digest"], row["created_by"]] for row in rows]
    print_table(("VERSION", "STAGE", "DIGEST", "SAVED BY"), cells)


@policy.command()
@click.argument("bundle", metavar="NAME[@VERSION]")
@click.option(
    "--for", "form", type=click.Choice(list(FILES)), required=True, help="What shall load it."
)
@click.option("-o", "--output", "target", help="File to write.  [NAME-VERSION.…]")
@connection_options
@pass_invocation
def export(invocation: Invocation, *, bundle: str, form: str, target: str | None) -> None:
    """Write a version as OPA's bundle or as Gatekeeper's objects; the one in force by default."""
    name, _, asked = bundle.partition("@")
    version = int(asked) if asked.isdecimal() else _in_force(invocation, name, asked)
    file = Path(target or FILES[form].format(name=name, version=version))
    path = f"/bundles/{segment(name)}/versions/{version}/export"
    written = download(invocation, path, file, form=form)
    tell(f"wrote {file}, {size(written)}")


def _in_force(invocation: Invocation, name: str, asked: str) -> int:
    if asked:
        raise click.UsageError(f"NAME@VERSION: {asked!r} is no number.")
    for row in _versions(invocation, name):
        if row["stage"] == "enforce":
            return int(row["version"])
    raise CliError(
        f"no version of {name} is in force.",
        code=ExitCode.NOT_FOUND,
        lines=(f"clearance policy versions {name} lists them: name one as {name}@1.",),
    )


def _versions(invocation: Invocation, name: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = invocation.client.get(f"/bundles/{segment(name)}/versions")
    return found

"""`clearance version`: of this program and of the server."""

import tomllib
from importlib.metadata import PackageNotFoundError
from importlib.metadata import version as installed_version
from pathlib import Path

import click

from console.cli.invocation import (
    Invocation,
    connection_options,
    output_option,
    pass_invocation,
)
from console.cli.printing import is_document, print_document, print_pairs

PYPROJECT = Path(__file__).resolve().parents[3] / "pyproject.toml"


def own_version() -> str:
    """The version of the installed package, or of the checkout that this runs from."""
    try:
        return installed_version("clearance")
    except PackageNotFoundError:
        pass
    try:
        return str(tomllib.loads(PYPROJECT.read_text(encoding="utf-8"))["project"]["version"])
    except (OSError, ValueError, KeyError):
        return "unknown"


@click.command()
@click.option("--client", "is_client_only", is_flag=True, help="Do not ask the server.")
@output_option("table", "json", "yaml")
@connection_options
@pass_invocation
def version(invocation: Invocation, *, is_client_only: bool, form: str) -> None:
    """Print the version of this program and of the server's API."""
    found = {"client": own_version()}
    if not is_client_only:
        document = invocation.client.get("/openapi.json")
        found |= {"server": invocation.server, "api": str(document["info"]["version"])}
    if is_document(form):
        print_document(found, form=form)
    else:
        print_pairs([(key.capitalize(), value) for key, value in found.items()])

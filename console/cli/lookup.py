"""From what a person typed to rows of the API."""

from collections.abc import Iterator
from typing import Any

import click

from console.cli.client import segment
from console.cli.exits import CliError, ExitCode
from console.cli.invocation import Invocation, is_uid
from console.cli.resources import GOALS, Resource

PREFIX_MIN = 4  # characters of a uid or digest that may stand for all of it
SEARCHED_MAX = 2000  # newest rows that a name or prefix is looked for in


def goal_uid(invocation: Invocation, name: str) -> str:
    """The uid of a Goal that is named in any way."""
    reference = invocation.goal_reference(name)
    if is_uid(reference):
        return reference
    uid: str = invocation.client.get(f"/goals/{reference}")["metadata"]["uid"]
    return uid


def find_row(invocation: Invocation, resource: Resource, name: str) -> dict[str, Any]:
    """The object of that name, uid or unique prefix of its uid. Raises CliError."""
    name = name.removeprefix(f"{resource.kind}/")
    if resource is GOALS:
        found: dict[str, Any] = invocation.client.get(invocation.goal_path(name))
        return found
    if resource.one and _is_exact(name):
        exact: dict[str, Any] = invocation.client.get(resource.one.format(segment(name)))
        return exact
    rows = [row for row in in_namespace(invocation, resource) if _answers_to(row, resource, name)]
    # A name that every version carries (a price, a tag) means the newest; so does an exact key.
    exactly = [row for row in rows if name in (resource.key(row), *resource.names(row))]
    matches = exactly[:1] or rows
    if not matches:
        raise CliError(
            f"there is no {resource.kind} {name!r} that you may see.", code=ExitCode.NOT_FOUND
        )
    if len(matches) > 1:
        keys = ", ".join(resource.key(row) for row in matches[:5])
        raise click.UsageError(f"{name!r} is the beginning of several: {keys}.")
    (row,) = matches
    if resource.one:
        whole: dict[str, Any] = invocation.client.get(
            resource.one.format(segment(resource.key(row)))
        )
        return whole
    return row


def _is_exact(name: str) -> bool:
    digits = name.removeprefix("sha256:")
    return is_uid(name) or (digits != name and len(digits) == 64)


def _answers_to(row: dict[str, Any], resource: Resource, name: str) -> bool:
    key = resource.key(row)
    if name in (key, *resource.names(row)):
        return True
    is_long = len(name.removeprefix("sha256:")) >= PREFIX_MIN
    return is_long and key.startswith(name)


def in_namespace(
    invocation: Invocation,
    resource: Resource,
    *,
    is_everywhere: bool = False,
    limit: int = SEARCHED_MAX,
    **filters: Any,
) -> Iterator[dict[str, Any]]:
    """Rows of the namespace, or of all, newest first; at most `limit` when it is not 0."""
    namespace = "" if is_everywhere else invocation.namespace
    seen = 0
    # Asked of the server, and checked here too: not every list can be narrowed by the server.
    for row in invocation.client.rows(
        resource.path, limit=limit if is_everywhere else 0, namespace=namespace, **filters
    ):
        if namespace and resource.is_namespaced and resource.namespace(row) != namespace:
            continue
        yield row
        seen += 1
        if seen == limit:
            return

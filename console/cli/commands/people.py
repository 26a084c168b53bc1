"""`clearance user`: add people, give and take their roles, shut them out and let them in."""

import click

from console.cli.client import segment
from console.cli.invocation import (
    Invocation,
    connection_options,
    output_option,
    pass_invocation,
)
from console.cli.printing import is_document, print_document, printable

ROLE_HELP = "NAMESPACE:ROLE, such as default:operator or *:auditor; may be repeated."


@click.group()
def user() -> None:
    """People who may sign in; for administrators."""


@user.command("add")
@click.argument("name")
@click.option("--role", "roles", multiple=True, help=ROLE_HELP)
@click.option("--full-name", default="", help="As people call them.")
@output_option("name", "json", "yaml")
@connection_options
@pass_invocation
def add_user(
    invocation: Invocation, *, name: str, roles: tuple[str, ...], full_name: str, form: str
) -> None:
    """Add a person. Their one-time password is printed this once; they choose their own."""
    document = {"username": name, "roles": list(roles), "full_name": full_name}
    made = invocation.client.post("/users", document)
    if is_document(form):
        print_document(made, form=form)
        return
    _say(made["username"], f"added: {_roles(made['roles'])}")
    click.echo(f"one-time password: {made['password']}")


@user.command("role")
@click.argument("name")
@click.option("--give", multiple=True, help=ROLE_HELP)
@click.option("--take", multiple=True, help=ROLE_HELP)
@connection_options
@pass_invocation
def change_role(
    invocation: Invocation, *, name: str, give: tuple[str, ...], take: tuple[str, ...]
) -> None:
    """Give and take roles; it counts at once, on open pages too."""
    if not give and not take:
        raise click.UsageError("Say which role: --give NAMESPACE:ROLE or --take NAMESPACE:ROLE.")
    path = f"/users/{segment(name)}/roles"
    changed = invocation.client.post(path, {"give": list(give), "take": list(take)})
    _say(changed["username"], _roles(changed["roles"]))


@user.command("deactivate")
@click.argument("name")
@connection_options
@pass_invocation
def deactivate_user(invocation: Invocation, *, name: str) -> None:
    """End a person's access at once: sessions, API tokens, sign-in."""
    changed = invocation.client.post(f"/users/{segment(name)}/deactivate")
    _say(changed["username"], "deactivated")


@user.command("activate")
@click.argument("name")
@connection_options
@pass_invocation
def activate_user(invocation: Invocation, *, name: str) -> None:
    """Let a person sign in again, with the roles they had."""
    changed = invocation.client.post(f"/users/{segment(name)}/activate")
    _say(changed["username"], f"active: {_roles(changed['roles'])}")


@user.command("reset-password")
@click.argument("name")
@connection_options
@pass_invocation
def reset_password(invocation: Invocation, *, name: str) -> None:
    """A new one-time password, printed this once; every session of the person ends."""
    changed = invocation.client.post(f"/users/{segment(name)}/reset-password")
    _say(changed["username"], "every session is ended")
    click.echo(f"one-time password: {changed['password']}")


def _say(name: str, what: str) -> None:
    click.echo(f"user/{printable(name)} {printable(what)}")


def _roles(roles: list[str]) -> str:
    return ", ".join(roles) or "no role"

"""`clearance login`, `logout` and `token`: who the command line speaks for."""

import getpass
import socket
import sys

import click

from console.cli.client import Client, segment
from console.cli.credentials import Login, forget_login, write_login
from console.cli.exits import CliError, ExitCode
from console.cli.invocation import (
    Invocation,
    connection_options,
    output_option,
    pass_invocation,
)
from console.cli.printing import is_document, print_document, print_table, tell
from console.cli.quantities import NONE, age, until

TOKEN_NAME_MAX = 63
LOGIN_DAYS = 30


@click.command()
@click.option("--username", required=True, help="Your name on that server.")
@click.option("--days", type=click.IntRange(1, 365), default=LOGIN_DAYS, show_default=True)
@connection_options
@pass_invocation
def login(invocation: Invocation, *, username: str, days: int) -> None:
    """Sign in: trade name and password for a token that is kept in a file only you can read.

    Without a terminal the password is the first line of stdin.
    """
    document = {
        "username": username,
        "password": _password(username, invocation.server),
        "token_name": f"clearance on {socket.gethostname()}"[:TOKEN_NAME_MAX],
        "days": days,
    }
    # No kept token goes along: it may be the one that has expired.
    answer = Client(invocation.server).post("/login", document)
    kept = Login(
        server=invocation.server,
        token=answer["token"],
        username=username,
        namespace=invocation.namespace_flag or invocation.login.namespace,
    )
    path = write_login(kept)
    tell(f"signed in to {invocation.server} as {username}; the token is in {path}.")


def _password(username: str, server: str) -> str:
    if sys.stdin.isatty():
        password = getpass.getpass(f"Password of {username} at {server}: ")
    else:
        password = sys.stdin.readline().rstrip("\r\n")
    if not password:
        raise CliError("no password was given.", code=ExitCode.USAGE)
    return password


@click.command()
def logout() -> None:
    """Forget the kept token; `token revoke` ends it on the server."""
    tell("signed out." if forget_login() else "nobody was signed in.")


@click.group()
def token() -> None:
    """Your API tokens."""


@token.command("create")
@click.argument("name")
@click.option("--permission", "permissions", multiple=True, help="May repeat; default: all yours.")
@click.option("--days", type=click.IntRange(1, 3650), help="Of life; default: until revoked.")
@click.option(
    "-A", "--all-namespaces", "is_everywhere", is_flag=True, help="Good in every namespace."
)
@output_option("table", "json", "yaml")
@connection_options
@pass_invocation
def create_token(
    invocation: Invocation,
    *,
    name: str,
    permissions: tuple[str, ...],
    days: int | None,
    is_everywhere: bool,
    form: str,
) -> None:
    """Make a token; its text is printed this once, alone on stdout."""
    made = invocation.client.post(
        "/tokens",
        {
            "name": name,
            "permissions": list(permissions),
            "namespace": "*" if is_everywhere else invocation.namespace,
            "days": days,
        },
    )
    if is_document(form):
        print_document(made, form=form)
        return
    tell(f"token {made['name']} ({made['uid']}) in namespace {made['namespace']}; keep it now:")
    click.echo(made["token"])


@token.command("list")
@output_option("table", "json", "yaml")
@connection_options
@pass_invocation
def list_tokens(invocation: Invocation, *, form: str) -> None:
    """List your tokens, never their text."""
    rows = list(invocation.client.rows("/tokens"))
    if is_document(form):
        print_document({"kind": "List", "items": rows}, form=form)
        return
    titles = ("TOKEN", "NAME", "NAMESPACE", "PERMISSIONS", "STATE", "EXPIRES-IN", "USED", "AGE")
    print_table(
        titles,
        [
            [
                row["uid"],
                row["name"],
                row["namespace"],
                ",".join(row["permissions"]),
                "revoked" if row["revoked_at"] else "valid",
                until(row["expires_at"]) if row["expires_at"] else "never",
                f"{age(row['last_used_at'])} ago" if row["last_used_at"] else NONE,
                age(row["created_at"]),
            ]
            for row in rows
        ],
    )


@token.command("revoke")
@click.argument("uid")
@connection_options
@pass_invocation
def revoke_token(invocation: Invocation, *, uid: str) -> None:
    """End a token at once."""
    invocation.client.delete(f"/tokens/{segment(uid)}")
    click.echo(f"token/{uid} revoked")

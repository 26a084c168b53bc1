"""What every command shares: the server, the token, the namespace, the form of the answer."""

import os
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any, TypeVar
from uuid import UUID

import click

from console.cli.client import Client, checked_server, segment
from console.cli.credentials import Login, read_login
from console.cli.printing import FORMATS

DEFAULT_SERVER = "http://127.0.0.1:8000"  # where `make run` listens
DEFAULT_NAMESPACE = "default"

Function = TypeVar("Function", bound=Callable[..., Any])


@dataclass
class Invocation:
    """Flags over environment over the login file over the default."""

    server_flag: str = ""
    token_flag: str = ""
    namespace_flag: str = ""

    @cached_property
    def login(self) -> Login:
        return read_login()

    @cached_property
    def server(self) -> str:
        named = self.server_flag or os.environ.get("CLEARANCE_URL", "") or self.login.server
        return checked_server(named or DEFAULT_SERVER)

    @cached_property
    def token(self) -> str:
        """The login's token is for the login's server: no other one gets to see it."""
        given = self.token_flag or os.environ.get("CLEARANCE_TOKEN", "")
        if given:
            return given.strip()
        is_same = self.login.server and checked_server(self.login.server) == self.server
        return self.login.token if is_same else ""

    @cached_property
    def namespace(self) -> str:
        given = self.namespace_flag or os.environ.get("CLEARANCE_NAMESPACE", "")
        return given or self.login.namespace or DEFAULT_NAMESPACE

    @cached_property
    def client(self) -> Client:
        return Client(self.server, self.token)

    def goal_path(self, name: str) -> str:
        """`/goals/…` of a name, `namespace/name`, `goal/name` or uid."""
        return f"/goals/{self.goal_reference(name)}"

    def goal_reference(self, name: str) -> str:
        """The reference the API takes: a uid, or `namespace/name`."""
        name = name.removeprefix("goal/").removeprefix("goals/")
        if is_uid(name):
            return name
        namespace, slash, rest = name.partition("/")
        if slash:
            return f"{segment(namespace)}/{segment(rest)}"
        return f"{segment(self.namespace)}/{segment(name)}"


pass_invocation = click.make_pass_decorator(Invocation)


def is_uid(text: str) -> bool:
    """Whether the text is a uid as the API writes it."""
    try:
        return str(UUID(text)) == text.lower()
    except ValueError:
        return False


def _keeper(field: str) -> Callable[[click.Context, click.Parameter, str | None], None]:
    def keep(context: click.Context, parameter: click.Parameter, value: str | None) -> None:
        del parameter
        if value is not None:
            setattr(context.ensure_object(Invocation), field, value)

    return keep


def connection_options(function: Function) -> Function:
    """`--server`, `--token` and `-n`; they may stand before or after the command's name."""
    for names, field, text in (
        (("-n", "--namespace"), "namespace_flag", "Namespace (CLEARANCE_NAMESPACE; default)."),
        (("--token",), "token_flag", "API token (better in CLEARANCE_TOKEN: flags are public)."),
        (("--server",), "server_flag", f"Server (CLEARANCE_URL; {DEFAULT_SERVER})."),
    ):
        add = click.option(
            *names, expose_value=False, callback=_keeper(field), help=text, metavar="TEXT"
        )
        function = add(function)
    return function


def output_option(*forms: str) -> Callable[[Function], Function]:
    """`-o`; the first form is the default."""
    chosen = forms or FORMATS
    return click.option(
        "-o", "--output", "form", type=click.Choice(chosen), default=chosen[0], show_default=True
    )


def goal_arguments(function: Function) -> Function:
    """`goal NAME`, `goal/NAME` or `NAME`, as the argument `name`."""
    return click.argument("name", nargs=-1, required=True, callback=_goal_name)(function)


def _goal_name(context: click.Context, parameter: click.Parameter, words: tuple[str, ...]) -> str:
    if len(words) == 2 and words[0] in ("goal", "goals"):
        return words[1]
    if len(words) == 1 and words[0] not in ("goal", "goals"):
        return words[0]
    raise click.BadParameter("write: goal NAME", ctx=context, param=parameter)

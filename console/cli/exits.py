"""Exit codes and the errors that carry them; docs/cli.md lists the same codes."""

from collections.abc import Iterable, Mapping
from enum import IntEnum
from typing import Any

import click

from console.cli.printing import printable


class ExitCode(IntEnum):
    """How a command ended. 130 (Ctrl-C) and 141 (closed pipe) are the shell's own numbers."""

    OK = 0
    REFUSED = 1
    USAGE = 2
    DENIED = 3
    NOT_FOUND = 4
    NOT_ALLOWED = 5
    CONFLICT = 6
    UNREACHABLE = 7
    INTERRUPTED = 130
    CLOSED_PIPE = 141


class CliError(Exception):
    """A sentence for stderr, lines under it, and an exit code."""

    def __init__(
        self,
        message: str,
        *,
        lines: Iterable[str] = (),
        code: ExitCode = ExitCode.REFUSED,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.lines = tuple(lines)
        self.code = code

    def show(self) -> None:
        """Say it on stderr."""
        click.echo(f"clearance: {printable(self.message)}", err=True)
        for line in self.lines:
            click.echo(f"  {printable(line)}", err=True)


class Unreachable(CliError):
    """No answer from the server, or one from a gateway in front of it."""

    def __init__(self, server: str, why: str) -> None:
        super().__init__(f"cannot reach {server}: {why}", code=ExitCode.UNREACHABLE)


class ServerRefused(CliError):
    """The server answered with a problem document; `status` is the HTTP status."""

    def __init__(self, status: int, problem: Mapping[str, Any], *, hint: str = "") -> None:
        title = str(problem.get("title") or f"The server answered {status}")
        detail = str(problem.get("detail") or "")
        found = _field_lines(problem)
        # The detail of a field error repeats the fields; said once, one a line, is enough.
        message = title if found or not detail else f"{title}: {detail}"
        lines = [*found, *_policy_lines(problem), *([hint] if hint else [])]
        super().__init__(message, lines=lines, code=_code_for(status, title))
        self.status = status


def _field_lines(problem: Mapping[str, Any]) -> list[str]:
    errors = problem.get("errors")
    if not isinstance(errors, list):
        return []
    lines = []
    for error in errors:
        if isinstance(error, Mapping):
            path, message = str(error.get("path", "")), str(error.get("message", ""))
            lines.append(f"{path}: {message}" if path else message)
    return lines


def _policy_lines(problem: Mapping[str, Any]) -> list[str]:
    messages = problem.get("messages")
    if not isinstance(messages, list):
        return []
    return [rule_line(message) for message in messages if isinstance(message, Mapping)]


def rule_line(message: Mapping[str, Any]) -> str:
    """One message of a policy: outcome, sentence, and where the rule stands."""
    text = f"{message.get('outcome', '')}: {message.get('text', '')}"
    if not message.get("rule"):
        return text
    return f"{text} ({message['rule']}, {message.get('path', '')}:{message.get('line', 0)})"


def _code_for(status: int, title: str) -> ExitCode:
    if status == 403 and title == "Denied by policy":
        return ExitCode.DENIED
    return {
        401: ExitCode.NOT_ALLOWED,
        403: ExitCode.NOT_ALLOWED,
        404: ExitCode.NOT_FOUND,
        409: ExitCode.CONFLICT,
    }.get(status, ExitCode.REFUSED)

"""`clearance kill`: end an agent, a Goal, a namespace or everything, and keep it ended."""

import sys
from typing import Any

import click

from console.cli.client import segment
from console.cli.exits import CliError, ExitCode
from console.cli.invocation import (
    Invocation,
    connection_options,
    output_option,
    pass_invocation,
)
from console.cli.printing import is_document, print_document


@click.group(invoke_without_command=True)
@click.option("--agent", metavar="NAME", help="One registered agent, in whatever Goals it runs.")
@click.option("--goal", metavar="NAME", help="One Goal and its sub-goals.")
@click.option("--all", "is_everything", is_flag=True, help="Everything, in every namespace.")
@click.option("--reason", default="", help="Why; kept in the journal.")
@click.option("-y", "--yes", "is_sure", is_flag=True, help="Do not ask again.")
@output_option("name", "json", "yaml")
@connection_options
@pass_invocation
@click.pass_context
def kill(
    context: click.Context,
    invocation: Invocation,
    *,
    agent: str | None,
    goal: str | None,
    is_everything: bool,
    reason: str,
    is_sure: bool,
    form: str,
) -> None:
    """End what is named within two seconds; nothing of it starts again until `kill lift`.

    With --namespace alone, everything of that namespace.
    """
    if context.invoked_subcommand is not None:
        return
    order = _order(invocation, agent, goal, is_everything=is_everything)
    if not is_sure:
        preview = invocation.client.post("/kill", {**order, "dry_run": True})
        click.echo(f"This ends {preview['target']}: {preview['words']}.", err=True)
        _confirm("Throw the kill switch?")
    answer = invocation.client.post("/kill", {**order, "reason": reason})
    _say(answer, form=form)


@kill.command()
@click.argument("switch")
@click.option("--reason", default="", help="Why; kept in the journal.")
@connection_options
@pass_invocation
def lift(invocation: Invocation, *, switch: str, reason: str) -> None:
    """Let things start again; what was ended stays ended."""
    answer = invocation.client.post(f"/kill-switches/{segment(switch)}/lift", {"reason": reason})
    click.echo(f"kill-switch/{answer['uid']} lifted")


def _order(
    invocation: Invocation, agent: str | None, goal: str | None, *, is_everything: bool
) -> dict[str, Any]:
    named = sum((agent is not None, goal is not None, is_everything))
    if named > 1 or (named == 0 and not invocation.namespace_flag):
        raise click.UsageError("Name exactly one of --agent, --goal, --namespace and --all.")
    if is_everything:
        return {"scope": "everything"}
    if agent is not None:
        namespace, _, name = agent.rpartition("/")
        return {"scope": "agent", "namespace": namespace or invocation.namespace, "name": name}
    if goal is not None:
        return {"scope": "goal", "name": invocation.goal_reference(goal)}
    return {"scope": "namespace", "namespace": invocation.namespace}


def _confirm(question: str) -> None:
    """Ask on stderr; only y or yes goes on. Raises CliError."""
    click.echo(f"{question} [y/N] ", err=True, nl=False)
    line = sys.stdin.readline()
    if not line:
        raise CliError("nobody is there to confirm; add --yes.", code=ExitCode.USAGE)
    if line.strip().lower() not in ("y", "yes"):
        raise CliError("not confirmed; nothing was ended.")


def _say(answer: dict[str, Any], *, form: str) -> None:
    if is_document(form):
        print_document(answer, form=form)
    else:
        click.echo(f"kill-switch/{answer['switch']} thrown over {answer['target']}")
        click.echo(f"{answer['stopped']} ended in {answer['seconds']:.2f} s, {answer['words']}.")
    left = [*answer["running"], *answer["problems"]]
    if left:
        raise CliError(f"{len(left)} not ended yet: {', '.join(left[:5])}.")

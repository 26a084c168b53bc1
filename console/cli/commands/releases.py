"""`clearance release`, `rollback`, `recall`, `lift-recall`: what an environment serves."""

import re
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
from console.cli.lookup import find_row
from console.cli.printing import is_document, print_document
from console.cli.resources import RELEASES

DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
_reason_option = click.option("--reason", required=True, help="Why; kept with the release.")
_say_form = output_option("name", "json", "yaml")


def _digest(
    context: click.Context, parameter: click.Parameter, value: str | tuple[str, ...]
) -> str | tuple[str, ...]:
    for one in (value,) if isinstance(value, str) else value:
        if not DIGEST.fullmatch(one):
            raise click.BadParameter(
                "write sha256: and 64 lower-case hex digits; `get artifacts` lists them",
                ctx=context,
                param=parameter,
            )
    return value


@click.command()
@click.option("--service", required=True)
@click.option("--environment", required=True)
@click.option("--digest", required=True, callback=_digest, help="Of the artifact to serve.")
@click.option(
    "--evidence", multiple=True, callback=_digest, help="Digest of an A/B result; may repeat."
)
@_reason_option
@_say_form
@connection_options
@pass_invocation
def release(
    invocation: Invocation,
    *,
    service: str,
    environment: str,
    digest: str,
    evidence: tuple[str, ...],
    reason: str,
    form: str,
) -> None:
    """Serve a digest in an environment, if policy allows it; exits 3 when it does not."""
    made = invocation.client.post(
        "/releases",
        {
            "service": service,
            "environment": environment,
            "digest": digest,
            "evidence": list(evidence),
            "reason": reason,
            "namespace": invocation.namespace,
        },
    )
    _answer(made, form=form)


@click.command()
@click.argument("release")
@_reason_option
@_say_form
@connection_options
@pass_invocation
def rollback(invocation: Invocation, *, release: str, reason: str, form: str) -> None:
    """Serve again what an earlier RELEASE served; judged by today's policy."""
    found = find_row(invocation, RELEASES, release)
    made = invocation.client.post(f"/releases/{segment(found['id'])}/rollback", {"reason": reason})
    _answer(made, form=form)


@click.command()
@click.argument("digest", callback=_digest)
@_reason_option
@_say_form
@connection_options
@pass_invocation
def recall(invocation: Invocation, *, digest: str, reason: str, form: str) -> None:
    """Mark a digest as bad: no release may serve it from now on."""
    _mark(invocation, digest, "recall", reason=reason, form=form, word="recalled")


@click.command("lift-recall")
@click.argument("digest", callback=_digest)
@_reason_option
@_say_form
@connection_options
@pass_invocation
def lift_recall(invocation: Invocation, *, digest: str, reason: str, form: str) -> None:
    """Let a recalled digest be used again; another person than the one who recalled it must."""
    _mark(invocation, digest, "lift-recall", reason=reason, form=form, word="may be used again")


def _mark(
    invocation: Invocation, digest: str, action: str, *, reason: str, form: str, word: str
) -> None:
    if not reason.strip():
        raise CliError("--reason: say why, in a sentence.", code=ExitCode.USAGE)
    found = invocation.client.post(f"/artifacts/{segment(digest)}/{action}", {"reason": reason})
    if is_document(form):
        print_document(found, form=form)
    else:
        click.echo(f"artifact/{found['digest']} {word}")


def _answer(made: dict[str, Any], *, form: str) -> None:
    if is_document(form):
        print_document(made, form=form)
        return
    target = f"{made['service']}/{made['environment']}"
    click.echo(f"release/{made['id']} {made['state']}: {target} -> {made['digest']}")

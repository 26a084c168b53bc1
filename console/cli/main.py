"""The entry point of `clearance`: every command, and how each way to fail ends."""

import contextlib
import os
import sys
from typing import Any, NoReturn

import click

from console.cli.commands.accounts import login, logout, token
from console.cli.commands.approvals import approve, degrade, deny
from console.cli.commands.catalogue import catalogue
from console.cli.commands.evidence import evidence, verify
from console.cli.commands.get import get
from console.cli.commands.goals import cancel, delete, describe, pause, resume, wait
from console.cli.commands.inbox import ask, delegation, inbox, reply
from console.cli.commands.journal import journal
from console.cli.commands.kill import kill
from console.cli.commands.logs import logs
from console.cli.commands.manifests import apply, plan
from console.cli.commands.packs import pack
from console.cli.commands.people import user
from console.cli.commands.policies import policy
from console.cli.commands.prices import price
from console.cli.commands.releases import lift_recall, recall, release, rollback
from console.cli.commands.revoke import revoke
from console.cli.commands.version import version
from console.cli.commands.why import why
from console.cli.exits import CliError, ExitCode
from console.cli.invocation import Invocation, connection_options


class ClearanceGroup(click.Group):
    """A group whose commands end with a sentence and an exit code, never with a traceback."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            answer = super().invoke(ctx)
            sys.stdout.flush()
        except BrokenPipeError:
            _drop_output()
            raise SystemExit(int(ExitCode.CLOSED_PIPE)) from None
        except (KeyboardInterrupt, click.Abort):
            raise SystemExit(int(ExitCode.INTERRUPTED)) from None
        except (click.ClickException, click.exceptions.Exit, SystemExit):
            raise
        except CliError as error:
            error.show()
            raise SystemExit(int(error.code)) from None
        except Exception as error:
            if os.environ.get("CLEARANCE_DEBUG"):
                raise
            _puzzled(error).show()
            raise SystemExit(int(ExitCode.REFUSED)) from None
        return answer


def _puzzled(error: Exception) -> CliError:
    is_shape = isinstance(error, LookupError | TypeError)
    what = "the server's answer is not one that this version knows" if is_shape else "a defect here"
    return CliError(
        f"{what} ({type(error).__name__}: {error}).",
        lines=("CLEARANCE_DEBUG=1 shows where; `clearance version` compares the versions.",),
    )


def _drop_output() -> None:
    """Python flushes stdout on exit; a closed pipe would be reported then."""
    # Without a file behind stdout nothing will be flushed into a pipe.
    with contextlib.suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


EPILOG = """Exit codes: 0 ok, 1 refused or not verified, 2 usage, 3 denied by policy, 4 not found,
5 not signed in or not allowed, 6 conflict, 7 server not reached, 130 interrupted."""


@click.group(cls=ClearanceGroup, epilog=EPILOG, context_settings={"max_content_width": 100})
@connection_options
@click.pass_context
def cli(context: click.Context) -> None:
    """Control tower for AI agents: apply Goals, watch them, answer approvals, check evidence."""
    context.ensure_object(Invocation)
    if os.environ.get("NO_COLOR"):
        context.color = False


for command in (
    apply,
    approve,
    ask,
    cancel,
    catalogue,
    degrade,
    delegation,
    delete,
    deny,
    describe,
    evidence,
    get,
    inbox,
    journal,
    kill,
    lift_recall,
    login,
    logout,
    logs,
    pack,
    pause,
    plan,
    policy,
    price,
    user,
    recall,
    release,
    reply,
    resume,
    revoke,
    rollback,
    token,
    verify,
    version,
    wait,
    why,
):
    cli.add_command(command)


def main() -> NoReturn:
    """Run `clearance` with the arguments of the process."""
    cli(prog_name="clearance")
    raise SystemExit(int(ExitCode.OK))


if __name__ == "__main__":
    main()

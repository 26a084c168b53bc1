"""Steering one Goal: describe, wait, pause, resume, cancel, delete."""

import time
from typing import Any

import click

from console.cli.exits import CliError, ExitCode, ServerRefused
from console.cli.invocation import (
    Invocation,
    connection_options,
    goal_arguments,
    output_option,
    pass_invocation,
)
from console.cli.printing import is_document, print_document, print_pairs, print_table
from console.cli.quantities import NONE, age, amount, gpu_time, short_digest
from console.cli.resources import GOALS, asked, rules_of
from console.cli.watch import Patience

EVENTS_SHOWN = 15
ATTEMPTS_SHOWN = 20
TERMINAL = ("Satisfied", "Exhausted", "Failed", "Cancelled", "Denied")
WAIT_STEP_SECONDS = 0.5

_say_form = output_option("name", "json", "yaml")


def _answer(goal: dict[str, Any], what: str, *, form: str) -> None:
    if is_document(form):
        print_document(goal, form=form)
    else:
        click.echo(f"goal/{goal['metadata']['name']} {what}")


@click.command()
@goal_arguments
@_say_form
@connection_options
@pass_invocation
def pause(invocation: Invocation, *, name: str, form: str) -> None:
    """Pause everything of a Goal, keeping its state."""
    goal = invocation.client.post(f"{invocation.goal_path(name)}/pause")
    _answer(goal, "pausing", form=form)


@click.command()
@goal_arguments
@_say_form
@connection_options
@pass_invocation
def resume(invocation: Invocation, *, name: str, form: str) -> None:
    """Let a paused Goal run on."""
    goal = invocation.client.post(f"{invocation.goal_path(name)}/resume")
    _answer(goal, "resuming", form=form)


@click.command()
@goal_arguments
@click.option("--reason", default="", help="Why; kept in the journal.")
@_say_form
@connection_options
@pass_invocation
def cancel(invocation: Invocation, *, name: str, reason: str, form: str) -> None:
    """Land a Goal; everything of it ends first."""
    goal = invocation.client.post(f"{invocation.goal_path(name)}/cancel", {"reason": reason})
    _answer(goal, "cancelling", form=form)


@click.command()
@goal_arguments
@_say_form
@connection_options
@pass_invocation
def delete(invocation: Invocation, *, name: str, form: str) -> None:
    """Land a Goal, then hide it; its records are kept."""
    goal = invocation.client.delete(invocation.goal_path(name))
    _answer(goal, "deleting", form=form)


@click.command()
@goal_arguments
@click.option(
    "--for", "wanted", default="phase=Satisfied", show_default=True, help="phase=PHASE or landed."
)
@click.option(
    "--timeout",
    "timeout_seconds",
    type=click.FloatRange(min=0),
    default=600.0,
    show_default=True,
    help="Seconds.",
)
@connection_options
@pass_invocation
def wait(invocation: Invocation, *, name: str, wanted: str, timeout_seconds: float) -> None:
    """Wait until a Goal is in a phase; exits 3 when policy denied it, 1 when it landed elsewhere.

    Also exits 1 when the time is over. Restarts of the server are waited out.
    """
    kind, _, phase = wanted.partition("=")
    if (kind, phase) != ("landed", "") and (kind != "phase" or not phase):
        raise click.UsageError("--for: write phase=PHASE or landed.")
    path = invocation.goal_path(name)
    deadline = time.monotonic() + timeout_seconds
    patience = Patience(pause_seconds=WAIT_STEP_SECONDS)
    while True:
        goal = patience.ask(lambda: invocation.client.get(path))
        current = goal["status"]["phase"]
        if current == phase or (kind == "landed" and current in TERMINAL):
            click.echo(f"goal/{goal['metadata']['name']} {current}")
            return
        if current in TERMINAL:
            code = ExitCode.DENIED if current == "Denied" else ExitCode.REFUSED
            raise CliError(f"the Goal landed as {current}, not {phase}.", code=code)
        if time.monotonic() >= deadline:
            raise CliError(f"the Goal is still {current} after {timeout_seconds:g} seconds.")
        patience.pause()


@click.command()
@goal_arguments
@output_option("table", "json", "yaml")
@connection_options
@pass_invocation
def describe(invocation: Invocation, *, name: str, form: str) -> None:
    """Show everything about a Goal: conditions, tasks, attempts, decisions, approvals, events."""
    found = _gather(invocation, name)
    if is_document(form):
        print_document(found, form=form)
        return
    _print_head(found["goal"])
    _print_conditions(found["goal"]["status"]["conditions"])
    for title, titles, rows in _sections(found):
        click.echo(f"\n{title}:")
        if rows:
            print_table(titles, rows)
        else:
            click.echo("none")


def _gather(invocation: Invocation, name: str) -> dict[str, Any]:
    client = invocation.client
    goal = client.get(invocation.goal_path(name))
    uid = goal["metadata"]["uid"]
    return {
        "goal": goal,
        "tasks": client.get(f"/goals/{uid}/tasks"),
        "attempts": list(client.rows("/attempts", goal=uid, limit=ATTEMPTS_SHOWN)),
        "decisions": list(client.rows("/decisions", goal=uid, limit=ATTEMPTS_SHOWN)),
        "approvals": list(client.rows("/approvals", goal=uid)),
        "releases": list(client.rows("/releases", goal=uid)),
        "events": list(_events(invocation, uid)),
    }


def _events(invocation: Invocation, uid: str) -> list[dict[str, Any]]:
    """The newest journal records, oldest first; none for who may not read the journal."""
    try:
        rows = list(invocation.client.rows("/journal", goal=uid, limit=EVENTS_SHOWN))
    except ServerRefused as error:
        if error.code != ExitCode.NOT_ALLOWED:
            raise
        return []
    return rows[::-1]


def _print_head(goal: dict[str, Any]) -> None:
    metadata, status, spec = goal["metadata"], goal["status"], goal["spec"]
    measured = next(column for column in GOALS.columns if column.title == "MEASURED").cell(goal)
    pairs = [
        ("Name", metadata["name"]),
        ("Namespace", metadata["namespace"]),
        ("UID", metadata["uid"]),
        ("Generation", f"{metadata['generation']} (observed {status['observedGeneration']})"),
        ("Created", f"{metadata['creationTimestamp']} ({age(metadata['creationTimestamp'])} ago)"),
        ("Requested by", status["requestedBy"]),
        ("Objective", spec["objective"]),
        ("Measured", measured),
        ("Satisfied", str(status["satisfied"]).lower()),
        ("Phase", status["phase"]),
        ("Iteration", str(status["iteration"])),
        ("Agents", ", ".join(spec["agents"])),
        ("Graph", status["graphDigest"] or NONE),
    ]
    pairs.extend((f"Budget {a['unit']}", _account_text(a)) for a in status["accounts"])
    print_pairs(pairs)


def _account_text(account: dict[str, Any]) -> str:
    unit, granted = account["unit"], account["granted"]
    said = [
        f"{word} {amount(unit, account[word], like=granted)}"
        for word in ("settled", "reserved", "available", "overrun")
        if word != "overrun" or account[word]
    ]
    return f"{', '.join(said)} of {amount(unit, granted)} granted"


def _print_conditions(conditions: list[dict[str, Any]]) -> None:
    click.echo("\nConditions:")
    if not conditions:
        click.echo("none")
        return
    print_table(
        ("TYPE", "STATUS", "REASON", "AGE", "MESSAGE"),
        [
            [
                condition["type"],
                str(condition["status"]),
                condition.get("reason") or NONE,
                age(condition.get("lastTransitionTime")),
                condition.get("message") or NONE,
            ]
            for condition in conditions
        ],
    )


def _sections(found: dict[str, Any]) -> list[tuple[str, tuple[str, ...], list[list[str]]]]:
    return [
        (
            "Tasks",
            ("TASK", "AGENT", "ITERATION", "GPUS", "STATE", "AFTER"),
            [
                [
                    task["name"],
                    task["agent_name"],
                    str(task["iteration"]),
                    str(task["gpus"]),
                    task["state"],
                    ", ".join(task["depends_on"]) or NONE,
                ]
                for task in found["tasks"]
            ],
        ),
        (
            "Attempts",
            ("ATTEMPT", "TASK", "TRY", "STATE", "GPU-TIME", "AGE", "REASON"),
            [
                [
                    attempt["uid"],
                    attempt["task"],
                    f"{attempt['iteration']}.{attempt['number']}",
                    attempt["state"],
                    gpu_time(attempt["gpu_ms"]),
                    age(attempt["created_at"]),
                    attempt["reason"] or NONE,
                ]
                for attempt in found["attempts"]
            ],
        ),
        (
            "Decisions",
            ("POINT", "SUBJECT", "OUTCOME", "STAGE", "RULES"),
            [
                [d["point"], short_digest(d["subject_id"]), d["outcome"], d["stage"], rules_of(d)]
                for d in found["decisions"]
            ],
        ),
        (
            "Approvals",
            ("APPROVAL", "KIND", "STATE", "ASKS", "DECIDED-BY", "REASON"),
            [
                [
                    approval["uid"],
                    approval["kind"],
                    approval["state"],
                    asked(approval),
                    approval["decided_by"] or NONE,
                    approval["reason"] or NONE,
                ]
                for approval in found["approvals"]
            ],
        ),
        (
            "Releases",
            ("RELEASE", "TARGET", "DIGEST", "STATE", "AGE"),
            [
                [
                    release["id"],
                    f"{release['service']}/{release['environment']}",
                    short_digest(release["digest"]),
                    release["state"],
                    age(release["released_at"]),
                ]
                for release in found["releases"]
            ],
        ),
        (
            "Events",
            ("AGE", "ACTION", "ACTOR", "OBJECT"),
            [
                [
                    age(record["at"]),
                    record["action"],
                    f"{record['actor_kind']}:{record['actor_id']}",
                    f"{record['object_kind']}/{short_digest(record['object_id'])}",
                ]
                for record in found["events"]
            ],
        ),
    ]

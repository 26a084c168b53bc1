"""`clearance get`: every kind in every form, and watching through a restart of the server."""

import datetime as dt
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from django.core.servers.basehttp import ThreadedWSGIServer
from pytest_django.live_server_helper import LiveServer

from console.cli.resources import RESOURCES
from goals.models import Goal
from governance.models import JournalRecord
from governance.services.checkpoints import make_checkpoint
from tests.console.cli_runs import ROOT, Cli, cli_of, doorbell, paused_goal, release
from tests.goals.gpu_fleet import card, report
from tests.towers import Tower

__all__ = ["cli_of", "doorbell"]

pytestmark = pytest.mark.django_db(transaction=True)

FORMS = ("table", "wide", "json", "yaml", "name")


def test_goals_have_the_columns_that_people_know(tower: Tower, cli_of: Callable[..., Cli]) -> None:
    paused_goal(tower)
    head, row = cli_of("viewer").good("get", "goals").splitlines()
    assert head.split() == ["NAME", "PHASE", "SATISFIED", "SPENT", "LIMIT", "AGE"]
    assert row.split("   ")[:3] == ["fast", "Paused", "false"]
    assert "10 GPU-s, 0 tokens" in row
    assert "10 GPU-s, 5,000 tokens" in row
    wide = cli_of("viewer").good("get", "goals", "-o", "wide", "-A")
    assert wide.splitlines()[0].split()[0] == "NAMESPACE"
    assert "p99 latency < 120 ms for /checkout" in wide


def test_every_kind_in_every_form(tower: Tower, cli_of: Callable[..., Cli], tmp_path: Path) -> None:
    goal = paused_goal(tower)
    admin = cli_of("admin")
    admin.good("price", "set", "gpu", "H100", "2.50 USD")
    admin.push("tiny")
    release(admin)
    report("n1", card(1))
    make_checkpoint()
    admin.good("pack", "create", "--last", "1h", "-o", str(tmp_path / "pack.zip"))
    for resource in RESOURCES:
        forms = {form: admin.good("get", resource.plural, "-o", form) for form in FORMS}
        listed = json.loads(forms["json"])
        assert listed["kind"] == "List"
        assert listed == json.loads(json.dumps(yaml.safe_load(forms["yaml"]), default=str))
        keys = [f"{resource.kind}/{resource.key(row)}" for row in listed["items"]]
        assert keys, resource.plural
        assert forms["name"].split() == keys
        titles = [column.title for column in resource.columns if not column.is_wide]
        assert forms["table"].splitlines()[0].split() == titles
        assert len(forms["table"].splitlines()) == len(keys) + 1
        assert len(forms["wide"].splitlines()[0]) >= len(forms["table"].splitlines()[0])
        one = json.loads(admin.good("get", resource.kind, keys[0], "-o", "json"))
        assert resource.key(one) == resource.key(listed["items"][0])
    assert str(goal.uid) in admin.good("get", "goals", "-o", "wide")


def test_names_uids_and_beginnings_of_uids(tower: Tower, cli_of: Callable[..., Cli]) -> None:
    goal = paused_goal(tower)
    cli = cli_of("viewer")
    attempt = tower.attempts(goal)[0]
    for name in (
        str(attempt.uid),
        str(attempt.uid)[:9],
        attempt.workload,
        f"attempt/{attempt.uid}",
    ):
        assert json.loads(cli.good("get", "attempts", name, "-o", "json"))["uid"] == str(
            attempt.uid
        )
    for name in ("fast", "default/fast", "goal/fast", str(goal.uid)):
        assert cli.good("get", "goals", name, "-o", "name") == "goal/fast\n"


def test_filters_and_limits(tower: Tower, cli_of: Callable[..., Cli]) -> None:
    goal = paused_goal(tower)
    cli = cli_of("viewer")
    assert cli.good("get", "goals", "--phase", "Running") == ""
    assert (
        cli.good("get", "attempts", "--goal", "fast", "--state", "paused", "-o", "name").count(
            "attempt/"
        )
        == 1
    )
    assert "decision/" in cli.good("get", "decisions", "--goal", str(goal.uid), "-o", "name")
    limited = cli.run("get", "journal", "--limit", "2", "-o", "name")
    assert len(limited.stdout.splitlines()) == 2
    assert "only the newest 2 are shown" in limited.stderr
    every = cli.good("get", "journal", "--limit", "0", "-o", "name").splitlines()
    assert len(every) == JournalRecord.objects.filter(namespace="default").count()
    wrong = cli.run("get", "prices", "--goal", "fast")
    assert (wrong.exit_code, "--goal is for attempts" in wrong.stderr) == (2, True)


def test_a_list_longer_than_a_page_is_read_to_its_end(
    tower: Tower, cli_of: Callable[..., Cli]
) -> None:
    tower.register("profiler")
    made = tower.apply("g0").goal
    rows = [
        Goal(
            namespace="default",
            name=f"g{number}",
            spec=made.spec,
            objective=made.objective,
            requested_by="operator",
            created_at=made.created_at - dt.timedelta(seconds=number),
        )
        for number in range(1, 250)
    ]
    Goal.objects.bulk_create(rows)
    names = cli_of("viewer").good("get", "goals", "-o", "name", "--limit", "0").split()
    assert names == [f"goal/g{number}" for number in range(250)]


def test_another_namespace_is_another_list(tower: Tower, cli_of: Callable[..., Cli]) -> None:
    paused_goal(tower)
    admin = cli_of("admin")
    empty = admin.run("get", "goals", "-n", "elsewhere")
    assert (empty.exit_code, empty.stdout) == (0, "")
    assert "no goals in namespace elsewhere" in empty.stderr
    assert admin.good("get", "journal", CLEARANCE_NAMESPACE="elsewhere") == ""
    assert admin.run("get", "goals", "fast", "-n", "elsewhere").exit_code == 4


def test_what_an_agent_wrote_steers_no_terminal(tower: Tower, cli_of: Callable[..., Cli]) -> None:
    tower.register("profiler")
    goal = tower.apply("fast").goal
    Goal.objects.filter(pk=goal.pk).update(requested_by="\x1b[2Jevil\r")
    shown = cli_of("viewer").good("get", "goals", "-o", "wide")
    assert "\x1b" not in shown
    assert r"\x1b[2Jevil\r" in shown


class ReusingServer(ThreadedWSGIServer):
    """Listens on a port that was in use a moment ago, as a restarted server does."""

    def __init__(self, *arguments: Any, **keywords: Any) -> None:
        super().__init__(*arguments, **{**keywords, "allow_reuse_address": True})


def serve(address: str) -> LiveServer:
    server = LiveServer(address, start=False)
    server.thread.server_class = ReusingServer
    server.start()
    return server


@pytest.fixture
def second_server(tower: Tower, doorbell: None) -> Iterator[list[Any]]:
    """A live server of the test's own, to be stopped and started again on the same port."""
    running = [serve("127.0.0.1:0")]
    yield running
    for server in running:
        server.stop()


def test_watch_prints_changes_and_survives_a_restart(
    tower: Tower, cli_of: Callable[..., Cli], second_server: list[Any]
) -> None:
    tower.register("profiler")
    tower.apply("fast")
    cli = cli_of("viewer")
    (first,) = second_server
    cli.server = first.url
    program = cli.spawn("get", "goals", "--watch", "--interval", "0.1")
    assert program.until("Draft")[0].split()[0] == "NAME"
    Goal.objects.update(phase="Running")
    program.until("Running")
    port = first.url.rpartition(":")[2]
    second_server.pop().stop()
    assert "cannot reach" in program.until("trying again")[-1]
    Goal.objects.update(phase="Satisfied", satisfied=True)
    second_server.append(serve(f"127.0.0.1:{port}"))
    seen = program.until("Satisfied")
    if not any("connected again" in line for line in seen):
        program.until("connected again")  # on stderr, whose lines come on their own time
    program.process.send_signal(signal.SIGINT)
    assert program.end() == 130
    assert program.rest() == []


def test_watched_json_is_one_document_a_line(tower: Tower, cli_of: Callable[..., Cli]) -> None:
    tower.register("profiler")
    tower.apply("fast")
    program = cli_of("viewer").spawn("get", "goals", "-w", "-o", "json", "--interval", "0.1")
    assert json.loads(program.until("Draft")[-1])["status"]["phase"] == "Draft"
    Goal.objects.update(phase="Running")
    assert json.loads(program.until("Running")[-1])["status"]["phase"] == "Running"
    program.process.send_signal(signal.SIGINT)
    assert program.end() == 130


def test_a_closed_pipe_is_quiet(tower: Tower, cli_of: Callable[..., Cli]) -> None:
    tower.register("profiler")
    tower.apply("fast")
    reading, writing = os.pipe()
    program = subprocess.Popen(
        [sys.executable, "-m", "console.cli.main", "get", "goals", "-w", "--interval", "0.05"],
        cwd=ROOT,
        env=cli_of("viewer").program_environment,
        stdout=writing,
        stderr=subprocess.PIPE,
    )
    os.close(writing)
    try:
        assert os.read(reading, 4).startswith(b"NAME")
        os.close(reading)
        Goal.objects.update(phase="Running")
        _, errors = program.communicate(timeout=20)
    finally:
        program.kill()
        program.wait()
    assert (program.returncode, errors) == (141, b"")

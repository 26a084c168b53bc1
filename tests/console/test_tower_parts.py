"""The parts of the tower that need no process: order, back-off, logs, terminal, the list itself."""

import io
import re
from dataclasses import replace
from pathlib import Path

import pytest
from django.contrib.auth import authenticate, get_user_model

from console.accounts import ensure_admin
from console.tower.child import Pace
from console.tower.logs import TERMINAL_LINES, LineSplitter, RotatingLog, Terminal
from console.tower.processes import DATABASE_STEP, TowerConfig, tower_processes
from console.tower.specs import LOUD_LINE, HttpReady, ProcessSpec, start_order
from console.tower.watchman import groups_left

CONFIG = TowerConfig(
    base=Path("/app"),
    data=Path("/data"),
    web_host="0.0.0.0",
    web_port=8000,
    web_url="https://clearance.example",
    otlp_host="127.0.0.1",
    otlp_port=4318,
    store_port=8124,
    checkout_port=8089,
    worker_concurrency=4,
    log_level="INFO",
    has_embedded_broker=True,
    has_embedded_store=True,
    has_example=True,
)


def spec(name: str, *depends_on: str) -> ProcessSpec:
    return ProcessSpec(name=name, argv=("true",), depends_on=depends_on)


def waves(*specs: ProcessSpec, steps: tuple[str, ...] = ()) -> list[set[str]]:
    return [{one.name for one in wave} for wave in start_order(specs, steps=steps)]


def test_waves_follow_dependencies() -> None:
    order = waves(spec("c", "b", "step"), spec("b", "a"), spec("a"), spec("d"), steps=("step",))
    assert order == [{"a", "d"}, {"b"}, {"c"}]


@pytest.mark.parametrize(
    ("specs", "reason"),
    [
        ([spec("a"), spec("a")], "Two processes are called 'a'"),
        ([spec("a", "x")], r"a depends on \['x'\]"),
        ([spec("a", "b"), spec("b", "a")], "wait for each other"),
    ],
)
def test_an_order_that_cannot_be_is_refused(specs: list[ProcessSpec], reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        start_order(specs)


def test_the_back_off_doubles_up_to_its_cap() -> None:
    pace = Pace()
    assert [pace.backoff(failures) for failures in (1, 2, 3, 7, 8, 10_000)] == [
        0.5, 1.0, 2.0, 30.0, 30.0, 30.0,
    ]  # fmt: skip


def test_the_embedded_tower_stores_come_before_what_uses_them() -> None:
    order = waves(*tower_processes(CONFIG), steps=(DATABASE_STEP,))
    assert order == [
        {"valkey", "store"}, {"bootstrap", "web", "otlp", "beat"}, {"worker"},
        {"example"}, {"checkout"},
    ]  # fmt: skip


def test_the_gpus_are_looked_at_where_there_are_any() -> None:
    (node,) = [one for one in tower_processes(replace(CONFIG, has_gpus=True)) if one.name == "node"]
    assert (node.depends_on, node.is_essential) == ((DATABASE_STEP,), False)


def test_a_cluster_is_mirrored_and_guarded_where_it_is_kubernetes() -> None:
    config = replace(CONFIG, has_kubernetes=True, admission_url="https://tower.example:8443")
    ours = {one.name: one for one in tower_processes(config)}
    assert not any(ours[name].is_essential for name in ("operator", "admission"))
    assert "https://tower.example:8443" in ours["admission"].argv
    assert set(config.addresses()) - set(CONFIG.addresses()) == {"ADMISSION_PORT"}
    assert not {"operator", "admission"} & {one.name for one in tower_processes(CONFIG)}


def test_a_backing_service_given_by_url_is_not_run() -> None:
    config = replace(CONFIG, has_embedded_broker=False, has_embedded_store=False, has_example=False)
    names = {one.name for one in tower_processes(config)}
    assert names == {"bootstrap", "web", "otlp", "worker", "beat"}
    assert set(config.addresses()) == {"WEB_PORT", "OTLP_PORT"}


def test_the_health_page_is_asked_as_the_outside_would() -> None:
    web = next(one for one in tower_processes(CONFIG) if one.name == "web")
    assert isinstance(web.ready, HttpReady)
    assert web.ready.host == "127.0.0.1"  # nothing can connect to 0.0.0.0
    assert dict(web.ready.headers) == {"Host": "clearance.example", "X-Forwarded-Proto": "https"}


def test_no_process_is_given_a_secret() -> None:
    for one in tower_processes(CONFIG):
        given = " ".join([*one.argv, *one.environment.values()])
        assert not re.search(r"(?i)password|secret", given)


def test_a_log_is_rotated_by_size_and_keeps_its_newest_lines(tmp_path: Path) -> None:
    log = RotatingLog(tmp_path / "web.log", max_bytes=100, kept_files=2)
    for number in range(100):
        log.write(b"line %04d" % number)
    log.close()
    files = sorted(path.name for path in tmp_path.iterdir())
    assert files == ["web.log", "web.log.1", "web.log.2"]
    assert all(path.stat().st_size <= 110 for path in tmp_path.iterdir())
    newest_first = [tmp_path / name for name in ("web.log.2", "web.log.1", "web.log")]
    lines = "".join(path.read_text() for path in newest_first).splitlines()
    assert lines == [f"line {number:04d}" for number in range(100 - len(lines), 100)]


def test_a_log_that_cannot_be_written_says_so_and_recovers(tmp_path: Path) -> None:
    log = RotatingLog(tmp_path / "absent" / "web.log")
    log.write(b"lost")
    assert "No such file or directory" in log.error
    (tmp_path / "absent").mkdir()
    log.write(b"kept")
    log.close()
    assert log.error == ""
    assert (tmp_path / "absent" / "web.log").read_bytes() == b"kept\n"


def test_lines_are_put_together_and_long_ones_are_broken() -> None:
    splitter = LineSplitter(max_bytes=4)
    assert splitter.feed(b"a\nb") == [b"a"]
    assert splitter.feed(b"c\nd") == [b"bc"]
    assert splitter.feed(b"xxxxxxxxx") == [b"dxxx", b"xxxx"]
    assert splitter.end() == [b"xx"]
    assert splitter.end() == []


@pytest.mark.parametrize(
    ("line", "is_loud"),
    [
        ("2026-11-23 00:16:42,123 WARNING goals late", True),
        ("2026-11-23 00:16:42,123 INFO goals WARNING is only a word here", False),
        ("ERROR:    could not bind", True),
        ("INFO:     127.0.0.1 - GET /ERROR", False),
        ("[2026-11-23 00:16:42,123: CRITICAL/MainProcess] lost", True),
    ],
)
def test_what_is_worth_the_terminal(line: str, is_loud: bool) -> None:
    assert bool(LOUD_LINE.search(line)) is is_loud


def test_a_flood_is_cut_off_and_control_characters_are_shown_harmless() -> None:
    now = [0.0]
    stream = io.StringIO()
    terminal = Terminal(stream, clock=lambda: now[0])
    for number in range(1000):
        terminal.relay(f"\x1b[2J{number}", name="web")
    said = stream.getvalue().splitlines()
    assert len(said) == TERMINAL_LINES + 1
    assert said[0] == "web      | ?[2J0"
    assert said[-1] == "web      | more follows in its log file"
    now[0] = 60.0
    terminal.relay("again", name="web")
    assert stream.getvalue().endswith("web      | again\n")


def test_a_closed_terminal_does_not_matter() -> None:
    stream = io.StringIO()
    stream.close()
    Terminal(stream).say("nobody reads this")


def test_the_watchman_kills_only_groups_that_are_left() -> None:
    assert groups_left(["+10\n", "+11\n", "-10\n", "+x\n", "-99\n", "\n"]) == {11}


@pytest.mark.django_db
def test_the_first_administrator_is_made_once() -> None:
    password = ensure_admin()
    assert password is not None
    assert len(password) >= 20
    assert authenticate(username="admin", password=password).is_superuser
    assert ensure_admin() is None
    assert authenticate(username="admin", password=password) is not None


@pytest.mark.django_db
def test_an_administrator_of_another_name_is_enough() -> None:
    get_user_model().objects.create_superuser(username="ada", password="x")
    assert ensure_admin() is None
    assert get_user_model().objects.count() == 1

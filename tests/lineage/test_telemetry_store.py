"""The embedded store process: protocol, refusals, and what survives SIGKILL."""

import gzip
import subprocess
import threading
import urllib.error
import urllib.request
from pathlib import Path

import clickhouse_connect
import pytest
from clickhouse_connect.driver.client import Client
from clickhouse_connect.driver.exceptions import DatabaseError

from lineage.telemetry.base import TelemetryUnavailable
from lineage.telemetry.clickhouse import ClickHouseTelemetry
from lineage.telemetry.store_token import store_token
from tests.otlp_exports import batch, span
from tests.telemetry_store import (
    StoreProcess,
    start_store,
    store,  # noqa: F401 - a fixture
    store_command,
)

REFUSAL_SECONDS = 60


def client_of(running: StoreProcess, **options: object) -> Client:
    return clickhouse_connect.get_client(
        host="127.0.0.1",
        port=running.port,
        username="default",
        password=running.token,
        autogenerate_session_id=False,
        **options,
    )


def telemetry_of(running: StoreProcess) -> ClickHouseTelemetry:
    return ClickHouseTelemetry(
        host="127.0.0.1", port=running.port, user="default", password=lambda: running.token
    )


@pytest.mark.parametrize("compress", [False, "lz4", "zstd", "gzip"])
def test_the_stock_client_works_unmodified(store: StoreProcess, compress: bool | str) -> None:  # noqa: F811
    client = client_of(store, compress=compress)
    table = f"plain_{compress}"
    client.command(f"CREATE TABLE {table} (a UInt64, b String) ENGINE = MergeTree ORDER BY a")
    client.insert(table, [[1, "x"], [2, "it's\n`FORMAT` \\"]], column_names=["a", "b"])
    client.raw_insert(table, ["a", "b"], b'{"a":3,"b":"z"}\n', fmt="JSONEachRow")
    client.raw_insert(
        table,
        ["a", "b"],
        b'{"a":4,"b":null}\n',
        fmt="JSONEachRow",
        settings={"input_format_null_as_default": 1},
    )
    client.command(f"INSERT INTO {table} VALUES (5, 'FORMAT x')")
    client.command(f"INSERT INTO {table} SELECT 6, 'six'")
    rows = client.query(f"SELECT * FROM {table} WHERE a < {{n:UInt8}} ORDER BY a", {"n": 7})
    assert rows.column_names == ("a", "b")
    assert rows.result_rows == [
        (1, "x"), (2, "it's\n`FORMAT` \\"), (3, "z"), (4, ""), (5, "FORMAT x"), (6, "six"),
    ]  # fmt: skip
    assert client.query(f"SELECT * FROM {table} LIMIT 0").column_names == ("a", "b")
    assert client.query("SELECT {x:String}", {"x": "a\tb\\'\n"}).result_rows == [("a\tb\\'\n",)]
    assert client.command("SELECT 40 + 2") == 42
    assert client.ping()
    client.command(f"DROP TABLE {table}")
    client.close()


def test_settings_last_for_one_statement(store: StoreProcess) -> None:  # noqa: F811
    client = client_of(store)
    sql = "SELECT getSetting('max_block_size')"
    usual = client.command(sql)
    assert client.command(sql, settings={"max_block_size": 777}) == 777
    assert [client.command(sql) for _ in range(6)] == [usual] * 6


@pytest.mark.parametrize(
    ("sql", "code", "words"),
    [
        ("SELECT * FROM nowhere", 60, "UNKNOWN_TABLE"),
        ("SELEC 1", 62, "SYNTAX_ERROR"),
        ("SELECT throwIf(1)", 395, "FUNCTION_THROW_IF"),
        ("INSERT INTO nowhere FORMAT TSV\n1\n", 60, "UNKNOWN_TABLE"),
    ],
)
def test_errors_carry_clickhouse_codes(
    store: StoreProcess,  # noqa: F811
    sql: str,
    code: int,
    words: str,
) -> None:
    with pytest.raises(DatabaseError, match=words) as caught:
        client_of(store).command(sql)
    assert caught.value.code == code


def post(running: StoreProcess, body: bytes, **headers: str) -> tuple[int, bytes]:
    request = urllib.request.Request(
        f"http://127.0.0.1:{running.port}/",
        data=body,
        headers={name.replace("_", "-"): value for name, value in headers.items()},
    )
    try:
        with urllib.request.urlopen(request, timeout=30) as answer:
            return answer.status, answer.read()
    except urllib.error.HTTPError as error:
        return error.code, error.read()


@pytest.mark.parametrize("key", ["", "wrong", "é"])
def test_nothing_is_answered_without_the_token(store: StoreProcess, key: str) -> None:  # noqa: F811
    status, body = post(store, b"SELECT 1", X_ClickHouse_User="default", X_ClickHouse_Key=key)
    assert status == 403
    assert b"Code: 516" in body
    assert post(store, b"SELECT 1", X_ClickHouse_Key=store.token) == (200, b"1\n")
    assert post(store, b"SELECT 1", Authorization=f"Bearer {store.token}") == (200, b"1\n")


def test_a_bomb_stops_at_the_limit(store: StoreProcess) -> None:  # noqa: F811
    bomb = gzip.compress(bytes(256 << 20), 9)
    auth = {"X_ClickHouse_Key": store.token}
    status, body = post(store, bomb, Content_Encoding="gzip", **auth)
    assert (status, b"larger than" in body) == (413, True)
    status, body = post(store, gzip.compress(b"SELECT 1")[:-9], Content_Encoding="gzip", **auth)
    assert (status, b"gzip" in body) == (500, True)
    status, body = post(store, bytes(65 << 20), **auth)
    assert (status, b"larger than" in body) == (413, True)
    assert store.is_ready()


def refusal(path: Path, token_file: Path, port: int = 0) -> str:
    done = subprocess.run(
        store_command(path, token_file, port),
        capture_output=True,
        text=True,
        timeout=REFUSAL_SECONDS,
    )
    assert done.returncode == 1
    lines = done.stderr.strip().splitlines()
    assert len(lines) == 1, done.stderr
    return lines[0]


def test_a_second_process_on_one_path_is_refused(store: StoreProcess) -> None:  # noqa: F811
    said = refusal(store.path, store.token_file)
    assert f"process {store.process.pid}" in said
    assert "stop it" in said


def test_a_port_in_use_is_said(store: StoreProcess, tmp_path: Path) -> None:  # noqa: F811
    said = refusal(tmp_path / "other", store.token_file, store.port)
    assert f"port {store.port}" in said
    assert "STORE_PORT" in said


def test_a_path_that_is_a_file_is_said(store: StoreProcess, tmp_path: Path) -> None:  # noqa: F811
    (tmp_path / "file").write_text("x")
    assert "not a directory" in refusal(tmp_path / "file", store.token_file)


def test_a_disk_that_cannot_be_written_is_said(store: StoreProcess) -> None:  # noqa: F811
    assert "/proc/" in refusal(Path("/proc/clearance"), store.token_file)


def test_a_corrupt_store_is_said(tmp_path: Path) -> None:
    running = start_store(tmp_path)
    telemetry = telemetry_of(running)
    telemetry.ensure_schema()
    telemetry.write_spans([batch(span("a" * 16))])
    assert running.stop() == 0
    broken = 0
    for part in running.path.glob("chdb/store/*/*/all_*/data.bin"):
        part.write_bytes(part.read_bytes()[:-7])
        (part.parent / "columns.txt").write_text("nonsense")
        broken += 1
    assert broken
    said = refusal(running.path, running.token_file)
    assert "restore" in said
    assert str(running.path) in said


def test_every_acknowledged_span_survives_sigkill(tmp_path: Path) -> None:
    running = start_store(tmp_path)
    acknowledged: list[str] = []
    telemetry = telemetry_of(running)
    telemetry.ensure_schema()

    def write() -> None:
        number = 0
        while True:
            ids = [f"{number * 50 + i + 1:016x}" for i in range(50)]
            try:
                telemetry.write_spans([batch(*map(span, ids))])
            except TelemetryUnavailable:
                return
            acknowledged.extend(ids)
            number += 1

    writer = threading.Thread(target=write)
    writer.start()
    while len(acknowledged) < 250:
        writer.join(0.01)
    running.kill()
    writer.join(30)
    again = start_store(tmp_path)
    after = telemetry_of(again)
    after.ensure_schema()
    stored, cursor = set(), ""
    while not stored or cursor:
        page = after.goal_spans("default", "goal-1", cursor=cursor, limit=1000)
        stored |= {found.span_id for found in page.spans}
        cursor = page.next_cursor
    assert again.stop() == 0
    assert len(acknowledged) >= 250
    assert set(acknowledged) <= stored
    # The insert that was cut off is there whole or not at all.
    assert len(stored) % 50 == 0


def test_everything_the_engine_writes_is_in_its_own_directory(
    store: StoreProcess,  # noqa: F811
) -> None:
    telemetry = telemetry_of(store)
    telemetry.ensure_schema()
    telemetry.write_spans([batch(span("1" * 16))])
    assert Path(f"/proc/{store.process.pid}/cwd").resolve() == store.path.resolve()
    assert list(store.path.rglob("*.proto"))


def test_the_token_is_made_once_and_is_private(tmp_path: Path) -> None:
    path = tmp_path / "keys" / "store.token"
    found: list[str] = []
    racers = [threading.Thread(target=lambda: found.append(store_token(path))) for _ in range(8)]
    for racer in racers:
        racer.start()
    for racer in racers:
        racer.join()
    assert len(found) == 8
    assert len(set(found)) == 1
    assert len(found[0]) > 40
    assert path.stat().st_mode & 0o777 == 0o600
    assert path.parent.stat().st_mode & 0o777 == 0o700
    assert [entry.name for entry in path.parent.iterdir()] == ["store.token"]


def test_the_store_being_away_is_a_port_error(tmp_path: Path) -> None:
    telemetry = ClickHouseTelemetry(
        host="127.0.0.1", port=1, user="default", password=lambda: "secret-token"
    )
    with pytest.raises(TelemetryUnavailable) as caught:
        telemetry.write_spans([batch(span("a" * 16))])
    assert "secret-token" not in str(caught.value)

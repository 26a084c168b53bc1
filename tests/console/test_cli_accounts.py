"""Signing in, tokens, prices and versions; what each failure to get through looks like."""

import json
import socket
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from threading import Thread

import pytest

from console.cli.main import cli as command
from goals.models import Price
from governance.models import ApiToken
from tests.console.cli_runs import ROOT, Cli, cli_of, doorbell
from tests.towers import Tower

__all__ = ["cli_of", "doorbell"]

pytestmark = pytest.mark.django_db(transaction=True)

PASSWORD = "correct horse battery"


def config_of(cli: Cli) -> Path:
    return cli.home / "clearance" / "config.json"


def test_login_keeps_a_token_for_its_owner_alone(tower: Tower, cli_of: Callable[..., Cli]) -> None:
    cli = cli_of("")
    cli.good("login", "--username", "operator", "-n", "default", stdin=f"{PASSWORD}\n")
    config = config_of(cli)
    assert stat.S_IMODE(config.stat().st_mode) == 0o600
    assert stat.S_IMODE(config.parent.stat().st_mode) == 0o700
    kept = json.loads(config.read_text())
    assert (kept["server"], kept["username"]) == (cli.server, "operator")
    assert kept["token"].startswith("clearance_pat_")
    assert cli.run("get", "goals", CLEARANCE_URL="").exit_code == 0
    config.chmod(0o644)
    assert "chmod 600" in cli.run("get", "goals").stderr
    cli.good("logout")
    assert not config.exists()
    assert cli.run("get", "goals").exit_code == 5


def test_a_kept_token_is_shown_to_no_other_server(cli_of: Callable[..., Cli]) -> None:
    cli = cli_of("")
    cli.good("login", "--username", "operator", stdin=f"{PASSWORD}\n")
    other = cli.server.replace("localhost", "127.0.0.1")
    assert other != cli.server
    assert cli.run("get", "goals").exit_code == 0
    assert cli.run("get", "goals", "--server", other).exit_code == 5


def test_a_wrong_password_keeps_nothing(cli_of: Callable[..., Cli]) -> None:
    cli = cli_of("")
    result = cli.run("login", "--username", "operator", stdin="wrong\n")
    assert (result.exit_code, "name or the password is wrong" in result.stderr) == (5, True)
    assert cli.run("login", "--username", "operator", stdin="").exit_code == 2
    assert not config_of(cli).exists()


def test_a_broken_config_says_what_to_do(cli_of: Callable[..., Cli]) -> None:
    cli = cli_of("")
    config_of(cli).parent.mkdir(parents=True)
    config_of(cli).write_text("[")
    config_of(cli).chmod(0o600)
    result = cli.run("get", "goals")
    assert (result.exit_code, "clearance login" in result.stderr) == (2, True)


def test_a_token_is_shown_once_and_can_be_revoked(cli_of: Callable[..., Cli]) -> None:
    cli = cli_of("operator")
    made = cli.run("token", "create", "ci", "--permission", "view", "--days", "1")
    text = made.stdout.strip()
    assert text.startswith("clearance_pat_")
    assert text not in made.stderr
    assert cli.run("get", "goals", CLEARANCE_TOKEN=text).exit_code == 0
    assert cli.run("pause", "goal", "x", "--token", text).exit_code == 4
    listed = cli.good("token", "list")
    assert "ci" in listed
    assert text not in listed + cli.good("token", "list", "-o", "json")
    uid = str(ApiToken.objects.get(name="ci").uid)
    assert cli.good("token", "revoke", uid) == f"token/{uid} revoked\n"
    revoked = cli.run("get", "goals", CLEARANCE_TOKEN=text)
    assert revoked.exit_code == 5
    assert "clearance login --server" in revoked.stderr
    assert text not in revoked.stderr
    assert cli.run("token", "create", "x", "--permission", "fly").exit_code == 1


def test_prices_are_set_in_money(cli_of: Callable[..., Cli]) -> None:
    admin = cli_of("admin")
    assert admin.good("price", "set", "gpu", "H100", "2.50 USD") == (
        "price/gpu/H100 2.50 USD per GPU-hour\n"
    )
    admin.good("price", "set", "input_token", "big-model", "30 cents")
    assert set(Price.objects.values_list("name", "micro_usd")) == {
        ("H100", 2_500_000),
        ("big-model", 300_000),
    }
    listed = admin.good("price", "list")
    assert "2.50 USD per GPU-hour" in listed
    assert "0.30 USD per 1M tokens" in listed
    assert admin.run("price", "set", "gpu", "H100", "20 tokens").exit_code == 2
    assert cli_of("viewer").run("price", "set", "gpu", "H100", "1 USD").exit_code == 5


def test_version_of_both_ends(cli_of: Callable[..., Cli]) -> None:
    cli = cli_of("viewer")
    found = json.loads(cli.good("version", "-o", "json"))
    assert found["server"] == cli.server
    assert found["api"]
    assert json.loads(cli.good("version", "--client", "-o", "json")) == {"client": found["client"]}


def test_nobody_is_told_to_sign_in(cli_of: Callable[..., Cli]) -> None:
    result = cli_of("").run("get", "goals")
    assert result.exit_code == 5
    assert result.stderr.startswith("clearance: Not signed in")
    assert "clearance login --server" in result.stderr


def test_a_server_that_is_not_there(cli_of: Callable[..., Cli]) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # bound and not listening: refused
        server = f"http://127.0.0.1:{taken.getsockname()[1]}"
        result = cli_of("viewer").run("get", "goals", "--server", server)
    assert (result.exit_code, result.stdout) == (7, "")
    assert result.stderr == f"clearance: cannot reach {server}: Connection refused\n"


@pytest.mark.parametrize("server", ["localhost:8000", "ftp://x", "http://", "http://a:b@x", "x y"])
def test_a_server_that_cannot_be(cli_of: Callable[..., Cli], server: str) -> None:
    result = cli_of("viewer").run("get", "goals", "--server", server)
    assert (result.exit_code, "is not a server" in result.stderr) == (2, True)


@pytest.fixture
def odd_server() -> Iterator[Callable[[bytes], str]]:
    """A server that gives one fixed answer to every connection."""
    listeners: list[socket.socket] = []

    def start(answer: bytes) -> str:
        listener = socket.create_server(("127.0.0.1", 0))
        listeners.append(listener)

        def serve() -> None:
            while True:
                try:
                    connection, _ = listener.accept()
                except OSError:
                    return
                with connection:
                    connection.recv(65536)
                    connection.sendall(answer)

        Thread(target=serve, daemon=True).start()
        return f"http://127.0.0.1:{listener.getsockname()[1]}"

    yield start
    for listener in listeners:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()


ANSWERS = [
    (b"HTTP/1.0 200 OK\r\n\r\n<html>", 1, "is it a Clearance server?"),
    (b'HTTP/1.0 200 OK\r\n\r\n{"odd": 1}', 1, "not one that this version knows"),
    (b"HTTP/1.0 302 Found\r\nLocation: http://evil/\r\n\r\n", 1, "redirects to http://evil/"),
    (b"HTTP/1.0 502 Bad Gateway\r\n\r\n", 7, "answered 502"),
    (b"HTTP/1.0 500 Oops\r\n\r\nTraceback (most", 1, "The server answered 500"),
    (b"HTTP/1.0 200 OK\r\nContent-Length: 99\r\n\r\n{", 7, "cannot reach"),
    (b"garbage\r\n\r\n", 7, "cannot reach"),
]


@pytest.mark.parametrize(("answer", "code", "said"), ANSWERS)
def test_odd_answers_are_sentences(
    cli_of: Callable[..., Cli],
    odd_server: Callable[[bytes], str],
    answer: bytes,
    code: int,
    said: str,
) -> None:
    result = cli_of("viewer").run("get", "goals", "--server", odd_server(answer))
    assert (result.exit_code, said in result.stderr) == (code, True), result.stderr
    assert "Traceback" not in result.stderr


def test_usage_errors_exit_2(cli_of: Callable[..., Cli]) -> None:
    cli = cli_of("viewer")
    for words in ("get potatoes", "fly", "approve", "pause goal", "get goals --limit -1"):
        assert cli.run(*words.split()).exit_code == 2


def test_every_command_has_help_and_no_colour_without_a_terminal(
    cli_of: Callable[..., Cli],
) -> None:
    cli = cli_of("viewer")
    assert "Exit codes: 0 ok" in cli.good("--help")
    for name, one in command.commands.items():
        assert one.help
        assert one.get_short_help_str(300) in " ".join(cli.good(name, "--help").split())
    assert "\x1b" not in cli.good("get", "agents")


def test_the_program_starts_without_django(tmp_path: Path) -> None:
    """What makes the start slow is not even imported."""
    script = (
        "import sys, console.cli.main\n"
        "heavy = {'django', 'celery', 'sigstore', 'cryptography', 'yaml', 'httpx', 'numpy'}\n"
        "print(sorted(heavy & set(sys.modules)))"
    )
    answer = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, timeout=30
    )
    assert answer.stdout.strip() == "[]", answer.stderr

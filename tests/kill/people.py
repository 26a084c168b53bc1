"""The people of a tower under attack, over its HTTP API: they apply, grant, deny and download."""

import json
import re
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from tests.console.real_tower import ROOT, RealTower

ANSWER_SECONDS = 15.0
PATIENCE_SECONDS = 90.0
AWAY = frozenset({502, 503, 504})  # the tower is between two lives of a process
TEAM = "shop-team"  # who asks for the example's Goals: not the one who may approve them
# An operator of the team: its account has no password, so its token is made from inside.
MAKE_TEAM_TOKEN = f"""
from django.contrib.auth.models import User
from governance.access import principal_of
from governance.models import Membership
from governance.services.tokens import create_token
user, _ = User.objects.get_or_create(username={TEAM!r})
Membership.objects.get_or_create(user=user, namespace="default", role="operator")
_, text = create_token(user, principal=principal_of(user), name="kill")
print("token:" + text)
"""


@dataclass(frozen=True, slots=True)
class Answer:
    """Status and body of an answer; 0 when none came."""

    status: int
    body: bytes

    def json(self) -> Any:
        return json.loads(self.body)


class Person:
    """Somebody with an API token; asks again while the tower is away."""

    def __init__(self, tower: RealTower, token: str) -> None:
        self.url = f"http://127.0.0.1:{tower.ports['WEB_PORT']}/api/v1"
        self.token = token

    def ask(self, method: str, path: str, body: bytes | None = None) -> Answer:
        """One try."""
        request = urllib.request.Request(f"{self.url}/{path}", data=body, method=method)
        request.add_header("Authorization", f"Bearer {self.token}")
        request.add_header("Content-Type", "application/json")
        try:
            with urllib.request.urlopen(request, timeout=ANSWER_SECONDS) as answer:
                return Answer(answer.status, answer.read())
        except urllib.error.HTTPError as error:
            with error:
                return Answer(error.code, error.read())
        except OSError:
            return Answer(0, b"")

    def insist(self, method: str, path: str, body: Mapping[str, Any] | bytes | None = None) -> Any:
        """The JSON of the answer, however often the tower dies under the question."""
        content = body if isinstance(body, bytes) or body is None else json.dumps(body).encode()
        deadline = time.monotonic() + PATIENCE_SECONDS
        while True:
            try:
                answer = self.ask(method, path, content)
            except Exception as error:  # cut off in the middle of an answer
                answer = Answer(0, str(error).encode())
            if answer.status and answer.status not in AWAY:
                assert answer.status < 400, f"{method} {path}: {answer.status} {answer.body!r}"
                return answer.json() if answer.body.startswith((b"{", b"[")) else answer.body
            assert time.monotonic() < deadline, f"{method} {path}: no answer ({answer.status})"
            time.sleep(0.3)

    def goals(self) -> dict[str, dict[str, Any]]:
        """Every Goal by name, with `uid` and `phase`."""
        found = self.insist("GET", "goals?page_size=100")["results"]
        return {
            one["metadata"]["name"]: {**one["status"], "uid": one["metadata"]["uid"]}
            for one in found
        }

    def answer(self, approval: Mapping[str, Any], *, grant: int | None) -> int:
        """Approve `grant` of what is asked, or deny; the status of the answer."""
        verb = "deny" if grant is None else "approve"
        body = {"reason": f"the test says {verb}", "request_digest": approval["request_digest"]}
        if grant is not None:
            body["grant"] = min(grant, int(approval["request"]["ask"]))
        path = f"approvals/{approval['uid']}/{verb}"
        return self.ask("POST", path, json.dumps(body).encode()).status


def admin_password(tower: RealTower) -> str:
    """What the first start printed."""
    found = re.search(r"log in as admin with the password (\S+)", tower.said())
    assert found is not None, tower.said()
    return found.group(1)


def sign_in(tower: RealTower) -> Person:
    """The administrator."""
    person = Person(tower, "")
    credentials = {"username": "admin", "password": admin_password(tower)}
    return Person(tower, person.insist("POST", "login", credentials)["token"])


def team_member(tower: RealTower) -> Person:
    """Somebody of the team that asks for the example's Goals."""
    done = subprocess.run(
        [sys.executable, "manage.py", "shell", "-c", MAKE_TEAM_TOKEN],
        cwd=ROOT, env=tower.environment, capture_output=True, text=True, check=False,
    )  # fmt: skip
    found = re.search(r"token:(\S+)", done.stdout)
    assert found is not None, done.stderr
    return Person(tower, found.group(1))

"""The webhooks' application, to send reviews to without a server."""

import asyncio
import base64
import copy
import json
from pathlib import Path
from typing import Any

from agents.admission.app import VALIDATE_WORKLOADS, AdmissionApp
from agents.admission.draining import Drain
from agents.admission.snapshot import Policies
from agents.admission.spool import Spool
from tests.agents.admission_reviews import OWN


class Desk:
    """An application on a directory of its own, with the policies that are in the database."""

    def __init__(self, directory: Path, engine: Any, **more: Any) -> None:
        self.policies = Policies()
        self.spool = Spool(directory / "spool", **more)
        self.spool.open()
        self.drain = Drain(self.spool)
        self.app = AdmissionApp(
            self.policies, engine, self.spool, own_users=lambda: frozenset({OWN})
        )

    def ask(self, document: dict[str, Any], path: str = VALIDATE_WORKLOADS) -> dict[str, Any]:
        """The response to a review."""
        status, body = self.call("POST", path, json.dumps(document).encode())
        assert status == 200, body
        answer: dict[str, Any] = json.loads(body)["response"]
        assert answer["uid"] == document["request"]["uid"]
        return answer

    def change(self, document: dict[str, Any], path: str) -> dict[str, Any]:
        """The object of a review, as the webhook wants it."""
        answer = self.ask(document, path)
        assert answer["allowed"], answer
        found: dict[str, Any] = copy.deepcopy(document["request"]["object"])
        for operation in json.loads(base64.b64decode(answer.get("patch", "W10="))):
            _apply(found, operation)
        return found

    def call(self, method: str, path: str, body: bytes = b"") -> tuple[int, bytes]:
        """One request to the application."""
        return asyncio.run(self._call(method, path, body))

    async def _call(self, method: str, path: str, body: bytes) -> tuple[int, bytes]:
        sent: list[dict[str, Any]] = []
        asked = iter([{"type": "http.request", "body": body}])

        async def receive() -> dict[str, Any]:
            return next(asked)

        async def send(message: dict[str, Any]) -> None:
            sent.append(message)

        scope = {"type": "http", "method": method, "path": path}
        await self.app(scope, receive, send)
        return sent[0]["status"], sent[1]["body"]

    def close(self) -> None:
        self.app.close()
        self.spool.close()


def _apply(found: dict[str, Any], operation: dict[str, Any]) -> None:
    *steps, last = (
        one.replace("~1", "/").replace("~0", "~") for one in operation["path"].split("/")[1:]
    )
    level: Any = found
    for step in steps:
        level = level[int(step)] if isinstance(level, list) else level[step]
    if operation["op"] == "remove":
        del level[last]
    else:
        level[last] = operation["value"]

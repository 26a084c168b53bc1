"""Who may export spans, and whose they are, up to the real process."""

import asyncio
import contextlib
import datetime as dt
import json
import os
import re
import socket
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from django.db import connection
from django.utils import timezone

from agents.domain.states import AttemptState
from agents.identity import get_trust_domain
from agents.identity.base import IdentityUnavailable
from agents.identity.memory import MemoryTrustDomain
from agents.ingest import authenticate_export, span_owner
from agents.models import Attempt
from agents.services.identity import create_join_token, exchange_join_token
from agents.services.revocation import revoke_identity
from lineage.domain import Actor, ActorKind
from lineage.otlp import OtlpError, OtlpTraceApp, OtlpUnauthenticated, SpanWriter
from lineage.telemetry.base import SpanOwner
from lineage.telemetry.memory import MemoryTelemetry
from tests.agents.identities import (
    AUDIENCE,
    csr_of,
    make_attempt,
    new_key,
    shared_database,
    trust_domain,
)

__all__ = ["shared_database", "trust_domain"]  # fixtures

# The pool's threads read the database too, and none of their connections outlives the test.
pytestmark = pytest.mark.usefixtures("trust_domain", "shared_database")

REVIEWER = Actor(ActorKind.SYSTEM, "drift")
REPOSITORY = Path(__file__).parents[2]
START_SECONDS = 60


def token_of(attempt: Attempt) -> str:
    issued = exchange_join_token(
        create_join_token(attempt), csr_pem=csr_of(new_key()), audience=AUDIENCE
    )
    return issued.jwt.token


def authenticate(token: str) -> SpanOwner:
    """`authenticate_export` on an event loop of its own, as the ingest process calls it."""
    return asyncio.run(authenticate_export(token))


def test_owner_is_the_attempt_the_token_was_issued_to() -> None:
    mine, other = make_attempt(), make_attempt(namespace="bank", agent="profiler")
    assert authenticate(token_of(mine)) == SpanOwner(
        namespace="shop",
        goal_uid=str(mine.goal_uid),
        agent="optimizer",
        task="optimizer",
        attempt_uid=str(mine.uid),
    )
    assert authenticate(token_of(other)) == span_owner(other)


@pytest.mark.parametrize("token", ["", "a b", "a.b.c", "é", "x" * 100_000])
def test_anything_but_a_jwt_svid_is_refused(token: str) -> None:
    with pytest.raises(OtlpUnauthenticated) as refusal:
        authenticate(token)
    assert str(refusal.value).endswith(".")


def test_join_token_writes_no_spans() -> None:
    token = create_join_token(make_attempt())
    with pytest.raises(OtlpUnauthenticated):
        authenticate(token)


def test_revocation_counts_for_the_next_export() -> None:
    attempt = make_attempt()
    token = token_of(attempt)
    assert authenticate(token) == span_owner(attempt)

    revoke_identity(attempt, reason="drift", actor=REVIEWER)
    with pytest.raises(OtlpUnauthenticated, match="was revoked"):
        authenticate(token)


def test_attempt_that_ended_exports_no_more() -> None:
    attempt = make_attempt()
    token = token_of(attempt)
    assert authenticate(token) == span_owner(attempt)

    Attempt.objects.update(state=AttemptState.STOPPED)
    with pytest.raises(OtlpUnauthenticated, match="has ended"):
        authenticate(token)


def test_expired_token_exports_nothing() -> None:
    attempt = make_attempt()
    now = [timezone.now()]
    domain = MemoryTrustDomain(get_trust_domain().name, clock=lambda: now[0])
    token = domain.issue_jwt(
        attempt.spiffe_id, audience=AUDIENCE, ttl_seconds=60, claims={"attempt": str(attempt.uid)}
    ).token
    assert asyncio.run(authenticate_export(token, trust_domain=domain)) == span_owner(attempt)

    now[0] += dt.timedelta(seconds=61)
    with pytest.raises(OtlpUnauthenticated, match="has expired"):
        asyncio.run(authenticate_export(token, trust_domain=domain))


def test_unavailable_keys_ask_for_a_repeat(trust_domain: MemoryTrustDomain) -> None:
    token = token_of(make_attempt())
    trust_domain.fail_next(IdentityUnavailable("The keys are locked."))
    with pytest.raises(OtlpError, match="now") as refusal:
        authenticate(token)
    assert refusal.value.status == 503
    assert refusal.value.retry_after_seconds > 0
    assert authenticate(token).namespace == "shop"


def test_dead_database_asks_for_a_repeat(tmp_path: Path) -> None:
    if connection.vendor != "sqlite":
        pytest.skip("needs SQLite: the test points the connection at a directory")
    token = token_of(make_attempt())
    name = connection.settings_dict["NAME"]
    connection.close()
    connection.settings_dict["NAME"] = str(tmp_path)
    try:
        with pytest.raises(OtlpError) as refusal:
            authenticate(token)
    finally:
        connection.settings_dict["NAME"] = name
    assert refusal.value.status == 503
    assert authenticate(token).namespace == "shop"


# --- Through the OTLP application ----------------------------------------------------------------


def export_body(span_id: str, attributes: dict[str, str]) -> str:
    start = int(timezone.now().timestamp() * 1e9)
    span = {
        "traceId": "0af7651916cd43dd8448eb211c80319c",
        "spanId": span_id,
        "name": "tune_model",
        "kind": 1,
        "startTimeUnixNano": str(start),
        "endTimeUnixNano": str(start + 1_000_000),
        "attributes": [
            {"key": key, "value": {"stringValue": value}} for key, value in attributes.items()
        ],
    }
    resource = {
        "attributes": [
            {"key": key, "value": {"stringValue": value}} for key, value in attributes.items()
        ]
    }
    return json.dumps(
        {"resourceSpans": [{"resource": resource, "scopeSpans": [{"spans": [span]}]}]}
    )


@contextlib.asynccontextmanager
async def ingest(telemetry: MemoryTelemetry) -> AsyncIterator[httpx.AsyncClient]:
    telemetry.ensure_schema()
    writer = SpanWriter(telemetry)
    transport = httpx.ASGITransport(OtlpTraceApp(authenticate_export, writer, timezone.now))
    try:
        async with httpx.AsyncClient(transport=transport, base_url="http://otlp") as client:
            yield client
    finally:
        await writer.close()


async def post(client: httpx.AsyncClient, token: str, body: str) -> httpx.Response:
    headers = {"authorization": f"Bearer {token}", "content-type": "application/json"}
    return await client.post("/v1/traces", content=body, headers=headers)


def test_spans_belong_to_the_token_whatever_they_say() -> None:
    mine, other = make_attempt(), make_attempt(namespace="bank", agent="profiler")
    token = token_of(mine)
    telemetry = MemoryTelemetry()
    claimed = {
        "agent.id": other.agent_name,
        "goal.id": str(other.goal_uid),
        "task.id": other.task,
        "clearance.namespace": other.namespace,
        "clearance.attempt_uid": str(other.uid),
    }

    async def run() -> httpx.Response:
        async with ingest(telemetry) as client:
            return await post(client, token, export_body("b7ad6b7169203331", claimed))

    assert asyncio.run(run()).status_code == 200
    span = telemetry.span("shop", "b7ad6b7169203331")
    assert span is not None
    assert span.owner == span_owner(mine)
    assert telemetry.span("bank", "b7ad6b7169203331") is None
    assert telemetry.span_count("bank", str(other.goal_uid)) == 0


def test_revoked_attempt_adds_no_span() -> None:
    attempt = make_attempt()
    token = token_of(attempt)
    telemetry = MemoryTelemetry()

    async def run(span_id: str) -> httpx.Response:
        async with ingest(telemetry) as client:
            return await post(client, token, export_body(span_id, {}))

    assert asyncio.run(run("00000000000000a1")).status_code == 200
    revoke_identity(attempt, reason="drift", actor=REVIEWER)
    answer = asyncio.run(run("00000000000000a2"))
    assert answer.status_code == 401
    assert answer.headers["www-authenticate"] == "Bearer"
    assert "was revoked" in answer.json()["message"]
    assert telemetry.span_count("shop", str(attempt.goal_uid)) == 1


# --- The real process ----------------------------------------------------------------------------


@contextlib.contextmanager
def otlp_process(environment: dict[str, str]) -> Iterator[str]:
    """`uvicorn console.otlp:application` on a port of its own choice; yields its URL."""
    process = subprocess.Popen(
        [sys.executable, "-m", "uvicorn", "console.otlp:application", "--port", "0"],
        cwd=REPOSITORY,
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    killer = threading.Timer(START_SECONDS, process.kill)
    killer.start()
    try:
        assert process.stderr is not None
        lines = []
        for line in process.stderr:
            lines.append(line)
            if found := re.search(r"running on (http://[0-9.:]+)", line):
                yield found.group(1)
                return
        pytest.fail(f"the process ended: {''.join(lines)}")
    finally:
        killer.cancel()
        process.kill()
        process.communicate()


def test_real_process_takes_spans_of_live_attempts_only(tmp_path: Path, settings: Any) -> None:
    settings.CLEARANCE_DATA = tmp_path / "data"
    settings.TRUST_DOMAIN_URL = "local:process.test"
    attempt = make_attempt()
    token = token_of(attempt)
    database = connection.settings_dict["NAME"]
    if connection.vendor != "sqlite":
        pytest.skip("needs SQLite: the child is pointed at the test's own file")
    environment = {
        "PATH": os.environ["PATH"],
        "CLEARANCE_DATA": str(settings.CLEARANCE_DATA),
        "TRUST_DOMAIN_URL": "local:process.test",
        "DATABASE_URL": f"sqlite:///{database}",
        "TELEMETRY_URL": "memory:",
    }
    with otlp_process(environment) as url, httpx.Client(base_url=url, timeout=30) as client:

        def send(bearer: str) -> int:
            headers = {"authorization": f"Bearer {bearer}", "content-type": "application/json"}
            body = export_body("b7ad6b7169203331", {})
            return client.post("/v1/traces", content=body, headers=headers).status_code

        assert send(token) == 200
        assert send(token[:-4] + "AAAA") == 401
        assert client.post("/v1/traces", content=b"{}").status_code == 401
        revoke_identity(attempt, reason="drift", actor=REVIEWER)
        assert send(token) == 401


def test_process_without_a_store_ends_with_one_line(tmp_path: Path) -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        port = closed.getsockname()[1]
    done = subprocess.run(
        [sys.executable, "-m", "uvicorn", "console.otlp:application", "--port", "0"],
        cwd=REPOSITORY,
        env={
            "PATH": os.environ["PATH"],
            "CLEARANCE_DATA": str(tmp_path),
            "TELEMETRY_URL": f"clickhouse://127.0.0.1:{port}/default",
        },
        capture_output=True,
        text=True,
        timeout=START_SECONDS,
        check=False,
    )
    assert done.returncode != 0
    assert "otlp cannot prepare the store of TELEMETRY_URL" in done.stderr
    assert "Traceback" not in done.stderr

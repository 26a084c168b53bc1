"""Who may export spans, and whose they are."""

import asyncio
import datetime as dt
from pathlib import Path

import pytest
from django.db import connection
from django.utils import timezone

from agents.domain.states import AttemptState
from agents.identity import get_trust_domain
from agents.identity.base import IdentityUnavailable
from agents.identity.memory import MemoryTrustDomain
from agents.ingest import authenticate_export, bearer_token
from agents.models import Attempt
from agents.services.identity import (
    AttemptFinished,
    CredentialRefused,
    IdentityNotAvailable,
    IdentityRevoked,
    create_join_token,
    exchange_join_token,
    revoke_identity,
)
from lineage.domain import Actor, ActorKind
from lineage.telemetry.base import SpanOwner
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


def token_of(attempt: Attempt) -> str:
    issued = exchange_join_token(
        create_join_token(attempt), csr_pem=csr_of(new_key()), audience=AUDIENCE
    )
    return issued.jwt.token


def owner(attempt: Attempt) -> SpanOwner:
    return SpanOwner(
        namespace=attempt.namespace,
        goal_uid=str(attempt.goal_uid),
        agent=attempt.agent_name,
        task=attempt.task,
        attempt_uid=str(attempt.uid),
    )


def export(authorization: str | None) -> SpanOwner:
    """`authenticate_export` on an event loop of its own, as the ingest process calls it."""
    return asyncio.run(authenticate_export(authorization))


def test_owner_is_the_attempt_the_token_was_issued_to() -> None:
    mine, other = make_attempt(), make_attempt(namespace="bank", agent="profiler")
    my_token, other_token = token_of(mine), token_of(other)

    assert export(f"Bearer {my_token}") == owner(mine)
    assert export(f"bearer  {other_token} ") == owner(other)


@pytest.mark.parametrize(
    "header",
    [None, "", "Bearer", "Bearer ", "Basic YTpi", "Token abc", "Bearer a b", "Bearer a.b.c", "é"],
)
def test_header_without_a_jwt_svid_is_refused(header: str | None) -> None:
    with pytest.raises(CredentialRefused) as refusal:
        export(header)
    assert str(refusal.value).endswith(".")


def test_join_token_writes_no_spans() -> None:
    token = create_join_token(make_attempt())
    with pytest.raises(CredentialRefused):
        export(f"Bearer {token}")


def test_revocation_counts_for_the_next_export() -> None:
    attempt = make_attempt()
    header = f"Bearer {token_of(attempt)}"
    assert export(header) == owner(attempt)

    revoke_identity(attempt, reason="drift", actor=REVIEWER)
    with pytest.raises(IdentityRevoked):
        export(header)


def test_attempt_that_ended_exports_no_more() -> None:
    attempt = make_attempt()
    header = f"Bearer {token_of(attempt)}"
    assert export(header) == owner(attempt)

    Attempt.objects.update(state=AttemptState.STOPPED)
    with pytest.raises(AttemptFinished):
        export(header)


def test_expired_token_exports_nothing() -> None:
    attempt = make_attempt()
    now = [timezone.now() - dt.timedelta(hours=1)]
    past = MemoryTrustDomain(get_trust_domain().name, clock=lambda: now[0])
    token = past.issue_jwt(
        attempt.spiffe_id, audience=AUDIENCE, ttl_seconds=60, claims={"attempt": str(attempt.uid)}
    ).token
    now[0] = timezone.now()
    assert past.validate_jwt(token, audience="clearance", expired_within_seconds=7200)
    with pytest.raises(CredentialRefused, match="has expired"):
        asyncio.run(authenticate_export(f"Bearer {token}", trust_domain=past))


def test_unavailable_keys_ask_for_a_repeat(trust_domain: MemoryTrustDomain) -> None:
    attempt = make_attempt()
    header = f"Bearer {token_of(attempt)}"
    trust_domain.fail_next(IdentityUnavailable("The keys are locked."))
    with pytest.raises(IdentityNotAvailable):
        export(header)
    assert export(header) == owner(attempt)


def test_dead_database_asks_for_a_repeat(tmp_path: Path) -> None:
    header = f"Bearer {token_of(make_attempt())}"
    name = connection.settings_dict["NAME"]
    if connection.vendor != "sqlite":
        pytest.skip("needs SQLite: the test points the connection at a directory")
    connection.close()
    connection.settings_dict["NAME"] = str(tmp_path)
    try:
        with pytest.raises(IdentityNotAvailable):
            export(header)
    finally:
        connection.settings_dict["NAME"] = name
    assert export(header).namespace == "shop"


def test_bearer_token_is_read_without_its_scheme() -> None:
    assert bearer_token("BEARER  x.y.z ") == "x.y.z"

"""Attempts with identities, for the tests of everything that authenticates them."""

import contextlib
import sqlite3
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from django.db import connection

from agents.domain.states import AttemptState
from agents.identity import get_trust_domain, spiffe_id
from agents.identity.memory import MemoryTrustDomain
from agents.models import Agent, Attempt

AUDIENCE = ["clearance"]


def new_key() -> ec.EllipticCurvePrivateKey:
    return ec.generate_private_key(ec.SECP256R1())


def csr_of(key: ec.EllipticCurvePrivateKey) -> str:
    request = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([]))
    signed = request.sign(key, hashes.SHA256())
    return signed.public_bytes(serialization.Encoding.PEM).decode()


def make_attempt(*, namespace: str = "shop", agent: str = "optimizer") -> Attempt:
    goal_uid = uuid.uuid4()
    row, _ = Agent.objects.get_or_create(
        namespace=namespace,
        name=agent,
        defaults={
            "role": "standard",
            "image": "example@sha256:00",
            "service_account": f"{agent}-sa",
            "manifest": {},
            "registered_by": "ada",
        },
    )
    return Attempt.objects.create(
        goal_uid=goal_uid,
        namespace=namespace,
        graph_digest="sha256:00",
        iteration=1,
        task=agent,
        number=1,
        agent=row,
        agent_name=agent,
        service_account=row.service_account,
        spiffe_id=spiffe_id(
            get_trust_domain().name,
            namespace=namespace,
            service_account=row.service_account,
            goal_uid=str(goal_uid),
            agent=agent,
        ),
        workload=f"{agent}-{goal_uid.hex[:12]}",
        state=AttemptState.RUNNING,
    )


@pytest.fixture
def trust_domain(settings: Any) -> MemoryTrustDomain:
    settings.TRUST_DOMAIN_URL = f"memory:{uuid.uuid4().hex}.test"
    domain = get_trust_domain()
    assert isinstance(domain, MemoryTrustDomain)
    return domain


@pytest.fixture
def shared_database(transactional_db: None, tmp_path: Path) -> Iterator[None]:
    """The test database as several threads can use it.

    SQLite in memory answers "locked" where a file makes the second writer wait its turn.
    """
    settings, in_memory = connection.settings_dict, None
    kept = {name: settings[name] for name in ("NAME", "CONN_MAX_AGE")}
    settings["CONN_MAX_AGE"] = 0  # a thread of a pool leaves no open connection behind
    if connection.vendor == "sqlite" and connection.is_in_memory_db():
        in_memory = connection.connection
        path = tmp_path / "shared.sqlite3"
        with contextlib.closing(sqlite3.connect(path)) as copy:
            in_memory.backup(copy)
        connection.connection = None
        settings["NAME"] = str(path)
    try:
        yield
    finally:
        connection.close()
        settings.update(kept)
        connection.connection = in_memory

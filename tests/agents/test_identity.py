"""Identities of attempts: exchange, renewal, authentication, revocation, with the database."""

import datetime as dt
import hashlib
import threading
import uuid
from collections.abc import Callable
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from django.db import connection, transaction
from django.utils import timezone

from agents.domain.states import FINISHED_STATES, AttemptState
from agents.identity.base import IdentityUnavailable
from agents.identity.memory import MemoryTrustDomain
from agents.models import Attempt, IssuedSvid, JoinToken
from agents.services.identity import (
    AttemptFinished,
    CredentialRefused,
    IdentityNotAvailable,
    IdentityRefused,
    IdentityRequestInvalid,
    IdentityRevoked,
    IssuedIdentity,
    JoinTokenRefused,
    authenticate_attempt,
    create_join_token,
    exchange_join_token,
    join_token_of,
    renew_identity,
    renewal_claims,
)
from agents.services.revocation import revoke_identity
from governance.models import JournalRecord
from lineage.domain import Actor, ActorKind
from lineage.models import Edge
from tests.agents.identities import (
    AUDIENCE,
    csr_of,
    make_attempt,
    new_key,
    shared_database,
    trust_domain,
)

__all__ = ["shared_database", "trust_domain"]  # fixtures

pytestmark = pytest.mark.usefixtures("trust_domain")

OPERATOR = Actor(ActorKind.HUMAN, "ada")


@pytest.fixture
def attempt(db: None, trust_domain: MemoryTrustDomain) -> Attempt:
    return make_attempt()


@pytest.fixture
def key() -> ec.EllipticCurvePrivateKey:
    return new_key()


@pytest.fixture
def identity(attempt: Attempt, key: ec.EllipticCurvePrivateKey) -> IssuedIdentity:
    return exchange_join_token(create_join_token(attempt), csr_pem=csr_of(key), audience=AUDIENCE)


def journal(action: str) -> list[JournalRecord]:
    return list(JournalRecord.objects.filter(action=action))


# --- Join token ----------------------------------------------------------------------------------


def test_only_the_hash_of_a_join_token_is_kept(attempt: Attempt) -> None:
    token = create_join_token(attempt)
    row = JoinToken.objects.get(attempt=attempt)
    assert row.token_hash == hashlib.sha256(token.encode()).hexdigest()
    remaining = row.expires_at - timezone.now()
    assert dt.timedelta(minutes=9) < remaining <= dt.timedelta(minutes=10)
    digits = token.removeprefix("clearance_join_")
    assert len(bytes.fromhex(digits)) == 32


def test_join_tokens_of_two_attempts_differ(attempt: Attempt) -> None:
    assert create_join_token(attempt) != create_join_token(make_attempt(agent="profiler"))


def test_unused_join_token_can_be_said_again_with_a_new_life(attempt: Attempt) -> None:
    token = create_join_token(attempt)
    JoinToken.objects.update(expires_at=timezone.now() - dt.timedelta(hours=1))
    assert join_token_of(attempt) == token
    exchange_join_token(token, csr_pem=csr_of(new_key()), audience=AUDIENCE)


def test_used_join_token_gets_no_new_life(attempt: Attempt, identity: IssuedIdentity) -> None:
    with pytest.raises(JoinTokenRefused, match="already exchanged"):
        create_join_token(attempt)
    with pytest.raises(JoinTokenRefused, match="already used"):
        exchange_join_token(join_token_of(attempt), csr_pem=csr_of(new_key()), audience=AUDIENCE)


def test_join_token_vanishes_with_the_callers_transaction(attempt: Attempt) -> None:
    with transaction.atomic():
        create_join_token(attempt)
        transaction.set_rollback(True)
    assert not JoinToken.objects.exists()


# --- Exchange ------------------------------------------------------------------------------------


def test_exchange_gives_both_documents_and_leaves_its_traces(
    attempt: Attempt, identity: IssuedIdentity
) -> None:
    leaf = x509.load_pem_x509_certificate(identity.x509.certificate_chain_pem.encode())
    names = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert list(names) == [x509.UniformResourceIdentifier(attempt.spiffe_id)]
    assert identity.spiffe_id == attempt.spiffe_id
    assert identity.bundle["keys"]
    assert authenticate_attempt(identity.jwt.token) == attempt

    assert {(row.kind, row.serial) for row in IssuedSvid.objects.filter(attempt=attempt)} == {
        ("x509", identity.x509.serial),
        ("jwt", identity.jwt.token_id),
    }
    [record] = journal("svid.issued")
    assert record.goal_uid == attempt.goal_uid
    assert record.object_id == str(attempt.uid)
    assert record.actor_id == attempt.spiffe_id
    assert identity.x509.serial in record.canonical
    assert identity.jwt.token not in record.canonical
    edges = Edge.objects.filter(source_kind="attempt", source_id=str(attempt.uid))
    assert {edge.target_id for edge in edges} == {
        f"x509:{identity.x509.serial}",
        f"jwt:{identity.jwt.token_id}",
    }


def test_documents_live_as_long_as_settings_say(attempt: Attempt, settings: Any) -> None:
    settings.SVID_TTL_SECONDS = 42
    issued = exchange_join_token(
        create_join_token(attempt), csr_pem=csr_of(new_key()), audience=AUDIENCE
    )
    for expires_at in (issued.jwt.expires_at, issued.x509.expires_at):
        remaining = (expires_at - timezone.now()).total_seconds()
        assert 30 < remaining <= 42


@pytest.mark.parametrize("token", ["", "clearance_join_00", "x" * 100_000, "\ud800", "a\x00b"])
def test_unknown_join_token_is_refused(attempt: Attempt, token: str) -> None:
    create_join_token(attempt)
    with pytest.raises(JoinTokenRefused, match="not one of ours"):
        exchange_join_token(token, csr_pem=csr_of(new_key()), audience=AUDIENCE)


def test_join_token_is_used_once(attempt: Attempt) -> None:
    token = create_join_token(attempt)
    exchange_join_token(token, csr_pem=csr_of(new_key()), audience=AUDIENCE)
    with pytest.raises(JoinTokenRefused, match="already used"):
        exchange_join_token(token, csr_pem=csr_of(new_key()), audience=AUDIENCE)
    assert IssuedSvid.objects.count() == 2


def test_lost_answer_is_given_again_to_the_holder_of_the_key(attempt: Attempt) -> None:
    token, key = create_join_token(attempt), new_key()
    first = exchange_join_token(token, csr_pem=csr_of(key), audience=AUDIENCE)
    again = exchange_join_token(token, csr_pem=csr_of(key), audience=AUDIENCE)
    assert again.spiffe_id == first.spiffe_id
    JoinToken.objects.update(expires_at=timezone.now())
    with pytest.raises(JoinTokenRefused, match="expired"):
        exchange_join_token(token, csr_pem=csr_of(key), audience=AUDIENCE)


def test_expired_join_token_is_refused(attempt: Attempt) -> None:
    token = create_join_token(attempt)
    JoinToken.objects.update(expires_at=timezone.now())
    with pytest.raises(JoinTokenRefused, match="has expired"):
        exchange_join_token(token, csr_pem=csr_of(new_key()), audience=AUDIENCE)


@pytest.mark.parametrize(
    ("csr", "audience"),
    [("nonsense", AUDIENCE), (None, []), (None, [""]), (None, ["x" * 300])],
)
def test_bad_request_leaves_the_join_token_unused(
    attempt: Attempt, csr: str | None, audience: list[str]
) -> None:
    token = create_join_token(attempt)
    good = csr_of(new_key())
    with pytest.raises(IdentityRequestInvalid, match=r"csr|audience"):
        exchange_join_token(token, csr_pem=csr or good, audience=audience)
    assert not IssuedSvid.objects.exists()
    exchange_join_token(token, csr_pem=good, audience=AUDIENCE)


def test_unavailable_trust_domain_is_said_without_its_secrets(
    attempt: Attempt, trust_domain: MemoryTrustDomain, caplog: pytest.LogCaptureFixture
) -> None:
    token = create_join_token(attempt)
    trust_domain.fail_next(IdentityUnavailable("/secret/path is damaged."))
    with pytest.raises(IdentityNotAvailable) as refusal:
        exchange_join_token(token, csr_pem=csr_of(new_key()), audience=AUDIENCE)
    assert "/secret" not in str(refusal.value)
    assert "/secret/path is damaged." in caplog.text
    exchange_join_token(token, csr_pem=csr_of(new_key()), audience=AUDIENCE)


@pytest.mark.parametrize("state", sorted(FINISHED_STATES))
def test_finished_attempt_gets_no_identity(attempt: Attempt, state: AttemptState) -> None:
    token = create_join_token(attempt)
    Attempt.objects.update(state=state)
    with pytest.raises(AttemptFinished):
        exchange_join_token(token, csr_pem=csr_of(new_key()), audience=AUDIENCE)


def test_revoked_attempt_gets_no_identity(attempt: Attempt) -> None:
    token = create_join_token(attempt)
    revoke_identity(attempt, reason="drift", actor=OPERATOR)
    with pytest.raises(IdentityRevoked):
        exchange_join_token(token, csr_pem=csr_of(new_key()), audience=AUDIENCE)
    assert not IssuedSvid.objects.exists()


def race(count: int, act: Callable[[], object]) -> list[object]:
    """`act` in `count` threads let go at the same moment; what each returned or raised."""
    gate = threading.Barrier(count)
    outcomes: list[object] = []

    def run() -> None:
        gate.wait(timeout=30)
        try:
            outcomes.append(act())
        except IdentityRefused as error:
            outcomes.append(error)
        finally:
            connection.close()

    threads = [threading.Thread(target=run) for _ in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=60)
    assert len(outcomes) == count
    return outcomes


@pytest.mark.usefixtures("shared_database")
def test_one_exchange_wins_however_many_race() -> None:
    attempt = make_attempt()
    token = create_join_token(attempt)
    requests = [csr_of(new_key()) for _ in range(12)]

    outcomes = race(
        12, lambda: exchange_join_token(token, csr_pem=requests.pop(), audience=AUDIENCE)
    )

    won = [item for item in outcomes if isinstance(item, IssuedIdentity)]
    lost = [item for item in outcomes if isinstance(item, JoinTokenRefused)]
    assert (len(won), len(lost)) == (1, 11)
    assert IssuedSvid.objects.filter(serial=won[0].jwt.token_id).exists()
    assert IssuedSvid.objects.count() == 2
    assert len(journal("svid.issued")) == 1


class RevokingTrustDomain(MemoryTrustDomain):
    """Revokes the attempt while its documents are being made: the worst moment."""

    attempt: Attempt

    def issue_jwt(self, spiffe_id: str, **arguments: Any) -> Any:
        revoke_identity(self.attempt, reason="drift", actor=OPERATOR)
        return super().issue_jwt(spiffe_id, **arguments)


def test_revocation_during_the_exchange_wins(
    attempt: Attempt, trust_domain: MemoryTrustDomain
) -> None:
    token = create_join_token(attempt)
    domain = RevokingTrustDomain(trust_domain.name)
    domain.attempt = attempt
    with pytest.raises(IdentityRevoked):
        exchange_join_token(
            token, csr_pem=csr_of(new_key()), audience=AUDIENCE, trust_domain=domain
        )
    assert not IssuedSvid.objects.exists()
    assert JoinToken.objects.get().used_at is None


# --- Authentication ------------------------------------------------------------------------------


def test_revocation_counts_at_once(attempt: Attempt, identity: IssuedIdentity) -> None:
    authenticate_attempt(identity.jwt.token)
    assert revoke_identity(attempt, reason="drift", actor=OPERATOR)
    with pytest.raises(IdentityRevoked, match="was revoked"):
        authenticate_attempt(identity.jwt.token)


@pytest.mark.parametrize("state", sorted(FINISHED_STATES))
def test_finished_attempt_is_refused_at_once(identity: IssuedIdentity, state: AttemptState) -> None:
    authenticate_attempt(identity.jwt.token)
    Attempt.objects.update(state=state)
    with pytest.raises(AttemptFinished):
        authenticate_attempt(identity.jwt.token)


def test_paused_attempt_is_still_itself(attempt: Attempt, identity: IssuedIdentity) -> None:
    Attempt.objects.update(state=AttemptState.PAUSED)
    assert authenticate_attempt(identity.jwt.token).pk == attempt.pk


@pytest.mark.parametrize("token", ["", "a.b.c", "x" * 100_000, "é", "Bearer abc"])
def test_nonsense_is_refused(db: None, token: str) -> None:
    with pytest.raises(CredentialRefused):
        authenticate_attempt(token)


@pytest.mark.parametrize(
    "claims", [{}, {"attempt": "7"}, {"attempt": None}, {"attempt": str(uuid.uuid4())}]
)
def test_token_without_a_known_attempt_is_refused(
    attempt: Attempt, trust_domain: MemoryTrustDomain, claims: dict[str, Any]
) -> None:
    token = trust_domain.issue_jwt(
        attempt.spiffe_id, audience=AUDIENCE, ttl_seconds=60, claims=claims
    ).token
    with pytest.raises(CredentialRefused, match="attempt"):
        authenticate_attempt(token)


def test_token_of_another_workload_cannot_name_this_attempt(
    attempt: Attempt, trust_domain: MemoryTrustDomain
) -> None:
    other = make_attempt(agent="profiler")
    token = trust_domain.issue_jwt(
        other.spiffe_id, audience=AUDIENCE, ttl_seconds=60, claims={"attempt": str(attempt.uid)}
    ).token
    with pytest.raises(CredentialRefused):
        authenticate_attempt(token)


def test_token_for_another_audience_is_refused(attempt: Attempt) -> None:
    issued = exchange_join_token(
        create_join_token(attempt), csr_pem=csr_of(new_key()), audience=["elsewhere"]
    )
    with pytest.raises(CredentialRefused, match="audience"):
        authenticate_attempt(issued.jwt.token)


def test_authentication_asks_the_database_once(
    identity: IssuedIdentity, django_assert_num_queries: Any
) -> None:
    with django_assert_num_queries(1):
        authenticate_attempt(identity.jwt.token)


# --- Renewal -------------------------------------------------------------------------------------


def test_renewal_gives_new_documents(attempt: Attempt, identity: IssuedIdentity) -> None:
    claims = renewal_claims(identity.jwt.token)
    renewed = renew_identity(claims, csr_pem=csr_of(new_key()), audience=AUDIENCE)

    assert renewed.jwt.token_id != identity.jwt.token_id
    assert renewed.x509.serial != identity.x509.serial
    assert authenticate_attempt(renewed.jwt.token) == attempt
    assert IssuedSvid.objects.count() == 4
    assert len(journal("svid.issued")) == 2


def test_revocation_stops_renewal(attempt: Attempt, identity: IssuedIdentity) -> None:
    claims = renewal_claims(identity.jwt.token)
    revoke_identity(attempt, reason="drift", actor=OPERATOR)
    with pytest.raises(IdentityRevoked):
        renew_identity(claims, csr_pem=csr_of(new_key()), audience=AUDIENCE)
    assert IssuedSvid.objects.count() == 2


def test_finished_attempt_renews_nothing(identity: IssuedIdentity) -> None:
    claims = renewal_claims(identity.jwt.token)
    Attempt.objects.update(state=AttemptState.SUCCEEDED)
    with pytest.raises(AttemptFinished):
        renew_identity(claims, csr_pem=csr_of(new_key()), audience=AUDIENCE)


class PausedFor:
    """A trust domain and a token it issued so long ago."""

    def __init__(self, name: str, *, age: dt.timedelta) -> None:
        self._now = timezone.now() - age
        self.domain = MemoryTrustDomain(name, clock=lambda: self._now)

    def until_today(self) -> None:
        self._now = timezone.now()


def lapsed_identity(
    attempt: Attempt, key: ec.EllipticCurvePrivateKey, *, name: str, age: dt.timedelta
) -> tuple[IssuedIdentity, MemoryTrustDomain]:
    pause = PausedFor(name, age=age)
    issued = exchange_join_token(
        create_join_token(attempt),
        csr_pem=csr_of(key),
        audience=AUDIENCE,
        trust_domain=pause.domain,
    )
    pause.until_today()
    return issued, pause.domain


def test_attempt_that_was_paused_past_its_token_renews_with_its_key(
    attempt: Attempt, key: ec.EllipticCurvePrivateKey, trust_domain: MemoryTrustDomain
) -> None:
    issued, domain = lapsed_identity(
        attempt, key, name=trust_domain.name, age=dt.timedelta(hours=5)
    )
    with pytest.raises(CredentialRefused, match="has expired"):
        authenticate_attempt(issued.jwt.token, trust_domain=domain)
    claims = renewal_claims(issued.jwt.token, trust_domain=domain)

    with pytest.raises(CredentialRefused, match="key of the last"):
        renew_identity(claims, csr_pem=csr_of(new_key()), audience=AUDIENCE, trust_domain=domain)
    renewed = renew_identity(claims, csr_pem=csr_of(key), audience=AUDIENCE, trust_domain=domain)
    assert authenticate_attempt(renewed.jwt.token, trust_domain=domain) == attempt


def test_renewal_has_an_end(
    attempt: Attempt, key: ec.EllipticCurvePrivateKey, trust_domain: MemoryTrustDomain
) -> None:
    issued, domain = lapsed_identity(attempt, key, name=trust_domain.name, age=dt.timedelta(days=8))
    with pytest.raises(CredentialRefused, match="has expired"):
        renewal_claims(issued.jwt.token, trust_domain=domain)


# --- Revocation ----------------------------------------------------------------------------------


def test_revocation_is_journaled_once_and_keeps_its_reason(attempt: Attempt) -> None:
    assert revoke_identity(attempt, reason="drift", actor=OPERATOR)
    first = attempt.identity_revoked_at
    assert not revoke_identity(attempt, reason="again", actor=OPERATOR)

    attempt.refresh_from_db()
    assert (attempt.identity_revoked_at, attempt.identity_revoked_reason) == (first, "drift")
    [record] = journal("identity.revoked")
    assert record.actor_id == "ada"
    assert record.namespace == "shop"


def test_endless_reason_is_clipped(attempt: Attempt) -> None:
    revoke_identity(attempt, reason="é" * 10_000, actor=OPERATOR)
    attempt.refresh_from_db()
    assert attempt.identity_revoked_reason == "é" * 255


@pytest.mark.usefixtures("shared_database")
def test_revocations_that_race_are_one() -> None:
    attempt = make_attempt()
    uid = attempt.pk
    outcomes = race(
        8,
        lambda: revoke_identity(Attempt.objects.get(pk=uid), reason="drift", actor=OPERATOR),
    )
    assert sorted(map(bool, outcomes)) == [False] * 7 + [True]
    assert len(journal("identity.revoked")) == 1

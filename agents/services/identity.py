"""Identities of attempts: join token, exchange, renewal, authentication, revocation."""

import datetime as dt
import hashlib
import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, ClassVar, Final
from uuid import UUID

from django.conf import settings
from django.db.models import Q
from django.utils import timezone
from django.utils.crypto import salted_hmac

from agents.attestation import get_attestor
from agents.attestation.base import (
    AttestationUnavailable,
    AttestedPod,
    Attestor,
    TokenRefused,
)
from agents.cluster.base import TOKEN_FILE, TOKEN_FILE_VARIABLE
from agents.identity import get_trust_domain
from agents.identity.base import (
    RENEWAL_GRACE_SECONDS,
    IdentityError,
    IdentityUnavailable,
    InvalidToken,
    JwtClaims,
    JwtSvid,
    TrustDomain,
    X509Svid,
)
from agents.models import Attempt, IssuedSvid, JoinToken, PodBinding
from governance.services.journal import append_record, journaled
from lineage.domain import Actor, ActorKind, NodeKind, NodeRef, Relation
from lineage.services.graph import link

logger = logging.getLogger(__name__)

AUDIENCE: Final = "clearance"  # of every JWT-SVID that our own API and ingest accept
JOIN_TOKEN_LIFE: Final = dt.timedelta(minutes=10)  # from the start of the workload to its exchange
JOIN_TOKEN_PREFIX: Final = "clearance_join_"  # noqa: S105  lets secret scanners recognise a leak
JOIN_TOKEN_MAX_CHARACTERS: Final = 200  # ours have 79
_JOIN_SALT: Final = "agents.services.identity.join_token"


class IdentityRefused(Exception):
    """A request for an identity, or made with one, is refused; the text is fit for the client.

    `code` is stable, for the `type` of a problem document.
    """

    code: ClassVar[str] = "identity-refused"


class JoinTokenRefused(IdentityRefused):
    """The join token is unknown, used or expired."""

    code = "join-token-refused"


class PodTokenRefused(IdentityRefused):
    """The service account token is not that of the one living pod of an attempt."""

    code = "service-account-token-refused"


class CredentialRefused(IdentityRefused):
    """The bearer token is no valid JWT-SVID of an attempt."""

    code = "credential-refused"


class IdentityRevoked(IdentityRefused):
    """The attempt's identity was revoked."""

    code = "identity-revoked"


class AttemptFinished(IdentityRefused):
    """The attempt has ended and acts no more."""

    code = "attempt-finished"


class IdentityRequestInvalid(IdentityRefused):
    """The signing request or the audience cannot be honoured."""

    code = "identity-request-invalid"


class IdentityNotAvailable(IdentityRefused):
    """The trust domain cannot answer now; the same request may work later."""

    code = "identity-not-available"


@dataclass(frozen=True, slots=True)
class IssuedIdentity:
    """What an attempt gets: both documents and the bundle to check others with."""

    attempt_uid: UUID
    x509: X509Svid
    jwt: JwtSvid
    bundle: Mapping[str, Any]

    @property
    def spiffe_id(self) -> str:
        return self.jwt.spiffe_id


def prepare_identity(attempt: Attempt, *, attestor: Attestor | None = None) -> None:
    """Make what a new attempt will prove itself with, in the caller's transaction."""
    if (attestor or get_attestor()) is None:
        create_join_token(attempt)


def identity_environment(
    attempt: Attempt, *, attestor: Attestor | None = None
) -> Mapping[str, str]:
    """The variables by which the attempt's program gets its identity; no secret in a cluster."""
    if (attestor or get_attestor()) is not None:
        return {TOKEN_FILE_VARIABLE: TOKEN_FILE}
    return {"CLEARANCE_JOIN_TOKEN": join_token_of(attempt)}


def token_audience() -> str:
    """For whom the platform makes out the tokens of workloads; "" where it makes none."""
    attestor = get_attestor()
    return "" if attestor is None else attestor.audience


def create_join_token(attempt: Attempt) -> str:
    """The one-time secret of an attempt that is about to start; only its hash is kept.

    Runs in the caller's transaction. Asked again before the token was used, it gives the same
    secret a new life of 10 minutes: the reconciler may die between recording an attempt and
    starting its workload. Raises JoinTokenRefused once the token was used.
    """
    secret = _join_secret(attempt)
    fields = {"token_hash": _hash(secret), "expires_at": timezone.now() + JOIN_TOKEN_LIFE}
    with journaled():
        _, is_new = JoinToken.objects.get_or_create(attempt=attempt, defaults=fields)
        unused = JoinToken.objects.filter(attempt=attempt, used_at__isnull=True)
        if not is_new and unused.update(**fields) != 1:
            raise JoinTokenRefused("The attempt has already exchanged its join token.")
    return secret


def join_token_of(attempt: Attempt) -> str:
    """The join token for the environment of the attempt's workload, always the same text.

    A token that is still unused is given a new life; a used one is returned as it was, worthless.
    """
    try:
        return create_join_token(attempt)
    except JoinTokenRefused:
        return _join_secret(attempt)


def exchange_join_token(
    token: str,
    *,
    csr_pem: str,
    audience: Sequence[str],
    trust_domain: TrustDomain | None = None,
) -> IssuedIdentity:
    """Trade a join token for an identity, once however many ask at the same time.

    A request that is refused for its `csr_pem` or `audience` does not use the token up. Asked
    again with the same key, while the token lives, it answers again: the first answer may have
    been lost on the way, and only the holder of that key can ask. Raises `IdentityRefused`s.
    """
    join = _living_token(token)
    _refuse_ended(join.attempt)
    issued = _issue(join.attempt, csr_pem, audience, trust_domain or get_trust_domain())
    thumbprint = issued.x509.key_thumbprint
    if join.used_at is not None and join.used_by_key != thumbprint:
        raise JoinTokenRefused("The join token was already used.")
    now = timezone.now()
    with journaled():
        attempt = _locked_live_attempt(join.attempt_id)
        free = Q(used_at__isnull=True) | Q(used_by_key=thumbprint)
        unused = JoinToken.objects.filter(
            free, pk=join.pk, token_hash=join.token_hash, expires_at__gt=now
        )
        if unused.update(used_at=now, used_by_key=thumbprint) != 1:
            raise JoinTokenRefused("The join token was already used.")
        _record_issue(attempt, issued, cause="join-token")
    return issued


def exchange_pod_token(
    token: str,
    *,
    csr_pem: str,
    audience: Sequence[str],
    attestor: Attestor | None = None,
    trust_domain: TrustDomain | None = None,
) -> IssuedIdentity:
    """Trade a service account token that is bound to a pod for an identity.

    The first key that comes with a token of a pod is that pod's only key: whoever reads the token
    later gets nothing by it. The same key may ask again while the pod lives. Raises
    `IdentityRefused`s.
    """
    attestor = attestor or get_attestor()
    if attestor is None:
        raise PodTokenRefused("Workloads of this installation have join tokens, not pods.")
    try:
        pod = attestor.attest(token)
    except TokenRefused as error:
        raise PodTokenRefused(str(error)) from error
    except AttestationUnavailable as error:
        logger.error("A service account token cannot be reviewed: %s", error)
        raise IdentityNotAvailable("Kubernetes cannot be asked about the token now.") from error
    attempt = _attempt_of(pod)
    _refuse_ended(attempt)
    issued = _issue(attempt, csr_pem, audience, trust_domain or get_trust_domain())
    thumbprint = issued.x509.key_thumbprint
    with journaled():
        attempt = _locked_live_attempt(attempt.pk)
        binding, _ = PodBinding.objects.get_or_create(
            pod_uid=pod.pod_uid,
            defaults={
                "attempt": attempt,
                "pod": pod.pod,
                "node": pod.node,
                "key_thumbprint": thumbprint,
            },
        )
        if (binding.attempt_id, binding.key_thumbprint) != (attempt.pk, thumbprint):
            raise PodTokenRefused("The pod has exchanged its token for another key already.")
        where = {"pod": pod.pod, "pod_uid": pod.pod_uid, "node": pod.node}
        _record_issue(attempt, issued, cause="service-account-token", **where)
    return issued


def renewal_claims(bearer: str, *, trust_domain: TrustDomain | None = None) -> JwtClaims:
    """The claims of a JWT-SVID presented for renewal; it may have expired during a pause.

    Raises `IdentityRefused`s.
    """
    return _claims(
        bearer,
        trust_domain or get_trust_domain(),
        expired_within_seconds=RENEWAL_GRACE_SECONDS,
    )


def renew_identity(
    claims: JwtClaims,
    *,
    csr_pem: str,
    audience: Sequence[str],
    trust_domain: TrustDomain | None = None,
) -> IssuedIdentity:
    """New documents for the attempt that `renewal_claims` names, unless it ended or was revoked.

    Once the presented token has expired, the signing request must be made with the key that the
    attempt's X.509-SVID was issued to (`cnf.jkt`, RFC 7800): a leaked token alone renews nothing.
    Raises `IdentityRefused`s.
    """
    attempt = _live_attempt_of(claims)
    issued = _issue(attempt, csr_pem, audience, trust_domain or get_trust_domain())
    if claims.expires_at <= timezone.now():
        confirmation = claims.claims.get("cnf")
        known = confirmation.get("jkt") if isinstance(confirmation, dict) else None
        if known != issued.x509.key_thumbprint:
            raise CredentialRefused(
                "The JWT-SVID has expired: only a csr made with the key of the last X.509-SVID "
                "can renew it."
            )
    with journaled():
        _record_issue(_locked_live_attempt(attempt.pk), issued, cause="renewal")
    return issued


def authenticate_attempt(bearer: str, *, trust_domain: TrustDomain | None = None) -> Attempt:
    """The attempt a JWT-SVID (compact form, without `Bearer `) speaks for.

    Reads the database each time, so that a revocation counts from its commit. Raises
    CredentialRefused, IdentityRevoked, AttemptFinished or IdentityNotAvailable.
    """
    return _live_attempt_of(_claims(bearer, trust_domain or get_trust_domain()))


def _join_secret(attempt: Attempt) -> str:
    """256 bits that only a holder of SECRET_KEY can compute.

    Computed and not random, so that it can be said again without being kept.
    """
    digest = salted_hmac(_JOIN_SALT, str(attempt.uid), algorithm="sha256").hexdigest()
    return f"{JOIN_TOKEN_PREFIX}{digest}"


def _hash(secret: str) -> str:
    return hashlib.sha256(secret.encode("utf-8", "surrogatepass")).hexdigest()


def _living_token(token: str) -> JoinToken:
    join = None
    if len(token) <= JOIN_TOKEN_MAX_CHARACTERS:
        found = JoinToken.objects.select_related("attempt").filter(token_hash=_hash(token))
        join = found.first()
    if join is None:
        raise JoinTokenRefused("The join token is not one of ours.")
    if join.expires_at <= timezone.now():
        raise JoinTokenRefused("The join token has expired.")
    return join


def _attempt_of(pod: AttestedPod) -> Attempt:
    """The attempt whose own pod this is. Raises PodTokenRefused."""
    attempt = Attempt.objects.filter(workload=pod.workload).first()
    if attempt is None or (str(attempt.uid), attempt.namespace, attempt.service_account) != (
        pod.attempt_uid,
        pod.namespace,
        pod.service_account,
    ):
        raise PodTokenRefused("The token's pod is not that of an attempt that is known here.")
    return attempt


def _claims(
    bearer: str, trust_domain: TrustDomain, *, expired_within_seconds: int = 0
) -> JwtClaims:
    with _client_sentences():
        return trust_domain.validate_jwt(
            bearer, audience=AUDIENCE, expired_within_seconds=expired_within_seconds
        )


def _live_attempt_of(claims: JwtClaims) -> Attempt:
    try:
        uid = UUID(str(claims.claims.get("attempt")))
    except ValueError as error:
        raise CredentialRefused("The JWT-SVID names no attempt.") from error
    attempt = Attempt.objects.filter(pk=uid).first()
    if attempt is None or attempt.spiffe_id != claims.spiffe_id:
        raise CredentialRefused("The JWT-SVID names an attempt that is not known here.")
    _refuse_ended(attempt)
    return attempt


def _locked_live_attempt(uid: UUID) -> Attempt:
    """The attempt as it is now, held until the commit against a revocation in between."""
    attempt = Attempt.objects.select_for_update().get(pk=uid)
    _refuse_ended(attempt)
    return attempt


def _refuse_ended(attempt: Attempt) -> None:
    # Finished first: finishing revokes too, and "has ended" is the truth the program needs.
    if attempt.is_finished:
        raise AttemptFinished("The attempt has ended: its identity is no longer accepted.")
    if attempt.identity_revoked_at is not None:
        raise IdentityRevoked("The identity of this attempt was revoked.")


def _issue(
    attempt: Attempt, csr_pem: str, audience: Sequence[str], trust_domain: TrustDomain
) -> IssuedIdentity:
    """Both documents; worth nothing to anybody until the caller has recorded them."""
    ttl_seconds = settings.SVID_TTL_SECONDS
    with _client_sentences():
        certificate = trust_domain.issue_x509(attempt.spiffe_id, csr_pem, ttl_seconds=ttl_seconds)
        token = trust_domain.issue_jwt(
            attempt.spiffe_id,
            audience=audience,
            ttl_seconds=ttl_seconds,
            claims={
                "attempt": str(attempt.uid),
                "goal": str(attempt.goal_uid),
                "namespace": attempt.namespace,
                "task": attempt.task,
                "cnf": {"jkt": certificate.key_thumbprint},
            },
        )
        return IssuedIdentity(attempt.uid, certificate, token, trust_domain.bundle())


def _record_issue(attempt: Attempt, issued: IssuedIdentity, *, cause: str, **where: str) -> None:
    """Row, edge and journal record of both documents, in the caller's transaction."""
    documents = [
        ("x509", issued.x509.serial, issued.x509.expires_at),
        ("jwt", issued.jwt.token_id, issued.jwt.expires_at),
    ]
    for kind, serial, expires_at in documents:
        IssuedSvid.objects.create(
            attempt=attempt,
            kind=kind,
            serial=serial,
            spiffe_id=attempt.spiffe_id,
            expires_at=expires_at,
        )
        link(
            NodeRef(NodeKind.ATTEMPT, str(attempt.uid)),
            Relation.IDENTIFIED_BY,
            NodeRef(NodeKind.SVID, f"{kind}:{serial}"),
            namespace=attempt.namespace,
            goal_uid=attempt.goal_uid,
            is_signed=kind == "jwt",  # it names the attempt; a certificate only its SPIFFE ID
        )
    _journal(
        attempt,
        "svid.issued",
        {
            "cause": cause,
            "spiffe_id": attempt.spiffe_id,
            "x509_serial": issued.x509.serial,
            "jwt_id": issued.jwt.token_id,
            "key_thumbprint": issued.x509.key_thumbprint,
            "expires_at": issued.jwt.expires_at.isoformat(),
            **where,
        },
        actor=Actor(ActorKind.AGENT, attempt.spiffe_id),
    )


def _journal(attempt: Attempt, action: str, body: dict[str, Any], *, actor: Actor) -> None:
    append_record(
        action=action,
        actor=actor,
        object_kind="attempt",
        object_id=str(attempt.uid),
        namespace=attempt.namespace,
        goal_uid=attempt.goal_uid,
        body=body,
    )


@contextmanager
def _client_sentences() -> Iterator[None]:
    """Turn the port's errors into ours; what concerns only the operator goes to the log."""
    try:
        yield
    except IdentityUnavailable as error:
        logger.error("The trust domain is not available: %s", error)
        raise IdentityNotAvailable("Identities cannot be checked or issued now.") from error
    except InvalidToken as error:
        raise CredentialRefused(str(error)) from error
    except IdentityError as error:
        raise IdentityRequestInvalid(str(error)) from error

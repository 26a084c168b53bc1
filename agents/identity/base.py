"""What the product asks of a trust domain: SPIFFE identity documents and their validation."""

import datetime as dt
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Protocol

MAX_TTL_SECONDS: Final = 3600  # the longest life of any SVID; SVID_TTL_SECONDS allows no more
# An SVID that lapsed while its workload was paused can be renewed this long: the longest wait for
# a human that APPROVAL_TTL_SECONDS allows.
RENEWAL_GRACE_SECONDS: Final = 7 * 86400


class IdentityError(Exception):
    """An identity document could not be issued or validated."""


class IdentityUnavailable(IdentityError):
    """The keys or the service cannot be reached; the same call may work later."""


class InvalidToken(IdentityError):
    """A JWT-SVID that is malformed, forged, expired or for another audience."""


class InvalidSpiffeId(IdentityError):
    """A SPIFFE ID, or a part of one, that the grammar or the trust domain does not allow."""


class InvalidSigningRequest(IdentityError):
    """A certificate signing request that cannot be read, proven or honoured."""


@dataclass(frozen=True, slots=True)
class X509Svid:
    """An X.509-SVID: leaf first, then intermediates, PEM; the key stays with the workload."""

    spiffe_id: str
    certificate_chain_pem: str
    serial: str
    expires_at: dt.datetime
    key_thumbprint: str = ""  # RFC 7638, SHA-256, of the workload's public key


@dataclass(frozen=True, slots=True)
class JwtSvid:
    """A JWT-SVID in compact serialisation."""

    spiffe_id: str
    token: str
    token_id: str
    expires_at: dt.datetime


@dataclass(frozen=True, slots=True)
class JwtClaims:
    """What a valid JWT-SVID says."""

    spiffe_id: str
    token_id: str
    audience: Sequence[str]
    issued_at: dt.datetime
    expires_at: dt.datetime
    claims: Mapping[str, Any] = field(default_factory=dict)


class TrustDomain(Protocol):
    """Issues SVIDs. Every method raises only `IdentityError`s."""

    @property
    def name(self) -> str:
        """The trust domain, e.g. `clearance.local`."""

    def issue_x509(self, spiffe_id: str, csr_pem: str, *, ttl_seconds: int) -> X509Svid:
        """Sign the public key of a certificate signing request; its subject is ignored."""

    def issue_jwt(
        self,
        spiffe_id: str,
        *,
        audience: Sequence[str],
        ttl_seconds: int,
        claims: Mapping[str, Any] | None = None,
    ) -> JwtSvid:
        """A JWT-SVID (ES256). `claims` may not override sub, aud, exp, iat or jti."""

    def validate_jwt(
        self, token: str, *, audience: str, expired_within_seconds: int = 0
    ) -> JwtClaims:
        """The claims of a good token. Raises `InvalidToken` (revocation is the caller's).

        `expired_within_seconds` also takes a token that expired no longer ago than that; only
        for a caller that asks for more proof (renewal after a pause).
        """

    def bundle(self) -> Mapping[str, Any]:
        """The SPIFFE trust bundle (JWK set with `x509-svid` and `jwt-svid` keys)."""

    def x509_authorities_pem(self) -> str:
        """The CA certificates of the trust domain, PEM."""

"""What every trust domain whose keys we hold has in common, wherever the keys lie."""

import abc
import datetime as dt
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from agents.identity.authority import Authority
from agents.identity.base import MAX_TTL_SECONDS, IdentityError, JwtClaims, JwtSvid, X509Svid
from agents.identity.jwt_svid import issue_token, validate_token
from agents.identity.names import validate_trust_domain, validate_workload_spiffe_id
from agents.identity.x509_svid import sign_request

Clock = Callable[[], dt.datetime]


def utc_now() -> dt.datetime:
    return dt.datetime.now(dt.UTC)


class IssuingTrustDomain(abc.ABC):
    """A `TrustDomain` over an `Authority` that the subclass keeps."""

    def __init__(self, name: str, *, clock: Clock = utc_now) -> None:
        self._name = validate_trust_domain(name)
        self._clock = clock

    @abc.abstractmethod
    def _authority(self) -> Authority:
        """The current keys. Raises `IdentityUnavailable`."""

    @property
    def name(self) -> str:
        return self._name

    def issue_x509(self, spiffe_id: str, csr_pem: str, *, ttl_seconds: int) -> X509Svid:
        self._check(spiffe_id, ttl_seconds=ttl_seconds)
        return sign_request(
            self._authority(), spiffe_id, csr_pem, ttl_seconds=ttl_seconds, now=self._clock()
        )

    def issue_jwt(
        self,
        spiffe_id: str,
        *,
        audience: Sequence[str],
        ttl_seconds: int,
        claims: Mapping[str, Any] | None = None,
    ) -> JwtSvid:
        self._check(spiffe_id, ttl_seconds=ttl_seconds)
        return issue_token(
            self._authority(),
            spiffe_id,
            audience=audience,
            ttl_seconds=ttl_seconds,
            claims=claims or {},
            now=self._clock(),
        )

    def validate_jwt(
        self, token: str, *, audience: str, expired_within_seconds: int = 0
    ) -> JwtClaims:
        return validate_token(
            self._authority(),
            token,
            audience=audience,
            now=self._clock(),
            expired_within_seconds=expired_within_seconds,
        )

    def bundle(self) -> Mapping[str, Any]:
        return self._authority().bundle()

    def x509_authorities_pem(self) -> str:
        return self._authority().ca_pem()

    def _check(self, spiffe_id: str, *, ttl_seconds: int) -> None:
        validate_workload_spiffe_id(spiffe_id, trust_domain=self._name)
        if not 1 <= ttl_seconds <= MAX_TTL_SECONDS:
            raise IdentityError(
                f"ttl_seconds is {ttl_seconds}; an SVID lives 1 to {MAX_TTL_SECONDS} seconds."
            )

"""Issues and validates JWT-SVIDs: ES256 and nothing else."""

import datetime as dt
import json
import secrets
from collections.abc import Mapping, Sequence
from typing import Any, Final

import jwt
from jwt import PyJWS

from agents.identity.authority import CLOCK_SKEW_SECONDS, Authority
from agents.identity.base import (
    IdentityError,
    InvalidSpiffeId,
    InvalidToken,
    JwtClaims,
    JwtSvid,
)
from agents.identity.names import validate_workload_spiffe_id

ALGORITHM: Final = "ES256"
TOKEN_MAX_CHARACTERS: Final = 8192  # ours are below 1,200; servers cap header lines at 8 KiB
# JWT-SVID, 2: any other header parameter must not be there (jku, jwk, x5u, crit, b64, zip ...).
HEADERS: Final = frozenset({"alg", "kid", "typ"})
TYPES: Final = frozenset({"JWT", "JOSE"})
RESERVED_CLAIMS: Final = frozenset({"iss", "sub", "aud", "exp", "nbf", "iat", "jti"})
AUDIENCES_MAX: Final = 8
AUDIENCE_MAX_CHARACTERS: Final = 255
TOKEN_ID_BYTES: Final = 16  # 128 random bits: never the same twice
LATEST_SECONDS: Final = 253_402_300_799  # 9999-12-31, the last moment a datetime can hold

_JWS: Final = PyJWS(algorithms=[ALGORITHM])


def issue_token(
    authority: Authority,
    spiffe_id: str,
    *,
    audience: Sequence[str],
    ttl_seconds: int,
    claims: Mapping[str, Any],
    now: dt.datetime,
) -> JwtSvid:
    """A signed JWT-SVID. Raises `IdentityError` for claims or audiences it cannot carry."""
    taken = sorted(RESERVED_CLAIMS & claims.keys())
    if taken:
        raise IdentityError(f"claims may not set {', '.join(taken)}: the issuer does.")
    issued_at = int(now.timestamp())
    token_id = secrets.token_hex(TOKEN_ID_BYTES)
    payload = {
        **claims,
        "sub": spiffe_id,
        "aud": _checked_audience(audience),
        "iat": issued_at,
        "exp": issued_at + ttl_seconds,
        "jti": token_id,
    }
    key = authority.signing_key(now)
    try:
        body = json.dumps(payload, separators=(",", ":"), allow_nan=False).encode("ascii")
    except (TypeError, ValueError, RecursionError) as error:
        raise IdentityError("claims cannot be written as JSON.") from error
    token = _JWS.encode(
        body, key.private_key, algorithm=ALGORITHM, headers={"kid": key.key_id, "typ": "JWT"}
    )
    if len(token) > TOKEN_MAX_CHARACTERS:
        raise IdentityError(f"The JWT-SVID would be longer than {TOKEN_MAX_CHARACTERS} characters.")
    return JwtSvid(
        spiffe_id=spiffe_id,
        token=token,
        token_id=token_id,
        expires_at=dt.datetime.fromtimestamp(issued_at + ttl_seconds, tz=dt.UTC),
    )


def validate_token(
    authority: Authority,
    token: str,
    *,
    audience: str,
    now: dt.datetime,
    expired_within_seconds: int,
) -> JwtClaims:
    """The claims of `token` once its signature, times, audience and subject hold.

    Raises `InvalidToken` with one sentence; nothing of the token is repeated in it.
    """
    payload = _verified_payload(authority, token)
    expires_at = _moment(payload, "exp")
    issued_at = _moment(payload, "iat")
    if now >= expires_at + dt.timedelta(seconds=expired_within_seconds):
        raise InvalidToken("The JWT-SVID has expired: renew it and send the new one.")
    if issued_at > now + dt.timedelta(seconds=CLOCK_SKEW_SECONDS):
        raise InvalidToken("The JWT-SVID was issued in the future: check the clocks.")
    audiences = _stated_audience(payload)
    if audience not in audiences:
        raise InvalidToken(f"The JWT-SVID is not for the audience {audience!r}.")
    return JwtClaims(
        spiffe_id=_subject(payload, trust_domain=authority.trust_domain),
        token_id=_text(payload, "jti"),
        audience=audiences,
        issued_at=issued_at,
        expires_at=expires_at,
        claims=payload,
    )


def _verified_payload(authority: Authority, token: str) -> Mapping[str, Any]:
    if len(token) > TOKEN_MAX_CHARACTERS:
        raise InvalidToken(f"The JWT-SVID is longer than {TOKEN_MAX_CHARACTERS} characters.")
    try:
        header = _JWS.get_unverified_header(token)
    except (jwt.PyJWTError, ValueError, RecursionError) as error:
        raise InvalidToken("The bearer token is not a JWT in compact form.") from error
    if header.get("alg") != ALGORITHM:
        raise InvalidToken(f"The JWT-SVID must be signed with {ALGORITHM}.")
    if not header.keys() <= HEADERS:
        raise InvalidToken("The JWT-SVID has a header other than alg, kid and typ.")
    if "typ" in header and header["typ"] not in TYPES:
        raise InvalidToken("The JWT-SVID has a typ other than JWT or JOSE.")
    key_id = header.get("kid")
    key = authority.verification_key(key_id) if isinstance(key_id, str) else None
    if key is None:
        raise InvalidToken(
            f"The JWT-SVID names a signing key (kid) that {authority.trust_domain} does not have."
        )
    try:
        decoded = _JWS.decode_complete(token, key, algorithms=[ALGORITHM])
    except (jwt.PyJWTError, ValueError) as error:
        raise InvalidToken("The signature of the JWT-SVID does not match.") from error
    try:
        payload = json.loads(decoded["payload"])
    except (ValueError, RecursionError) as error:
        raise InvalidToken("The JWT-SVID does not hold JSON claims.") from error
    if not isinstance(payload, dict):
        raise InvalidToken("The JWT-SVID does not hold an object of claims.")
    return payload


def _checked_audience(audience: Sequence[str]) -> list[str]:
    if isinstance(audience, str) or not 1 <= len(audience) <= AUDIENCES_MAX:
        raise IdentityError(f"audience must be a list of 1 to {AUDIENCES_MAX} names.")
    for name in audience:
        if not isinstance(name, str) or not 1 <= len(name) <= AUDIENCE_MAX_CHARACTERS:
            raise IdentityError(
                f"Each audience must be text of 1 to {AUDIENCE_MAX_CHARACTERS} characters."
            )
    return list(audience)


def _stated_audience(payload: Mapping[str, Any]) -> list[str]:
    stated = payload.get("aud")
    names = [stated] if isinstance(stated, str) else stated
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise InvalidToken("The JWT-SVID has no audience (aud).")
    return names


def _moment(payload: Mapping[str, Any], claim: str) -> dt.datetime:
    seconds = payload.get(claim)
    if not isinstance(seconds, int) or isinstance(seconds, bool):
        raise InvalidToken(f"The claim {claim} of the JWT-SVID is not a whole number of seconds.")
    if not 0 <= seconds <= LATEST_SECONDS:
        raise InvalidToken(f"The claim {claim} of the JWT-SVID is no moment in time.")
    return dt.datetime.fromtimestamp(seconds, tz=dt.UTC)


def _subject(payload: Mapping[str, Any], *, trust_domain: str) -> str:
    try:
        return validate_workload_spiffe_id(_text(payload, "sub"), trust_domain=trust_domain)
    except InvalidSpiffeId as error:
        raise InvalidToken(
            f"The subject of the JWT-SVID is not a workload of {trust_domain}."
        ) from error


def _text(payload: Mapping[str, Any], claim: str) -> str:
    value = payload.get(claim)
    if not isinstance(value, str) or not value:
        raise InvalidToken(f"The claim {claim} of the JWT-SVID is missing.")
    return value

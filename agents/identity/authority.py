"""The keys of a trust domain: one X.509 root and the JWT keys that take turns."""

import base64
import datetime as dt
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import NameOID
from jwt.algorithms import ECAlgorithm, RSAAlgorithm

from agents.identity.base import MAX_TTL_SECONDS, RENEWAL_GRACE_SECONDS
from agents.identity.names import SCHEME

WorkloadKey = ec.EllipticCurvePublicKey | rsa.RSAPublicKey

CLOCK_SKEW_SECONDS: Final = 60  # between this machine's clock and that of a relying party
CA_LIFETIME: Final = dt.timedelta(days=3650)
BUNDLE_REFRESH_SECONDS: Final = 300  # how often relying parties are asked to fetch the bundle
# A new JWT key signs only after every relying party has had two chances to fetch it.
JWT_KEY_PUBLISHED_AHEAD: Final = dt.timedelta(seconds=2 * BUNDLE_REFRESH_SECONDS)
JWT_KEY_KEPT_AFTER: Final = dt.timedelta(
    seconds=MAX_TTL_SECONDS + RENEWAL_GRACE_SECONDS + CLOCK_SKEW_SECONDS
)
_FORMAT: Final = 1


class AuthorityUnreadable(ValueError):
    """A stored authority that is not one of ours."""


@dataclass(frozen=True, slots=True)
class JwtKey:
    """One JWT-SVID signing key (P-256); it signs from `active_from` until a newer one does."""

    key_id: str
    private_key: ec.EllipticCurvePrivateKey
    active_from: dt.datetime


@dataclass(frozen=True, slots=True)
class Authority:
    """Everything a trust domain signs with. `jwt_keys` is ordered by `active_from`."""

    trust_domain: str
    ca_certificate: x509.Certificate
    ca_key: ec.EllipticCurvePrivateKey
    jwt_keys: tuple[JwtKey, ...]
    sequence: int  # spiffe_sequence: grows with every change of the bundle

    def signing_key(self, now: dt.datetime) -> JwtKey:
        """The newest JWT key that is already active."""
        active = [key for key in self.jwt_keys if key.active_from <= now]
        return active[-1] if active else self.jwt_keys[0]

    def verification_key(self, key_id: str) -> ec.EllipticCurvePublicKey | None:
        """The public half of the JWT key with that id, or None."""
        for key in self.jwt_keys:
            if key.key_id == key_id:
                return key.private_key.public_key()
        return None

    def ca_pem(self) -> str:
        """The root certificate, PEM."""
        return self.ca_certificate.public_bytes(serialization.Encoding.PEM).decode("ascii")

    def bundle(self) -> dict[str, Any]:
        """The SPIFFE bundle document (a JWK set)."""
        der = self.ca_certificate.public_bytes(serialization.Encoding.DER)
        root = {
            "use": "x509-svid",  # X509-SVID, 6.1: such an entry has no kid
            **_public_jwk(self.ca_key.public_key()),
            "x5c": [base64.b64encode(der).decode("ascii")],
        }
        signers = [
            {
                "use": "jwt-svid",
                "kid": key.key_id,
                "alg": "ES256",
                **_public_jwk(key.private_key.public_key()),
            }
            for key in self.jwt_keys
        ]
        return {
            "keys": [root, *signers],
            "spiffe_sequence": self.sequence,
            "spiffe_refresh_hint": BUNDLE_REFRESH_SECONDS,
        }

    def rotated(self, now: dt.datetime) -> "Authority":
        """With one more JWT key, published now and signing later, and without the expired ones."""
        fresh = _new_jwt_key(active_from=now + JWT_KEY_PUBLISHED_AHEAD)
        kept = [
            key
            for key, successor in zip(self.jwt_keys, self.jwt_keys[1:], strict=False)
            if successor.active_from + JWT_KEY_KEPT_AFTER > now
        ]
        return replace(
            self,
            jwt_keys=(*kept, self.jwt_keys[-1], fresh),
            sequence=self.sequence + 1,
        )

    def to_json(self) -> str:
        """All of it, private keys included, for a file that only its owner may read."""
        return json.dumps(
            {
                "format": _FORMAT,
                "trust_domain": self.trust_domain,
                "sequence": self.sequence,
                "ca_certificate": self.ca_pem(),
                "ca_key": _private_pem(self.ca_key),
                "jwt_keys": [
                    {
                        "private_key": _private_pem(key.private_key),
                        "active_from": key.active_from.isoformat(),
                    }
                    for key in self.jwt_keys
                ],
            },
            indent=1,
        )


def new_authority(trust_domain: str, *, now: dt.datetime) -> Authority:
    """A fresh root and a JWT key that signs at once."""
    ca_key = ec.generate_private_key(ec.SECP256R1())
    return Authority(
        trust_domain=trust_domain,
        ca_certificate=_self_signed(trust_domain, ca_key, now=now),
        ca_key=ca_key,
        jwt_keys=(_new_jwt_key(active_from=now),),
        sequence=1,
    )


def authority_from_json(text: str) -> Authority:
    """The inverse of `Authority.to_json`. Raises `AuthorityUnreadable` saying what is wrong."""
    try:
        document: dict[str, Any] = json.loads(text)
        if document["format"] != _FORMAT:
            raise AuthorityUnreadable(f"format {document['format']!r} is not {_FORMAT}")
        keys = [_stored_jwt_key(item) for item in document["jwt_keys"]]
        authority = Authority(
            trust_domain=str(document["trust_domain"]),
            ca_certificate=x509.load_pem_x509_certificate(document["ca_certificate"].encode()),
            ca_key=_private_key(document["ca_key"]),
            jwt_keys=tuple(sorted(keys, key=lambda key: key.active_from)),
            sequence=int(document["sequence"]),
        )
    except AuthorityUnreadable:
        raise
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise AuthorityUnreadable(f"{type(error).__name__} while reading it") from error
    if not authority.jwt_keys:
        raise AuthorityUnreadable("it holds no JWT key")
    if authority.ca_certificate.public_key() != authority.ca_key.public_key():
        raise AuthorityUnreadable("the CA certificate does not belong to the CA key")
    return authority


def key_thumbprint(public_key: WorkloadKey) -> str:
    """RFC 7638 thumbprint (SHA-256, base64url without padding) of a public key."""
    canonical = json.dumps(_public_jwk(public_key), sort_keys=True, separators=(",", ":"))
    digest = hashlib.sha256(canonical.encode("ascii")).digest()
    return base64.urlsafe_b64encode(digest).rstrip(b"=").decode("ascii")


def _public_jwk(public_key: WorkloadKey) -> dict[str, str]:
    """The members RFC 7638 requires of a JWK, which are also all that a bundle needs."""
    if isinstance(public_key, ec.EllipticCurvePublicKey):
        jwk: Mapping[str, Any] = ECAlgorithm.to_jwk(public_key, as_dict=True)
        return {name: str(jwk[name]) for name in ("kty", "crv", "x", "y")}
    jwk = RSAAlgorithm.to_jwk(public_key, as_dict=True)
    return {name: str(jwk[name]) for name in ("kty", "n", "e")}


def _new_jwt_key(*, active_from: dt.datetime) -> JwtKey:
    private_key = ec.generate_private_key(ec.SECP256R1())
    return JwtKey(key_thumbprint(private_key.public_key()), private_key, active_from)


def _stored_jwt_key(item: Mapping[str, str]) -> JwtKey:
    private_key = _private_key(item["private_key"])
    active_from = dt.datetime.fromisoformat(item["active_from"])
    if active_from.tzinfo is None:
        raise AuthorityUnreadable("active_from of a JWT key has no time zone")
    return JwtKey(key_thumbprint(private_key.public_key()), private_key, active_from)


def _private_pem(key: ec.EllipticCurvePrivateKey) -> str:
    return key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    ).decode("ascii")


def _private_key(pem: str) -> ec.EllipticCurvePrivateKey:
    key = serialization.load_pem_private_key(pem.encode("ascii"), password=None)
    if not isinstance(key, ec.EllipticCurvePrivateKey) or key.curve.name != "secp256r1":
        raise AuthorityUnreadable("a private key is not a P-256 key")
    return key


def _self_signed(
    trust_domain: str, key: ec.EllipticCurvePrivateKey, *, now: dt.datetime
) -> x509.Certificate:
    subject = x509.Name(
        [
            x509.NameAttribute(NameOID.ORGANIZATION_NAME, "Clearance"),
            x509.NameAttribute(NameOID.COMMON_NAME, "Clearance identity authority"),
        ]
    )
    key_id = x509.SubjectKeyIdentifier.from_public_key(key.public_key())
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(seconds=CLOCK_SKEW_SECONDS))
        .not_valid_after(now + CA_LIFETIME)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(key_usage(digital_signature=False), critical=True)
        # X509-SVID, 3.2: a signing certificate names its trust domain and has no path.
        .add_extension(
            x509.SubjectAlternativeName(
                [x509.UniformResourceIdentifier(f"{SCHEME}{trust_domain}")]
            ),
            critical=False,
        )
        .add_extension(key_id, critical=False)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(key_id),
            critical=False,
        )
        .sign(key, hashes.SHA256())
    )


def key_usage(*, digital_signature: bool) -> x509.KeyUsage:
    """`digitalSignature` alone for a leaf, `keyCertSign` alone for a root (X509-SVID, 4.3)."""
    return x509.KeyUsage(
        digital_signature=digital_signature,
        key_cert_sign=not digital_signature,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        crl_sign=False,
        encipher_only=False,
        decipher_only=False,
    )

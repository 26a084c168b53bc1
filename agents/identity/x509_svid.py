"""Turns a certificate signing request into an X.509-SVID."""

import datetime as dt

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID

from agents.identity.authority import (
    CLOCK_SKEW_SECONDS,
    Authority,
    WorkloadKey,
    key_thumbprint,
    key_usage,
)
from agents.identity.base import IdentityError, InvalidSigningRequest, X509Svid

CSR_MAX_CHARACTERS = 16_384  # an RSA-4096 request is below 2 KiB; the rest is room for extensions
CURVES = frozenset({"secp256r1", "secp384r1"})
RSA_BITS = range(2048, 4097)  # below is breakable, above is only a way to burn our CPU


def sign_request(
    authority: Authority, spiffe_id: str, csr_pem: str, *, ttl_seconds: int, now: dt.datetime
) -> X509Svid:
    """Certify the public key of `csr_pem` as `spiffe_id`; nothing else of the request counts.

    Raises `InvalidSigningRequest`, or `IdentityError` once the root itself is about to expire.
    """
    public_key = proven_public_key(csr_pem)
    issued_at = now.replace(microsecond=0)
    expires_at = issued_at + dt.timedelta(seconds=ttl_seconds)
    if expires_at > authority.ca_certificate.not_valid_after_utc:
        raise IdentityError("The root certificate of the trust domain expires: replace its keys.")
    leaf = (
        x509.CertificateBuilder()
        .subject_name(x509.Name([]))  # hence the critical SAN: RFC 5280, 4.1.2.6
        .issuer_name(authority.ca_certificate.subject)
        .public_key(public_key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(issued_at - dt.timedelta(seconds=CLOCK_SKEW_SECONDS))
        .not_valid_after(expires_at)
        .add_extension(
            x509.SubjectAlternativeName([x509.UniformResourceIdentifier(spiffe_id)]),
            critical=True,
        )
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(key_usage(digital_signature=True), critical=True)
        .add_extension(
            x509.ExtendedKeyUsage(
                [ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]
            ),
            critical=False,
        )
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(public_key), critical=False)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(authority.ca_key.public_key()),
            critical=False,
        )
        .sign(authority.ca_key, hashes.SHA256())
    )
    return X509Svid(
        spiffe_id=spiffe_id,
        certificate_chain_pem=leaf.public_bytes(serialization.Encoding.PEM).decode("ascii"),
        serial=f"{leaf.serial_number:x}",
        expires_at=expires_at,
        key_thumbprint=key_thumbprint(public_key),
    )


def proven_public_key(csr_pem: str) -> WorkloadKey:
    """The public key of a request whose sender holds the private half (the request's signature).

    Raises `InvalidSigningRequest`.
    """
    if len(csr_pem) > CSR_MAX_CHARACTERS:
        raise InvalidSigningRequest(
            f"csr is longer than {CSR_MAX_CHARACTERS} characters: send one request alone."
        )
    try:
        request = x509.load_pem_x509_csr(csr_pem.encode("ascii"))
        public_key = request.public_key()
    except (ValueError, UnsupportedAlgorithm) as error:
        raise InvalidSigningRequest(
            "csr is not a PEM certificate signing request (-----BEGIN CERTIFICATE REQUEST-----)."
        ) from error
    if isinstance(public_key, ec.EllipticCurvePublicKey):
        if public_key.curve.name not in CURVES:
            raise InvalidSigningRequest(
                f"csr holds a key on {public_key.curve.name}: use P-256 or P-384."
            )
    elif isinstance(public_key, rsa.RSAPublicKey):
        if public_key.key_size not in RSA_BITS:
            raise InvalidSigningRequest(
                f"csr holds an RSA key of {public_key.key_size} bits: use 2048 to 4096."
            )
    else:
        raise InvalidSigningRequest("csr holds neither an EC nor an RSA key: use P-256.")
    if not _is_signed_by_its_key(request):
        raise InvalidSigningRequest("csr is not signed by the key it holds.")
    return public_key


def _is_signed_by_its_key(request: x509.CertificateSigningRequest) -> bool:
    try:
        return request.is_signature_valid
    except (ValueError, TypeError, UnsupportedAlgorithm):
        return False

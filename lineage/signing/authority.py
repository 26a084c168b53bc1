"""The certificate authority: one short-lived code-signing certificate for each signature."""

import datetime as dt
import hashlib
import struct
from dataclasses import dataclass
from urllib.parse import urlsplit

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, utils
from cryptography.x509.oid import ExtendedKeyUsageOID

from lineage.signing.base import SigningError
from lineage.signing.keys import SigningKeys, key_id

# Fulcio's extensions (github.com/sigstore/fulcio, docs/oid-info.md): the issuer as bare text, and
# again as a DER UTF8String.
_ISSUER_V1 = x509.ObjectIdentifier("1.3.6.1.4.1.57264.1.1")
_ISSUER_V2 = x509.ObjectIdentifier("1.3.6.1.4.1.57264.1.8")
_SCT_LIST = x509.ObjectIdentifier("1.3.6.1.4.1.11129.2.4.2")

_LIFETIME = dt.timedelta(minutes=10)  # as Fulcio: the key signs once and is thrown away
_IDENTITY_MAX_CHARS = 2048  # SPIFFE-ID section 2.3

# RFC 6962 section 3.2: version 1, signature_type certificate_timestamp, entry_type precert.
_SCT_VERSION = 0
_CERTIFICATE_TIMESTAMP = 0
_PRECERT_ENTRY = 1
_SHA256_ECDSA = b"\x04\x03"

P256_ORDER = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551

_DIGEST_SIGNATURE = ec.ECDSA(utils.Prehashed(hashes.SHA256()))
_USAGE = x509.KeyUsage(
    digital_signature=True,
    content_commitment=False,
    key_encipherment=False,
    data_encipherment=False,
    key_agreement=False,
    key_cert_sign=False,
    crl_sign=False,
    encipher_only=False,
    decipher_only=False,
)


@dataclass(frozen=True, slots=True)
class LeafCredential:
    """A one-time key and the certificate that names its holder."""

    key: ec.EllipticCurvePrivateKey
    certificate: x509.Certificate


def checked_identity(identity: str) -> str:
    """`identity` itself. Raises SigningError unless it is an ASCII URI with a scheme."""
    parts = urlsplit(identity)
    if (
        not parts.scheme
        or not (parts.netloc or parts.path)
        or len(identity) > _IDENTITY_MAX_CHARS
        or not identity.isascii()
        or not identity.isprintable()
        or " " in identity
    ):
        raise SigningError(f"identity {identity[:80]!r} is not a URI such as a SPIFFE ID.")
    return identity


def issue_leaf(keys: SigningKeys, *, identity: str, issuer: str, now: float) -> LeafCredential:
    """A new key with a certificate for `identity`, valid ten minutes from `now`, SCT embedded."""
    checked_identity(identity)
    key = ec.generate_private_key(ec.SECP256R1())
    start = dt.datetime.fromtimestamp(int(now), dt.UTC)
    issuer_bytes = issuer.encode()
    builder = (
        x509.CertificateBuilder()
        .subject_name(x509.Name([]))
        .issuer_name(keys.intermediate_certificate.subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(start)
        .not_valid_after(start + _LIFETIME)
        .add_extension(_USAGE, critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CODE_SIGNING]), critical=False)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(keys.intermediate.public_key()),
            critical=False,
        )
        # Critical because the subject is empty (RFC 5280 section 4.2.1.6).
        .add_extension(
            x509.SubjectAlternativeName([x509.UniformResourceIdentifier(identity)]), critical=True
        )
        .add_extension(x509.UnrecognizedExtension(_ISSUER_V1, issuer_bytes), critical=False)
        .add_extension(
            x509.UnrecognizedExtension(_ISSUER_V2, _tlv(0x0C, issuer_bytes)), critical=False
        )
    )
    # The log signs the certificate as it is without the SCT; signing it is how to get those bytes.
    without_sct = builder.sign(keys.intermediate, hashes.SHA256()).tbs_certificate_bytes
    scts = _sct_list(keys, without_sct, milliseconds=int(now) * 1000)
    certificate = builder.add_extension(
        x509.UnrecognizedExtension(_SCT_LIST, _tlv(0x04, scts)), critical=False
    ).sign(keys.intermediate, hashes.SHA256())
    return LeafCredential(key, certificate)


def sign_digest(key: ec.EllipticCurvePrivateKey, digest: bytes) -> bytes:
    """An ECDSA signature (DER) over a SHA-256 digest, in the lower of its two forms.

    (r, s) and (r, n - s) both verify; always giving the lower leaves one encoding of each.
    """
    r, s = utils.decode_dss_signature(key.sign(digest, _DIGEST_SIGNATURE))
    return utils.encode_dss_signature(r, min(s, P256_ORDER - s))


def sign_message(key: ec.EllipticCurvePrivateKey, message: bytes) -> bytes:
    """As `sign_digest`, over the SHA-256 of `message`."""
    return sign_digest(key, hashlib.sha256(message).digest())


def _sct_list(keys: SigningKeys, without_sct: bytes, *, milliseconds: int) -> bytes:
    """SignedCertificateTimestampList of one SCT (RFC 6962 section 3.3)."""
    signed = (
        struct.pack(">BBQH", _SCT_VERSION, _CERTIFICATE_TIMESTAMP, milliseconds, _PRECERT_ENTRY)
        + key_id(keys.intermediate.public_key())
        + len(without_sct).to_bytes(3, "big")
        + without_sct
        + b"\x00\x00"
    )
    signature = sign_message(keys.ctlog, signed)
    sct = (
        struct.pack(">B", _SCT_VERSION)
        + key_id(keys.ctlog.public_key())
        + struct.pack(">QH", milliseconds, 0)
        + _SHA256_ECDSA
        + struct.pack(">H", len(signature))
        + signature
    )
    listed = struct.pack(">H", len(sct)) + sct
    return struct.pack(">H", len(listed)) + listed


def _tlv(tag: int, content: bytes) -> bytes:
    """One DER element."""
    size = len(content)
    if size < 0x80:
        return bytes([tag, size]) + content
    length = size.to_bytes((size.bit_length() + 7) // 8, "big")
    return bytes([tag, 0x80 | len(length)]) + length + content

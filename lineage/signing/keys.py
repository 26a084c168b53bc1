"""The keys of our signing service: made together, kept together, described to outsiders."""

import base64
import datetime as dt
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from lineage.signing.base import SigningError, SigningUnavailable
from lineage.signing.notes import NoteVerifier

# Names inside certificates, checkpoints and the trust root. They need not resolve: nothing here
# is ever asked over the network.
AUTHORITY_URL = "https://ca.clearance.local"
LOG_URL = "https://log.clearance.local"
CT_LOG_URL = "https://ct.clearance.local"
LOG_NAME = "log.clearance.local"
CHECKPOINT_NAME = "clearance.local/journal"
DEFAULT_ISSUER = "https://clearance.local"

_CA_LIFETIME = dt.timedelta(days=3650)
_BACKDATE = dt.timedelta(minutes=5)  # clocks of two machines may differ by this much
_KEY_NAMES = ("root", "intermediate", "log", "ctlog", "checkpoint")


@dataclass(frozen=True, slots=True)
class SigningKeys:
    """Private keys and CA certificates. The root signs the intermediate once and then rests."""

    root: ec.EllipticCurvePrivateKey
    intermediate: ec.EllipticCurvePrivateKey
    log: ec.EllipticCurvePrivateKey
    ctlog: ec.EllipticCurvePrivateKey
    checkpoint: ed25519.Ed25519PrivateKey
    root_certificate: x509.Certificate
    intermediate_certificate: x509.Certificate

    @property
    def log_id(self) -> bytes:
        """RFC 6962 log id: SHA-256 of the log key's SubjectPublicKeyInfo."""
        return key_id(self.log.public_key())

    @property
    def checkpoint_verifier(self) -> NoteVerifier:
        return NoteVerifier(CHECKPOINT_NAME, self.checkpoint.public_key())


def key_id(key: ec.EllipticCurvePublicKey) -> bytes:
    """SHA-256 of a public key's SubjectPublicKeyInfo in DER."""
    return hashlib.sha256(public_der(key)).digest()


def public_der(key: ec.EllipticCurvePublicKey) -> bytes:
    """SubjectPublicKeyInfo in DER."""
    return key.public_bytes(
        serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    )


def make_keys(*, now: float) -> SigningKeys:
    """New keys; the CA certificates are valid from `now` (seconds since the epoch), ten years."""
    start = dt.datetime.fromtimestamp(int(now), dt.UTC) - _BACKDATE
    root, intermediate = (ec.generate_private_key(ec.SECP256R1()) for _ in range(2))
    root_name = _name("Clearance root")
    root_certificate = _ca_certificate(
        subject=root_name, key=root, issuer=root_name, issuer_key=root, start=start, path_length=1
    )
    intermediate_certificate = _ca_certificate(
        subject=_name("Clearance intermediate"),
        key=intermediate,
        issuer=root_name,
        issuer_key=root,
        start=start,
        path_length=0,
    )
    return SigningKeys(
        root=root,
        intermediate=intermediate,
        log=ec.generate_private_key(ec.SECP256R1()),
        ctlog=ec.generate_private_key(ec.SECP256R1()),
        checkpoint=ed25519.Ed25519PrivateKey.generate(),
        root_certificate=root_certificate,
        intermediate_certificate=intermediate_certificate,
    )


def load_or_make_keys(folder: Path, *, now: float) -> SigningKeys:
    """The keys in `folder`, made on first use.

    All files are written to a new folder that is then renamed, so processes that start together
    agree on one set and a crash leaves none or all. Raises SigningUnavailable.
    """
    try:
        if not folder.is_dir():
            folder.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            _store(make_keys(now=now), folder)
        return _load(folder)
    except OSError as error:
        raise SigningUnavailable(
            f"the signing keys in {folder} cannot be used: {error.strerror}."
        ) from error


def _store(keys: SigningKeys, folder: Path) -> None:
    fresh = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
    try:
        for name in _KEY_NAMES:
            private = getattr(keys, name)
            pem = private.private_bytes(
                serialization.Encoding.PEM,
                serialization.PrivateFormat.PKCS8,
                serialization.NoEncryption(),
            )
            _write_private(fresh / f"{name}.key", pem)
        for name in ("root", "intermediate"):
            certificate: x509.Certificate = getattr(keys, f"{name}_certificate")
            _write_private(
                fresh / f"{name}.pem", certificate.public_bytes(serialization.Encoding.PEM)
            )
        _sync(fresh)
        # Fails when another process was first: its folder is not empty.
        os.rename(fresh, folder)
        _sync(folder.parent)
    except OSError:
        shutil.rmtree(fresh, ignore_errors=True)
        if not folder.is_dir():
            raise


def _load(folder: Path) -> SigningKeys:
    loaded: dict[str, Any] = {}
    for name in _KEY_NAMES:
        path = folder / f"{name}.key"
        if path.stat().st_mode & 0o077:
            raise SigningError(f"{path} can be read by others: chmod 600 it, or make new keys.")
        try:
            loaded[name] = serialization.load_pem_private_key(path.read_bytes(), password=None)
        except (ValueError, TypeError) as error:
            raise SigningError(f"{path} is not a private key: restore it.") from error
    for name in ("root", "intermediate"):
        path = folder / f"{name}.pem"
        try:
            loaded[f"{name}_certificate"] = x509.load_pem_x509_certificate(path.read_bytes())
        except ValueError as error:
            raise SigningError(f"{path} is not a certificate: restore it.") from error
    return SigningKeys(**loaded)


def trusted_root(keys: SigningKeys) -> dict[str, Any]:
    """Sigstore's TrustedRoot document (protobuf-specs, media type version 0.1)."""
    start = keys.root_certificate.not_valid_before_utc
    chain = (keys.intermediate_certificate, keys.root_certificate)
    return {
        "mediaType": "application/vnd.dev.sigstore.trustedroot+json;version=0.1",
        "tlogs": [_log_instance(LOG_URL, keys.log.public_key(), start)],
        "certificateAuthorities": [
            {
                "subject": {"organization": "Clearance", "commonName": "Clearance root"},
                "uri": AUTHORITY_URL,
                "certChain": {
                    "certificates": [
                        {"rawBytes": _text(item.public_bytes(serialization.Encoding.DER))}
                        for item in chain
                    ]
                },
                "validFor": {"start": _stamp(start)},
            }
        ],
        "ctlogs": [_log_instance(CT_LOG_URL, keys.ctlog.public_key(), start)],
        "timestampAuthorities": [],
    }


def trust_config(keys: SigningKeys, *, issuer: str) -> dict[str, Any]:
    """Sigstore's ClientTrustConfig: what `sigstore --trust-config` reads."""
    valid_for = {"start": _stamp(keys.root_certificate.not_valid_before_utc)}

    def service(url: str) -> dict[str, Any]:
        return {
            "url": url,
            "majorApiVersion": 1,
            "validFor": valid_for,
            "operator": "clearance.local",
        }

    return {
        "mediaType": "application/vnd.dev.sigstore.clienttrustconfig.v0.1+json",
        "trustedRoot": trusted_root(keys),
        "signingConfig": {
            "mediaType": "application/vnd.dev.sigstore.signingconfig.v0.2+json",
            "caUrls": [service(AUTHORITY_URL)],
            "oidcUrls": [service(issuer)],
            "rekorTlogUrls": [service(LOG_URL)],
            "rekorTlogConfig": {"selector": "ANY"},
            "tsaUrls": [],
        },
    }


def public_keys(keys: SigningKeys) -> Mapping[str, str]:
    """PEM of every certificate and public key, and the checkpoint key in C2SP's form."""
    files = {
        "root.pem": keys.root_certificate.public_bytes(serialization.Encoding.PEM).decode(),
        "intermediate.pem": keys.intermediate_certificate.public_bytes(
            serialization.Encoding.PEM
        ).decode(),
        "checkpoint.vkey": keys.checkpoint_verifier.text + "\n",
    }
    for name in ("log", "ctlog", "checkpoint"):
        public = getattr(keys, name).public_key()
        files[f"{name}.pem"] = public.public_bytes(
            serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
        ).decode()
    return files


def compact_json(document: Mapping[str, Any]) -> str:
    """JSON on one line with sorted keys."""
    return json.dumps(document, sort_keys=True, separators=(",", ":"), ensure_ascii=False)


def _log_instance(url: str, key: ec.EllipticCurvePublicKey, start: dt.datetime) -> dict[str, Any]:
    return {
        "baseUrl": url,
        "hashAlgorithm": "SHA2_256",
        "publicKey": {
            "rawBytes": _text(public_der(key)),
            "keyDetails": "PKIX_ECDSA_P256_SHA_256",
            "validFor": {"start": _stamp(start)},
        },
        "logId": {"keyId": _text(key_id(key))},
    }


def _ca_certificate(
    *,
    subject: x509.Name,
    key: ec.EllipticCurvePrivateKey,
    issuer: x509.Name,
    issuer_key: ec.EllipticCurvePrivateKey,
    start: dt.datetime,
    path_length: int,
) -> x509.Certificate:
    usage = x509.KeyUsage(
        digital_signature=False,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=True,
        crl_sign=True,
        encipher_only=False,
        decipher_only=False,
    )
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(start)
        .not_valid_after(start + _CA_LIFETIME)
        .add_extension(x509.BasicConstraints(ca=True, path_length=path_length), critical=True)
        .add_extension(usage, critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer_key.public_key()),
            critical=False,
        )
    )
    if path_length == 0:
        only_code = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CODE_SIGNING])
        builder = builder.add_extension(only_code, critical=False)
    return builder.sign(issuer_key, hashes.SHA256())


def _name(common_name: str) -> x509.Name:
    return x509.Name(
        [
            x509.NameAttribute(NameOID.ORGANIZATION_NAME, "Clearance"),
            x509.NameAttribute(NameOID.COMMON_NAME, common_name),
        ]
    )


def _stamp(moment: dt.datetime) -> str:
    return moment.strftime("%Y-%m-%dT%H:%M:%SZ")


def _text(content: bytes) -> str:
    return base64.b64encode(content).decode()


def _write_private(path: Path, content: bytes) -> None:
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(handle, "wb") as stream:
        stream.write(content)
        stream.flush()
        os.fsync(stream.fileno())


def _sync(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)

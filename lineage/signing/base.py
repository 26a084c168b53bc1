"""What the product asks of a signer: sigstore bundles that outsiders verify offline."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol


class SigningError(Exception):
    """Signing or verification could not be done."""


class SigningUnavailable(SigningError):
    """The keys or the service cannot be reached; the same call may work later."""


class VerificationFailed(SigningError):
    """The bundle does not prove what it claims."""


@dataclass(frozen=True, slots=True)
class VerifiedStatement:
    """An in-toto statement whose DSSE signature, certificate and log entry all hold."""

    statement: Mapping[str, Any]
    identity: str
    signed_at: float  # seconds since the epoch, from the log entry


class Signer(Protocol):
    """Signs blobs and in-toto statements as sigstore bundles v0.3 (media type `...v0.3+json`).

    `identity` becomes the certificate's subject alternative name (a URI such as a SPIFFE ID).
    """

    @property
    def issuer(self) -> str:
        """The OIDC issuer written into certificates, which verifiers must expect."""

    def sign_blob(self, payload: bytes, *, identity: str) -> str:
        """A bundle (JSON text) holding a message signature over `payload`."""

    def sign_digest(self, sha256_hex: str, *, identity: str) -> str:
        """The same for a file known by its SHA-256 alone (large weights are not read again)."""

    def sign_statement(self, statement: Mapping[str, Any], *, identity: str) -> str:
        """A bundle (JSON text) holding a DSSE envelope of an in-toto statement v1."""

    def sign_model(self, directory: Path, *, identity: str) -> str:
        """A model-signing (OMS) bundle over all files of a model directory."""

    def verify_blob(self, payload: bytes, bundle: str, *, identity: str) -> None:
        """Raise `VerificationFailed` unless `bundle` proves that `identity` signed `payload`."""

    def verify_statement(self, bundle: str, *, identity: str) -> VerifiedStatement:
        """The statement in a bundle, once everything about it holds."""

    def sign_note(self, text: str) -> str:
        """`text` as a C2SP signed note (checkpoint), with our log key's signature line."""

    def verify_note(self, note: str) -> str:
        """The text of a signed note. Raises `VerificationFailed`."""

    def trust_config(self) -> str:
        """Sigstore ClientTrustConfig JSON (trusted root + signing config) for outsiders."""

    def trusted_root(self) -> str:
        """Sigstore TrustedRoot JSON alone."""

    def public_keys(self) -> Mapping[str, str]:
        """PEM of every key and certificate a verifier needs, by file name."""

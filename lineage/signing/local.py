"""Signing with keys on this machine: a private CA and transparency log in Sigstore's formats."""

import hashlib
import re
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from lineage.signing.authority import issue_leaf, sign_digest
from lineage.signing.base import SigningError, VerifiedStatement
from lineage.signing.bundles import (
    blob_bundle,
    blob_entry,
    encode_statement,
    log_entry,
    pre_authentication,
    statement_bundle,
    statement_entry,
)
from lineage.signing.keys import (
    CHECKPOINT_NAME,
    DEFAULT_ISSUER,
    SigningKeys,
    compact_json,
    load_or_make_keys,
    public_keys,
    trust_config,
    trusted_root,
)
from lineage.signing.log import TransparencyLog
from lineage.signing.models import model_statement
from lineage.signing.notes import sign_note
from lineage.signing.verification import BundleVerifier

_SHA256_HEX = re.compile(r"[0-9a-f]{64}")


class LocalSigner:
    """A `Signer` whose CA, log and keys live in one folder (0700, files 0600).

    Each signature has its own key and certificate, as with Fulcio, and its own log entry, as with
    Rekor; `sigstore verify … --offline` with `trust_config()` accepts the bundles.
    """

    def __init__(
        self,
        folder: Path,
        *,
        issuer: str = DEFAULT_ISSUER,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """`issuer` is the OIDC issuer written into certificates; `clock` gives epoch seconds."""
        self.issuer = issuer
        self._folder = folder
        self._clock = clock
        self._log = TransparencyLog(folder / "log.sqlite3")
        self._keys: SigningKeys | None = None
        self._verifier: BundleVerifier | None = None

    def sign_blob(self, payload: bytes, *, identity: str) -> str:
        """See `Signer.sign_blob`."""
        return self._sign_digest(hashlib.sha256(payload).digest(), identity=identity)

    def sign_digest(self, sha256_hex: str, *, identity: str) -> str:
        """See `Signer.sign_digest`; `sha256:<hex>` is taken as well."""
        digits = sha256_hex.removeprefix("sha256:")
        if not _SHA256_HEX.fullmatch(digits):
            raise SigningError(f"{sha256_hex[:80]!r} is not a SHA-256: write 64 hex digits.")
        return self._sign_digest(bytes.fromhex(digits), identity=identity)

    def sign_statement(self, statement: Mapping[str, Any], *, identity: str) -> str:
        """See `Signer.sign_statement`."""
        payload = encode_statement(statement)
        keys, now = self._open(), self._clock()
        leaf = issue_leaf(keys, identity=identity, issuer=self.issuer, now=now)
        digest = hashlib.sha256(pre_authentication(payload)).digest()
        signature = sign_digest(leaf.key, digest)
        body = statement_entry(payload, signature, leaf.certificate)
        entry = self._record(keys, kind="dsse", body=body, logged_at=int(now))
        return statement_bundle(payload, signature, leaf.certificate, entry)

    def sign_model(self, directory: Path, *, identity: str) -> str:
        """See `Signer.sign_model`; `model_signing verify sigstore --trust_config` accepts it."""
        return self.sign_statement(model_statement(directory), identity=identity)

    def verify_blob(self, payload: bytes, bundle: str, *, identity: str) -> None:
        """See `Signer.verify_blob`; sigstore-python does the verification, offline."""
        self._verification().verify_blob(payload, bundle, identity=identity)

    def verify_statement(self, bundle: str, *, identity: str) -> VerifiedStatement:
        """See `Signer.verify_statement`."""
        return self._verification().verify_statement(bundle, identity=identity)

    def sign_note(self, text: str) -> str:
        """See `Signer.sign_note`. The key is one of its own, Ed25519, and signs nothing else."""
        return sign_note(text, name=CHECKPOINT_NAME, key=self._open().checkpoint)

    def verify_note(self, note: str) -> str:
        """See `Signer.verify_note`."""
        return self._open().checkpoint_verifier.open(note)

    def trust_config(self) -> str:
        """See `Signer.trust_config`."""
        return compact_json(trust_config(self._open(), issuer=self.issuer))

    def trusted_root(self) -> str:
        """See `Signer.trusted_root`."""
        return compact_json(trusted_root(self._open()))

    def public_keys(self) -> Mapping[str, str]:
        """See `Signer.public_keys`."""
        return public_keys(self._open())

    def _sign_digest(self, digest: bytes, *, identity: str) -> str:
        keys, now = self._open(), self._clock()
        leaf = issue_leaf(keys, identity=identity, issuer=self.issuer, now=now)
        signature = sign_digest(leaf.key, digest)
        body = blob_entry(digest, signature, leaf.certificate)
        entry = self._record(keys, kind="hashedrekord", body=body, logged_at=int(now))
        return blob_bundle(digest, signature, leaf.certificate, entry)

    def _record(
        self, keys: SigningKeys, *, kind: str, body: bytes, logged_at: int
    ) -> dict[str, Any]:
        proof = self._log.append(body)
        return log_entry(keys, kind=kind, body=body, proof=proof, logged_at=logged_at)

    def _open(self) -> SigningKeys:
        if self._keys is None:
            self._keys = load_or_make_keys(self._folder, now=self._clock())
        return self._keys

    def _verification(self) -> BundleVerifier:
        if self._verifier is None:
            self._verifier = BundleVerifier(self.trust_config(), issuer=self.issuer)
        return self._verifier

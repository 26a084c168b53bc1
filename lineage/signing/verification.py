"""Verification by sigstore-python itself, offline, against our trust root."""

import contextlib
from collections.abc import Iterator

from sigstore.errors import Error as SigstoreError
from sigstore.hashes import Hashed
from sigstore.models import Bundle, ClientTrustConfig
from sigstore.verify import Verifier, policy
from sigstore_models.common.v1 import HashAlgorithm

from lineage.signing.base import VerificationFailed, VerifiedStatement
from lineage.signing.bundles import PAYLOAD_TYPE, STATEMENT_TYPE, decode_object


class BundleVerifier:
    """sigstore's `Verifier` with one trust root and one issuer."""

    def __init__(self, trust_config: str, *, issuer: str) -> None:
        """`trust_config` is ClientTrustConfig JSON. Raises VerificationFailed when it is not."""
        with _reporting("the trust config cannot be read"):
            config = ClientTrustConfig.from_json(trust_config)
            self._verifier = Verifier(trusted_root=config.trusted_root)
        self._issuer = issuer

    def verify_blob(self, payload: bytes, bundle: str, *, identity: str) -> None:
        """Raise VerificationFailed unless `bundle` proves that `identity` signed `payload`."""
        with _reporting("the bundle does not prove this file"):
            self._verifier.verify_artifact(
                payload, Bundle.from_json(bundle), self._policy(identity)
            )

    def verify_digest(self, sha256_hex: str, bundle: str, *, identity: str) -> None:
        """The same for a file known by its SHA-256 alone."""
        with _reporting("the bundle does not prove this digest"):
            digest = Hashed(algorithm=HashAlgorithm.SHA2_256, digest=bytes.fromhex(sha256_hex))
            self._verifier.verify_artifact(digest, Bundle.from_json(bundle), self._policy(identity))

    def verify_statement(self, bundle: str, *, identity: str) -> VerifiedStatement:
        """The in-toto statement in a bundle. Raises VerificationFailed."""
        with _reporting("the bundle does not prove its statement"):
            parsed = Bundle.from_json(bundle)
            payload_type, payload = self._verifier.verify_dsse(parsed, self._policy(identity))
            statement = decode_object(payload)
            if payload_type != PAYLOAD_TYPE or statement.get("_type") != STATEMENT_TYPE:
                raise VerificationFailed("the bundle holds no in-toto statement v1.")
            entry = decode_object(bundle)["verificationMaterial"]["tlogEntries"][0]
            return VerifiedStatement(statement, identity, float(entry["integratedTime"]))

    def _policy(self, identity: str) -> policy.Identity:
        return policy.Identity(identity=identity, issuer=self._issuer)


@contextlib.contextmanager
def _reporting(problem: str) -> Iterator[None]:
    try:
        yield
    except SigstoreError as error:
        raise VerificationFailed(f"{problem}: {error}.") from error
    except (ValueError, TypeError, KeyError, IndexError, AttributeError) as error:
        # Malformed base64, DER or protobuf JSON surfaces as any of these inside sigstore.
        raise VerificationFailed(f"{problem}: it is malformed.") from error

"""Signatures of bundle versions: whether the signed statement proves the content that is kept."""

import base64
import functools
import json
from dataclasses import dataclass
from urllib.parse import quote, urlsplit

from cryptography import x509

from governance.models import BundleVersion
from governance.policy.base import PolicyModule
from governance.policy.bundle import bundle_digest
from governance.services.bundles import SYSTEM
from lineage.signing import get_signer
from lineage.signing.base import SigningError, SigningUnavailable

KEPT_ANSWERS = 1024  # a version never changes, so its signature is verified once a process
_SYSTEM_PATH = "/bootstrap"


@dataclass(frozen=True, slots=True)
class SignatureState:
    """What verification found: `word` is valid, unsigned, broken or unknown."""

    word: str
    text: str
    identity: str = ""

    @property
    def is_valid(self) -> bool:
        """Whether the content is proven."""
        return self.word == "valid"


def signature_of(version: BundleVersion) -> SignatureState:
    """Verify a version: digest over the content, statement over the digest, signer its author."""
    if not version.signature_bundle:
        return SignatureState("unsigned", "This version carries no signature.")
    modules = [PolicyModule(m["path"], m["source"]) for m in version.modules]
    if bundle_digest(modules, version.parameters) != version.digest:
        return SignatureState("broken", "The content is not what its digest names.")
    try:
        return _verified(version.signature_bundle, version.digest, version.created_by)
    except SigningUnavailable as error:
        return SignatureState("unknown", f"The signature cannot be verified now: {error}")


@functools.lru_cache(maxsize=KEPT_ANSWERS)
def _verified(signature: str, digest: str, author: str) -> SignatureState:
    """Raises SigningUnavailable, which is no answer to keep."""
    try:
        identity = _identity_in(signature)
        verified = get_signer().verify_statement(signature, identity=identity)
    except SigningUnavailable:
        raise
    except (SigningError, ValueError) as error:
        return SignatureState("broken", f"The signature does not hold: {error}")
    subjects = {s["digest"].get("sha256", "") for s in verified.statement["subject"]}
    if digest.removeprefix("sha256:") not in subjects:
        return SignatureState("broken", "The signature is over other content.", identity)
    # The address of this installation may change; who signed below it may not.
    signer = _SYSTEM_PATH if author == SYSTEM.id else f"/people/{quote(author)}"
    if urlsplit(identity).path != signer:
        return SignatureState("broken", f"Signed by {identity}, not by its author.", identity)
    return SignatureState("valid", f"Signed by {identity}.", identity)


def _identity_in(signature: str) -> str:
    """The URI in the signing certificate; verification then proves it. Raises ValueError."""
    try:
        raw = json.loads(signature)["verificationMaterial"]["certificate"]["rawBytes"]
        certificate = x509.load_der_x509_certificate(base64.b64decode(raw))
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        return str(names.get_values_for_type(x509.UniformResourceIdentifier)[0])
    except (KeyError, TypeError, IndexError, x509.ExtensionNotFound) as error:
        raise ValueError("it is no sigstore bundle with a certificate") from error

"""Sigstore bundles v0.3 and the Rekor entries inside them, as bytes."""

import base64
import hashlib
import json
from collections.abc import Mapping
from typing import Any

import rfc8785
from cryptography import x509
from cryptography.hazmat.primitives import serialization

from lineage.signing.authority import sign_message
from lineage.signing.base import SigningError
from lineage.signing.keys import LOG_NAME, SigningKeys, compact_json
from lineage.signing.log import LogProof

BUNDLE_TYPE = "application/vnd.dev.sigstore.bundle.v0.3+json"
PAYLOAD_TYPE = "application/vnd.in-toto+json"
STATEMENT_TYPE = "https://in-toto.io/Statement/v1"
ENTRY_VERSION = "0.0.1"


def pre_authentication(payload: bytes) -> bytes:
    """What a DSSE signature covers (dsse protocol v1)."""
    head = f"DSSEv1 {len(PAYLOAD_TYPE)} {PAYLOAD_TYPE} {len(payload)} "
    return head.encode() + payload


def encode_statement(statement: Mapping[str, Any]) -> bytes:
    """An in-toto statement v1 as canonical JSON. Raises SigningError when it is not one."""
    subjects = statement.get("subject")
    if statement.get("_type") != STATEMENT_TYPE:
        raise SigningError(f"statement._type must be {STATEMENT_TYPE}.")
    if not isinstance(statement.get("predicateType"), str) or not statement["predicateType"]:
        raise SigningError("statement.predicateType must be a URI.")
    if not isinstance(subjects, list | tuple) or not subjects:
        raise SigningError("statement.subject must list at least one artifact.")
    for number, subject in enumerate(subjects):
        if not isinstance(subject, Mapping) or not isinstance(subject.get("digest"), Mapping):
            raise SigningError(f"statement.subject[{number}].digest is missing.")
    try:
        content: bytes = rfc8785.dumps(_plain(statement))
    except (rfc8785.CanonicalizationError, RecursionError) as error:
        raise SigningError(f"the statement is not canonical JSON: {error}.") from error
    return content


def blob_entry(digest: bytes, signature: bytes, certificate: x509.Certificate) -> bytes:
    """A Rekor v1 `hashedrekord` entry body."""
    document = {
        "apiVersion": ENTRY_VERSION,
        "kind": "hashedrekord",
        "spec": {
            "data": {"hash": {"algorithm": "sha256", "value": digest.hex()}},
            "signature": {
                "content": _text(signature),
                "publicKey": {"content": _text(_pem(certificate))},
            },
        },
    }
    return compact_json(document).encode()


def statement_entry(payload: bytes, signature: bytes, certificate: x509.Certificate) -> bytes:
    """A Rekor v1 `dsse` entry body."""
    envelope = compact_json(dsse_envelope(payload, signature)).encode()
    document = {
        "apiVersion": ENTRY_VERSION,
        "kind": "dsse",
        "spec": {
            "envelopeHash": {"algorithm": "sha256", "value": hashlib.sha256(envelope).hexdigest()},
            "payloadHash": {"algorithm": "sha256", "value": hashlib.sha256(payload).hexdigest()},
            "signatures": [{"signature": _text(signature), "verifier": _text(_pem(certificate))}],
        },
    }
    return compact_json(document).encode()


def dsse_envelope(payload: bytes, signature: bytes) -> dict[str, Any]:
    """A DSSE envelope of an in-toto statement."""
    return {
        "payload": _text(payload),
        "payloadType": PAYLOAD_TYPE,
        "signatures": [{"sig": _text(signature)}],
    }


def log_entry(
    keys: SigningKeys, *, kind: str, body: bytes, proof: LogProof, logged_at: int
) -> dict[str, Any]:
    """The bundle's transparency entry: inclusion proof, signed checkpoint and SET.

    `logged_at` is in seconds since the epoch and is what the certificate's validity is held to.
    """
    promise: dict[str, Any] = {
        "body": _text(body),
        "integratedTime": logged_at,
        "logID": keys.log_id.hex(),
        "logIndex": proof.position,
    }
    return {
        "logIndex": str(proof.position),
        "logId": {"keyId": _text(keys.log_id)},
        "kindVersion": {"kind": kind, "version": ENTRY_VERSION},
        "integratedTime": str(logged_at),
        "inclusionPromise": {
            "signedEntryTimestamp": _text(sign_message(keys.log, rfc8785.dumps(promise)))
        },
        "inclusionProof": {
            "logIndex": str(proof.position),
            "rootHash": _text(proof.root),
            "treeSize": str(proof.size),
            "hashes": [_text(item) for item in proof.path],
            "checkpoint": {"envelope": _checkpoint(keys, proof)},
        },
        "canonicalizedBody": _text(body),
    }


def blob_bundle(
    digest: bytes, signature: bytes, certificate: x509.Certificate, entry: Mapping[str, Any]
) -> str:
    """A bundle over a file with that SHA-256."""
    signed = {
        "messageDigest": {"algorithm": "SHA2_256", "digest": _text(digest)},
        "signature": _text(signature),
    }
    return _bundle(certificate, entry, {"messageSignature": signed})


def statement_bundle(
    payload: bytes, signature: bytes, certificate: x509.Certificate, entry: Mapping[str, Any]
) -> str:
    """A bundle over an in-toto statement."""
    return _bundle(certificate, entry, {"dsseEnvelope": dsse_envelope(payload, signature)})


def _bundle(
    certificate: x509.Certificate, entry: Mapping[str, Any], content: Mapping[str, Any]
) -> str:
    der = certificate.public_bytes(serialization.Encoding.DER)
    return compact_json(
        {
            "mediaType": BUNDLE_TYPE,
            "verificationMaterial": {
                "certificate": {"rawBytes": _text(der)},
                "tlogEntries": [entry],
            },
            **content,
        }
    )


def _checkpoint(keys: SigningKeys, proof: LogProof) -> str:
    """The log's signed tree head in the form Rekor v1 gives it: ECDSA, hint from the log id."""
    text = f"{LOG_NAME}\n{proof.size}\n{_text(proof.root)}\n"
    signature = keys.log_id[:4] + sign_message(keys.log, text.encode())
    return f"{text}\n\N{EM DASH} {LOG_NAME} {_text(signature)}\n"


def _plain(value: Any) -> Any:
    """Mappings and sequences of any kind as the dict and list rfc8785 takes."""
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return value


def _pem(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(serialization.Encoding.PEM)


def _text(content: bytes) -> str:
    return base64.b64encode(content).decode()


def decode_object(text: str | bytes) -> dict[str, Any]:
    """JSON that must be an object. Raises ValueError."""
    try:
        document = json.loads(text)
    except RecursionError as error:
        raise ValueError("nested too deep") from error
    if not isinstance(document, dict):
        raise ValueError("not an object")
    return document

"""Evidence packs: all about one Goal, or a time, in a ZIP that an outsider verifies offline."""

import base64
import hashlib
import io
import itertools
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO

import rfc8785

from lineage.evidence.archive import write_archive
from lineage.evidence.base import (
    CHECKPOINT,
    CONSISTENCY,
    FORMAT,
    MANIFEST,
    MANIFEST_SIGNATURE,
    PROOF,
    RECORDS,
    SEAL,
    SEAL_ORIGIN,
    SVID_BUNDLE,
    TRUST_CONFIG,
    TRUSTED_ROOT,
    EvidenceError,
    PackContents,
    SignedFile,
    checked_document,
    checked_name,
)
from lineage.evidence.verify_text import verify_instructions
from lineage.merkle import leaf_hash, root_from_leaves
from lineage.signing.base import Signer

# The verifier is a file of this package and goes into every pack byte for byte.
VERIFIER = Path(__file__).with_name("verify.py")
# What a reader would look for; a pack that lacks one says so in its gaps.
_EXPECTED_DOCUMENTS = (
    "goal.json",
    "graph.json",
    "ledger.json",
    "decisions.json",
    "approvals.json",
    "attempts.json",
    "releases.json",
    "spans.jsonl",
    "provenance.json",
)
_EXPECTED_IN_RANGE = ("goals.json", "decisions.json", "approvals.json", "releases.json")


def build_pack(contents: PackContents, *, signer: Signer, identity: str) -> bytes:
    """The pack as bytes; see `write_pack`."""
    target = io.BytesIO()
    write_pack(contents, target, signer=signer, identity=identity)
    return target.getvalue()


def write_pack(contents: PackContents, target: BinaryIO, *, signer: Signer, identity: str) -> int:
    """Write the pack to `target`; returns its size in bytes.

    `identity` is the URI that signs the manifest. The archive's encoding is fixed: the same files
    always give the same bytes, and verifiers refuse any other encoding. Raises EvidenceError when
    the proof does not fit the records or something is too large, SigningError when the signer
    cannot sign.
    """
    files = _gather(contents, signer)
    files["VERIFY.md"] = verify_instructions(contents, identity=identity).encode()
    manifest = _manifest(contents, files, signer=signer, identity=identity)
    signature = signer.sign_blob(manifest, identity=identity).encode()
    seal = signer.sign_note(
        f"{SEAL_ORIGIN}\n{contents.subject_line}\n"
        f"manifest sha256:{_sha256(manifest)}\nsignature sha256:{_sha256(signature)}\n"
    )
    files |= {MANIFEST: manifest, MANIFEST_SIGNATURE: signature, SEAL: seal.encode()}
    return write_archive(files, target)


def parse_checkpoint(text: str) -> tuple[str, int, bytes]:
    """Origin, tree size and root of a checkpoint's text (c2sp.org/tlog-checkpoint).

    Raises ValueError.
    """
    lines = text.split("\n")
    if len(lines) < 4 or not lines[0] or not lines[1].isascii() or not lines[1].isdecimal():
        raise ValueError("not a checkpoint")
    root = base64.b64decode(lines[2], validate=True)
    if len(root) != hashlib.sha256().digest_size or str(int(lines[1])) != lines[1]:
        raise ValueError("not a checkpoint")
    return lines[0], int(lines[1]), root


def _gather(contents: PackContents, signer: Signer) -> dict[str, bytes]:
    """Every file but the manifest and what signs it."""
    files: dict[str, bytes] = {
        RECORDS: b"".join(record.content + b"\n" for record in contents.records),
        PROOF: _proof(contents, signer),
        CHECKPOINT: contents.checkpoint.encode(),
        TRUST_CONFIG: signer.trust_config().encode(),
        TRUSTED_ROOT: signer.trusted_root().encode(),
        "verify.py": VERIFIER.read_bytes(),
    }
    for name, text in signer.public_keys().items():
        files[f"keys/{name}"] = text.encode()
    if contents.svid_bundle:
        files[SVID_BUNDLE] = contents.svid_bundle
    for name, content in contents.documents.items():
        files[checked_document(name)] = content
    for folder, held in (("policies", contents.policies), ("manifests", contents.manifests)):
        for digest, content in held.items():
            if digest != f"sha256:{_sha256(content)}":
                raise EvidenceError(f"{folder}: the bytes given for {digest} hash to another one.")
            files[f"{folder}/{digest.removeprefix('sha256:')}.json"] = content
    _add_older(contents, files)
    for signed in contents.bundles:
        _add_bundle(signed, files)
    return files


def _proof(contents: PackContents, signer: Signer) -> bytes:
    """The proof that every record is in the checkpoint's tree; checked before it is shipped."""
    _, size, root = parse_checkpoint(signer.verify_note(contents.checkpoint))
    indexes = [record.index for record in contents.records]
    leaves = [leaf_hash(record.content) for record in contents.records]
    try:
        found = root_from_leaves(indexes, leaves, size=size, siblings=contents.siblings)
    except ValueError as error:
        raise EvidenceError(f"the proof does not fit the records: {error}") from error
    if found != root:
        raise EvidenceError("the records and the proof do not give the checkpoint's root.")
    return compact(
        {
            "size": size,
            "indexes": indexes,
            "leaves": [leaf.hex() for leaf in leaves],
            "siblings": [item.hex() for item in contents.siblings],
        }
    )


def _add_older(contents: PackContents, files: dict[str, bytes]) -> None:
    proofs: dict[str, list[str]] = {}
    for older in contents.older:
        try:
            _, size, _ = parse_checkpoint(older.note.rpartition("\n\n")[0] + "\n")
        except ValueError as error:
            raise EvidenceError("an older checkpoint cannot be read.") from error
        files[f"checkpoints/{size}.txt"] = older.note.encode()
        proofs[str(size)] = [item.hex() for item in older.consistency]
    files[CONSISTENCY] = compact(proofs)


def _add_bundle(signed: SignedFile, files: dict[str, bytes]) -> None:
    path = checked_name(f"bundles/{signed.name}.sigstore.json")
    if path in files:
        raise EvidenceError(f"two bundles are named {signed.name}.")
    files[path] = signed.bundle.encode()
    if signed.payload is not None:
        files[checked_name(f"payloads/{signed.name}")] = signed.payload


def _manifest(
    contents: PackContents, files: Mapping[str, bytes], *, signer: Signer, identity: str
) -> bytes:
    origin, size, root = parse_checkpoint(signer.verify_note(contents.checkpoint))
    return canonical(
        {
            "format": FORMAT,
            **contents.subject,
            "exported_at": contents.exported_at,
            "signer": {"identity": identity, "issuer": contents.issuer},
            "checkpoint": {"origin": origin, "size": size, "root": root.hex()},
            "records": len(contents.records),
            "bundles": [_described(signed) for signed in contents.bundles],
            "files": {
                name: {"sha256": _sha256(content), "size": len(content)}
                for name, content in files.items()
            },
            "gaps": list(dict.fromkeys([*contents.gaps, *_own_gaps(contents)])),
        }
    )


def _described(signed: SignedFile) -> dict[str, str]:
    entry = {
        "path": f"bundles/{signed.name}.sigstore.json",
        "identity": signed.identity,
        "payload": f"payloads/{signed.name}" if signed.payload is not None else "",
        "sha256": signed.sha256.removeprefix("sha256:"),
    }
    if signed.payload is not None:
        entry["sha256"] = _sha256(signed.payload)
    return entry


def _own_gaps(contents: PackContents) -> list[str]:
    """What this pack cannot show, found from what it holds."""
    expected = _EXPECTED_IN_RANGE if contents.is_range else _EXPECTED_DOCUMENTS
    gaps = [f"{name} is not in the pack." for name in expected if name not in contents.documents]
    if not contents.svid_bundle:
        gaps.append("The SPIFFE trust bundle is not in the pack: SVIDs cannot be checked.")
    indexes = [record.index for record in contents.records]
    links = sum(1 for left, right in itertools.pairwise(indexes) if left + 1 == right)
    apart = max(0, len(indexes) - 1) - links
    if apart:
        others, this = ("namespaces", "namespace") if contents.is_range else ("Goals", "Goal")
        gaps.append(
            f"{apart} of {len(indexes) - 1} neighbouring records are not adjacent in the journal: "
            f"what lies between belongs to other {others}. Inclusion is proven for each record; "
            f"that no record of this {this} was left out is not."
        )
    absent = sum(1 for signed in contents.bundles if signed.payload is None and signed.sha256)
    if absent:
        gaps.append(f"{absent} signed files are named by SHA-256 only and are not in the pack.")
    gaps.append(
        "The CA, the transparency log and the journal are run by the party that made this pack; "
        "no independent witness has signed its checkpoints."
    )
    return gaps


def canonical(document: Mapping[str, Any]) -> bytes:
    """Canonical JSON (RFC 8785). Raises EvidenceError."""
    try:
        content: bytes = rfc8785.dumps(dict(document))
    except rfc8785.CanonicalizationError as error:
        raise EvidenceError(f"the manifest cannot be written: {error}.") from error
    return content


def compact(document: Mapping[str, Any]) -> bytes:
    """JSON with sorted keys and no space: canonical for integers, hex and ASCII keys, and fast."""
    return json.dumps(document, sort_keys=True, separators=(",", ":")).encode()


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()

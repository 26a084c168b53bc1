"""What goes into an evidence pack, and the fixed names and rules of its format."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

FORMAT = "clearance.evidence/v1"
EVERY_NAMESPACE = "*"  # in a pack of a time: the whole journal of that time
SEAL_ORIGIN = "clearance.local/evidence-pack"

MANIFEST = "manifest.json"
MANIFEST_SIGNATURE = "manifest.sigstore.json"
SEAL = "seal.txt"
RECORDS = "records.jsonl"
PROOF = "proof.json"
CHECKPOINT = "checkpoint.txt"
CONSISTENCY = "consistency.json"
TRUSTED_ROOT = "keys/trusted_root.json"
TRUST_CONFIG = "keys/trust_config.json"
SVID_BUNDLE = "keys/svid_bundle.json"
UNSEALED = frozenset({MANIFEST, MANIFEST_SIGNATURE, SEAL})

# Folders and files that the pack itself fills; `documents` may not use them.
_RESERVED_FOLDERS = ("keys/", "policies/", "manifests/", "bundles/", "payloads/", "checkpoints/")
_RESERVED_FILES = UNSEALED | {RECORDS, PROOF, CHECKPOINT, CONSISTENCY, "VERIFY.md", "verify.py"}
NAME_PATTERN = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*(/[A-Za-z0-9][A-Za-z0-9._-]*){0,3}")
NAME_MAX_CHARS = 200

# What a plain ZIP can hold (APPNOTE 4.4.1.4 without ZIP64), so that any tool opens a pack.
FILES_MAX = 65_534
PACK_MAX_BYTES = (1 << 32) - 1


class EvidenceError(Exception):
    """The pack cannot be made from what was given; the text names the part."""


@dataclass(frozen=True, slots=True)
class PackedRecord:
    """One journal record: its leaf number in the journal's tree and its canonical JSON bytes."""

    index: int
    content: bytes


@dataclass(frozen=True, slots=True)
class OlderCheckpoint:
    """An earlier signed checkpoint with the proof that the pack's checkpoint extends it."""

    note: str
    consistency: tuple[bytes, ...]


@dataclass(frozen=True, slots=True)
class SignedFile:
    """A sigstore bundle and what it signs.

    `name` is its file name in the pack. A bundle over a blob gives `payload`, or only `sha256`
    (64 hex digits) where the blob is too big for the pack; a DSSE bundle needs neither.
    """

    name: str
    bundle: str
    identity: str
    payload: bytes | None = None
    sha256: str = ""


@dataclass(frozen=True, slots=True)
class PackContents:
    """All of one Goal's evidence, or that of a time.

    A pack of a time has `since` and `until` (RFC 3339 with microseconds, UTC; `until` is not in
    it), no Goal, and in `namespace` the one whose records it holds, or EVERY_NAMESPACE.

    `records` rise by index and are this Goal's, or this time's, alone; `siblings` is
    `MerkleTree.siblings([record.index …], size)` for the size of `checkpoint`.

    `documents` by path. Verifiers understand these, all optional; others are kept as they are:

    - `ledger.json`: {"accounts": [{"unit", "limit", "reserved", "settled"}], "entries": [{"unit",
      "kind", "debit", "credit", "amount", "key"}]}; entries in the order of the journal, pools
      `outside`, `available`, `reserved`, `settled`, a `key` once per unit. With a `uid`, an entry
      must agree with the journal record whose object is that `ledger_entry`; every such record
      must have its entry.
    - `decisions.json`: {"decisions": [{"uid", "bundle_digest", "input_digest",
      "input_canonical"?, "outcome"?}]}; an empty `bundle_digest` is for a denial for want of
      policy.
    - `approvals.json`: {"approvals": [{"uid", "request_digest", "request_canonical"}]}.
    - `releases.json`: {"releases": [{"digest", "service", "environment", "state"?}]}; the digest,
      or a layer of its manifest, must be signed unless the release was never in force.

    `policies` and `manifests` map `sha256:<hex>` to the exact bytes that hash to it: a policy
    bundle's canonical JSON, an OCI manifest.
    """

    goal_uid: str
    namespace: str
    goal_name: str
    exported_at: str  # RFC 3339, UTC
    issuer: str  # OIDC issuer in the certificates of the bundles
    records: Sequence[PackedRecord]
    siblings: Sequence[bytes]
    checkpoint: str
    older: Sequence[OlderCheckpoint] = ()
    documents: Mapping[str, bytes] = field(default_factory=dict)
    policies: Mapping[str, bytes] = field(default_factory=dict)
    manifests: Mapping[str, bytes] = field(default_factory=dict)
    bundles: Sequence[SignedFile] = ()
    svid_bundle: bytes = b""
    gaps: Sequence[str] = ()
    since: str = ""
    until: str = ""

    @property
    def is_range(self) -> bool:
        """Whether the pack is about a time rather than about one Goal."""
        return bool(self.since)

    @property
    def subject(self) -> dict[str, dict[str, str]]:
        """What the pack is about, as its manifest says it."""
        if self.is_range:
            span = {"namespace": self.namespace, "from": self.since, "until": self.until}
            return {"range": span}
        goal = {"uid": self.goal_uid, "namespace": self.namespace, "name": self.goal_name}
        return {"goal": goal}

    @property
    def subject_line(self) -> str:
        """What the pack is about, as its seal says it."""
        if self.is_range:
            return f"range {self.namespace} {self.since} {self.until}"
        return self.goal_uid


def checked_name(name: str) -> str:
    """A file name that is safe to unpack anywhere. Raises EvidenceError."""
    if not NAME_PATTERN.fullmatch(name) or len(name) > NAME_MAX_CHARS:
        raise EvidenceError(
            f"{name[:80]!r} is not a name for a file in a pack: use letters, digits, '.', '_', "
            "'-' and at most three folders."
        )
    return name


def checked_document(name: str) -> str:
    """A document's name, which must not be one the pack fills itself. Raises EvidenceError."""
    if name in _RESERVED_FILES or name.startswith(_RESERVED_FOLDERS):
        raise EvidenceError(f"{name!r} is a name the pack keeps for itself.")
    return checked_name(name)

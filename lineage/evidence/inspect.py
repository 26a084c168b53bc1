"""The second verifier of evidence packs: sigstore-python and our own ports, steps as data."""

import datetime as dt
import hashlib
import io
import mmap
import os
import stat
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import rfc8785

from lineage.evidence.archive import write_archive
from lineage.evidence.balances import check_ledger, disagreeing_record
from lineage.evidence.base import (
    CHECKPOINT,
    CONSISTENCY,
    EVERY_NAMESPACE,
    FILES_MAX,
    FORMAT,
    MANIFEST,
    MANIFEST_SIGNATURE,
    PACK_MAX_BYTES,
    PROOF,
    RECORDS,
    SEAL,
    SEAL_ORIGIN,
    TRUST_CONFIG,
    TRUSTED_ROOT,
    UNSEALED,
    checked_name,
)
from lineage.evidence.pack import parse_checkpoint
from lineage.evidence.strict_json import canonical_object, strict_object
from lineage.merkle import leaf_hash, root_from_leaves, verify_consistency
from lineage.signing.base import Signer
from lineage.signing.notes import NoteVerifier
from lineage.signing.verification import BundleVerifier

_RECORD_KEYS = frozenset(
    ("seq", "at", "actor", "action", "object", "namespace", "goal", "body", "prev")
)
_DETAIL_MAX_CHARS = 300
_GAPS_MAX = 1000
_NOT_IN_FORCE = ("denied", "awaiting_approval")  # such releases need no signature
_GENESIS = "0" * 64
_MOMENT = "%Y-%m-%dT%H:%M:%S.%fZ"


class PackRefused(Exception):
    """A step that does not hold; the text says why."""


@dataclass(frozen=True, slots=True)
class Step:
    """One check and what came of it."""

    name: str
    ok: bool
    detail: str


@dataclass(frozen=True, slots=True)
class BadRecord:
    """A record that is not the journal's; `position` counts from 0 within the pack."""

    position: int
    seq: int | None
    action: str


@dataclass(frozen=True, slots=True)
class PackReport:
    """What a verification found; `gaps` is what the pack itself says it cannot show."""

    steps: tuple[Step, ...]
    first_bad: BadRecord | None
    gaps: tuple[str, ...]
    fingerprint: str

    @property
    def ok(self) -> bool:
        return bool(self.steps) and all(step.ok for step in self.steps)


def inspect_pack(path: Path, *, signer: Signer | None = None) -> PackReport:
    """Verify the pack at `path`, a ZIP or a folder; never raises for what the pack holds.

    With `signer`, the pack's keys must be that signer's; without, they are only said to be
    consistent, and the caller compares `fingerprint` with one that was published elsewhere.
    """
    inspection = _Inspection()
    inspection.run("archive", lambda: inspection.read(path))
    if inspection.files:
        inspection.run("trust", lambda: inspection.check_trust(signer))
        for name, check in inspection.checks():
            inspection.run(name, check)
    return inspection.report()


@dataclass(slots=True)
class _Inspection:
    """The files of a pack and what later steps need from earlier ones."""

    files: dict[str, bytes] = field(default_factory=dict)
    steps: list[Step] = field(default_factory=list)
    first_bad: BadRecord | None = None
    manifest: Mapping[str, Any] = field(default_factory=dict)
    lines: list[bytes] = field(default_factory=list)
    records: list[Mapping[str, Any]] = field(default_factory=list)
    indexes: list[int] = field(default_factory=list)
    checkpoint: tuple[str, int, bytes] | None = None
    signed: set[str] = field(default_factory=set)

    def run(self, name: str, check: Callable[[], str]) -> None:
        try:
            detail, is_ok = check(), True
        except PackRefused as error:
            detail, is_ok = str(error), False
        # What a hostile pack can make JSON, DER, protobuf and ZIP readers raise is not a closed
        # list; whatever it is, the step has not held.
        except Exception as error:
            detail, is_ok = f"{type(error).__name__}: {error}", False
        self.steps.append(Step(name, is_ok, _shown(detail)))

    def report(self) -> PackReport:
        gaps = self.manifest.get("gaps", [])
        found = gaps if isinstance(gaps, list) else []
        return PackReport(
            steps=tuple(self.steps),
            first_bad=self.first_bad,
            gaps=tuple(_shown(str(gap)) for gap in found[:_GAPS_MAX]),
            fingerprint=self._fingerprint(),
        )

    def checks(self) -> tuple[tuple[str, Callable[[], str]], ...]:
        return (
            ("manifest", self.check_manifest),
            ("seal", self.check_seal),
            ("signature", self.check_signature),
            ("checkpoint", self.check_checkpoint),
            ("records", self.check_records),
            ("inclusion", self.check_inclusion),
            ("chain", self.check_chain),
            ("consistency", self.check_consistency),
            ("bundles", self.check_bundles),
            ("digests", self.check_digests),
            ("ledger", self.check_ledger),
            ("decisions", self.check_decisions),
            ("approvals", self.check_approvals),
            ("releases", self.check_releases),
        )

    def read(self, path: Path) -> str:
        if path.is_dir():
            self._read_folder(path)
            if not self.files:
                raise PackRefused("an empty folder")
            return f"{len(self.files)} files in a folder"
        if path.stat().st_size > PACK_MAX_BYTES:
            raise PackRefused("larger than a pack can be")
        with (
            path.open("rb") as stream,
            mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as content,
        ):
            self._read_zip(content)
            comparing = _Comparing(content)
            size = write_archive(self.files, comparing)  # type: ignore[arg-type]
            if not comparing.same or size != len(content):
                raise PackRefused("the ZIP is not encoded as packs are")
        if not self.files:
            raise PackRefused("an empty archive")
        return f"{len(self.files)} files, encoded as packs are"

    def _read_folder(self, path: Path) -> None:
        total = 0
        for folder, _, names in os.walk(path):
            for name in names:
                file = Path(folder) / name
                short = file.relative_to(path).as_posix()
                status = file.lstat()
                total += status.st_size
                if not stat.S_ISREG(status.st_mode):
                    raise PackRefused(f"{short} is no plain file")
                if total > PACK_MAX_BYTES or len(self.files) >= FILES_MAX:
                    raise PackRefused("larger than a pack can be")
                self.files[short] = file.read_bytes()

    def _read_zip(self, content: mmap.mmap) -> None:
        with zipfile.ZipFile(io.BufferedReader(_Window(content))) as archive:
            members = archive.infolist()
        if len({member.filename for member in members}) != len(members):
            raise PackRefused("two files have one name")
        if sum(member.file_size for member in members) > len(content):
            raise PackRefused("the files are larger than the archive: nothing may be compressed")
        for member in members:
            name = checked_name(member.filename)
            # The bytes themselves, whatever their checksum says: a changed record is to be named.
            start = member.header_offset + 30 + len(name)
            self.files[name] = content[start : start + member.file_size]

    def check_trust(self, signer: Signer | None) -> str:
        config = strict_object(self._file(TRUST_CONFIG))
        if config["trustedRoot"] != strict_object(self._file(TRUSTED_ROOT)):
            raise PackRefused("trust_config.json and trusted_root.json differ")
        if signer is not None:
            own = signer.trusted_root().encode() + signer.public_keys()["checkpoint.vkey"].encode()
            if own != self._file(TRUSTED_ROOT) + self._file("keys/checkpoint.vkey"):
                raise PackRefused("the keys in the pack are not ours")
            return "the keys are ours"
        return f"keys have the fingerprint {self._fingerprint()}"

    def check_manifest(self) -> str:
        content = self._file(MANIFEST)
        manifest = strict_object(content)
        if manifest["format"] != FORMAT or rfc8785.dumps(manifest) != content:
            raise PackRefused("manifest.json is not a canonical manifest of this format")
        self.manifest = manifest
        actual = {
            name: {"sha256": _sha256(held), "size": len(held)}
            for name, held in self.files.items()
            if name not in UNSEALED
        }
        wrong = sorted(
            name
            for name in {*actual, *manifest["files"]}
            if actual.get(name) != manifest["files"].get(name)
        )
        if wrong:
            raise PackRefused(f"changed, missing or added: {', '.join(wrong[:5])}")
        return f"{len(actual)} files have the SHA-256 the manifest names"

    def check_seal(self) -> str:
        key = self._note_key()
        _, line, _ = _subject(strict_object(self._file(MANIFEST)))
        expected = (
            f"{SEAL_ORIGIN}\n{line}\nmanifest sha256:{_sha256(self._file(MANIFEST))}\n"
            f"signature sha256:{_sha256(self._file(MANIFEST_SIGNATURE))}\n"
        )
        if key.open(self._file(SEAL).decode()) != expected:
            raise PackRefused("it seals another manifest or signature")
        return f"the manifest and its signature are sealed by {key.name}"

    def check_signature(self) -> str:
        identity = self.manifest["signer"]["identity"]
        bundle = self._file(MANIFEST_SIGNATURE).decode()
        self._verifier().verify_blob(self._file(MANIFEST), bundle, identity=identity)
        return f"manifest signed by {identity}"

    def check_checkpoint(self) -> str:
        origin, size, root = parse_checkpoint(
            self._note_key().open(self._file(CHECKPOINT).decode())
        )
        self.checkpoint = (origin, size, root)
        if self.manifest["checkpoint"] != {"origin": origin, "size": size, "root": root.hex()}:
            raise PackRefused("the manifest names another checkpoint")
        return f"{origin} had {size} records"

    def check_records(self) -> str:
        content = self._file(RECORDS)
        if content and not content.endswith(b"\n"):
            raise PackRefused("the last record is cut short")
        self.lines = content.removesuffix(b"\n").split(b"\n") if content else []
        belongs, _, noun = _subject(strict_object(self._file(MANIFEST)))
        for position, line in enumerate(self.lines):
            try:
                self.records.append(_record(line, belongs))
            except Exception as error:  # as in `run`: whatever it is, this record is the one
                raise PackRefused(
                    f"{self._blame(position)} is not as it must be: {error}"
                ) from error
        return f"{len(self.records)} records of this {noun}, well-formed"

    def check_inclusion(self) -> str:
        proof = strict_object(self._file(PROOF))
        self.indexes = proof["indexes"]
        known = [_hash(text) for text in proof["leaves"]]
        for position, (line, leaf) in enumerate(zip(self.lines, known, strict=False)):
            if leaf_hash(line) != leaf:
                raise PackRefused(f"{self._blame(position)} is not the one in the journal")
        if not len(known) == len(self.lines) == self.manifest["records"]:
            raise PackRefused("records were added or taken away")
        siblings = [_hash(text) for text in proof["siblings"]]
        root = root_from_leaves(self.indexes, known, size=proof["size"], siblings=siblings)
        if self.checkpoint is None or (proof["size"], root) != self.checkpoint[1:]:
            raise PackRefused("the proof does not give the checkpoint's root")
        return "every record is in the tree of the signed checkpoint"

    def check_chain(self) -> str:
        if not len(self.records) == len(self.lines) == len(self.indexes):
            raise PackRefused("not all records could be read and placed")
        links = 0
        for position in range(1, len(self.records)):
            before, after = self.records[position - 1], self.records[position]
            distance = self.indexes[position] - self.indexes[position - 1]
            if after["seq"] - before["seq"] != distance:
                raise PackRefused(f"{self._blame(position)} is out of order")
            links += distance == 1
            if distance == 1 and after["prev"] != _sha256(self.lines[position - 1]):
                raise PackRefused(f"{self._blame(position)} does not follow the one before")
        if self.indexes[:1] == [0] and self.records[0]["prev"] != _GENESIS:
            raise PackRefused(f"{self._blame(0)} claims a record before the first")
        return f"in order; {links} links between adjacent records hold"

    def check_consistency(self) -> str:
        proofs = strict_object(self._file(CONSISTENCY))
        held = {name for name in self.files if name.startswith("checkpoints/")}
        if held != {f"checkpoints/{size}.txt" for size in proofs} or self.checkpoint is None:
            raise PackRefused("checkpoints and consistency proofs do not match")
        origin, size, root = self.checkpoint
        for label, path in proofs.items():
            note = self._note_key().open(self._file(f"checkpoints/{label}.txt").decode())
            old_origin, old_size, old_root = parse_checkpoint(note)
            if (old_origin, str(old_size)) != (origin, label) or not verify_consistency(
                old_size=old_size,
                size=size,
                old_root=old_root,
                root=root,
                path=[_hash(text) for text in path],
            ):
                raise PackRefused(f"the journal does not extend its checkpoint at {label}")
        return f"{len(proofs)} earlier checkpoints are the start of this one"

    def check_bundles(self) -> str:
        listed = self.manifest["bundles"]
        held = {name for name in self.files if name.startswith("bundles/")}
        if held != {item["path"] for item in listed}:
            raise PackRefused("bundles and manifest differ")
        verifier = self._verifier()
        for item in listed:
            bundle, identity = self._file(item["path"]).decode(), item["identity"]
            if not item["sha256"]:
                verified = verifier.verify_statement(bundle, identity=identity)
                self.signed |= {
                    subject["digest"].get("sha256", "") for subject in verified.statement["subject"]
                }
                continue
            if item["payload"] and _sha256(self._file(item["payload"])) != item["sha256"]:
                raise PackRefused(f"{item['path']}: its payload is another")
            verifier.verify_digest(item["sha256"], bundle, identity=identity)
            self.signed.add(item["sha256"])
        return f"{len(listed)} signatures by the identities named"

    def check_digests(self) -> str:
        held = [name for name in self.files if name.startswith(("policies/", "manifests/"))]
        for name in held:
            if name.partition("/")[2] != f"{_sha256(self.files[name])}.json":
                raise PackRefused(f"{name} has other bytes")
        return f"{len(held)} policy bundles and manifests hash to their names"

    def check_ledger(self) -> str:
        ledger = self._document("ledger.json")
        if ledger is None:
            return "no ledger in the pack"
        odd = disagreeing_record(ledger, self.records)
        if odd is not None:
            raise PackRefused(f"{self._blame(odd)} and the ledger do not agree")
        try:
            check_ledger(ledger)
        except ValueError as error:
            raise PackRefused(str(error)) from error
        return f"{len(ledger['entries'])} entries balance; nothing was overspent"

    def check_decisions(self) -> str:
        document = self._document("decisions.json")
        if document is None:
            return "no decisions in the pack"
        for item in document["decisions"]:
            digest = item["bundle_digest"]
            if not digest and item.get("outcome") == "deny":
                continue  # what no policy could decide was denied
            if f"policies/{_digits(digest)}.json" not in self.files:
                raise PackRefused(f"decision {item['uid']}: {digest} is not in the pack")
            shown = item.get("input_canonical")
            if shown is not None and _sha256(shown.encode()) != _digits(item["input_digest"]):
                raise PackRefused(f"decision {item['uid']}: its input has another digest")
        return f"{len(document['decisions'])} decisions name a policy bundle in the pack"

    def check_approvals(self) -> str:
        document = self._document("approvals.json")
        if document is None:
            return "no approvals in the pack"
        for item in document["approvals"]:
            if _sha256(item["request_canonical"].encode()) != _digits(item["request_digest"]):
                raise PackRefused(f"approval {item['uid']} answers another request")
        return f"{len(document['approvals'])} approvals are bound to their request"

    def check_releases(self) -> str:
        document = self._document("releases.json")
        if document is None:
            return "no releases in the pack"
        made = [item for item in document["releases"] if item.get("state") not in _NOT_IN_FORCE]
        for item in made:
            digits = _digits(item["digest"])
            names = {digits}
            if manifest := self._document(f"manifests/{digits}.json"):
                names |= {_digits(layer["digest"]) for layer in manifest["layers"]}
            if not names & self.signed:
                raise PackRefused(f"release of {item['digest']}: nobody signed it")
        return f"{len(made)} releases are of signed artifacts"

    def _file(self, name: str) -> bytes:
        if name not in self.files:
            raise PackRefused(f"{name} is missing")
        return self.files[name]

    def _document(self, name: str) -> dict[str, Any] | None:
        return strict_object(self.files[name]) if name in self.files else None

    def _note_key(self) -> NoteVerifier:
        return NoteVerifier.parse(self._file("keys/checkpoint.vkey").decode())

    def _verifier(self) -> BundleVerifier:
        issuer = self.manifest["signer"]["issuer"]
        return BundleVerifier(self._file(TRUST_CONFIG).decode(), issuer=issuer)

    def _fingerprint(self) -> str:
        parts = (self.files.get(TRUSTED_ROOT, b""), self.files.get("keys/checkpoint.vkey", b""))
        return _sha256(b"".join(parts))

    def _blame(self, position: int) -> str:
        seq, action = None, "unreadable"
        try:
            record = strict_object(self.lines[position])
            seq, action = int(record["seq"]), _shown(str(record["action"]))
        except (ValueError, KeyError, TypeError, OverflowError):
            pass  # it stays unreadable; its place is what is known
        if self.first_bad is None or position < self.first_bad.position:
            self.first_bad = BadRecord(position, seq, action)
        return f"record {position + 1}, sequence number {seq} ({action})"


class _Comparing:
    """A writer that compares with what is there instead of writing."""

    def __init__(self, content: mmap.mmap) -> None:
        self._content, self._position, self.same = content, 0, True

    def write(self, chunk: bytes) -> int:
        end = self._position + len(chunk)
        self.same = self.same and self._content[self._position : end] == chunk
        self._position = end
        return len(chunk)


class _Window(io.RawIOBase):
    """A map read as a file, so that the ZIP reader copies only the directory."""

    def __init__(self, content: mmap.mmap) -> None:
        self._content, self._position = content, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        base = {os.SEEK_SET: 0, os.SEEK_CUR: self._position, os.SEEK_END: len(self._content)}
        self._position = base[whence] + offset
        if self._position < 0:
            raise OSError("before the start")
        return self._position

    def readinto(self, buffer: Any) -> int:
        chunk = self._content[self._position : self._position + len(buffer)]
        buffer[: len(chunk)] = chunk
        self._position += len(chunk)
        return len(chunk)


def _subject(manifest: Mapping[str, Any]) -> tuple[Callable[[Mapping[str, Any]], bool], str, str]:
    """Whether a record belongs in the pack, how the seal names what it is about, and a noun."""
    if ("goal" in manifest) == ("range" in manifest):
        raise PackRefused("the manifest is about neither one Goal nor one time")
    if "goal" in manifest:
        uid, namespace = manifest["goal"]["uid"], manifest["goal"]["namespace"]
        return lambda one: (one["goal"], one["namespace"]) == (uid, namespace), uid, "Goal"
    space, since, until = (manifest["range"][key] for key in ("namespace", "from", "until"))
    low, high = _moment(since), _moment(until)

    def is_of_time(record: Mapping[str, Any]) -> bool:
        is_there = space in (EVERY_NAMESPACE, record["namespace"])
        return is_there and low <= _moment(record["at"]) < high

    return is_of_time, f"range {space} {since} {until}", "time"


def _moment(text: str) -> dt.datetime:
    """A moment in the one form that the journal writes."""
    moment = dt.datetime.strptime(text, _MOMENT).replace(tzinfo=dt.UTC)
    if moment.strftime(_MOMENT) != text:
        raise PackRefused("its time is written in another way")
    return moment


def _record(line: bytes, belongs: Callable[[Mapping[str, Any]], bool]) -> Mapping[str, Any]:
    record = canonical_object(line)
    if frozenset(record) != _RECORD_KEYS:
        raise PackRefused("its members are not those of a record")
    if type(record["seq"]) is not int or record["seq"] < 0:
        raise PackRefused("its sequence number is none")
    _hash(record["prev"])
    if not belongs(record):
        raise PackRefused("it belongs to another Goal, namespace or time")
    return record


def _shown(text: str) -> str:
    """Printable and short: a pack must not steer the terminal or page it is shown on."""
    return "".join(c if c.isprintable() else "?" for c in text[:_DETAIL_MAX_CHARS])


def _hash(text: str) -> bytes:
    raw = bytes.fromhex(text)
    if len(raw) != hashlib.sha256().digest_size or raw.hex() != text:
        raise PackRefused("a hash is not 64 hex digits")
    return raw


def _digits(digest: str) -> str:
    if not digest.startswith("sha256:"):
        raise PackRefused(f"{digest[:80]!r} is no SHA-256 digest")
    return digest.removeprefix("sha256:")


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()

#!/usr/bin/env python3
"""Verify an evidence pack offline: `python3 -I verify.py pack.zip`, or `.` once it is unpacked.

Needs Python 3.9 or later and, for signatures, the package `cryptography` or the `openssl` command
(3.0 or later). Reads nothing but the pack. Exits 0 when every step holds, 1 when one fails, 2 when
it was called wrongly.
"""

from __future__ import annotations

# ruff: noqa: B905, UP031 (zip() has no `strict` before Python 3.10; % keeps messages in one piece)
import argparse
import base64
import calendar
import hashlib
import json
import os
import re
import shutil
import stat
import struct
import subprocess
import sys
import tempfile
import time
import zlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

try:
    from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec, ed25519, utils

    HAS_CRYPTOGRAPHY = True
except ImportError:
    HAS_CRYPTOGRAPHY = False

FORMAT = "clearance.evidence/v1"
SEAL_ORIGIN = "clearance.local/evidence-pack"
UNSEALED = ("manifest.json", "manifest.sigstore.json", "seal.txt")
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*(/[A-Za-z0-9][A-Za-z0-9._-]*){0,3}")
HEX = re.compile(r"[0-9a-f]{64}")
# Moments of this one form sort as text in the order of time.
MOMENT = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}\.[0-9]{6}Z")
EVERY_NAMESPACE = "*"
RECORD_KEYS = {"seq", "at", "actor", "action", "object", "namespace", "goal", "body", "prev"}
# Releases that never were in force need no signature.
NOT_IN_FORCE = ("denied", "awaiting_approval")
POOLS = ("outside", "available", "reserved", "settled")

# Keys sorted by code point are in the order of RFC 8785 unless one has a character from U+E000 on,
# whose UTF-8 starts with this byte or a later one.
ASTRAL_LEAD = 0xEE
FAST_MAX_BYTES = 1 << 16
ENCODE = json.JSONEncoder(sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode

PACK_MAX_BYTES = 4 << 30  # a plain ZIP holds no more
FILES_MAX = 65534
NAME_MAX_CHARS = 200
DIGITS_MAX = 20  # a longer number is no count, time or amount
SHOWN_CHARS = 160  # of anything the pack says, so that it cannot flood a terminal
ORDER_HALF = 0x7FFFFFFF800000007FFFFFFFFFFFFFFFDE737D56D38BCF4279DCE5617E3192A8  # P-256 n // 2
P256_SPKI = bytes.fromhex("3059301306072a8648ce3d020106082a8648ce3d030107034200")
ED25519_SPKI = bytes.fromhex("302a300506032b6570032100")

# Whatever malformed input makes Python raise is a failed step, never a traceback.
MALFORMED = (
    ValueError,
    KeyError,
    TypeError,
    IndexError,
    AttributeError,
    RecursionError,
    OverflowError,
    MemoryError,
    struct.error,
    OSError,
)


class Failed(Exception):
    """A step does not hold."""


class Report:
    """What was found, step by step."""

    def __init__(self) -> None:
        self.steps: list[dict[str, Any]] = []
        self.first_bad: dict[str, Any] | None = None
        self.gaps: list[str] = []
        self.facts: dict[str, Any] = {}

    def run(self, name: str, step: Callable[[], str]) -> bool:
        """Run one step and keep what it says."""
        try:
            detail, is_ok = step(), True
        except Failed as error:
            detail, is_ok = str(error), False
        except MALFORMED as error:
            detail, is_ok = "malformed: " + type(error).__name__, False
        self.steps.append({"name": name, "ok": is_ok, "detail": clean(detail)})
        return is_ok

    def blame(self, position: int, content: bytes) -> str:
        """Name a record as the first bad one; returns how to call it."""
        seq, action = "?", "unreadable"
        try:
            record = parse(content)
            seq, action = str(record["seq"]), str(record["action"])
        except (Failed, *MALFORMED):
            pass
        if self.first_bad is None or position < self.first_bad["position"]:
            self.first_bad = {"position": position, "seq": clean(seq), "action": clean(action)}
        return "record %d, sequence number %s (%s)" % (position + 1, clean(seq), clean(action))

    @property
    def ok(self) -> bool:
        return bool(self.steps) and all(step["ok"] for step in self.steps)


def clean(text: str) -> str:
    """Printable and short: the pack must not steer the terminal it is shown on."""
    shown = "".join(c if c.isprintable() else "?" for c in str(text)[: SHOWN_CHARS * 4])
    shown = shown.encode("ascii", "replace").decode()
    return shown if len(shown) <= SHOWN_CHARS * 2 else shown[: SHOWN_CHARS * 2] + "..."


def need(condition: bool, problem: str) -> None:
    """Fail with `problem` unless `condition`."""
    if not condition:
        raise Failed(problem)


# --- JSON ----------------------------------------------------------------------------------------


def _pairs(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    need(len(found) == len(pairs), "JSON names a member twice")
    return found


def _whole(text: str) -> int:
    need(len(text) <= DIGITS_MAX, "JSON holds a number of over %d digits" % DIGITS_MAX)
    return int(text)


def _constant(text: str) -> float:
    raise Failed("JSON holds %s" % text)


def parse(content: bytes) -> Any:
    """Strict JSON: UTF-8, no member twice, no NaN, no huge number, no absurd depth."""
    return json.loads(
        content.decode("utf-8"),
        object_pairs_hook=_pairs,
        parse_int=_whole,
        parse_constant=_constant,
    )


def has_float(value: Any) -> bool:
    """Whether a value holds a number with a fraction or exponent."""
    if isinstance(value, float):
        return True
    if isinstance(value, dict):
        return any(has_float(item) for item in value.values())
    return isinstance(value, list) and any(has_float(item) for item in value)


def sort_members(value: Any) -> Any:
    """Objects with their members in the order of RFC 8785: by UTF-16 code units."""
    if isinstance(value, dict):
        keys = sorted(value, key=lambda key: key.encode("utf-16-be", "surrogatepass"))
        return {key: sort_members(value[key]) for key in keys}
    return [sort_members(item) for item in value] if isinstance(value, list) else value


def is_canonical(content: bytes, value: Any) -> bool:
    """Whether `content` is the RFC 8785 form of `value` (fractions are not judged)."""
    if has_float(value):
        return True
    text = json.dumps(sort_members(value), separators=(",", ":"), ensure_ascii=False)
    return text.encode("utf-8") == content


def parse_canonical(content: bytes) -> Any:
    """Strict JSON in its RFC 8785 form.

    Most content is settled at the speed of C: what the encoder gives back byte for byte has no
    member twice and nothing in another order. The rest takes the long way.
    """
    if len(content) <= FAST_MAX_BYTES and (content.isascii() or max(content) < ASTRAL_LEAD):
        value = DECODE(content.decode("utf-8"))
        if ENCODE(value).encode("utf-8") == content:
            return value
    value = parse(content)
    need(is_canonical(content, value), "not canonical JSON")
    return value


def unbase64(text: str) -> bytes:
    """Base64 in the one way it can be written."""
    raw = base64.b64decode(text.encode("ascii"), validate=True)
    need(base64.b64encode(raw).decode() == text, "base64 with stray bits")
    return raw


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


DECODE = json.JSONDecoder(parse_constant=_constant).decode

# --- Signatures ----------------------------------------------------------------------------------


def check_ecdsa(key: bytes, signature: bytes, message: bytes) -> bool:
    """ECDSA P-256 over the SHA-256 of `message`; `key` is SubjectPublicKeyInfo in DER."""
    return check_ecdsa_digest(key, signature, hashlib.sha256(message).digest())


def check_ecdsa_digest(key: bytes, signature: bytes, digest: bytes) -> bool:
    """The same over a digest. Refuses every encoding of the signature but the canonical one."""
    if not key.startswith(P256_SPKI) or len(key) != len(P256_SPKI) + 65:
        return False
    fields = Der(signature).sequence()
    r, s = fields.integer(), fields.integer()
    fields.end()
    if not (r > 0 and 0 < s <= ORDER_HALF) or der_signature(r, s) != signature:
        return False
    if HAS_CRYPTOGRAPHY:
        public = serialization.load_der_public_key(key)
        assert isinstance(public, ec.EllipticCurvePublicKey)
        try:
            public.verify(signature, digest, ec.ECDSA(utils.Prehashed(hashes.SHA256())))
        except (InvalidSignature, UnsupportedAlgorithm):
            return False
        return True
    return openssl_verifies(key, signature, digest, [])


def check_ed25519(key: bytes, signature: bytes, message: bytes) -> bool:
    """Ed25519; `key` is the 32 raw bytes."""
    if HAS_CRYPTOGRAPHY:
        try:
            ed25519.Ed25519PublicKey.from_public_bytes(key).verify(signature, message)
        except (InvalidSignature, UnsupportedAlgorithm):
            return False
        return True
    return openssl_verifies(ED25519_SPKI + key, signature, message, ["-rawin"])


def openssl_verifies(key: bytes, signature: bytes, content: bytes, options: list[str]) -> bool:
    """One `openssl pkeyutl -verify`."""
    program = shutil.which("openssl")
    if program is None:
        raise Failed("needs the Python package cryptography or the openssl command")
    with tempfile.TemporaryDirectory() as folder:
        paths = {}
        pem = b"-----BEGIN PUBLIC KEY-----\n%s-----END PUBLIC KEY-----\n"
        held = {"key": pem % base64.encodebytes(key), "signature": signature, "content": content}
        for name, held_bytes in held.items():
            paths[name] = os.path.join(folder, name)
            with open(paths[name], "wb") as stream:
                stream.write(held_bytes)
        command = [program, "pkeyutl", "-verify", "-pubin", "-inkey", paths["key"]]
        command += ["-in", paths["content"], "-sigfile", paths["signature"]]
        done = subprocess.run([*command, *options], capture_output=True, timeout=30, check=False)
    if b"nknown option" in done.stderr or b"sage" in done.stderr:
        raise Failed("this openssl is too old: use 3.0 or later, or install cryptography")
    return done.returncode == 0


# --- DER -----------------------------------------------------------------------------------------


class Der:
    """A cursor over DER; every element has to be in its shortest form."""

    def __init__(self, content: bytes) -> None:
        self.content, self.position = content, 0

    def element(self) -> tuple[int, bytes, bytes]:
        """Tag, value, and the whole element."""
        start = self.position
        tag, size = self.content[start], self.content[start + 1]
        head = 2
        if size & 0x80:
            count = size & 0x7F
            need(1 <= count <= 4, "DER length")
            raw = self.content[start + 2 : start + 2 + count]
            size = int.from_bytes(raw, "big")
            need(len(raw) == count and raw[0] != 0 and size >= 0x80, "DER length")
            head += count
        end = start + head + size
        need(end <= len(self.content), "DER ends early")
        self.position = end
        return tag, self.content[start + head : end], self.content[start:end]

    def take(self, tag: int) -> bytes:
        found, value, _ = self.element()
        need(found == tag, "DER tag")
        return value

    def sequence(self) -> Der:
        return Der(self.take(0x30))

    def integer(self) -> int:
        return int.from_bytes(self.take(0x02), "big", signed=True)

    def peek(self) -> int:
        return self.content[self.position] if self.position < len(self.content) else -1

    def end(self) -> None:
        need(self.position == len(self.content), "DER goes on")


def tlv(tag: int, value: bytes) -> bytes:
    """One DER element."""
    if len(value) < 0x80:
        return bytes([tag, len(value)]) + value
    size = len(value).to_bytes((len(value).bit_length() + 7) // 8, "big")
    return bytes([tag, 0x80 | len(size)]) + size + value


def der_signature(r: int, s: int) -> bytes:
    parts = [tlv(2, n.to_bytes(n.bit_length() // 8 + 1, "big")) for n in (r, s)]
    return tlv(0x30, b"".join(parts))


def der_time(tag: int, value: bytes) -> int:
    text = value.decode("ascii")
    if tag == 0x17:  # UTCTime: two digits of the year, 1950 to 2049 (RFC 5280, 4.1.2.5.1)
        text = ("20" if text[:2] < "50" else "19") + text
    return calendar.timegm(time.strptime(text, "%Y%m%d%H%M%SZ"))


class Certificate:
    """The parts of an X.509 certificate that are checked."""

    SCT = bytes.fromhex("060a2b06010401d679020402")
    SAN, BASIC, EKU = (bytes.fromhex(h) for h in ("0603551d11", "0603551d13", "0603551d25"))
    ISSUER = bytes.fromhex("060a2b0601040183bf300108")
    CODE_SIGNING = bytes.fromhex("06082b06010505070303")

    def __init__(self, content: bytes) -> None:
        outer = Der(content)
        inner = outer.sequence()
        outer.end()
        _, tbs, self.signed = inner.element()
        inner.take(0x30)
        bits = inner.take(0x03)
        inner.end()
        need(bits[:1] == b"\x00", "certificate signature")
        self.signature = bits[1:]
        body = Der(tbs)
        head = [body.element()[2] for _ in range(3)]  # version, serial number, algorithm
        self.issuer = body.element()[2]
        validity = body.element()
        times = Der(validity[1])
        self.not_before, self.not_after = (der_time(*times.element()[:2]) for _ in range(2))
        self.subject = body.element()[2]
        self.key = body.element()[2]
        self.extensions: dict[bytes, bytes] = {}
        kept = []
        listed = Der(Der(body.take(0xA3)).take(0x30))
        while listed.peek() != -1:
            _, value, whole = listed.element()
            extension = Der(value)
            oid = extension.element()[2]
            if extension.peek() == 0x01:
                extension.element()
            need(oid not in self.extensions, "certificate names an extension twice")
            self.extensions[oid] = extension.take(0x04)
            if oid != self.SCT:
                kept.append(whole)
        middle = [self.issuer, validity[2], self.subject, self.key]
        without = tlv(0xA3, tlv(0x30, b"".join(kept)))
        self.without_sct = tlv(0x30, b"".join(head + middle) + without)
        self.raw = content

    def identity(self) -> str:
        """The one URI the certificate names."""
        names = Der(self.extensions[self.SAN]).sequence()
        uri = names.take(0x86).decode("ascii")
        names.end()
        return uri

    def oidc_issuer(self) -> str:
        return Der(self.extensions[self.ISSUER]).take(0x0C).decode("utf-8")

    def is_authority(self) -> bool:
        flags = Der(self.extensions[self.BASIC]).sequence()
        return flags.peek() == 0x01 and flags.take(0x01) == b"\xff"

    def signs_code(self) -> bool:
        usages = Der(self.extensions[self.EKU]).take(0x30)
        return self.CODE_SIGNING in usages

    def check_issued_by(self, other: Certificate) -> None:
        need(self.issuer == other.subject, "the certificate's issuer is another")
        need(other.is_authority(), "the issuer is no certificate authority")
        need(
            check_ecdsa_loose(other.key, self.signature, self.signed),
            "the certificate is not signed by its issuer",
        )


def check_ecdsa_loose(key: bytes, signature: bytes, message: bytes) -> bool:
    """For CA signatures, whose S may be either of its two values."""
    fields = Der(signature).sequence()
    r, s = fields.integer(), fields.integer()
    order = 2 * ORDER_HALF + 1
    low = der_signature(r, min(s, order - s))
    return der_signature(r, s) == signature and check_ecdsa(key, low, message)


# --- Merkle trees (RFC 9162) ---------------------------------------------------------------------


def node_hash(left: bytes, right: bytes) -> bytes:
    return hashlib.sha256(b"\x01" + left + right).digest()


def included(leaf: bytes, index: int, size: int, path: Sequence[bytes], root: bytes) -> bool:
    """Verify an audit path (RFC 9162, 2.1.3.2)."""
    if not 0 <= index < size:
        return False
    fn, sn, current = index, size - 1, leaf
    for sibling in path:
        if sn == 0:
            return False
        if fn & 1 or fn == sn:
            current = node_hash(sibling, current)
            while fn & 1 == 0 and fn:
                fn, sn = fn >> 1, sn >> 1
        else:
            current = node_hash(current, sibling)
        fn, sn = fn >> 1, sn >> 1
    return sn == 0 and current == root


def consistent(
    old_size: int, size: int, old_root: bytes, root: bytes, path: Sequence[bytes]
) -> bool:
    """Verify a consistency proof (RFC 9162, 2.1.4.2)."""
    if not 0 < old_size <= size:
        return False
    if old_size == size:
        return not path and old_root == root
    hashes_ = list(path)
    if old_size & (old_size - 1) == 0:
        hashes_.insert(0, old_root)
    if not hashes_:
        return False
    fn, sn = old_size - 1, size - 1
    while fn & 1:
        fn, sn = fn >> 1, sn >> 1
    old = new = hashes_[0]
    for sibling in hashes_[1:]:
        if sn == 0:
            return False
        if fn & 1 or fn == sn:
            old, new = node_hash(sibling, old), node_hash(sibling, new)
            while fn & 1 == 0 and fn:
                fn, sn = fn >> 1, sn >> 1
        else:
            new = node_hash(new, sibling)
        fn, sn = fn >> 1, sn >> 1
    return sn == 0 and old == old_root and new == root


class PartialTree:
    """The tree as far as a pack shows it: some leaves, and the subtrees between them."""

    def __init__(self, proof: dict[str, Any]) -> None:
        self.size: int = proof["size"]
        self.indexes: list[int] = proof["indexes"]
        self.leaves = [unhex(item) for item in proof["leaves"]]
        self.siblings = [unhex(item) for item in proof["siblings"]]
        previous = -1
        for index in self.indexes:
            need(type(index) is int and previous < index < self.size, "leaf numbers do not rise")
            previous = index
        need(len(self.leaves) == len(self.indexes), "a leaf has no number")
        self.at = 0
        self.path: list[bytes] = []
        self.wanted = -1

    def root(self, wanted: int = -1) -> bytes:
        """The root; keeps the audit path of leaf `wanted` in `path`."""
        self.at, self.path, self.wanted = 0, [], wanted
        root = self._walk(0, self.size, 0, len(self.indexes))
        need(self.at == len(self.siblings), "the proof has a hash too many")
        return root

    def _walk(self, begin: int, end: int, low: int, high: int) -> bytes:
        if low == high:
            self.at += 1
            need(self.at <= len(self.siblings), "the proof lacks a hash")
            return self.siblings[self.at - 1]
        if end - begin == 1:
            return self.leaves[low]
        middle = begin + (1 << ((end - begin - 1).bit_length() - 1))
        cut, right = low, high
        while cut < right:
            probe = (cut + right) // 2
            if self.indexes[probe] < middle:
                cut = probe + 1
            else:
                right = probe
        left_hash = self._walk(begin, middle, low, cut)
        right_hash = self._walk(middle, end, cut, high)
        if begin <= self.wanted < end:
            self.path.append(right_hash if self.wanted < middle else left_hash)
        return node_hash(left_hash, right_hash)


def unhex(text: str) -> bytes:
    need(isinstance(text, str) and HEX.fullmatch(text) is not None, "a hash is not 64 hex digits")
    return bytes.fromhex(text)


# --- Signed notes --------------------------------------------------------------------------------


class NoteKey:
    """A C2SP verifier key: `name+hint+base64(0x01 || key)`."""

    def __init__(self, text: str) -> None:
        need(text.endswith("\n") and text.count("\n") == 1, "the checkpoint key is malformed")
        self.name, hint, encoded = text[:-1].split("+", 2)
        raw = unbase64(encoded)
        need(raw[:1] == b"\x01" and len(raw) == 33, "the checkpoint key is not Ed25519")
        self.key = raw[1:]
        digest = hashlib.sha256(self.name.encode() + b"\n" + raw).digest()
        self.hint = digest[:4]
        need(self.hint.hex() == hint, "the checkpoint key's hint is wrong")

    def open(self, content: bytes) -> str:
        """A note's text once its one signature holds."""
        note = content.decode("utf-8")
        text, separator, line = note.rpartition("\n\n")
        prefix = "\u2014 %s " % self.name
        need(bool(separator) and line.startswith(prefix), "not signed by " + self.name)
        blob = unbase64(line[len(prefix) :].rstrip("\n"))
        need(len(blob) == 68 and blob[:4] == self.hint, "signed by another key")
        rebuilt = "%s\n\n%s%s\n" % (text, prefix, base64.b64encode(blob).decode())
        need(rebuilt == note, "not written as C2SP writes it")
        need(
            check_ed25519(self.key, blob[4:], (text + "\n").encode()),
            "the signature does not fit the text",
        )
        return text + "\n"


def parse_checkpoint(text: str) -> tuple[str, int, bytes]:
    """Origin, tree size, root."""
    lines = text.split("\n")
    need(len(lines) >= 4 and bool(re.fullmatch(r"0|[1-9][0-9]{0,15}", lines[1])), "no checkpoint")
    root = unbase64(lines[2])
    need(len(root) == 32, "no checkpoint")
    return lines[0], int(lines[1]), root


# --- Sigstore bundles ----------------------------------------------------------------------------


class TrustedRoot:
    """Keys and authorities of a Sigstore trusted root."""

    def __init__(self, content: bytes) -> None:
        document = parse(content)
        self.logs = self._keys(document["tlogs"])
        self.ct_logs = self._keys(document["ctlogs"])
        self.chains = [
            [
                Certificate(unbase64(item["rawBytes"]))
                for item in authority["certChain"]["certificates"]
            ]
            for authority in document["certificateAuthorities"]
        ]
        for chain in self.chains:
            for lower, upper in zip(chain, chain[1:] + chain[-1:]):
                lower.check_issued_by(upper)

    @staticmethod
    def _keys(logs: list[dict[str, Any]]) -> dict[bytes, bytes]:
        keys = [unbase64(log["publicKey"]["rawBytes"]) for log in logs]
        return {hashlib.sha256(key).digest(): key for key in keys}

    def issuer_of(self, leaf: Certificate) -> Certificate:
        for chain in self.chains:
            if chain[0].subject == leaf.issuer:
                return chain[0]
        raise Failed("its certificate was issued by an unknown authority")


class Bundle:
    """A sigstore bundle v0.3, with all of its parts verified by `check`."""

    def __init__(self, content: bytes) -> None:
        document = parse(content)
        need(
            document["mediaType"] == "application/vnd.dev.sigstore.bundle.v0.3+json",
            "not a sigstore bundle v0.3",
        )
        material = document["verificationMaterial"]
        self.certificate = Certificate(unbase64(material["certificate"]["rawBytes"]))
        need(len(material["tlogEntries"]) == 1, "not one log entry")
        self.entry: dict[str, Any] = material["tlogEntries"][0]
        self.body = unbase64(self.entry["canonicalizedBody"])
        self.message = document.get("messageSignature")
        self.envelope = document.get("dsseEnvelope")
        need((self.message is None) != (self.envelope is None), "not one signature")
        self.logged_at = int(self.entry["integratedTime"])

    def check(self, trusted: TrustedRoot, *, identity: str, issuer: str) -> None:
        """Certificate, its transparency, and the log entry."""
        leaf, upper = self.certificate, trusted.issuer_of(self.certificate)
        leaf.check_issued_by(upper)
        need(
            leaf.not_before <= self.logged_at <= leaf.not_after
            and upper.not_before <= self.logged_at <= upper.not_after,
            "the certificate was not valid when the signature was logged",
        )
        need(leaf.signs_code(), "the certificate is not for signing")
        need(leaf.identity() == identity, "signed by %s, not by %s" % (leaf.identity(), identity))
        need(leaf.oidc_issuer() == issuer, "the identity comes from another issuer")
        self._check_sct(trusted, upper)
        self._check_log(trusted)

    def _check_sct(self, trusted: TrustedRoot, upper: Certificate) -> None:
        listed = Der(self.certificate.extensions[Certificate.SCT]).take(0x04)
        total, size = struct.unpack(">HH", listed[:4])
        sct = listed[4:]
        need(total == size + 2 and len(sct) == size, "not one certificate timestamp")
        version, log_id, stamp, extra = struct.unpack(">B32sQH", sct[:43])
        need(version == 0 and extra == 0 and sct[43:45] == b"\x04\x03", "certificate timestamp")
        signature = sct[47:]
        need(struct.unpack(">H", sct[45:47])[0] == len(signature), "certificate timestamp")
        without = self.certificate.without_sct
        message = struct.pack(">BBQH", 0, 0, stamp, 1) + hashlib.sha256(upper.key).digest()
        message += len(without).to_bytes(3, "big") + without + b"\x00\x00"
        need(log_id in trusted.ct_logs, "certificate timestamp of an unknown log")
        need(
            check_ecdsa(trusted.ct_logs[log_id], signature, message),
            "the certificate timestamp is not signed by the log",
        )

    def _check_log(self, trusted: TrustedRoot) -> None:
        entry, proof = self.entry, self.entry["inclusionProof"]
        log_id = unbase64(entry["logId"]["keyId"])
        need(log_id in trusted.logs, "logged in an unknown log")
        key = trusted.logs[log_id]
        promise = json.dumps(
            {
                "body": entry["canonicalizedBody"],
                "integratedTime": self.logged_at,
                "logID": log_id.hex(),
                "logIndex": int(entry["logIndex"]),
            },
            sort_keys=True,
            separators=(",", ":"),
        )
        stamp = unbase64(entry["inclusionPromise"]["signedEntryTimestamp"])
        need(check_ecdsa(key, stamp, promise.encode()), "the log did not promise this entry")
        envelope = proof["checkpoint"]["envelope"]
        text, separator, line = envelope.rpartition("\n\n")
        need(bool(separator) and line.startswith("\u2014 "), "the log's checkpoint is malformed")
        blob = unbase64(line.rstrip("\n").rsplit(" ", 1)[1])
        need(
            blob[:4] == log_id[:4] and check_ecdsa(key, blob[4:], (text + "\n").encode()),
            "the log's checkpoint is not signed by the log",
        )
        _, size, root = parse_checkpoint(text + "\n")
        path = [unbase64(item) for item in proof["hashes"]]
        leaf = hashlib.sha256(b"\x00" + self.body).digest()
        need(
            size == int(proof["treeSize"])
            and root == unbase64(proof["rootHash"])
            and included(leaf, int(proof["logIndex"]), size, path, root),
            "the entry is not in the log",
        )

    def _pem(self) -> str:
        text = base64.b64encode(self.certificate.raw).decode()
        lines = [text[i : i + 64] for i in range(0, len(text), 64)]
        pem = "-----BEGIN CERTIFICATE-----\n%s\n-----END CERTIFICATE-----\n" % "\n".join(lines)
        return base64.b64encode(pem.encode()).decode()

    def check_digest(self, digest: bytes) -> None:
        """That it signs a file with this SHA-256."""
        need(self.message is not None, "it signs a statement, not a file")
        held, spec = self.message, parse(self.body)["spec"]
        signature = unbase64(held["signature"])
        need(unbase64(held["messageDigest"]["digest"]) == digest, "it signs another file")
        need(
            spec["data"]["hash"] == {"algorithm": "sha256", "value": digest.hex()}
            and spec["signature"]["content"] == held["signature"]
            and spec["signature"]["publicKey"]["content"] == self._pem(),
            "the log entry is about something else",
        )
        need(
            check_ecdsa_digest(self.certificate.key, signature, digest),
            "the signature does not fit the file",
        )

    def check_statement(self) -> dict[str, Any]:
        """The in-toto statement it signs."""
        need(self.envelope is not None, "it signs a file, not a statement")
        payload = unbase64(self.envelope["payload"])
        kind = self.envelope["payloadType"]
        need(kind == "application/vnd.in-toto+json", "its payload is no in-toto statement")
        need(len(self.envelope["signatures"]) == 1, "not one signature")
        encoded = self.envelope["signatures"][0]["sig"]
        spec = parse(self.body)["spec"]
        need(
            spec["payloadHash"] == {"algorithm": "sha256", "value": sha256(payload)}
            and spec["signatures"] == [{"signature": encoded, "verifier": self._pem()}],
            "the log entry is about something else",
        )
        signed = b"DSSEv1 %d %s %d " % (len(kind), kind.encode(), len(payload)) + payload
        need(
            check_ecdsa(self.certificate.key, unbase64(encoded), signed),
            "the signature does not fit the statement",
        )
        statement = parse(payload)
        need(statement["_type"] == "https://in-toto.io/Statement/v1", "no in-toto statement v1")
        found: dict[str, Any] = statement
        return found


# --- Reading the pack ----------------------------------------------------------------------------


def read_zip(path: str, report: Report) -> dict[str, bytes]:
    """The files of a pack, which must be encoded in the one way packs are."""
    files: dict[str, bytes] = {}

    def step() -> str:
        size = os.path.getsize(path)
        need(22 <= size <= PACK_MAX_BYTES, "not the size of a pack")
        with open(path, "rb") as stream:
            content = stream.read(PACK_MAX_BYTES + 1)
        problem = walk_zip(content, files)
        need(not problem, problem)
        return "%d files, %d bytes, encoded as packs are" % (len(files), len(content))

    report.run("archive", step)
    return files


def walk_zip(content: bytes, files: dict[str, bytes]) -> str:
    """Fill `files`; returns what is not as it must be, while the files can still be read."""
    view, position, listing, problem = memoryview(content), 0, [], ""
    while content[position : position + 4] == b"PK\x03\x04":
        fixed = struct.unpack("<HHHHHIIIHH", view[position + 4 : position + 30])
        size, length = fixed[7], fixed[8]
        raw = bytes(view[position + 30 : position + 30 + length])
        name = raw.decode("ascii", "replace")
        start = position + 30 + length
        need(length <= NAME_MAX_CHARS and start + size <= len(content), "a file is cut short")
        need(NAME.fullmatch(name) is not None, "unsafe file name: " + name)
        need(name not in files, "two files are named " + name)
        need(len(files) < FILES_MAX, "too many files")
        files[name] = bytes(view[start : start + size])
        actual = zlib.crc32(files[name])
        expected = (20, 0, 0, 0, 0x21, actual, size, size, length, 0)
        if fixed != expected and not problem:
            problem = "the header or checksum of %s is not as it must be" % name
        common = struct.pack("<HHHHHIIIH", *expected[:9])
        listing.append(
            b"PK\x01\x02\x14\x00" + common + struct.pack("<HHHHII", 0, 0, 0, 0, 0, position) + raw
        )
        position = start + size
    need(bool(files), "not a ZIP archive")
    directory = b"".join(listing)
    end = struct.pack("<4H2IH", 0, 0, len(files), len(files), len(directory), position, 0)
    if content[position:] != directory + b"PK\x05\x06" + end:
        problem = problem or "the directory at the end is not as it must be"
    if list(files) != sorted(files):
        problem = problem or "the files are not in order"
    return problem


def read_folder(path: str, report: Report) -> dict[str, bytes]:
    """The files of an unpacked pack."""
    files: dict[str, bytes] = {}

    def step() -> str:
        total = 0
        for folder, _, names in os.walk(path):
            for name in sorted(names):
                full = os.path.join(folder, name)
                short = os.path.relpath(full, path).replace(os.sep, "/")
                need(stat.S_ISREG(os.lstat(full).st_mode), short + " is no plain file")
                total += os.path.getsize(full)
                need(total <= PACK_MAX_BYTES and len(files) < FILES_MAX, "too large for a pack")
                with open(full, "rb") as stream:
                    files[short] = stream.read()
        need(bool(files), "an empty folder")
        return "%d files in a folder" % len(files)

    report.run("archive", step)
    return files


# --- The steps -----------------------------------------------------------------------------------


class Pack:
    """The files of a pack and what later steps need from earlier ones."""

    def __init__(self, files: dict[str, bytes], report: Report) -> None:
        self.files, self.report = files, report
        self.manifest: dict[str, Any] = {}
        self.lines: list[bytes] = []
        self.records: list[dict[str, Any]] = []
        self.indexes: list[int] = []
        self.root, self.size, self.origin = b"", -1, ""
        self.signed: set[str] = set()

    def file(self, name: str) -> bytes:
        need(name in self.files, name + " is missing")
        return self.files[name]

    def document(self, name: str) -> Any:
        """A document, or None where the pack has none."""
        if name not in self.files:
            return None
        found = parse(self.files[name])
        need(isinstance(found, dict), name + " is no JSON object")
        return found

    def note_key(self) -> NoteKey:
        return NoteKey(self.file("keys/checkpoint.vkey").decode("ascii"))

    def trusted_root(self) -> TrustedRoot:
        return TrustedRoot(self.file("keys/trusted_root.json"))

    def fingerprint(self) -> str:
        """What stands for all keys of the pack."""
        return sha256(self.file("keys/trusted_root.json") + self.file("keys/checkpoint.vkey"))

    def check_manifest(self) -> str:
        content = self.file("manifest.json")
        manifest = parse(content)
        need(manifest["format"] == FORMAT, "not a pack of format " + FORMAT)
        need(is_canonical(content, manifest), "manifest.json is not canonical JSON")
        self.manifest = manifest
        gaps = manifest["gaps"]
        self.report.gaps = [clean(gap) for gap in gaps][:1000]
        listed = manifest["files"]
        extra = sorted(set(self.files) - set(listed) - set(UNSEALED))
        need(not extra, "not named in the manifest: " + ", ".join(extra[:5]))
        wrong = [
            name
            for name in sorted(listed)
            if name not in self.files
            or listed[name] != {"sha256": sha256(self.files[name]), "size": len(self.files[name])}
        ]
        need(not wrong, "changed or missing: " + ", ".join(wrong[:5]))
        return "%d files have the SHA-256 the manifest names" % len(listed)

    def subject(self) -> tuple[Callable[[dict[str, Any]], None], str, str]:
        """What each record must belong to, how the seal names it, and how it is called."""
        manifest = parse(self.file("manifest.json"))
        need(("goal" in manifest) != ("range" in manifest), "it is about a Goal or about a time")
        if "goal" in manifest:
            goal = manifest["goal"]

            def of_goal(record: dict[str, Any]) -> None:
                need(record["goal"] == goal["uid"], "it belongs to another Goal")
                need(record["namespace"] == goal["namespace"], "it is of another namespace")

            return of_goal, goal["uid"], "Goal"
        space, since, until = (manifest["range"][key] for key in ("namespace", "from", "until"))
        need(type(space) is str, "its namespace is none")
        need(all(MOMENT.fullmatch(one) for one in (since, until)), "its time is none")

        def of_time(record: dict[str, Any]) -> None:
            need(space in (EVERY_NAMESPACE, record["namespace"]), "it is of another namespace")
            need(MOMENT.fullmatch(record["at"]) is not None, "its time is none")
            need(since <= record["at"] < until, "it is of another time")

        return of_time, "range %s %s %s" % (space, since, until), "time"

    def check_seal(self) -> str:
        text = self.note_key().open(self.file("seal.txt"))
        expected = "%s\n%s\nmanifest sha256:%s\nsignature sha256:%s\n" % (
            SEAL_ORIGIN,
            self.subject()[1],
            sha256(self.file("manifest.json")),
            sha256(self.file("manifest.sigstore.json")),
        )
        need(text == expected, "it seals another manifest or signature")
        return "the manifest and its signature are sealed by " + self.note_key().name

    def check_signature(self) -> str:
        signer = self.manifest["signer"]
        bundle = Bundle(self.file("manifest.sigstore.json"))
        bundle.check(self.trusted_root(), identity=signer["identity"], issuer=signer["issuer"])
        bundle.check_digest(hashlib.sha256(self.file("manifest.json")).digest())
        return "manifest signed by %s" % signer["identity"]

    def check_checkpoint(self) -> str:
        text = self.note_key().open(self.file("checkpoint.txt"))
        self.origin, self.size, self.root = parse_checkpoint(text)
        named = self.manifest["checkpoint"]
        need(
            named == {"origin": self.origin, "size": self.size, "root": self.root.hex()},
            "the manifest names another checkpoint",
        )
        return "%s had %d records" % (self.origin, self.size)

    def check_records(self) -> str:
        content = self.file("records.jsonl")
        need(not content or content.endswith(b"\n"), "the last record is cut short")
        self.lines = content[:-1].split(b"\n") if content else []
        belongs, _, words = self.subject()
        for position, line in enumerate(self.lines):
            try:
                record = parse_canonical(line)
                need(set(record) == RECORD_KEYS, "its members are not those of a record")
                need(type(record["seq"]) is int and record["seq"] >= 0, "its number is none")
                need(HEX.fullmatch(record["prev"]) is not None, "prev is no SHA-256")
                belongs(record)
            except Failed as error:
                raise Failed("%s: %s" % (self.report.blame(position, line), error)) from None
            except MALFORMED:
                name = self.report.blame(position, line)
                raise Failed(name + " is not a record") from None
            self.records.append(record)
        return "%d records of this %s, well-formed" % (len(self.records), words)

    def check_inclusion(self) -> str:
        proof = parse(self.file("proof.json"))
        tree = PartialTree(proof)
        self.indexes = tree.indexes
        leaves = [hashlib.sha256(b"\x00" + line).digest() for line in self.lines]
        for position, (leaf, known) in enumerate(zip(leaves, tree.leaves)):
            if leaf != known:
                name = self.report.blame(position, self.lines[position])
                raise Failed(name + " is not the one in the journal")
        need(len(leaves) == len(tree.leaves), "records were added or taken away")
        need(len(leaves) == self.manifest["records"], "records were added or taken away")
        need(tree.size == self.size, "the proof is for another checkpoint")
        need(tree.root() == self.root, "the proof does not give the checkpoint's root")
        return "every record is in the tree of the signed checkpoint"

    def check_chain(self) -> str:
        need(len(self.records) == len(self.lines), "not all records could be read")
        need(len(self.indexes) == len(self.lines), "not all records have a place")
        links = 0
        for i in range(1, len(self.records)):
            left, right = self.records[i - 1], self.records[i]
            gap = self.indexes[i] - self.indexes[i - 1]
            if right["seq"] - left["seq"] != gap:
                raise Failed(self.report.blame(i, self.lines[i]) + " is out of order")
            if gap == 1:
                links += 1
                if right["prev"] != sha256(self.lines[i - 1]):
                    name = self.report.blame(i, self.lines[i])
                    raise Failed(name + " does not follow the record before it")
        if self.indexes and self.indexes[0] == 0 and self.records[0]["prev"] != "0" * 64:
            raise Failed(self.report.blame(0, self.lines[0]) + " claims one before the first")
        return "in order; %d links between adjacent records hold" % links

    def check_consistency(self) -> str:
        proofs = parse(self.file("consistency.json"))
        names = {n for n in self.files if n.startswith("checkpoints/")}
        need(names == {"checkpoints/%s.txt" % size for size in proofs}, "a proof is missing")
        for size, path in proofs.items():
            text = self.note_key().open(self.file("checkpoints/%s.txt" % size))
            origin, old_size, old_root = parse_checkpoint(text)
            hashes_ = [unhex(item) for item in path]
            need(
                origin == self.origin
                and str(old_size) == size
                and consistent(old_size, self.size, old_root, self.root, hashes_),
                "the journal is not an extension of its checkpoint at " + size,
            )
        return "%d earlier checkpoints are the start of this one" % len(proofs)

    def check_bundles(self) -> str:
        listed = self.manifest["bundles"]
        names = {n for n in self.files if n.startswith("bundles/")}
        need(names == {item["path"] for item in listed}, "bundles and manifest differ")
        trusted, issuer = self.trusted_root(), self.manifest["signer"]["issuer"]
        for item in listed:
            try:
                self._check_bundle(item, trusted, issuer)
            except Failed as error:
                raise Failed("%s: %s" % (item["path"], error)) from None
            except MALFORMED:
                raise Failed(item["path"] + ": malformed") from None
        return "%d signatures by the identities named" % len(listed)

    def _check_bundle(self, item: dict[str, Any], trusted: TrustedRoot, issuer: str) -> None:
        bundle = Bundle(self.file(item["path"]))
        bundle.check(trusted, identity=item["identity"], issuer=issuer)
        if not item["sha256"]:
            for subject in bundle.check_statement()["subject"]:
                self.signed.add(subject["digest"].get("sha256", ""))
            return
        if item["payload"]:
            actual = sha256(self.file(item["payload"]))
            need(actual == item["sha256"], "its payload is another")
        bundle.check_digest(unhex(item["sha256"]))
        self.signed.add(item["sha256"])

    def check_digests(self) -> str:
        count = 0
        for name in sorted(self.files):
            if name.startswith(("policies/", "manifests/")):
                count += 1
                digest = name.split("/")[1]
                need(digest == sha256(self.files[name]) + ".json", name + " has other bytes")
        return "%d policy bundles and manifests hash to their names" % count

    def check_ledger(self) -> str:
        ledger = self.document("ledger.json")
        if ledger is None:
            return "no ledger in the pack"
        unrecorded = self._check_ledger_records(ledger["entries"])
        pools: dict[str, dict[str, int]] = {}
        keys = set()
        for number, entry in enumerate(ledger["entries"]):
            where = "ledger entry %d" % (number + 1)
            amount, unit = entry["amount"], entry["unit"]
            need(type(amount) is int and amount > 0, where + " moves nothing")
            need((unit, entry["key"]) not in keys, where + " repeats an idempotency key")
            keys.add((unit, entry["key"]))
            held = pools.setdefault(unit, dict.fromkeys(POOLS, 0))
            held[entry["debit"]] -= amount
            held[entry["credit"]] += amount
            short = [p for p in POOLS[1:] if held[p] < 0]
            need(not short, "%s overspends: %s of %s" % (where, "".join(short[:1]), unit))
        for account in ledger["accounts"]:
            held = pools.pop(account["unit"], dict.fromkeys(POOLS, 0))
            settled, reserved = account["settled"], account["reserved"]
            limit = account["limit"]
            need(all(type(n) is int for n in (settled, reserved, limit)), "a balance is no number")
            need(
                (settled, reserved, limit) == (held["settled"], held["reserved"], -held["outside"]),
                "the entries do not give the balance of " + account["unit"],
            )
            need(settled + reserved <= limit, account["unit"] + " is overspent")
        need(not pools, "entries of an account that is not listed")
        total = len(ledger["entries"])
        return "%d entries balance, %d of them newer than the records; nothing was overspent" % (
            total,
            unrecorded,
        )

    def _check_ledger_records(self, entries: list[dict[str, Any]]) -> int:
        """Each record of a ledger entry has its entry; returns how many have no record."""
        by_uid = {entry["uid"]: entry for entry in entries if "uid" in entry}
        for position, record in enumerate(self.records):
            if record["object"]["kind"] != "ledger_entry":
                continue
            entry, body = by_uid.pop(record["object"]["id"], None), record["body"]
            same = entry is not None and all(
                str(entry[name]) == str(body[name])
                for name in ("unit", "amount", "debit", "credit", "key")
                if name in body
            )
            if not same or record["action"] != "ledger.%s" % (entry or {}).get("kind"):
                name = self.report.blame(position, self.lines[position])
                raise Failed(name + " and the ledger do not agree")
        return len(by_uid)

    def check_decisions(self) -> str:
        document = self.document("decisions.json")
        if document is None:
            return "no decisions in the pack"
        for item in document["decisions"]:
            digest = item["bundle_digest"]
            if digest == "" and item.get("outcome") == "deny":
                continue  # what no policy could decide was denied
            name = "policies/%s.json" % digest[len("sha256:") :]
            need(
                digest.startswith("sha256:") and name in self.files,
                "decision %s: its policy bundle %s is not in the pack" % (item["uid"], digest),
            )
            if "input_canonical" in item:
                need(
                    item["input_digest"] == "sha256:" + sha256(item["input_canonical"].encode()),
                    "decision %s: its input has another digest" % item["uid"],
                )
        return "%d decisions name a policy bundle in the pack" % len(document["decisions"])

    def check_approvals(self) -> str:
        document = self.document("approvals.json")
        if document is None:
            return "no approvals in the pack"
        for item in document["approvals"]:
            need(
                item["request_digest"] == "sha256:" + sha256(item["request_canonical"].encode()),
                "approval %s answers another request" % item["uid"],
            )
        return "%d approvals are bound to their request" % len(document["approvals"])

    def check_releases(self) -> str:
        document = self.document("releases.json")
        if document is None:
            return "no releases in the pack"
        made = [item for item in document["releases"] if item.get("state") not in NOT_IN_FORCE]
        for item in made:
            digest = item["digest"][len("sha256:") :]
            held = {digest}
            name = "manifests/%s.json" % digest
            if name in self.files:  # a release names the manifest, a signature often the layer
                layers = parse(self.files[name])["layers"]
                held |= {layer["digest"][len("sha256:") :] for layer in layers}
            need(bool(held & self.signed), "release of %s: nobody signed it" % item["digest"])
        return "%d releases are of signed artifacts" % len(made)


def verify(path: str, fingerprint: str = "") -> Report:
    """Verify the pack at `path`, a ZIP or a folder. Never raises."""
    report = Report()
    files = read_folder(path, report) if os.path.isdir(path) else read_zip(path, report)
    pack = Pack(files, report)

    def check_trust() -> str:
        found = pack.fingerprint()
        report.facts["fingerprint"] = found
        need(fingerprint in ("", found), "the keys have the fingerprint " + found)
        return "keys have the fingerprint " + found

    steps: list[tuple[str, Callable[[], str]]] = [
        ("trust", check_trust),
        ("manifest", pack.check_manifest),
        ("seal", pack.check_seal),
        ("signature", pack.check_signature),
        ("checkpoint", pack.check_checkpoint),
        ("records", pack.check_records),
        ("inclusion", pack.check_inclusion),
        ("chain", pack.check_chain),
        ("consistency", pack.check_consistency),
        ("bundles", pack.check_bundles),
        ("digests", pack.check_digests),
        ("ledger", pack.check_ledger),
        ("decisions", pack.check_decisions),
        ("approvals", pack.check_approvals),
        ("releases", pack.check_releases),
    ]
    for name, step in steps if files else []:
        report.run(name, step)
    return report


def audit_path(path: str, number: int) -> Iterator[str]:
    """The audit path of record `number` (from 1), as lines of hex."""
    report = Report()
    files = read_folder(path, report) if os.path.isdir(path) else read_zip(path, report)
    tree = PartialTree(parse(files["proof.json"]))
    index = tree.indexes[number - 1]
    root = tree.root(index)
    yield "leaf index  %d" % index
    yield "tree size   %d" % tree.size
    yield "leaf hash   %s" % tree.leaves[number - 1].hex()
    for sibling in tree.path:
        yield "sibling     %s" % sibling.hex()
    yield "root        %s" % root.hex()


def print_report(report: Report) -> None:
    """One line a step, then the gaps and the outcome."""
    for step in report.steps:
        print("%-5s %-12s %s" % ("ok" if step["ok"] else "FAIL", step["name"], step["detail"]))
    if report.first_bad is not None:
        bad = report.first_bad
        print("\nfirst bad record: sequence number %s, %s" % (bad["seq"], bad["action"]))
    if report.gaps:
        print("\nwhat this pack cannot show:")
        for gap in report.gaps:
            print("  - " + gap)
    print("\nVERIFIED" if report.ok else "\nNOT VERIFIED")


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Verify an evidence pack offline.")
    parser.add_argument("pack", help="the pack's ZIP, or the folder it was unpacked to")
    parser.add_argument("--json", action="store_true", help="print the report as JSON")
    parser.add_argument("--fingerprint", default="", help="what the keys must have")
    parser.add_argument("--path", type=int, default=0, help="print record NUMBER's audit path")
    options = parser.parse_args(arguments)
    if options.path > 0:
        try:
            for line in audit_path(options.pack, options.path):
                print(line)
        except (Failed, *MALFORMED):
            print("the pack has no proof for that record")
            return 1
        return 0
    report = verify(options.pack, options.fingerprint.lower())
    if options.json:
        answer = {"ok": report.ok, "steps": report.steps, "gaps": report.gaps}
        print(json.dumps({**answer, "first_bad": report.first_bad, **report.facts}, indent=2))
    else:
        print_report(report)
    return 0 if report.ok else 1


if __name__ == "__main__":
    sys.exit(main())
